"""`kill -9` of a server in the middle of 256 episodes: nothing gets a reward that it did not earn."""

import asyncio
from collections import Counter
from typing import Any

import pytest

from gymrail import Rollout, Task
from gymrail.clients.discover import remote_spec
from gymrail.collect.runner import Job, Summary, collect
from gymrail.environment import call
from gymrail.models.model import Model, ModelRequest, ModelResponse
from gymrail.models.scripted import ScriptedModel
from tests.core.clients.served import KEY, ServedProcess, served

EPISODES = 256
KILL_AFTER = 400
"""Model calls; the episodes make 768 in all, so about half of the way."""


class Killing:
    """Adds 1 three times, as the task asks; every fourth task asks for something else, and earns nothing. On the way it
    kills a server."""

    def __init__(self, victim: ServedProcess) -> None:
        self.victim = victim
        self.calls = 0
        self.scripted = ScriptedModel([call("increment_counter", count=1)] * 2 + ["Done."])

    async def respond(self, request: ModelRequest) -> ModelResponse:
        self.calls += 1
        if self.calls == KILL_AFTER:
            await asyncio.to_thread(self.victim.kill)
        return await self.scripted.respond(request)


def expected_reward(rollout: Rollout) -> float:
    return float(rollout.task.row["expected_count"] == rollout.task.row["initial_count"] + 2)


def run(model: Model, urls: list[str], retries: int) -> tuple[list[Rollout], Summary]:
    rollouts: list[Rollout] = []

    async def main() -> Summary:
        spec = remote_spec(urls, key=KEY)
        tasks = [
            Task.ask("Add two.", initial_count=index, expected_count=index + (5 if index % 4 == 0 else 2))
            for index in range(EPISODES)
        ]
        jobs = [Job(spec, task, index) for index, task in enumerate(tasks)]
        try:
            return await collect(
                jobs, model, concurrency=64, retries=retries, retry_seconds=0.05, record=rollouts.append
            )
        finally:
            await spec.teardown()

    summary = asyncio.run(main())
    return rollouts, summary


@pytest.mark.parametrize("retries", [0, 1])
def test_a_server_killed_in_the_middle_costs_failures_or_retries_and_never_a_reward(retries: int) -> None:
    with served("session_counter", count=2) as servers:
        urls = [f"{server.url}/session_counter" for server in servers]
        rollouts, summary = run(Killing(servers[0]), urls, retries)
    assert len(rollouts) == summary.asked == EPISODES
    outcomes = Counter(rollout.outcome.status for rollout in rollouts if rollout.outcome)
    for rollout in rollouts:
        if rollout.failure is not None:
            assert (rollout.failure.kind, rollout.reward) == ("infrastructure", None), rollout.failure
        else:
            assert rollout.reward == expected_reward(rollout)
    if retries:
        # Whatever was on the killed server was played again on the other one.
        assert summary.retried > 0
        assert outcomes == {"scored": EPISODES}
        assert sorted(rollout.task_index for rollout in rollouts) == list(range(EPISODES))
    else:
        assert outcomes["failed"] > 0
        assert outcomes["scored"] > EPISODES // 2


def test_with_no_server_left_every_further_rollout_is_a_failure() -> None:
    with served("session_counter") as (server,):
        rollouts, summary = run(Killing(server), [f"{server.url}/session_counter"], retries=0)
    assert summary.scored + summary.failed == EPISODES
    assert summary.failed > 0
    assert all(rollout.reward in (None, expected_reward(rollout)) for rollout in rollouts)


def test_the_script_earns_what_the_test_expects_where_nothing_is_killed() -> None:
    class Plain:
        async def respond(self, request: ModelRequest) -> Any:
            return await ScriptedModel([call("increment_counter", count=1)] * 2 + ["Done."]).respond(request)

    with served("session_counter", count=2) as servers:
        urls = [f"{server.url}/session_counter" for server in servers]
        rollouts, _ = run(Plain(), urls, retries=0)
    assert Counter(rollout.reward for rollout in rollouts) == {1.0: 192, 0.0: 64}
