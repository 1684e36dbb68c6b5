import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

import pytest

from gymrail import Environment, Task
from gymrail.agents.tool_loop import ToolLoop
from gymrail.collect.drain import Drain
from gymrail.collect.executors import pool, station
from gymrail.collect.executors.pool import collect_with_workers
from gymrail.collect.executors.processes import Processes, ProcessWorker
from gymrail.collect.executors.setup import Setup, source_of
from gymrail.collect.journal import JournalError
from gymrail.collect.runner import Job, Summary
from gymrail.errors import InfrastructureError, InputError
from gymrail.limits import Limits
from gymrail.models.build import build_model
from gymrail.registry import find
from gymrail.spec import EnvironmentSpec

from .conftest import Ledger, WatchedProcesses, in_process, is_running, jobs_of, wait_until

NOISY = partial(build_model, "oracle:0.4", seed=7)

Load = Callable[..., EnvironmentSpec]


def play(jobs, setup: Setup, launcher: Processes | None = None, **options) -> Summary:
    options = {"workers": 2, "concurrency": 8, **options}
    return asyncio.run(collect_with_workers(jobs, setup, launcher or Processes(), **options))


def test_workers_give_the_outcomes_and_rewards_of_one_process(tmp_path: Path, load: Load) -> None:
    specs = [load("Adder", folder=str(tmp_path), processes=2), find("session_counter"), find("word_math")]
    jobs = [job for spec in specs for job in jobs_of(spec, 40, repeats=3)]
    ledger = Ledger()
    setup = Setup([source_of(spec) for spec in specs], NOISY, limits=Limits(call_seconds=600.0))
    summary = play(jobs, setup, record=ledger.record)
    expected = asyncio.run(in_process(jobs, NOISY()))
    assert ledger.results == expected
    assert {reward for _, reward in expected.values()} == {0.0, 1.0}
    assert (summary.asked, summary.finished, summary.cancelled) == (360, 360, 0)
    adders = [line for key, line in ledger.lines.items() if key.environment == "playground"]
    pids = {json.loads(line)["gymrail"]["metrics"]["pid"] for line in adders}
    assert len(pids) == 2
    assert os.getpid() not in pids


