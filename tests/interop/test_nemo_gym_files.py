"""Rollout files that nemo-gym ships: read, measured as nemo-gym measures them, written back as they were."""

from __future__ import annotations

import math
import subprocess
from pathlib import Path
from random import Random
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from gymrail import Rollout
from gymrail.cli import app
from gymrail.collect.metrics import aggregate
from gymrail.collect.nemo_gym_metrics import aggregate_metrics, gym_metrics
from tests.interop import nemo_gym

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

FILES = ("mcqa", "workplace_assistant")

THEIR_METRICS = """
import sys, orjson
from nemo_gym.reward_profile import compute_aggregate_metrics, compute_pass_majority_metrics
rows = [orjson.loads(line) for line in sys.stdin.buffer]
key = "extracted_answer" if any("extracted_answer" in row for row in rows) else None
found = compute_aggregate_metrics(rows, lambda tasks: compute_pass_majority_metrics(tasks, answer_key=key)[0])
sys.stdout.buffer.write(b"\\n" + orjson.dumps(found.model_dump()))
"""


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    nemo_gym.install()


def their_metrics(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """What nemo-gym's own code makes of verify responses."""
    done = subprocess.run(
        [nemo_gym.HOME / "bin/python", "-W", "ignore", "-c", THEIR_METRICS],
        input=b"".join(orjson.dumps(row) + b"\n" for row in rows),
        capture_output=True, timeout=300, check=False, env=nemo_gym.variables(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()[-4000:]
    return orjson.loads(done.stdout.splitlines()[-1])


def assert_same_numbers(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Every number that they have we have too, under the same name."""
    numbers = {name: value for name, value in theirs.items() if isinstance(value, int | float)}
    assert numbers
    assert {name: ours.get(name) for name in numbers} == {
        name: pytest.approx(value, rel=1e-9, abs=1e-9) for name, value in numbers.items() if not math.isnan(value)
    }


@pytest.mark.parametrize("server", FILES)
def test_their_rollout_file_is_read_and_written_back_without_loss(server: str) -> None:
    rows = nemo_gym.data(server, "example_rollouts.jsonl")
    rollouts = [Rollout.from_row(row) for row in rows]
    assert [orjson.loads(orjson.dumps(rollout.to_row())) for rollout in rollouts] == rows
    assert [rollout.reward for rollout in rollouts] == [row["reward"] for row in rows]
    for rollout, row in zip(rollouts, rows, strict=True):
        called = [item["name"] for item in row["response"]["output"] if item["type"] == "function_call"]
        assert [call.name for call in rollout.calls] == called
        assert rollout.items == row["response"]["output"]


@pytest.mark.parametrize("server", FILES)
def test_their_rollout_file_has_the_metrics_that_nemo_gym_computes(server: str) -> None:
    rows = nemo_gym.data(server, "example_rollouts.jsonl")
    numbered = [{**row, "_ng_task_index": index, "_ng_rollout_index": 0} for index, row in enumerate(rows)]
    theirs = their_metrics(numbered)
    assert_same_numbers(aggregate_metrics(numbered)["agent_metrics"], theirs["agent_metrics"])
    assert_same_numbers(gym_metrics(map(Rollout.from_row, numbered)), theirs["agent_metrics"])
    found = aggregate(map(Rollout.from_row, rows))["overall"]
    assert (found["rollouts"], found["tasks"]) == (len(rows), len(rows))
    assert found["reward"]["mean"] == pytest.approx(theirs["agent_metrics"]["mean/reward"])


@pytest.mark.parametrize("seed", range(4))
def test_repeats_of_their_tasks_have_the_metrics_that_nemo_gym_computes(seed: int) -> None:
    rng = Random(f"repeats:{seed}")
    scores = (0.0, 1.0) if seed % 2 else (0.0, 0.25, 1.0)
    rows = [
        {
            **row, "_ng_task_index": index, "_ng_rollout_index": repeat, "reward": rng.choice(scores),
            "extracted_answer": rng.choice(["A", "B", None]), "is_long": rng.random() < 0.5,
        }
        for index, row in enumerate(nemo_gym.data("mcqa", "example_rollouts.jsonl"))
        for repeat in range(rng.randint(2, 5))
    ]  # fmt: skip
    ours, theirs = aggregate_metrics(rows), their_metrics(rows)
    assert_same_numbers(ours["agent_metrics"], theirs["agent_metrics"])
    assert ours["key_metrics"].keys() == theirs["key_metrics"].keys()
    for mine, other in zip(ours["group_level_metrics"], theirs["group_level_metrics"], strict=True):
        # What they say of a collection's completeness besides, verify responses do not tell.
        assert_same_numbers(mine, {name: value for name, value in other.items() if "/" in name or name in mine})


@pytest.mark.parametrize("server", FILES)
def test_the_command_line_reads_their_rollout_file(server: str, tmp_path: Path) -> None:
    (path,) = nemo_gym.HOME.glob(f"lib/python*/site-packages/resources_servers/{server}/data/example_rollouts.jsonl")
    done = CliRunner().invoke(app, ["metrics", str(path), "--json"])
    rows = nemo_gym.data(server, "example_rollouts.jsonl")
    mean = sum(row["reward"] for row in rows) / len(rows)
    assert orjson.loads(done.stdout)["overall"]["reward"]["mean"] == pytest.approx(mean)
    CliRunner().invoke(app, ["profile", str(path), "-o", str(tmp_path / "profile.jsonl")])
    profiled = [orjson.loads(line) for line in (tmp_path / "profile.jsonl").read_bytes().splitlines()]
    assert sorted(row["_profile"]["pass_rate"] for row in profiled) == sorted(row["reward"] for row in rows)


@pytest.mark.parametrize("server", FILES)
def test_the_command_line_writes_their_rollout_file_back_without_loss(server: str, tmp_path: Path) -> None:
    (path,) = nemo_gym.HOME.glob(f"lib/python*/site-packages/resources_servers/{server}/data/example_rollouts.jsonl")
    output = tmp_path / "again.jsonl"
    done = CliRunner().invoke(app, ["export", "nemo-gym", str(path), "-o", str(output)])
    assert done.exit_code == 0, done.output
    rows = nemo_gym.data(server, "example_rollouts.jsonl")
    assert lines(output) == rows
    (entry,) = orjson.loads((tmp_path / "again_aggregate_metrics.json").read_bytes())
    assert entry["key_metrics"]["mean/reward"] == pytest.approx(sum(row["reward"] for row in rows) / len(rows))


@pytest.mark.parametrize("server", FILES)
def test_the_command_line_replays_every_rollout_of_their_file(server: str) -> None:
    """Though the file leaves out what the verifier needs."""
    (path,) = nemo_gym.HOME.glob(f"lib/python*/site-packages/resources_servers/{server}/data/example_rollouts.jsonl")
    tables = ["--config", f"data_dir={path.parent / '../csv_data'}"] if server == "workplace_assistant" else []
    for place, row in enumerate(nemo_gym.data(server, "example_rollouts.jsonl")):
        words = ["replay", str(path), "--env", server, "--rollout", f"{place}:0", "--json", *tables]
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, done.output
        assert "--tasks FILE gives what is left out" in done.stderr
        steps = orjson.loads(done.stdout)["steps"]
        assert [item for step in steps[1:] for item in step["items"]] == row["response"]["output"]


def test_their_profile_command_reads_a_run_and_its_export(tmp_path: Path) -> None:
    """`gym eval profile` takes the run's own file as it is and, of several environments, the exported ones."""
    play = ("--model", "oracle:0.5", "--tasks", "6", "--repeats", "3", "--run")
    alone, both = tmp_path / "alone", tmp_path / "both"
    for environments, run in ((["word_math"], alone), (["word_math", "session_counter"], both)):
        assert CliRunner().invoke(app, ["rollout", *environments, *play, str(run)]).exit_code == 0
    output = tmp_path / "exported.jsonl"
    assert CliRunner().invoke(app, ["export", "nemo-gym", str(both), "-o", str(output)]).exit_code == 0
    files = {
        alone: (alone / "rollouts.jsonl", alone / "rollouts.jsonl"),
        both: (tmp_path / "exported_materialized_inputs.jsonl", output),
    }
    for run, (inputs, rollouts) in files.items():
        done = subprocess.run(
            [nemo_gym.HOME / "bin/gym", "eval", "profile", "--inputs", inputs, "--rollouts", rollouts],
            capture_output=True, text=True, timeout=300, check=False, env=nemo_gym.variables(), cwd=tmp_path,
        )  # fmt: skip
        assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
        theirs = lines(rollouts.with_name(f"{rollouts.stem}_reward_profiling.jsonl"))
        profile = tmp_path / "profile.jsonl"
        CliRunner().invoke(app, ["profile", str(run), "-o", str(profile)])
        ours = {row["responses_create_params"]["input"]: row["_profile"] for row in lines(profile)}
        assert len(ours) == len(theirs) == (6 if run == alone else 12)
        for row in theirs:
            mine = ours[row["sample"]["responses_create_params"]["input"]]
            assert (row["num_rollouts"], row["mean/reward"]) == (mine["count"], pytest.approx(mine["mean"]))
        means = orjson.loads(rollouts.with_name(f"{rollouts.stem}_agent_metrics.json").read_bytes())
        found = orjson.loads(CliRunner().invoke(app, ["metrics", str(run), "--json"]).stdout)["environments"]
        assert {entry["agent_ref"]["name"]: entry["mean/reward"] for entry in means} == {
            name: pytest.approx(row["reward"]["mean"]) for name, row in found.items()
        }


def lines(path: Path) -> list[dict[str, Any]]:
    return [orjson.loads(line) for line in path.read_bytes().splitlines()]


def test_their_mcqa_rollouts_are_judged_again_with_their_tasks_file(tmp_path: Path) -> None:
    (folder,) = nemo_gym.HOME.glob("lib/python*/site-packages/resources_servers/mcqa/data")
    path, tasks = folder / "example_rollouts.jsonl", folder / "example.jsonl"
    rows = nemo_gym.data("mcqa", "example_rollouts.jsonl")
    assert all("options" not in row for row in rows)
    done = CliRunner().invoke(
        app, ["reverify", str(path), "--env", "mcqa", "--tasks", str(tasks), "-o", str(tmp_path / "again"), "--json"]
    )
    found = orjson.loads(done.stdout)
    assert (done.exit_code, found["rollouts"], found["unjudged"]) == (0, len(rows), 0)
    again = [orjson.loads(line) for line in (tmp_path / "again/rollouts.jsonl").read_bytes().splitlines()]
    known = {
        row["responses_create_params"]["input"][-1]["content"]: row for row in nemo_gym.data("mcqa", "example.jsonl")
    }
    for row in again:
        task = known[row["responses_create_params"]["input"][-1]["content"]]
        assert (row["options"], row["expected_answer"]) == (task["options"], task["expected_answer"])
        assert row["reward"] == float(row["gymrail"]["metrics"]["extracted_answer"] == task["expected_answer"])
