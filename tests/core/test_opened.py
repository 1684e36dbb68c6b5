"""Tasks whose prompt and tools are known only once the episode is seeded."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from gymrail import Environment, Rollout, Task
from gymrail.cli.runs import environments_entry
from gymrail.clients.discover import remote_spec
from gymrail.collect.executors.setup import source_of
from gymrail.collect.replay import replay
from gymrail.environment import call
from gymrail.errors import InputError, ToolError
from gymrail.models.scripted import Oracle, ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail.spec import EnvironmentSpec
from tests.core.clients.served import KEY, served

TOOL = {
    "type": "function",
    "name": "knock",
    "description": "Knock.",
    "parameters": {"type": "object", "properties": {}},
}
ROW: dict[str, Any] = {"responses_create_params": {"input": []}, "door": 3}


class Door(Environment[Task]):
    """Knock at a door; what stands on it is seen only there."""

    def seed(self) -> None:
        self.knocked = 0
        self.task = self.task.opened(f"Door {self.task.row['door']}.", tools=[TOOL])

    async def call_tool(self, tool: str, arguments: dict[str, Any]) -> str:
        if arguments:
            raise ToolError("Just knock.")
        self.knocked += 1
        return tool

    def verify(self, rollout: Rollout) -> float:
        return float(self.knocked == 1)


SPEC = EnvironmentSpec("door", Door)
KNOCK = [call("knock", hard=True), call("knock"), call("kick"), "Done."]


def played(row: dict[str, Any]) -> Rollout:
    return asyncio.run(play(SPEC, Task.from_row(row), ScriptedModel(KNOCK)))


def test_the_episode_goes_on_with_the_prompt_and_the_tools_that_seeding_told() -> None:
    rollout = played(ROW)
    assert rollout.reward == 1.0
    assert rollout.conversation[0] == {"role": "user", "content": "Door 3."}
    assert [(one.output, one.is_error) for one in rollout.calls] == [
        ("Just knock.", True), ("knock", False), ("Unknown tool 'kick'. Did you mean 'knock'?", True),
    ]  # fmt: skip
    row = rollout.to_row()
    assert row["responses_create_params"] == {"input": [{"role": "user", "content": "Door 3."}], "tools": [TOOL]}
    assert (row["gymrail"]["task_id"], row["door"]) == (Task.from_row(ROW).id, 3)


def test_a_rollout_of_an_opened_task_is_read_back_and_replayed() -> None:
    rollout = Rollout.from_row(played(ROW).to_row())
    result = asyncio.run(replay(SPEC, rollout))
    assert (result.reward, result.differences) == (1.0, ())


def test_what_the_row_says_itself_stays() -> None:
    own = {**TOOL, "description": "Knock softly."}
    items = [{"role": "system", "content": "Be polite."}, {"role": "user", "content": "Go to the red door."}]
    rollout = played({"responses_create_params": {"input": items, "tools": [own]}, "door": 3})
    assert rollout.conversation[:2] == items
    assert rollout.task.offered_tools == [own]
    system_alone = played({"responses_create_params": {"input": items[:1]}, "door": 3})
    assert [item["content"] for item in system_alone.conversation[:2]] == ["Be polite.", "Door 3."]


def test_a_class_without_call_tool_still_refuses_tools_that_it_does_not_have() -> None:
    class Plain(Environment[Task]):
        """No tools."""

    with pytest.raises(InputError, match="offers the tool 'knock'"):
        EnvironmentSpec("plain", Plain).offered(Task.from_row({"responses_create_params": {"tools": [TOOL]}}))


def test_a_server_tells_the_opening_of_a_task_and_its_tools(tmp_path: Path) -> None:
    lake = "gymnasium:FrozenLake-v1?is_slippery=false"
    actions = [f"<action>{name}</action>" for name in ("down", "down", "right", "right", "down", "right")]
    with served("aviary", lake) as (server,):
        far_lake, far_chest = (remote_spec(f"{server.url}/{name}", key=KEY) for name in ("FrozenLake-v1", "aviary"))

        async def main() -> list[Rollout]:
            task = Task.from_row({"responses_create_params": {"input": []}, "task_idx": 3})
            near = await play(find("aviary"), find("aviary").cls.task_type.from_row(task.row), Oracle())
            turns = [call(one.name, **one.parsed) for one in near.calls]
            far = await play(far_chest, task, ScriptedModel([*turns, "Done."]))
            seeded = Task.from_row({"responses_create_params": {"input": []}, "seed": 1})
            walk = await play(far_lake, seeded, ScriptedModel(actions))
            for spec in (far_lake, far_chest):
                await spec.teardown()
            return [near, far, walk]

        near, far, walk = asyncio.run(main())
    assert (near.reward, far.reward, walk.reward) == (1.0, 1.0, 1.0)
    assert far.conversation[0]["content"] == near.conversation[0]["content"]
    assert [tool["name"] for tool in far.task.offered_tools or ()] == ["read_note", "open_lock"]
    assert walk.conversation[0]["content"].endswith("[S]FFF\nFHFH\nFFFH\nHFFG")


def test_a_bridged_environment_is_found_again_by_workers_and_from_its_run() -> None:
    name = "gymnasium:FrozenLake-v1?is_slippery=false"
    spec = find(name).with_config({"max_invalid": 5})
    entry = environments_entry(spec, "train")
    assert (entry["source"], entry["settings"]["max_invalid"]) == (name, 5)
    again = source_of(spec).load()
    assert (again.config, again.version) == (spec.config, spec.version)
