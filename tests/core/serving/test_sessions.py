"""The table of episodes: limits, time to live, and what is remembered."""

import asyncio
from typing import Any

import pytest

from gymrail import Task
from gymrail.episode import Limits
from gymrail.errors import EpisodeFailed
from gymrail.serving.refusal import Refusal
from gymrail.serving.sessions import EpisodeTable, Held
from gymrail.serving.settings import Settings
from gymrail.spec import EnvironmentSpec
from tests.core.serving.office import KEY, OFFICE, ROW, Office, OfficeTask, Served, run, said

TASK = OfficeTask.from_row(ROW)
SHORT = Limits(idle_seconds=0.2)


def give_time(server: Served) -> None:
    """Let episodes live until `take_time`: how long a test takes to get there says how busy the machine is."""
    server.service.table.limits = Limits()


def take_time(server: Served, seeded: dict[str, Any]) -> None:
    """Give an episode the short time to live of this server's reaper."""
    held = server.service.table.by_id(seeded["episode_id"])
    assert held is not None
    held.episode.limits = SHORT


async def until(condition: Any, seconds: float = 120.0) -> None:
    """Wait for something that a background task brings about."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - nothing else tells when the reaper has run
            await asyncio.sleep(0.01)


def test_an_idle_episode_is_closed_by_the_reaper_and_its_credential_says_that_it_is_gone() -> None:
    async def test(server: Served) -> None:
        give_time(server)
        seeded = await server.seed()
        environment = server.environment(seeded)
        take_time(server, seeded)
        await until(lambda: environment.is_closed)
        assert len(server.service.table) == 0
        gone = await server.agent.post(f"{seeded['url']}/outbox")
        assert (gone.status_code, gone.json()["error"]["kind"]) == (404, "gone")
        assert (await server.verify(seeded, response=said("x"))).status_code == 404
        assert 'gymrail_episodes_ended{reason="idle"} 1.0' in (await server.control.get("/metrics")).text

    run(test, settings=Settings(key=KEY, limits=SHORT))


def test_an_episode_with_a_call_under_way_is_not_idle() -> None:
    async def test(server: Served) -> None:
        give_time(server)
        seeded = await server.seed()
        environment = server.environment(seeded)
        calling = asyncio.create_task(server.agent.post(f"{seeded['url']}/file"))
        await asyncio.wait_for(environment.entered.wait(), 120)
        other = await server.seed()
        take_time(server, seeded)
        take_time(server, other)
        await until(lambda: server.service.table.gone(other["episode_id"]) is not None)
        assert not environment.is_closed
        environment.gate.set()
        assert (await calling).text == "filed"

    run(test, settings=Settings(key=KEY, limits=SHORT))


def test_one_episode_too_many_is_a_429_that_says_when_to_come_again() -> None:
    async def test(server: Served) -> None:
        first = await server.seed()
        await server.seed()
        refused = await server.control.post("/seed_session", json=ROW)
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        assert "2 episodes are open" in refused.json()["error"]["message"]
        await server.verify(first, response=said("x"))
        await server.seed()

    run(test, settings=Settings(key=KEY, max_episodes=2))


def test_many_seedings_at_once_do_not_get_past_the_limit() -> None:
    async def test(server: Served) -> None:
        answers = await asyncio.gather(*(server.control.post("/seed_session", json=ROW) for _ in range(20)))
        assert sorted(answer.status_code for answer in answers) == [200] * 5 + [429] * 15

    run(test, settings=Settings(key=KEY, max_episodes=5))


def test_closing_lets_a_running_call_end_first() -> None:
    async def test(server: Served) -> None:
        seeded = await server.seed()
        environment = server.environment(seeded)
        calling = asyncio.create_task(server.agent.post(f"{seeded['url']}/file"))
        await asyncio.wait_for(environment.entered.wait(), 120)
        closing = asyncio.create_task(server.control.post("/close", json={"episode_id": seeded["episode_id"]}))
        await until(lambda: len(server.service.table) == 0)
        assert not environment.is_closed
        environment.gate.set()
        assert (await calling).text == "filed"
        assert (await closing).json() == {"closed": True, "episode_id": seeded["episode_id"]}
        assert environment.is_closed
        again = await server.control.post("/close", json={"episode_id": seeded["episode_id"]})
        assert again.status_code == 200
        assert (await server.control.post("/close", json={"episode_id": "never"})).status_code == 404

    run(test)


def test_a_stopped_table_has_closed_every_episode_and_opens_no_more() -> None:
    async def inside() -> None:
        table = EpisodeTable(Limits())
        table.start()
        held = [await table.open(OFFICE, TASK) for _ in range(100)]
        await table.stop()
        assert len(table) == 0
        assert all(one.episode.is_closed for one in held)
        with pytest.raises(Refusal, match="shutting down"):
            await table.open(OFFICE, TASK)

    asyncio.run(inside())


def test_a_seeding_that_breaks_leaves_no_trace_in_the_table() -> None:
    class Broken(Office):
        def seed(self) -> None:
            raise RuntimeError("no")

    async def inside() -> None:
        table = EpisodeTable(Limits(), max_episodes=1)
        for _ in range(3):
            with pytest.raises(EpisodeFailed):
                await table.open(EnvironmentSpec("broken", Broken), TASK, id="same")
        assert len(table) == 0

    asyncio.run(inside())


def test_what_is_remembered_of_old_episodes_is_bounded() -> None:
    async def inside() -> None:
        table = EpisodeTable(Limits(), max_gone=10)
        held: list[Held] = []
        for _ in range(30):
            held.append(await table.open(OFFICE, TASK))
            await table.close(held[-1], "closed")
        assert [table.gone(one.id) is not None for one in held] == [False] * 20 + [True] * 10
        assert [table.knows_token(one.token) for one in held] == [False] * 20 + [True] * 10

    asyncio.run(inside())


def test_a_task_of_another_kind_is_refused_before_anything_opens() -> None:
    async def test(server: Served) -> None:
        bad = await server.control.post("/seed_session", json={"responses_create_params": {"inptu": "x"}})
        assert bad.status_code == 422
        assert "Did you mean 'input'?" in bad.json()["error"]["message"]
        assert len(server.service.table) == 0
        assert isinstance(TASK, Task)

    run(test)