def test_a_killed_workers_rollouts_are_played_again_and_each_is_recorded_once(
    tmp_path: Path, load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    spec = load("Gated", folder=str(tmp_path), seconds=0.01)
    gate = tmp_path / "open"
    jobs = jobs_of(spec, 150, repeats=2)
    due, killed = [40, 120, 200], []

    def started() -> None:
        """Only while every seat is taken is anything played, so that neither a loss nor its kill comes too late."""
        if len(launcher.pids) == 2 + len(killed):
            gate.touch()

    def kill(finished: int) -> None:
        pid = json.loads(list(ledger.lines.values())[-1])["gymrail"]["metrics"]["pid"]
        if due and finished >= due[0] and gate.exists() and pid not in killed:
            due.pop(0)
            killed.append(pid)
            gate.unlink()
            os.kill(pid, signal.SIGKILL)

    launcher, ledger = WatchedProcesses(started), Ledger(kill)
    setup = Setup([source_of(spec)], NOISY, limits=Limits(call_seconds=600.0))
    summary = play(jobs, setup, launcher, record=ledger.record)
    assert (len(killed), len(launcher.pids)) == (3, 5)
    losses = [record.getMessage() for record in caplog.records if "A worker was lost" in record.getMessage()]
    assert len(losses) == 3
    assert all("killed by SIGKILL" in loss and "and 0 rollouts" not in loss for loss in losses)
    assert ledger.results == asyncio.run(in_process(jobs, NOISY()))
    assert (summary.asked, summary.failed, summary.cancelled) == (300, 0, 0)
    again = [own for line in ledger.lines.values() if (own := json.loads(line)["gymrail"])["attempt"] > 1]
    assert again
    for own in again:
        assert len(own["earlier_failures"]) == own["attempt"] - 1
        assert all("was killed by SIGKILL" in failure["message"] for failure in own["earlier_failures"])


def test_a_task_that_kills_its_worker_every_time_fails_alone(load: Load) -> None:
    spec = load("Deadly")
    jobs = jobs_of(spec, 60, deadly=[10, 35])
    ledger = Ledger()
    summary = play(jobs, Setup([source_of(spec)], partial(build_model, "oracle")), record=ledger.record)
    failed = {key.task_index: line for key, line in ledger.lines.items() if ledger.results[key][0] == "failed"}
    assert sorted(failed) == [10, 35]
    for line in failed.values():
        failure = json.loads(line)["gymrail"]["failure"]
        assert failure["kind"] == "infrastructure"
        assert "3 workers were lost while they played this rollout" in failure["message"]
        assert "SIGSEGV" in failure["message"]
        own = json.loads(line)["gymrail"]
        assert (own["attempt"], [one["kind"] for one in own["earlier_failures"]]) == (3, ["infrastructure"] * 2)
    assert sorted(ledger.results.values(), key=str) == sorted([("failed", None)] * 2 + [("scored", 1.0)] * 58, key=str)
    assert (summary.scored, summary.failed) == (58, 2)


@pytest.mark.slow
def test_a_task_that_never_yields_costs_its_worker_and_fails(
    tmp_path: Path, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool, "_SLACK_SECONDS", 6.0)
    monkeypatch.setattr(pool, "_SETUP_SECONDS", 0.0)
    spec = load("Hanging")
    ledger = Ledger()
    setup = Setup([source_of(spec)], partial(_lively_oracle, tmp_path), limits=Limits(episode_seconds=1.0))
    launcher = _WaitsUntilReady(tmp_path)
    summary = play(jobs_of(spec, 12, deadly=[3]), setup, launcher, record=ledger.record, concurrency=2)
    assert (summary.scored, summary.failed) == (11, 1)
    line = next(line for key, line in ledger.lines.items() if key.task_index == 3)
    assert "no sign of life for 7 s" in json.loads(line)["gymrail"]["failure"]["message"]


def _lively_oracle(folder: Path):
    """An oracle in a worker that gives signs of life so often that a stall of the machine is none of its own."""
    station.HEARTBEAT_SECONDS = 0.5
    (folder / f"ready-{os.getpid()}").touch()
    return build_model("oracle")


class _WaitsUntilReady(Processes):
    """How long a worker takes to start says how busy the machine is: that time is waited for here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    async def start(self, setup: bytes, slots: int) -> ProcessWorker:
        worker = await super().start(setup, slots)
        assert await asyncio.to_thread(wait_until, (self.folder / f"ready-{worker.pid}").exists)
        return worker


def test_jobs_are_taken_only_as_far_as_there_is_room(load: Load) -> None:
    spec = load("Adder", seconds=0.2)
    taken = 0

    def endless():
        nonlocal taken
        task = jobs_of(spec, 1)[0].task
        for index in count():
            taken += 1
            yield Job(spec, task, index)

    drain = Drain()
    ledger = Ledger(lambda finished: drain.request("enough") if finished == 30 else None)
    setup = Setup([source_of(spec)], partial(build_model, "oracle"))
    summary = play(endless(), setup, record=ledger.record, drain=drain, concurrency=10)
    assert taken <= 80
    assert summary.asked == summary.scored == len(ledger.results)
    assert 30 <= summary.scored <= 80


def test_a_drain_finishes_what_is_played_and_gives_the_rest_back(load: Load) -> None:
    spec = load("Adder")  # instant episodes, so that jobs wait at the workers
    drain, asked = Drain(), 0
    jobs = jobs_of(spec, 3000)
    ledger = Ledger(lambda finished: drain.request("enough") if finished == 500 else None)
    summary = play(jobs, Setup([source_of(spec)], NOISY), record=ledger.record, drain=drain, concurrency=16)
    asked = summary.asked
    assert 500 <= asked == summary.finished == len(ledger.results) < 3000
    assert summary.cancelled == 0


def test_a_full_disk_stops_every_worker_with_its_own_error(load: Load) -> None:
    spec = load("Adder", seconds=0.01)
    launcher, summary = WatchedProcesses(), Summary()

    def fill(finished: int) -> None:
        if finished == 25:
            raise JournalError("Cannot write 'rollouts.jsonl': No space left on device.")

    with pytest.raises(JournalError, match="No space left"):
        play(
            jobs_of(spec, 5000), Setup([source_of(spec)], NOISY), launcher,
            record=Ledger(fill).record, summary=summary,
        )  # fmt: skip
    assert not any(is_running(pid) for pid in launcher.pids)
    assert summary.scored == 24
    assert summary.asked == summary.finished


def test_a_cancelled_run_leaves_no_process_and_counts_every_job(load: Load) -> None:
    spec = load("Adder", seconds=600.0)
    launcher, summary = WatchedProcesses(), Summary()

    async def cancel() -> None:
        setup = Setup([source_of(spec)], partial(build_model, "oracle"), limits=Limits(call_seconds=600.0))
        taken = asyncio.Event()

        def jobs():
            for number, job in enumerate(jobs_of(spec, 100), 1):
                if number == 8:
                    taken.set()
                yield job

        run = asyncio.create_task(
            collect_with_workers(jobs(), setup, launcher, workers=2, concurrency=8, summary=summary)
        )
        async with asyncio.timeout(120):
            await taken.wait()
            run.cancel()
            with pytest.raises(asyncio.CancelledError):
                await run

    asyncio.run(cancel())
    assert (summary.asked, summary.cancelled) == (8, 8)
    assert not any(is_running(pid) for pid in launcher.pids)


def test_a_bad_row_ends_the_run_after_what_is_played(load: Load) -> None:
    spec = load("Adder", seconds=0.01)

    def rows():
        yield from jobs_of(spec, 20)
        raise InputError("tasks.jsonl, line 21: no JSON")

    ledger = Ledger()
    with pytest.raises(InputError, match="line 21"):
        play(rows(), Setup([source_of(spec)], partial(build_model, "oracle")), record=ledger.record)
    assert len(ledger.results) == 20


def test_what_a_worker_warns_of_is_logged_by_the_run(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    spec = load("Adder")
    setup = Setup([source_of(spec)], partial(build_model, "script:nowhere.json"))
    with pytest.raises(InputError, match=r"A worker cannot start: Script 'nowhere.json' cannot be read"):
        play(jobs_of(spec, 5), setup)
    setup = Setup([source_of(spec)], _FailsOnce, retry_seconds=0.01)
    summary = play(jobs_of(spec, 4), setup, workers=1)
    assert (summary.scored, summary.retried) == (4, 4)
    assert sum("is played again" in record.getMessage() for record in caplog.records) == 3  # of one kind


class _FailsOnce:
    """An oracle whose first turn of every task fails."""

    def __init__(self) -> None:
        self.oracle = build_model("oracle")
        self.seen: set[int] = set()

    def bind(self, episode):
        from gymrail.errors import ModelError

        if episode.rollout.task_index not in self.seen:
            self.seen.add(episode.rollout.task_index)
            raise ModelError("the endpoint is busy")
        return self.oracle.bind(episode)  # pyright: ignore[reportAttributeAccessIssue]


def test_an_environment_that_changed_since_the_run_began_is_refused(tmp_path, load: Load) -> None:
    spec = load("Adder")
    assert spec.path is not None
    copy = tmp_path / "playground.py"
    copy.write_bytes(spec.path.read_bytes())
    source = source_of(find(f"{copy}:Adder"))
    copy.write_text(copy.read_text(encoding="utf-8") + "\n# edited\n", encoding="utf-8")
    with pytest.raises(InputError, match="playground is another one in the worker"):
        play(jobs_of(spec, 5), Setup([source], partial(build_model, "oracle")))


def test_a_worker_that_dies_at_every_start_ends_the_run(load: Load) -> None:
    spec = load("Adder")
    with pytest.raises(InfrastructureError, match="exited with code 7"):
        play(jobs_of(spec, 5), Setup([source_of(spec)], partial(os._exit, 7)), workers=1)


def test_a_key_is_on_no_command_line_and_in_no_variable_of_a_worker(load: Load) -> None:
    key = "sk-very-secret-key"
    launcher, seen = WatchedProcesses(), []

    def look(finished: int) -> None:
        for name in ("cmdline", "environ"):
            seen.append(Path(f"/proc/{launcher.pids[0]}/{name}").read_bytes())

    spec = load("Adder")
    setup = Setup([source_of(spec)], partial(_oracle_with_key, key))
    play(jobs_of(spec, 2), setup, launcher, record=Ledger(look).record, workers=1)
    assert len(seen) == 4
    assert not any(key.encode() in text for text in seen)


def _oracle_with_key(key: str):
    assert key.startswith("sk-")
    return build_model("oracle")


def test_what_cannot_travel_is_refused_before_anything_starts(load: Load) -> None:
    spec = load("Adder")
    with pytest.raises(InputError, match="cannot be sent to another process"):
        play([], Setup([source_of(spec)], lambda: build_model("oracle")))

    class Local(Environment[Task]):
        """A class of this function."""

    with pytest.raises(InputError, match="no other process can import"):
        source_of(EnvironmentSpec("local", Local))


def test_the_documented_script_plays_with_workers(tmp_path: Path) -> None:
    script = Path(__file__).parents[4] / "docs/examples/workers.py"
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stdout == "400 scored, 0 failed\n", done.stderr
    assert len((tmp_path / "runs/workers/rollouts.jsonl").read_bytes().splitlines()) == 400


def test_the_agent_and_the_limits_travel(load: Load) -> None:
    spec = load("Adder", seconds=5.0)
    ledger = Ledger()
    setup = Setup(
        [source_of(spec)], partial(build_model, "oracle"), partial(ToolLoop, 1), Limits(call_seconds=0.05), retries=0
    )
    play(jobs_of(spec, 3), setup, record=ledger.record)
    assert {json.loads(line)["gymrail"]["failure"]["kind"] for line in ledger.lines.values()} == {"timeout"}
