"""A program as the agent: a small one, written with the MCP SDK and OpenAI's client."""

import asyncio
import os
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from gymrail.agents.command import CommandAgent, OwnModel, Program
from gymrail.agents.presets import find_program
from gymrail.environment import Environment, Turn, call
from gymrail.episode import DEFAULT_LIMITS, Limits
from gymrail.errors import InputError, ModelError
from gymrail.limits import Prices
from gymrail.models.model import ModelRequest, ModelResponse, function_call, message
from gymrail.models.scripted import Oracle, ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail.rollout import Outcome, Rollout, Usage
from gymrail.serving.hosting import LoopbackHost
from gymrail.spec import EnvironmentSpec, Manifest
from gymrail.task import Task
from gymrail.tokens import sequence_of
from gymrail.tools import tool

AGENT = """
import asyncio, json, os, sys

from mcp.client import Client
from openai import AsyncOpenAI

async def main():
    async with Client(os.environ["GYMRAIL_MCP_URL"]) as server, AsyncOpenAI(max_retries=0) as model:
        listed = (await server.list_tools()).tools
        tools = [
            {"type": "function", "function": {"name": f"env_{tool.name}", "parameters": tool.input_schema}}
            for tool in listed
        ]
        messages = [{"role": "user", "content": sys.stdin.read()}]
        await model.chat.completions.create(model="any", messages=[{"role": "user", "content": "A title, please."}])
        while True:
            asked = await model.chat.completions.create(model="any", messages=messages, tools=tools)
            answer = asked.choices[0].message
            messages.append({"role": "assistant", "content": answer.content})
            if not answer.tool_calls:
                return
            messages[-1]["tool_calls"] = [call.model_dump() for call in answer.tool_calls]
            for call in answer.tool_calls:
                name, arguments = call.function.name.removeprefix("env_"), json.loads(call.function.arguments)
                result = await server.call_tool(name, arguments)
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result.content[0].text})

asyncio.run(main())
"""

SHORT = Limits(episode_seconds=1.5)


@pytest.fixture
def agent_file(tmp_path: Path) -> Path:
    path = tmp_path / "agent.py"
    path.write_text(AGENT, encoding="utf-8")
    return path


def run(
    source: str | Path,
    model: Any,
    *,
    spec: EnvironmentSpec | None = None,
    limits: Limits = DEFAULT_LIMITS,
    **options: Any,
) -> Rollout:
    words = (str(source),) if isinstance(source, Path) else ("-c", source)
    spec = spec or find("session_counter")
    task = next(spec.tasks("train", limit=1))

    async def main() -> Rollout:
        agent = CommandAgent(Program((sys.executable, *words)), LoopbackHost(), **options)
        try:
            async with asyncio.timeout(300):
                return await play(spec, task, model, agent=agent, limits=limits)
        finally:
            await agent.close()

    return asyncio.run(main())


def test_a_program_plays_an_episode_and_its_trajectory_is_the_rollout(agent_file: Path) -> None:
    rollout = run(agent_file, Oracle())
    assert rollout.outcome is not None
    assert (rollout.outcome.status, rollout.reward, rollout.steps) == ("scored", 1.0, 3)
    assert [item.get("name") or item["type"] for item in rollout.items] == [
        "get_counter_value", "function_call_output", "increment_counter", "function_call_output", "message",
    ]  # fmt: skip
    assert [call.name for call in rollout.calls] == ["get_counter_value", "increment_counter"]
    assert rollout.metrics == {"side_calls": 1}


