"""The real nemo-gym package against ours, both ways. `make interop` runs this; the first time it installs nemo-gym."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import orjson
import pytest

from gymrail import Rollout, Task
from gymrail.clients.discover import find_remote, remote_spec
from gymrail.environment import Turn, call
from gymrail.models.model import ModelRequest, ModelResponse
from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail.rollout import text_of
from gymrail.serving.loopback import serve_on_loopback
from gymrail.serving.model import ModelSettings, create_model_app
from gymrail.spec import EnvironmentSpec
from tests.interop import nemo_gym

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

THEIRS = {
    "example_multi_step": "instruction_following",
    "mcqa": "knowledge",
    "example_session_state_mgmt": "agent",
    "example_multi_turn_gymnasium": "knowledge",
}


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Resources servers of nemo-gym, by name."""
    nemo_gym.install()
    config: dict[str, Any] = {
        name: {"resources_servers": {name: {"entrypoint": "app.py", "domain": domain}}}
        for name, domain in THEIRS.items()
    }
    with nemo_gym.running(tmp_path_factory.mktemp("theirs"), config) as addresses:
        yield addresses


def played(spec: EnvironmentSpec, row: dict[str, Any], turns: Sequence[Turn]) -> Rollout:
    async def main() -> Rollout:
        try:
            return await play(spec, spec.cls.task_type.from_row(row), ScriptedModel(list(turns)))
        finally:
            await spec.teardown()

    return asyncio.run(main())


def multi_step_scripts(row: dict[str, Any]) -> dict[str, list[Turn]]:
    values = row["expected_synonym_values"]
    looked_up = [call("get_synonym_value", synonym=word) for word in row["expected_synonyms"]]
    return {
        "gold": [*looked_up, call("extract_synonym_values", synonym_values=values), "Done."],
        "at once": [looked_up, call("extract_synonym_values", synonym_values=values), "Done."],
        "wrong order": [call("extract_synonym_values", synonym_values=values[::-1]), "Done."],
        "one lost": [call("extract_synonym_values", synonym_values=values[1:]), "Done."],
        "last call counts": [
            call("extract_synonym_values", synonym_values=values),
            call("extract_synonym_values", synonym_values=[1]),
            "Done.",
        ],
        "no call": ["I do not know."],
    }


def test_their_multi_step_server_gives_the_rewards_of_our_environment(theirs: dict[str, str]) -> None:
    remote, ours = remote_spec(theirs["example_multi_step"]), find("multi_step")
    rewards = {}
    for index, row in enumerate(nemo_gym.data("example_multi_step")):
        for name, turns in multi_step_scripts(row).items():
            far, near = played(remote, row, turns), played(ours, row, turns)
            assert far.failure is None, (name, far.failure)
            assert far.reward == near.reward, (index, name)
            assert {key: far.metrics[key] for key in near.metrics} == near.metrics
            rewards[index, name] = far.reward
    assert {rewards[index, "gold"] for index in range(5)} == {1.0}
    assert {rewards[index, "no call"] for index in range(5)} == {0.0}


def test_their_mcqa_server_gives_the_rewards_of_our_environment(theirs: dict[str, str]) -> None:
    remote, ours = remote_spec(theirs["mcqa"]), find("mcqa")
    rewards: list[float | None] = []
    for row in nemo_gym.data("mcqa"):
        right = row["expected_answer"]
        wrong = next(key for option in row["options"] for key in option if key != right)
        for answer in (f"\\boxed{{{right}}}", f"\\boxed{{{wrong}}}", f"It is {right}.", f"\\boxed{{ {right} }}", ""):
            far, near = played(remote, row, [answer]), played(ours, row, [answer])
            assert far.failure is None, far.failure
            assert far.reward == near.reward, answer
            rewards.append(far.reward)
    assert rewards == [1.0, 0.0, 0.0, 1.0, 0.0] * 5


