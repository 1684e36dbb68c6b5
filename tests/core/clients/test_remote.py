import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from gymrail import Rollout, Task
from gymrail.clients.discover import find_remote, remote_spec
from gymrail.environment import Call, Turn, call
from gymrail.errors import InputError
from gymrail.models.scripted import Oracle, ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail.rollout import text_of
from gymrail.spec import EnvironmentSpec
from tests.core.clients.served import KEY, ServedProcess, example_file, served

NAMES = (
    "session_counter", "multi_step", "mcqa", "single_tool", "tool_call_multireward", "word_math", "treasure_hunt",
    "follow_ups",
)  # fmt: skip


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with served(*NAMES) as (server,):
        yield server.url


async def play_and_leave(spec: EnvironmentSpec, task: Task, model: Any) -> Rollout:
    try:
        return await play(spec, task, model)
    finally:
        await spec.teardown()


def turns_of(rollout: Rollout) -> list[Turn]:
    """What the model said in a rollout, as a script."""
    turns: list[Turn] = []
    for item in rollout.items:
        if item.get("type") == "function_call":
            turns.append(Call(item["name"], orjson.loads(item["arguments"])))
        elif item.get("role") == "assistant":
            turns.append(text_of(item))
    return turns


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_a_remote_episode_has_the_outputs_and_the_reward_of_a_local_one(url: str, name: str, noise: float) -> None:
    local, remote = find(name), remote_spec(f"{url}/{name}", key=KEY)

    async def main() -> list[tuple[Rollout, Rollout]]:
        pairs = []
        for index in range(4):
            task = local.generate("train", index) if local.is_generated else list(local.tasks("example"))[index]
            near = await play(local, task, Oracle(noise, seed=index) if noise else Oracle())
            far = await play(remote, Task.from_row(task.row), ScriptedModel(turns_of(near)))
            pairs.append((near, far))
        await remote.teardown()
        return pairs

    for near, far in asyncio.run(main()):
        assert far.failure is None, far.failure
        assert near.reward is not None
        assert far.reward == pytest.approx(near.reward)
        assert far.reward_components == pytest.approx(near.reward_components)
        assert [one.output for one in far.calls] == [one.output for one in near.calls]
        assert far.final_text == near.final_text


def test_pictures_sounds_and_documents_come_back_as_they_were() -> None:
    folder = str(Path(__file__).parents[2] / "conformance")
    local = find(folder)
    names = ("test_multiple_content_types", "test_audio_content", "test_embedded_resource")
    task, script = local.generate("train", 0), [*map(call, names), "Done."]

    async def main(url: str) -> list[Rollout]:
        remote = remote_spec(f"{url}/conformance", key=KEY)
        near = await play(local, task, ScriptedModel(script))
        return [near, await play_and_leave(remote, Task.from_row(task.row), ScriptedModel(script))]

    with served(folder) as (server,):
        near, far = asyncio.run(main(server.url))
    assert far.failure is None, far.failure
    assert [part["type"] for part in far.calls[0].output] == ["input_text", "input_image", "input_file"]
    assert [one.output for one in far.calls] == [one.output for one in near.calls]


def test_tools_and_their_hints_are_those_of_the_server(url: str) -> None:
    remote, local = remote_spec(f"{url}/session_counter", key=KEY), find("session_counter")
    assert [tool.schema for tool in remote.tools.values()] == [tool.schema for tool in local.tools.values()]
    assert (remote.name, remote.reward_range) == ("session_counter", local.reward_range)
    assert remote.manifest.agent == local.manifest.agent
    assert remote.description == local.description


def test_a_row_that_does_not_fit_fails_for_good_and_says_why(url: str) -> None:
    remote = remote_spec(f"{url}/session_counter", key=KEY)
    rollout = asyncio.run(play_and_leave(remote, Task.ask("Count", initial_count="many"), ScriptedModel(["Done."])))
    assert rollout.failure is not None
    assert (rollout.failure.kind, rollout.failure.stage, rollout.failure.is_retryable) == ("environment", "seed", False)
    assert "initial_count" in rollout.failure.message


def test_refused_arguments_go_back_to_the_model(url: str) -> None:
    remote = remote_spec(f"{url}/session_counter", key=KEY)
    turns = [call("increment_counter", count="a lot"), call("increment_counter", count=2), "Done."]
    task = Task.ask("Count", initial_count=1, expected_count=3)
    rollout = asyncio.run(play_and_leave(remote, task, ScriptedModel(turns)))
    assert [one.is_error for one in rollout.calls] == [True, False]
    assert "count" in str(rollout.calls[0].output)
    assert rollout.reward == 1.0


