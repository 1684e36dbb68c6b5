import asyncio
import importlib.metadata
import logging
from collections.abc import Callable
from pathlib import Path

import orjson
import pytest
import yaml

from gymrail import Outcome, Rollout
from gymrail.collect.run_directory import REMOVED, RunDirectory, without_secrets
from gymrail.collect.runner import Job, Summary, collect
from gymrail.errors import Failure, InputError
from gymrail.models.model import ModelRequest, ModelResponse, message
from gymrail.models.scripted import Oracle
from gymrail.registry import find
from gymrail.spec import EnvironmentSpec

Make = Callable[..., Rollout]


def test_failed_rollouts_go_to_their_own_file_with_the_failure_and_its_class(
    tmp_path: Path, make_rollout: Make
) -> None:
    with RunDirectory.create(tmp_path / "run", {}) as run:
        run.record(make_rollout(0))
        run.record(make_rollout(1, outcome=Outcome("truncated", reason="max_steps"), reward=0.0))
        run.record(make_rollout(2, reward=None))
    (row,) = [orjson.loads(line) for line in (run.path / "failures.jsonl").read_bytes().splitlines()]
    assert "reward" not in row
    assert row["_ng_failure_class"] == "model_failed"
    assert row["gymrail"]["failure"] == {
        "kind": "model",
        "stage": "model",
        "message": "the endpoint is down",
        "trace": "",
    }
    again = RunDirectory.open(run.path)
    assert [(rollout.task_index, rollout.outcome and rollout.outcome.status) for rollout in again.rollouts()] == [
        (0, "scored"),
        (1, "truncated"),
        (2, "failed"),
    ]
    assert {key.task_index for key in again.done} == {0, 1}


def test_a_failure_that_was_played_again_counts_once(tmp_path: Path, make_rollout: Make) -> None:
    with RunDirectory.create(tmp_path, {}) as run:
        run.record(make_rollout(0, reward=None))
        run.record(make_rollout(1, reward=None))
        run.record(make_rollout(1, reward=None, attempt=2))
        run.record(make_rollout(0, attempt=2))
        assert [(rollout.task_index, rollout.attempt, rollout.reward) for rollout in run.rollouts()] == [
            (0, 2, 1.0),
            (1, 2, None),
        ]


def test_an_existing_run_is_not_overwritten_and_the_error_says_how_to_go_on(tmp_path: Path, make_rollout: Make) -> None:
    with RunDirectory.create(tmp_path / "run", {}) as run:
        run.record(make_rollout(0))
    with pytest.raises(InputError, match=r"run' already holds a run\. Run the same command with --resume"):
        RunDirectory.create(tmp_path / "run", {})
    with RunDirectory.create(tmp_path / "run", {}, resume=True) as run:
        assert len(run.done) == 1


def test_a_run_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"nothing' holds no run: 'rollouts.jsonl' is missing"):
        RunDirectory.open(tmp_path / "nothing")


def test_a_run_that_is_being_written_can_be_read_but_not_written_by_another(tmp_path: Path, make_rollout: Make) -> None:
    with RunDirectory.create(tmp_path, {}) as run:
        run.record(make_rollout(0))
        reader = RunDirectory.open(tmp_path)
        assert len(list(reader.rollouts())) == 1
        with pytest.raises(InputError, match="open for reading"):
            reader.record(make_rollout(1))
        with pytest.raises(InputError, match="being written by process"):
            RunDirectory.create(tmp_path, {}, resume=True)


def test_the_configuration_is_kept_with_versions_and_without_secrets(tmp_path: Path, counter: EnvironmentSpec) -> None:
    config = {
        "model": {"name": "m", "api_key": "abc", "max_output_tokens": 64},
        "judge_password": 1234,
        "path": tmp_path,
    }
    RunDirectory.create(tmp_path / "run", config, environments=[counter]).close()
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text(encoding="utf-8"))
    assert written["config"] == {
        "model": {"name": "m", "api_key": REMOVED, "max_output_tokens": 64},
        "judge_password": REMOVED,
        "path": str(tmp_path),
    }
    assert written["environments"] == {"counter": counter.version}
    assert written["versions"]["gymrail"]


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("HF_TOKEN", "x", REMOVED),
        ("hfToken", "x", REMOVED),
        ("wandb_api_key", "x", REMOVED),
        ("client_secret", ["x"], REMOVED),
        ("token_budget", 100, 100),
        ("tokenizer", "gpt2", "gpt2"),
        ("max_tokens", 5, 5),
        ("monkey", "ape", "ape"),
        ("api_key", None, None),
        ("base_url", "https://user:pass@host/v1", f"https://{REMOVED}@host/v1"),
        ("endpoint", "http://host/v1?api_key=abc&x=1", f"http://host/v1?api_key={REMOVED}&x=1"),
        ("endpoint", "http://a/v1?Access-Token=abc,http://b/v1", f"http://a/v1?Access-Token={REMOVED},http://b/v1"),
        ("endpoint", "http://host/v1?monkey=ape", "http://host/v1?monkey=ape"),
        ("agent", "solve --api-key abc --max-tokens 9", f"solve --api-key {REMOVED} --max-tokens 9"),
        ("agent", "solve --token=abc --key-file x -v", f"solve --token={REMOVED} --key-file x -v"),
        ("header", "Bearer abcdefghijkl", REMOVED),
        ("arguments", ["--key", "sk-abcdefghijkl"], ["--key", REMOVED]),
    ],
)
def test_secrets_are_told_from_settings(name: str, value: object, shown: object) -> None:
    assert without_secrets({name: value}) == {name: shown}


