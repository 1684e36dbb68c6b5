"""Environments written against the real `fhaviary`, through the bridge."""

from __future__ import annotations

import asyncio
import base64
import threading
from typing import Any

import pytest
from aviary.core import DummyEnv, Environment, Message, TaskDataset, Tool, ToolRequestMessage

from gymrail.bridges.aviary import AviaryConfig, AviaryEnvironment
from gymrail.collect.replay import replay
from gymrail.environment import call
from gymrail.episode import Limits
from gymrail.errors import InputError
from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task

HERE = "aviary:" + __name__
PIXEL = base64.b64decode("iVBORw0KGgo=")
RELEASE = threading.Event()


class Bell(Environment[None]):
    """Ring a bell; its tools do everything that goes wrong."""

    def __init__(self, number: int = 0, limit: int = 3) -> None:
        self.number, self.limit, self.rung = number, limit, 0

    async def reset(self) -> tuple[list[Message], list[Tool]]:
        tools = (self.ring, self.look, self.crack, self.hang)
        self.tools = [Tool.from_function(tool, allow_empty_param_descriptions=True) for tool in tools]
        hello = Message(role="system", content="You ring bells.")
        return [hello, Message(content=f"Bell number {self.number}.")], self.tools

    async def step(self, action: Any) -> tuple[list[Message], float, bool, bool]:
        if not isinstance(action, ToolRequestMessage):
            return [Message(content="Ring it.")], -0.25, False, False
        before = self.rung
        answers = await self.exec_tool_calls(action)
        state = Message(content=f"Rung {self.rung} times.")
        return [*answers, state], float(self.rung - before), self.rung >= self.limit, False

    async def ring(self, loudness: int) -> str:
        """Ring once.

        Args:
            loudness: From 1 to 9.
        """
        self.rung += 1
        return f"Ding {loudness}."

    async def look(self) -> Message:
        """Look at it."""
        url = "data:image/png;base64," + base64.b64encode(PIXEL).decode()
        picture = {"type": "image_url", "image_url": {"url": url}}
        return Message(content=[{"type": "text", "text": "A bell."}, picture])  # type: ignore[arg-type]

    async def crack(self) -> str:
        """Break it."""
        raise OSError("the bell cracked")

    def hang(self) -> str:
        """Wait for ever."""
        RELEASE.wait(600)
        return ""


class Blocking(Bell):
    async def step(self, action: Any) -> tuple[list[Message], float, bool, bool]:
        RELEASE.wait(600)  # it holds its event loop up
        return [], 0.0, False, False


class Nonsense(Bell):
    async def step(self, action: Any) -> Any:
        return [], "much", False, False


class Bells(TaskDataset[Bell]):
    def __init__(self, size: int = 40, limit: int = 3) -> None:
        self.size, self.limit = size, limit

    def __len__(self) -> int:
        return self.size

    def get_new_env_by_idx(self, idx: int) -> Bell:
        return Bell(idx, self.limit)


def played(name: str, script: Any, *, limits: Limits | None = None) -> tuple[EnvironmentSpec, Rollout]:
    spec = find(name)
    (task,) = spec.tasks("train", limit=1)
    options: dict[str, Any] = {"limits": limits} if limits else {}
    return spec, asyncio.run(play(spec, task, ScriptedModel(script), **options))


def test_tools_prompt_and_reward_come_from_the_environment() -> None:
    script = [
        [call("ring", loudness=1), call("ring", loudness=2)],
        "Enough?",
        call("ring", loudness=3),
    ]
    spec, rollout = played(f"{HERE}:Bells?limit=3", script)
    assert [item["role"] for item in rollout.conversation[:2]] == ["system", "user"]
    assert [tool["name"] for tool in rollout.task.row["responses_create_params"]["tools"]][:2] == ["ring", "look"]
    assert rollout.reward == 2.75
    assert [call.output for call in rollout.calls] == [
        "Ding 1.\n\nRung 1 times.", "Ding 2.\n\nRung 2 times.", "Ding 3.\n\nRung 3 times.",
    ]  # fmt: skip
    assert rollout.metrics == {"finished": True, "env_truncated": False}
    assert asyncio.run(replay(spec, rollout)).differences == ()


def test_task_idx_says_which_task_and_splits_share_them_out() -> None:
    spec = find(f"{HERE}:Bells?size=200")
    sizes = {entry.split: entry.size for entry in spec.manifest.datasets}
    shares = {split: [task.row["task_idx"] for task in spec.tasks(split)] for split in sizes}
    assert sorted(shares["train"] + shares["validation"] + shares["test"]) == shares["benchmark"] == list(range(200))
    task = AviaryEnvironment.task_type.from_row({"task_idx": 7, "responses_create_params": {"input": []}})
    rollout = asyncio.run(play(spec, task, ScriptedModel([call("ring", loudness=1)] * 3)))
    assert rollout.conversation[1]["content"] == "Bell number 7."