def test_the_key_stands_in_no_record_and_a_wrong_one_is_said_at_once(url: str) -> None:
    remote = remote_spec(f"{url}/session_counter", key=KEY)
    assert KEY not in repr(remote.config)
    assert KEY not in remote.config.model_dump_json()
    with pytest.raises(InputError, match="GYMRAIL_KEY"):
        remote_spec(f"{url}/session_counter", key="another-key-altogether")


def test_the_registry_finds_an_address_with_its_tasks(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GYMRAIL_KEY", KEY)
    path = example_file("session_counter")
    spec = find(f"{url}/session_counter#{path}")
    assert spec.name == "session_counter"
    assert [task.id for task in spec.tasks("train")] == [task.id for task in find("session_counter").tasks("example")]
    assert find_remote(f"{url}/mcqa,{url}/mcqa", key=KEY).config.urls == (f"{url}/mcqa", f"{url}/mcqa")


def test_nothing_at_the_address_is_one_clear_sentence() -> None:
    with pytest.raises(InputError, match=r"No environment answers: .*no connection.* `gymrail serve"):
        remote_spec("http://127.0.0.1:9/counter")


def test_a_server_that_was_started_anew_fails_the_episode_and_scores_nothing() -> None:
    async def main(first: ServedProcess) -> Rollout:
        spec = remote_spec(f"{first.url}/session_counter", key=KEY)

        class Restart(ScriptedModel):
            async def respond(self, request: Any) -> Any:
                if len(request.input) == 3:
                    first.kill()
                    again = ServedProcess(("session_counter",))
                    first.process, old = again.process, first.url
                    spec.config.urls[0].startswith(old)
                    first.url = again.url
                    await asyncio.to_thread(again.wait)
                return await super().respond(request)

        turns = [call("increment_counter", count=2), call("increment_counter", count=2), "Done."]
        return await play_and_leave(spec, Task.ask("Count", initial_count=1, expected_count=3), Restart(turns))

    with served("session_counter") as (server,):
        rollout = asyncio.run(main(server))
    assert rollout.failure is not None
    assert (rollout.failure.kind, rollout.reward) == ("infrastructure", None)


def test_new_episodes_go_where_the_load_is_least() -> None:
    async def main(urls: list[str]) -> list[int]:
        spec = remote_spec(urls, key=KEY)
        rows = [Task.ask("Count", initial_count=0, expected_count=0) for _ in range(8)]
        counts: list[list[int]] = []
        all_are_open = asyncio.Barrier(len(rows))

        class Watching(ScriptedModel):
            async def respond(self, request: Any) -> Any:
                async with asyncio.timeout(120):
                    await all_are_open.wait()
                counts.append([server.episodes for server in (await spec.setup()).servers])
                return await super().respond(request)

        await asyncio.gather(*(play(spec, row, Watching(["Done."])) for row in rows))
        after = [server.episodes for server in (await spec.setup()).servers]
        await spec.teardown()
        assert after == [0, 0]
        return counts[0]

    with served("session_counter", count=2) as servers:
        assert asyncio.run(main([f"{server.url}/session_counter" for server in servers])) == [4, 4]


def test_a_folder_behind_the_hash_has_a_file_of_tasks_per_split(url: str, tmp_path: Path) -> None:
    lines = example_file("session_counter").read_bytes().splitlines(keepends=True)
    (tmp_path / "train.jsonl").write_bytes(b"".join(lines[:-1]))
    (tmp_path / "validation.jsonl").write_bytes(lines[-1])
    spec = find_remote(f"{url}/session_counter#{tmp_path}", key=KEY)
    assert [entry.split for entry in spec.manifest.datasets] == ["train", "validation"]
    tasks = [task.id for task in find("session_counter").tasks("example")]
    assert [[task.id for task in spec.tasks(split)] for split in ("train", "validation")] == [tasks[:-1], tasks[-1:]]
    (tmp_path / "none").mkdir()
    with pytest.raises(InputError, match=r"needs train\.jsonl, validation\.jsonl or such; `gymrail data prepare"):
        find_remote(f"{url}/session_counter#{tmp_path / 'none'}", key=KEY)
