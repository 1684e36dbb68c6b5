"""The real `openenv-core` and `verifiers` packages behind their bridges, each in a Python of its own with our core on
its path. Run by `make interop`; pip installs them once."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from tests.interop import nemo_gym
from tests.interop.python import virtual_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HERE = Path(__file__).parent / "bridges"
SOURCE = HERE.parents[2] / "src"
_START_SECONDS = 120.0


def variables() -> dict[str, str]:
    kept = {name: os.environ[name] for name in ("HOME", "PATH", "LANG", "TMPDIR") if name in os.environ}
    return {**kept, "PYTHONPATH": os.pathsep.join((str(SOURCE), str(HERE))), "HF_HUB_OFFLINE": "1"}


def played(python: Path, *jobs: dict[str, Any]) -> list[dict[str, Any]]:
    """What came of playing scripts there: for each job its name, data sets and rows, or its error."""
    done = subprocess.run(
        [str(python), str(HERE / "play.py")], input=json.dumps(jobs), env=variables(), capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout)


def tool(name: str, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def outputs(row: dict[str, Any]) -> list[Any]:
    return [item["output"] for item in row["response"]["output"] if item["type"] == "function_call_output"]


def heard(row: dict[str, Any]) -> list[Any]:
    return [item["content"] for item in row["response"]["output"] if item.get("role") == "user"]


def prompt(row: dict[str, Any]) -> str:
    return row["responses_create_params"]["input"][-1]["content"]


@contextmanager
def serving(python: Path, kind: str) -> Iterator[str]:
    port = nemo_gym.free_port()
    process = subprocess.Popen([str(python), str(HERE / "openenv_server.py"), kind, str(port)], env=variables())
    try:
        deadline = time.monotonic() + _START_SECONDS
        while time.monotonic() < deadline and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.2)
        yield f"openenv:http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def openenv() -> Path:
    return virtual_environment("openenv")


@pytest.fixture(scope="module")
def verifiers() -> Path:
    return virtual_environment("verifiers")


def test_an_openenv_environment_is_played_by_steps_and_by_answers(openenv: Path) -> None:
    steps = [{"calls": [tool("step", guess="x")]}, {"calls": [tool("step", gues="1")]}]
    steps += [{"calls": [tool("step", guess=str(number))]} for number in range(1, 10)]
    said = ["x", *(str(number) for number in range(1, 10))]
    with serving(openenv, "guess") as name:
        by_tool, by_answer = played(
            openenv,
            {"name": name, "script": steps, "tasks": 4, "replay": True},
            {"name": f"{name}?act_by=answer&reward=last", "script": said, "tasks": 4, "replay": True},
        )
    numbers = []
    for row in by_tool["rows"]:
        assert prompt(row).startswith("Guess environment\n\nI think of a number from 1 to 9; it is ")
        assert outputs(row)[0] == "A number, please."
        assert "'guess' is missing; there is no 'gues'" in outputs(row)[1]
        assert outputs(row)[-1] == "Right."
        assert (row["reward"], row["gymrail"]["status"], row["differences"]) == (0.5, "scored", [])
        numbers.append(len(outputs(row)))
    assert len(set(numbers)) > 1  # each seed its own number
    for row, number in zip(by_answer["rows"], numbers, strict=True):
        assert heard(row)[0] == "A number, please."
        assert len(heard(row)) == number - 2
        assert (row["reward"], row["differences"]) == (1.0, [])


def test_the_tools_of_an_openenv_environment_with_mcp_are_the_agents_tools(openenv: Path) -> None:
    script = [{"calls": [tool("add_note", text="a"), tool("add_note", text="b")]}, {"calls": [tool("add_note")]}, "ok"]
    with serving(openenv, "notes") as name:
        (found,) = played(openenv, {"name": name, "script": script, "tasks": 2})
    for row in found["rows"]:
        assert [one["name"] for one in row["responses_create_params"]["tools"]] == ["add_note"]
        assert outputs(row)[:2] == ["1 notes", "2 notes"]
        assert "'text' is missing" in outputs(row)[2]


def test_what_breaks_in_an_openenv_environment_is_no_reward(openenv: Path) -> None:
    with serving(openenv, "guess") as name:
        (broken,) = played(openenv, {"name": f"{name}?act_by=answer", "script": ["boom"]})
        (lost,) = played(openenv, {"name": name, "script": [{"calls": [tool("step", guess="die")]}, "x"]})
    assert broken["rows"][0]["gymrail"]["failure"]["kind"] == "environment"
    assert "the world ended" in broken["rows"][0]["gymrail"]["failure"]["message"]
    assert lost["rows"][0]["gymrail"]["failure"]["kind"] == "infrastructure"
    assert all("reward" not in found["rows"][0] for found in (broken, lost))
    (gone,) = played(openenv, {"name": name, "script": ["x"]})
    assert "No OpenEnv environment answers" in gone["error"]


def test_a_full_openenv_server_is_infrastructure(openenv: Path) -> None:
    with serving(openenv, "guess") as name:
        (found,) = played(openenv, {"name": name, "script": [{"calls": [tool("step", guess="1")]}] * 9, "tasks": 12})
    kinds = [(row["gymrail"]["failure"] or {}).get("kind") for row in found["rows"]]
    assert set(kinds) <= {None, "infrastructure"}
    assert kinds.count(None) >= 4


def test_verifiers_single_turn_environments_score_by_their_rubric(verifiers: Path) -> None:
    name = "verifiers:vf_games?kind=sum"
    train, held_out = played(
        verifiers,
        {"name": name, "script": ["4"], "tasks": 2, "replay": True},
        {"name": name, "script": ["94"], "split": "validation"},
    )
    assert train["datasets"] == {"train": 30, "validation": 1}
    assert [row["reward"] for row in train["rows"]] == [1.0, 0.25]
    assert [row["differences"] for row in train["rows"]] == [[], []]
    assert train["rows"][0]["gymrail"]["metrics"] == {
        "_right": 1.0, "_short": 1.0, "num_turns": 1.0, "stop_condition": "max_turns_reached",
    }  # fmt: skip
    assert train["rows"][0]["responses_create_params"]["input"][0]["content"] == "Answer with the number alone."
    assert (prompt(held_out["rows"][0]), held_out["rows"][0]["reward"]) == ("90 + 4?", 1.0)
    assert held_out["rows"][0]["dataset"] == "eval"


def test_verifiers_multi_turn_environments_keep_their_state(verifiers: Path) -> None:
    script = ["5", "7", "8", "9"]
    (found,) = played(
        verifiers, {"name": "verifiers:vf_games?kind=guess", "script": script, "tasks": 9, "split": "benchmark"}
    )
    assert [row["reward"] for row in found["rows"]] == [0, 0, 0, 0, 1.0, 0, 0.5, pytest.approx(1 / 3), 0.25 * 0]
    assert heard(found["rows"][7]) == ["Higher.", "Higher."]
    assert found["rows"][4]["gymrail"]["metrics"]["stop_condition"] == "has_final_env_response"
    assert found["rows"][0]["gymrail"]["metrics"]["stop_condition"] == "max_turns_reached"


def test_verifiers_tool_environments_run_their_tools(verifiers: Path) -> None:
    first = {"text": "Let me see.", "calls": [tool("price_of", fruit="apple"), tool("price_of", fruit="plum")]}
    script = [first, {"calls": [tool("price_of", fruit="melon")]}, "10"]
    (found,) = played(verifiers, {"name": "verifiers:vf_games?kind=shop", "script": script, "tasks": 3, "replay": True})
    for row in found["rows"]:
        assert outputs(row) == ["3", "7", "'melon'"]  # what a tool raises is told to the model: the package's own rule
        assert (row["reward"], row["differences"]) == (1.0, [])
        metrics = row["gymrail"]["metrics"]
        assert (metrics["_explains"], metrics["num_turns"], metrics["total_tool_calls"]) == (1.0, 3.0, 3.0)


def test_what_breaks_in_a_verifiers_environment_is_no_reward(verifiers: Path) -> None:
    broken, unfair, missing = played(
        verifiers,
        {"name": "verifiers:vf_games?kind=broken", "script": ["1"]},
        {"name": "verifiers:vf_games?kind=unfair", "script": ["1"]},
        {"name": "verifiers:no_such_module", "script": ["1"]},
    )
    failures = [found["rows"][0]["gymrail"]["failure"] for found in (broken, unfair)]
    assert [(failure["kind"], failure["stage"]) for failure in failures] == [
        ("environment", "reply"), ("verifier", "verify"),
    ]  # fmt: skip
    assert "the world ended" in failures[0]["message"]
    assert "The reward function '_raises' raised KeyError" in failures[1]["message"]
    assert all("reward" not in found["rows"][0] for found in (broken, unfair))
    assert "Could not import 'no_such_module'" in missing["error"]


def test_a_release_of_verifiers_without_load_environment_is_refused_with_the_command_that_helps() -> None:
    (found,) = played(virtual_environment("verifiers-v1"), {"name": "verifiers:vf_games", "script": ["1"]})
    assert "verifiers 0.4.0 has no load_environment any more" in found["error"]
    assert "pip install 'verifiers<0.4'" in found["error"]


def test_without_the_package_the_error_names_the_extra() -> None:
    done = subprocess.run(
        [sys.executable, str(HERE / "play.py")], input='[{"name": "verifiers:x", "script": []}]', env=variables(),
        capture_output=True, text=True, timeout=60, check=True,
    )  # fmt: skip
    assert "pip install 'gymrail[verifiers]'" in json.loads(done.stdout)[0]["error"]


def test_a_resources_server_of_nemo_gym_is_named_by_its_address_and_its_rows(tmp_path: Path) -> None:
    nemo_gym.install()
    rows = nemo_gym.data("mcqa")
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    config = {"mcqa": {"resources_servers": {"mcqa": {"entrypoint": "app.py", "domain": "knowledge"}}}}

    async def main(name: str) -> list[float | None]:
        spec = find(name)
        right, *others = list(spec.tasks("train"))
        said = [f"\\boxed{{{right.row['expected_answer']}}}", "I do not know."]
        rollouts = [
            await play(spec, task, ScriptedModel([text])) for task, text in zip((right, others[0]), said, strict=True)
        ]
        await spec.teardown()
        return [rollout.reward for rollout in rollouts]

    with nemo_gym.running(tmp_path, config) as addresses:
        assert asyncio.run(main(f"nemo_gym:{addresses['mcqa']}#{tmp_path / 'rows.jsonl'}")) == [1.0, 0.0]