class Sampling:
    """Calls a tool once, then answers; every answer has token ids that go on from the ones before."""

    def __init__(self) -> None:
        self.asked: list[ModelRequest] = []

    async def respond(self, request: ModelRequest) -> ModelResponse:
        self.asked.append(request)
        is_second = any(item.get("type") == "function_call_output" for item in request.input)
        item = message("Done.") if is_second else function_call("env_get_counter_value", "{}", "call_0")
        prompt, sampled = ([1, 2, 3, 4], [5]) if is_second else ([1], [2, 3])
        tokens = {
            "prompt_token_ids": prompt,
            "generation_token_ids": sampled,
            "generation_log_probs": [-0.5] * len(sampled),
        }
        return ModelResponse([{**item, **tokens}], "stop", Usage(len(prompt), len(sampled)), "sampling")


def test_token_ids_reach_the_rollout_and_the_agents_parameters_the_model(agent_file: Path) -> None:
    model = Sampling()
    rollout = run(agent_file, model, parameters=(("temperature", 0.9),))
    sequence = sequence_of(rollout)
    assert (sequence.prompt_ids, sequence.completion_ids, sequence.mask) == ([1], [2, 3, 4, 5], [1, 1, 0, 1])
    assert {request.parameters["temperature"] for request in model.asked} == {0.9}
    assert [item["name"] for item in rollout.items if item["type"] == "function_call"] == ["get_counter_value"]
    assert rollout.model == "sampling"


def test_a_program_that_ends_with_an_error_is_a_failure_and_no_reward() -> None:
    rollout = run("import sys; sys.exit('no luck')", Oracle())
    assert rollout.failure is not None
    assert (rollout.failure.kind, rollout.reward) == ("infrastructure", None)
    assert "ended with code 1: no luck" in rollout.failure.message


def test_a_program_that_asks_no_model_is_a_failure() -> None:
    rollout = run("print('done already')", Oracle())
    assert rollout.failure is not None
    assert "ended without a model call: done already" in rollout.failure.message


def test_a_model_that_breaks_is_the_models_failure_not_the_programs(agent_file: Path) -> None:
    class Broken:
        async def respond(self, request: ModelRequest) -> ModelResponse:
            raise ModelError("the endpoint is down")

    rollout = run(agent_file, Broken())
    assert rollout.failure is not None
    assert (rollout.failure.kind, rollout.failure.message, rollout.reward) == ("model", "the endpoint is down", None)


def test_a_program_that_asks_for_more_model_calls_than_it_has_is_stopped_and_scored_as_truncated(
    agent_file: Path,
) -> None:
    looping = ScriptedModel(lambda request: call("get_counter_value"))
    rollout = run(agent_file, looping, max_steps=4)
    assert rollout.outcome is not None
    assert (rollout.outcome.status, rollout.outcome.reason, rollout.steps, rollout.reward) == (
        "truncated",
        "max_steps",
        4,
        0.0,
    )


def test_a_program_that_runs_past_the_limit_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    pids = tmp_path / "pids"
    source = f"""
import os, signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
open({str(pids)!r}, "w").write(f"{{os.getpid()}} {{child.pid}}")
time.sleep(600)
"""
    for seconds in (1.5, 10.0, 60.0):  # until the program came so far
        rollout = run(source, Oracle(), limits=Limits(episode_seconds=seconds))
        assert rollout.failure is not None
        assert (rollout.failure.kind, rollout.reward) == ("timeout", None)
        if pids.exists() and pids.read_text():
            break
    for pid in map(int, pids.read_text().split()):
        assert not _is_running(pid)