def test_a_task_that_the_data_set_does_not_have_is_a_failure_that_says_so() -> None:
    spec = find(f"{HERE}:Bells?size=200")
    task = AviaryEnvironment.task_type.from_row({"task_idx": 200, "responses_create_params": {"input": []}})
    rollout = asyncio.run(play(spec, task, ScriptedModel(["x"])))
    assert rollout.failure is not None
    assert rollout.failure.message == "task_idx is 200; Bells has the tasks 0 to 199."


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({}, "'loudness' is missing"),
        ({"loudness": "x"}, "it must be of type integer"),
        ({"loudness": True}, "it must be of type integer"),
        ({"loudness": 1, "loundess": 2}, "there is no 'loundess'"),
    ],
)
def test_arguments_that_do_not_fit_go_back_to_the_model(arguments: dict[str, Any], text: str) -> None:
    _, rollout = played(f"{HERE}:Bells?limit=1", [call("ring", **arguments), call("ring", loudness=1)])
    assert rollout.calls[0].is_error
    assert text in str(rollout.calls[0].output)
    assert rollout.reward == 1.0


def test_pictures_in_an_answer_are_pictures() -> None:
    _, rollout = played(f"{HERE}:Bells?limit=1", [call("look"), call("ring", loudness=1)])
    output = rollout.calls[0].output
    assert isinstance(output, list)
    assert [part["type"] for part in output] == ["input_text", "input_image", "input_text"]


@pytest.mark.parametrize(
    ("name", "script", "kind", "message"),
    [
        ("Bell", call("crack"), "environment", "OSError: the bell cracked"),
        ("Nonsense", call("look"), "environment", "step gave the reward 'much'"),
    ],
)
def test_what_breaks_inside_is_the_environments_failure(name: str, script: Any, kind: str, message: str) -> None:
    _, rollout = played(f"{HERE}:{name}", [script])
    assert rollout.failure is not None
    assert rollout.reward is None
    assert (rollout.failure.kind, rollout.failure.stage) == (kind, "tool")
    assert message in rollout.failure.message


@pytest.mark.parametrize(("name", "script"), [("Bell", call("hang")), ("Blocking", call("look"))])
def test_deadlines_hold_though_the_environment_blocks(name: str, script: Any) -> None:
    RELEASE.clear()
    try:
        _, rollout = played(f"{HERE}:{name}", [script], limits=Limits(call_seconds=0.2))
    finally:
        RELEASE.set()
    assert rollout.failure is not None
    assert rollout.reward is None
    assert (rollout.failure.kind, rollout.failure.stage) == ("timeout", "tool")


def test_the_packages_own_dummy_environment_plays() -> None:
    spec, rollout = played("aviary:dummy", ["hello", call("print_story", story="one two three four five")])
    assert spec.name == "dummy"
    assert rollout.reward == 1.0
    assert rollout.conversation[0]["content"] == "Write a 5 word story via print_story"
    assert rollout.items[1]["content"] == "No tool calls received. Please call one or more tools to proceed."


def test_an_environment_class_is_a_data_set_of_one() -> None:
    spec = find("aviary:aviary.core:DummyEnv?task=bells&end_immediately=true")
    assert len(list(spec.tasks("train"))) == 1
    (task,) = spec.tasks("train")
    rollout = asyncio.run(play(spec, task, ScriptedModel([call("print_story", story="x")])))
    assert rollout.conversation[0]["content"].endswith("about bells")
    assert issubclass(DummyEnv, Environment)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("aviary:gsm8", "Did you mean 'gsm8k'?"),
        ("aviary:hotpotqa", "Install the package that has it, such as 'aviary.hotpotqa'"),
        ("aviary:no_such_module:Env", "No module named 'no_such_module'"),
        (f"{HERE}:PIXEL", "is no TaskDataset and no Environment"),
        (f"{HERE}:Bells?sise=3", "unexpected keyword argument 'sise'"),
    ],
)
def test_a_data_set_that_is_not_there_is_said_when_it_is_named(name: str, text: str) -> None:
    with pytest.raises(InputError) as error:
        find(name)
    assert text in str(error.value)


def test_a_task_without_tools_offers_none_before_it_is_opened() -> None:
    spec = EnvironmentSpec("bells", AviaryEnvironment, config=AviaryConfig(dataset=f"{__name__}:Bells"))
    assert spec.tools == {}
    assert spec.tool_schemas(Task.ask("x")) == []
