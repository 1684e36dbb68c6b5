"""Runs with workers, and what they are compared with."""

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from gymrail.collect.executors.processes import Processes, ProcessWorker
from gymrail.collect.finished import Finished, finished_of
from gymrail.collect.journal import Key
from gymrail.collect.runner import Job, collect
from gymrail.models.model import EpisodePolicy, Model
from gymrail.registry import find
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec

PLAYGROUND = Path(__file__).parent / "playground.py"

Results = dict[Key, tuple[str, float | None]]
"""Outcome and reward by key."""


class WatchedProcesses(Processes):
    """Remembers the processes that it started; calls `after` once each is."""

    def __init__(self, after: Callable[[], None] = lambda: None) -> None:
        self.pids: list[int] = []
        self.after = after

    async def start(self, setup: bytes, slots: int) -> ProcessWorker:
        worker = await super().start(setup, slots)
        self.pids.append(worker.pid)
        self.after()
        return worker


class Ledger:
    """What a run recorded; a key that comes twice is an error."""

    def __init__(self, after: Callable[[int], None] = lambda count: None) -> None:
        self.results: Results = {}
        self.lines: dict[Key, bytes] = {}
        self.after = after

    def record(self, line: bytes, finished: Finished) -> None:
        assert finished.key not in self.results
        assert line.endswith(b"\n")
        self.results[finished.key] = (finished.status, finished.reward)
        self.lines[finished.key] = line
        self.after(len(self.results))

    def record_rollout(self, rollout: Rollout) -> None:
        self.record(b"\n", finished_of(rollout))


@pytest.fixture
def load() -> Callable[..., EnvironmentSpec]:
    def load(name: str, **settings: Any) -> EnvironmentSpec:
        spec = find(f"{PLAYGROUND}:{name}")
        return spec.with_config(settings) if settings else spec

    return load


def jobs_of(
    spec: EnvironmentSpec, tasks: int, repeats: int = 1, deadly: Iterable[int] = (), seed: int = 1
) -> list[Job]:
    """Return jobs, the tasks at the places `deadly` marked so."""
    jobs = []
    for index, task in enumerate(spec.tasks("train", limit=tasks, seed=seed)):
        marked = task.model_copy(update={"deadly": True}) if index in set(deadly) else task
        jobs += [Job(spec, marked, index, repeat) for repeat in range(repeats)]
    return jobs


async def in_process(jobs: Iterable[Job], model: Model | EpisodePolicy) -> Results:
    """Play without workers."""
    ledger = Ledger()
    await collect(jobs, model, record=ledger.record_rollout)
    return ledger.results


def is_running(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until(condition: Callable[[], bool], seconds: float = 120.0) -> bool:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        time.sleep(0.02)
    return condition()