def test_a_program_sees_none_of_our_variables_but_those_it_is_given(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GYMRAIL_KEY", "secret")
    monkeypatch.setenv("OPENAI_API_KEY", "secret")
    monkeypatch.setenv("HANDED_OVER", "yes")
    found = tmp_path / "variables"
    run(
        f"import os; open({str(found)!r}, 'w').write(repr(dict(os.environ)))", Oracle(), pass_variables=("HANDED_OVER",)
    )
    variables = eval(found.read_text())
    assert "secret" not in variables.values()
    assert variables["HANDED_OVER"] == "yes"
    assert variables["HOME"] != os.environ["HOME"]
    assert not Path(variables["HOME"]).exists()


class Door(Environment[Task]):
    """Ends the episode when the door is opened."""

    @classmethod
    def generate(cls, rng: Any) -> Task:
        return Task.ask("Open the door.", number=rng.random())

    def seed(self) -> None:
        self.opened = 0

    @tool
    def open_door(self) -> str:
        """Open it."""
        self.opened += 1
        self.done = True
        return "It is open."

    def verify(self, rollout: Rollout) -> float:
        return float(self.opened == 1)

    def solve(self) -> Generator[Turn, str, None]:
        yield call("open_door")
        yield call("open_door")


def test_when_the_environment_ends_the_episode_the_program_gets_no_other_turn(agent_file: Path) -> None:
    rollout = run(agent_file, Oracle(), spec=EnvironmentSpec("door", Door, Manifest()))
    assert (rollout.reward, rollout.steps) == (1.0, 1)
    assert [item["type"] for item in rollout.items] == ["function_call", "function_call_output"]
    assert rollout.items[-1]["output"] == "It is open."


def test_a_program_with_a_model_of_its_own_leaves_its_tool_calls_and_its_last_words() -> None:
    source = """
import asyncio, os
from mcp.client import Client

async def main():
    assert "OPENAI_BASE_URL" not in os.environ
    async with Client(os.environ["GYMRAIL_MCP_URL"]) as server:
        await server.call_tool("increment_counter", {"count": 1})
    print("I added one.")

asyncio.run(main())
"""
    rollout = run(source, OwnModel())
    assert rollout.reward == 0.0
    assert [item["type"] for item in rollout.items] == ["function_call", "function_call_output", "message"]
    assert rollout.final_text == "I added one."


def test_an_environment_with_user_turns_is_refused_by_name() -> None:
    rollout = run("", Oracle(), spec=find("follow_ups"))
    assert rollout.failure is not None
    assert "follow_ups answers with user turns" in rollout.failure.message


def test_an_unknown_or_missing_program_is_refused_with_what_helps() -> None:
    with pytest.raises(InputError, match="Did you mean 'claude-code'"):
        find_program("claude_code")
    with pytest.raises(InputError, match="--program PATH"):
        find_program("codex", "/nowhere/codex")


def _is_running(pid: int) -> bool:
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


SPENDS_IN_TOOLS = """
import asyncio, os, sys
from mcp.client import Client

async def main():
    async with Client(os.environ["GYMRAIL_MCP_URL"]) as server:
        for _ in range(3):
            print((await server.call_tool("increment_counter", {"count": 1})).content[0].text, flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


@pytest.mark.parametrize(
    ("limits", "reason", "calls"),
    [
        (Limits(token_limit=4), "token_limit", 1),
        (Limits(output_token_limit=3), "output_token_limit", 1),
        (Limits(cost_limit=1e-9, prices=Prices(1.0, 1.0)), "cost_limit", 0),
    ],
)
def test_a_program_that_has_spent_its_tokens_is_refused_another_answer(
    agent_file: Path, limits: Limits, reason: Any, calls: int
) -> None:
    rollout = run(agent_file, Sampling(), limits=limits)
    assert rollout.outcome == Outcome("truncated", reason=reason)
    assert (len(rollout.calls), rollout.reward) == (calls, 0.0)


def test_a_program_that_has_made_its_tool_calls_is_stopped() -> None:
    rollout = run(SPENDS_IN_TOOLS, OwnModel(), limits=Limits(tool_call_limit=2))
    assert rollout.outcome == Outcome("truncated", reason="tool_call_limit")
    assert [call.name for call in rollout.calls] == ["increment_counter"] * 2


def test_a_program_that_has_had_its_time_is_stopped_and_judged() -> None:
    rollout = run("import time; time.sleep(600)", OwnModel(), limits=Limits(time_limit_seconds=0.5))
    assert (rollout.outcome, rollout.reward) == (Outcome("truncated", reason="time_limit"), 0.0)