def test_their_sessions_are_kept_apart_by_the_cookies_we_carry(theirs: dict[str, str]) -> None:
    remote, ours = remote_spec(theirs["example_session_state_mgmt"]), find("session_counter")
    row = nemo_gym.data("example_session_state_mgmt")[0]
    (increment,) = [tool for tool in row["responses_create_params"]["tools"] if "increment" in tool["name"]]
    (argument,) = increment["parameters"]["properties"]
    missing = row["expected_count"] - row["initial_count"]

    def turns(steps: int) -> list[Turn]:
        return [*(call(increment["name"], **{argument: 1}) for _ in range(steps)), "Done."]

    async def together() -> list[Rollout]:
        steps = [missing, missing + 1, missing, 0]
        plays = (play(remote, Task.from_row(row), ScriptedModel(turns(count))) for count in steps)
        return list(await asyncio.gather(*plays))

    assert [rollout.reward for rollout in asyncio.run(together())] == [1.0, 0.0, 1.0, 0.0]
    assert [played(ours, row, turns(count)).reward for count in (missing, missing + 1)] == [1.0, 0.0]


def test_their_user_turns_are_those_of_our_environment(theirs: dict[str, str]) -> None:
    remote, ours = remote_spec(theirs["example_multi_turn_gymnasium"]), find("follow_ups")
    for row in nemo_gym.data("example_multi_turn_gymnasium"):
        for last, reward in ((row["expected_answer"], 1.0), ("I do not know.", 0.0)):
            answers = [*("Let me see." for _ in row["follow_ups"]), last]
            far, near = played(remote, row, answers), played(ours, row, answers)
            assert far.failure is None, far.failure
            assert far.reward == near.reward == reward
            assert user_turns(far) == user_turns(near) == row["follow_ups"]


def user_turns(rollout: Rollout) -> list[str]:
    return [text_of(item) for item in rollout.items if item.get("role") == "user"]


def test_a_verifier_that_crashes_on_their_server_is_a_failure_and_no_reward(theirs: dict[str, str]) -> None:
    row = nemo_gym.data("example_multi_step")[0]
    rollout = played(remote_spec(theirs["example_multi_step"]), row, [call("extract_synonym_values"), "Done."])
    assert rollout.reward is None
    assert rollout.failure is not None
    assert (rollout.failure.kind, rollout.failure.stage) == ("infrastructure", "verify")
    assert "500" in rollout.failure.message


def test_a_name_with_its_tasks_is_found_as_the_command_line_finds_it(theirs: dict[str, str], tmp_path: Path) -> None:
    (path,) = nemo_gym.HOME.glob("lib/python*/site-packages/resources_servers/mcqa/data/example.jsonl")
    spec = find_remote(f"{theirs['mcqa']},{theirs['mcqa']}#{path}")
    assert [task.row["expected_answer"] for task in spec.tasks("train")] == [
        row["expected_answer"] for row in nemo_gym.data("mcqa")
    ]


LAUNCHER = """
import os, yaml
config = yaml.safe_load(os.environ["NEMO_GYM_CONFIG_DICT"])
port = str(config[os.environ["NEMO_GYM_CONFIG_PATH"]]["resources_servers"][{place!r}]["port"])
os.environ.pop("PYTHONPATH", None)
os.execv({python!r}, [{python!r}, "-m", "gymrail", "serve", {environment!r}, "--open", "--port", port])
"""
"""What lets nemo-gym start one of our servers, as `resources_servers/<place>/app.py`."""

COUNTING: list[Turn] = [
    call("get_counter_value"),
    [call("increment_counter", count=1), call("increment_counter", count=1)],
    call("increment_counter", count="no number"),
    call("no_such_tool"),
    call("verify", expected_count=0),
    "Done.",
]


TALKING: list[Turn] = ["ok", "ok", "12"]


class Policy:
    """Plays both scripts: the counter's where there are tools, the talk's where there are none."""

    async def respond(self, request: ModelRequest) -> ModelResponse:
        return await ScriptedModel(COUNTING if request.tools else TALKING).respond(request)