def test_a_resume_with_other_settings_is_recorded_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    RunDirectory.create(tmp_path, {"model": "a", "concurrency": 4}).close()
    with caplog.at_level(logging.WARNING):
        RunDirectory.create(tmp_path, {"model": "a", "concurrency": 4}, resume=True).close()
        assert caplog.text == ""
        RunDirectory.create(tmp_path, {"model": "b", "concurrency": 4}, resume=True).close()
        RunDirectory.create(tmp_path, {"model": "b", "concurrency": 4}, resume=True).close()
    assert caplog.text.count("resumed with other config than before: model") == 1
    written = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    assert written["config"]["model"] == "a"
    assert [entry.get("config") for entry in written["resumed"]] == [None, {"model": "b"}, None]


def test_how_a_run_is_played_may_differ_from_start_to_start_and_is_recorded(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        RunDirectory.create(tmp_path, {}, execution={"concurrency": 4, "token": "abc"}).close()
        RunDirectory.create(tmp_path, {}, execution={"concurrency": 8, "token": "abc"}, resume=True).close()
    assert caplog.text == ""
    written = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    assert written["execution"] == {"concurrency": 4, "token": REMOVED}
    assert written["resumed"][0]["execution"] == {"concurrency": 8}


def test_the_packages_that_an_environment_judges_with_are_among_the_versions(tmp_path: Path) -> None:
    RunDirectory.create(tmp_path, {}, environments=[find("math")]).close()
    written = yaml.safe_load((tmp_path / "config.yaml").read_text(encoding="utf-8"))
    assert written["versions"]["math-verify"] == importlib.metadata.version("math-verify")


def test_metrics_are_replaced_as_a_whole(tmp_path: Path) -> None:
    with RunDirectory.create(tmp_path, {}) as run:
        assert run.metrics() == {}
        run.write_metrics({"reward": 0.5})
        run.write_metrics({"reward": 0.75})
        assert run.metrics() == {"reward": 0.75}
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock")) == [
        "config.yaml",
        "failures.jsonl",
        "metrics.json",
        "rollouts.jsonl",
    ]


class FlakyModel:
    """Fails in every third episode until it is repaired; counts its answers."""

    def __init__(self) -> None:
        self.is_broken = True
        self.asked = 0

    async def respond(self, request: ModelRequest) -> ModelResponse:
        self.asked += 1
        await asyncio.sleep(0)  # as an endpoint would: others run, and a cancellation arrives
        if self.is_broken and self.asked % 3 == 0:
            raise ConnectionResetError("gone")
        return ModelResponse([message("done")])


def test_a_resumed_run_doubles_nothing_and_plays_again_only_what_failed_or_was_cut_off(
    tmp_path: Path, counter: EnvironmentSpec
) -> None:
    jobs = [Job(counter, counter.generate("train", index), index, repeat) for index in range(20) for repeat in range(3)]
    model = FlakyModel()

    async def first() -> None:
        seen = 0

        def stop_half_way(rollout: Rollout) -> None:
            nonlocal seen
            seen += 1
            if seen == 30:
                task.cancel()

        with RunDirectory.create(tmp_path, {}) as run:
            summary = Summary()
            task = asyncio.ensure_future(
                collect(
                    jobs, model, record=run.record, on_rollout=stop_half_way, retries=0, concurrency=4, summary=summary
                )
            )
            with pytest.raises(asyncio.CancelledError):
                await task
            assert summary.asked == summary.finished
            assert summary.cancelled > 0
            assert summary.failed > 5

    asyncio.run(first())
    before = RunDirectory.open(tmp_path).done
    model.is_broken = False
    model.asked = 0
    with RunDirectory.create(tmp_path, {}, resume=True) as run:
        summary = asyncio.run(collect(run.remaining(jobs), model, record=run.record))
        assert summary.asked == summary.scored == model.asked == 60 - len(before)
        assert sorted(run.done) == sorted(job.key for job in jobs)
    lines = (tmp_path / "rollouts.jsonl").read_bytes().splitlines()
    assert len(lines) == 60
    assert len(list(RunDirectory.open(tmp_path).rollouts())) == 60


def test_a_task_that_changed_since_is_played_again(tmp_path: Path, counter: EnvironmentSpec) -> None:
    with RunDirectory.create(tmp_path, {}) as run:
        jobs = [Job(counter, counter.generate("train", index), index) for index in range(3)]
        asyncio.run(collect(jobs, Oracle(), record=run.record))
        changed = [Job(counter, counter.generate("train", index, seed=index // 2), index) for index in range(3)]
        assert [job.task_index for job in run.remaining(changed)] == [2]


def test_the_failure_of_a_run_reads_back_as_it_was(tmp_path: Path, make_rollout: Make) -> None:
    failure = Failure("verifier", "verify", "judge down", "trace")
    with RunDirectory.create(tmp_path, {}) as run:
        run.record(make_rollout(0, reward=None, outcome=Outcome("failed", failure)))
        (again,) = run.rollouts()
    assert again.failure == failure
    assert again.task.row == make_rollout(0).task.row