@pytest.fixture(scope="module")
def model_url() -> Iterator[str]:
    """Our model server with a script, on a thread of its own."""
    started, stop = threading.Event(), threading.Event()
    address: list[str] = []

    async def serve() -> None:
        app = create_model_app(Policy(), ModelSettings.for_address("127.0.0.1", is_open=True))
        async with serve_on_loopback(app) as url:
            address.append(url)
            started.set()
            await asyncio.to_thread(stop.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert started.wait(30)
        yield address[0]
    finally:
        stop.set()
        thread.join()


def our_server(folder: Path, environment: str) -> dict[str, Any]:
    """Make nemo-gym able to start `gymrail serve ENVIRONMENT`, and return its config."""
    place = folder / "resources_servers" / f"our_{environment}"
    place.mkdir(parents=True)
    launcher = LAUNCHER.format(python=sys.executable, environment=environment, place=place.name)
    (place / "app.py").write_text(launcher, encoding="utf-8")
    (place / "requirements.txt").touch()
    return {"resources_servers": {place.name: {"entrypoint": "app.py", "domain": "agent"}}}


def their_agent(kind: str, server: str) -> dict[str, Any]:
    settings = {
        "entrypoint": "app.py",
        "resources_server": {"type": "resources_servers", "name": server},
        "model_server": {"type": "responses_api_models", "name": "policy_model"},
    }
    return {"responses_api_agents": {kind: settings}}


@pytest.fixture(scope="module")
def ours(model_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, dict[str, str]]]:
    """Our servers under their agents and their model server, all of them started by nemo-gym."""
    nemo_gym.install()
    folder = tmp_path_factory.mktemp("ours")
    model = {"openai_base_url": f"{model_url}/v1", "openai_api_key": "none", "openai_model": "script"}
    config: dict[str, Any] = {
        "counter": our_server(folder, "session_counter"),
        "talk": our_server(folder, "follow_ups"),
        "policy_model": {"responses_api_models": {"openai_model": {"entrypoint": "app.py", **model}}},
        "counter_agent": their_agent("simple_agent", "counter"),
        "talk_agent": their_agent("gymnasium_agent", "talk"),
    }
    with nemo_gym.running(folder, config) as addresses:
        yield folder, addresses


def test_their_agent_and_rollout_collection_run_against_our_server(ours: tuple[Path, dict[str, str]]) -> None:
    folder, addresses = ours
    spec = find("session_counter")
    tools = [tool.schema for tool in spec.tools.values()]
    rows = [
        {
            "responses_create_params": {"input": f"Task {index}: add two.", "tools": tools},
            "initial_count": index,
            "expected_count": index + (5 if index % 4 == 0 else 2),
        }
        for index in range(16)
    ]
    results = nemo_gym.collect(folder, addresses, "counter_agent", rows)
    assert [result["reward"] for result in results] == [float(index % 4 != 0) for index in range(16)]
    assert [result["reward"] for result in results] == [played(spec, row, COUNTING).reward for row in rows]
    for index, result in enumerate(results):
        outputs = [item["output"] for item in result["response"]["output"] if item["type"] == "function_call_output"]
        assert outputs[:3] == [str(index), "ok", "ok"]
        assert "count" in outputs[3]
        # A model that calls `verify` gets no verdict from it, and ends nothing.
        assert "reward" not in outputs[5]
        assert result["expected_count"] == rows[index]["expected_count"]
    (metrics,) = orjson.loads((folder / "results_aggregate_metrics.json").read_bytes())
    assert metrics["agent_metrics"]["mean/reward"] == pytest.approx(0.75)


def test_their_gymnasium_agent_plays_our_user_turns(ours: tuple[Path, dict[str, str]]) -> None:
    folder, addresses = ours
    spec = find("follow_ups")
    rows = [
        {
            "responses_create_params": {"input": f"Task {index}: I think of 7. Say ok."},
            "follow_ups": ["I add 5. Say ok.", "What do I have now?"],
            "expected_answer": "12" if index % 2 else "13",
        }
        for index in range(8)
    ]
    results = nemo_gym.collect(folder, addresses, "talk_agent", rows)
    assert [result["reward"] for result in results] == [float(index % 2) for index in range(8)]
    assert [result["reward"] for result in results] == [played(spec, row, TALKING).reward for row in rows]
