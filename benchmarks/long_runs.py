"""What a long run costs: how soon one of a million rollouts goes on, and what collecting keeps in memory.

Both play `noting` with the oracle by the command line, as a process of its own whose memory is read from /proc.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple, Self

import orjson
from figures import Figure

from gymrail.collect.finished import finished_of_row
from gymrail.collect.journal import encode
from gymrail.collect.plan import JobPlan, Source
from gymrail.collect.run_directory import RunDirectory
from gymrail.models.scripted import Oracle
from gymrail.play import play
from gymrail.registry import find

HERE = Path(__file__).resolve().parent
NOTING = HERE / "noting.py"
_POLL_SECONDS = 0.02
_SAMPLE_SECONDS = 0.25
_LIMIT_SECONDS = 1800.0
_MEGABYTE = 1_000_000
_USER_TIME, _SYSTEM_TIME = 11, 12
"""Places in /proc/PID/stat, counted from behind the name."""


class Sample(NamedTuple):
    """A look at a running collection."""

    rollouts: int
    resident_bytes: int


class Collection:
    """`gymrail rollout` of `noting`, as a process; leaving the block kills it."""

    def __init__(self, run: Path, options: Sequence[str]) -> None:
        self.started = time.monotonic()
        command = [sys.executable, "-m", "gymrail", "rollout", str(NOTING), "--model", "oracle", "--run", str(run)]
        self._process = subprocess.Popen(
            [*command, *options], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )
        os.set_blocking(_stream(self._process).fileno(), False)
        self._said = b""
        self._rows = Rows(run / "rollouts.jsonl")

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self.started

    @property
    def cpu_seconds(self) -> float:
        """Of its process so far; other work on the machine does not add to it."""
        fields = Path(f"/proc/{self._process.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME])) / os.sysconf("SC_CLK_TCK")

    def sample(self, field: str = "VmRSS") -> Sample | None:
        """Count its rows and read its memory (`VmRSS`, or `VmHWM` for the peak); None once it has ended."""
        self._said = (self._said + (_stream(self._process).read() or b""))[-4000:]
        if self.seconds > _LIMIT_SECONDS:
            raise SystemExit(f"A collection took longer than {_LIMIT_SECONDS:g} s: {self._words}")
        code = self._process.poll()
        if code not in (None, 0):
            raise SystemExit(f"A collection ended with exit code {code}: {self._words}")
        resident = _memory(self._process.pid, field)
        return None if code == 0 or resident is None else Sample(self._rows.count(), resident)

    @property
    def _words(self) -> str:
        return self._said.decode("utf-8", "replace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._process.kill()
        self._process.wait()
        _stream(self._process).close()


class Rows:
    """Counts the lines of a growing file; each byte is read once."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: IO[bytes] | None = None
        self._lines = 0
        if path.exists():  # what an earlier run has written is not counted
            self._file = path.open("rb")
            self._file.seek(0, os.SEEK_END)

    def count(self) -> int:
        if self._file is None:
            if not self._path.exists():
                return 0
            self._file = self._path.open("rb")
        while chunk := self._file.read(1 << 20):
            self._lines += chunk.count(b"\n")
        return self._lines


def resuming(folder: Path, rollouts: int, repeats: int) -> Iterator[Figure]:
    """How long a run of so many rollouts takes until it plays the next one, and its peak of memory until then."""
    run = folder / f"resumed-{repeats}"
    row_bytes = write_run(run, rollouts, repeats)
    options = ["--tasks", str(rollouts // repeats + 1000), "--repeats", str(repeats), "--resume"]
    with Collection(run, options) as collection:
        while (sample := collection.sample("VmHWM")) is not None and sample.rollouts == 0:
            time.sleep(_POLL_SECONDS)
        if sample is None:
            raise SystemExit("The resumed run ended without a new rollout.")
        seconds, cpu_seconds = collection.seconds, collection.cpu_seconds
    _remove(run)
    is_whole = rollouts >= 1_000_000
    name = f"resume {rollouts:,} rollouts, {repeats} a task"
    note = f"until the first new rollout is on disk; rows of {row_bytes} bytes"
    yield Figure(name, seconds, "s", 20.0 if is_whole else None, at_most=True, note=note)
    yield Figure(name, cpu_seconds, "CPU s", note="of them")
    peak = sample.resident_bytes / _MEGABYTE
    yield Figure(name, peak, "MB peak", 1000.0 if is_whole else None, at_most=True, note="resident, until then")


def write_run(run: Path, rollouts: int, repeats: int) -> int:
    """Write a finished run: one real rollout, with the tasks and the keys of all. Returns the bytes of a row."""
    spec = find(str(NOTING))
    rollout = asyncio.run(play(spec, spec.generate("train", 0), Oracle()))
    row: dict[str, Any] = orjson.loads(encode(rollout))
    datasets = JobPlan([Source(spec, "train", rollouts)]).datasets  # as the command line writes them down
    with RunDirectory.create(run, {"model": "oracle"}, environments=[spec], datasets=datasets) as folder:
        for index in range(rollouts // repeats):
            task = spec.generate("train", index)
            row |= task.row
            row["_ng_task_index"] = index
            row["gymrail"]["task_id"] = task.id
            for repeat in range(repeats):
                row["_ng_rollout_index"] = repeat
                row["gymrail"]["id"] = f"{index:024x}{repeat:08x}"
                folder.record_line(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE), finished_of_row(row))
    return (run / "rollouts.jsonl").stat().st_size // (rollouts // repeats * repeats)


def collecting(folder: Path, rollouts: int, settled: int) -> Iterator[Figure]:
    """What memory grows by per rollout, once so many are `settled` that every buffer and cache is full."""
    run = folder / "collected"
    samples: list[Sample] = []
    seconds = 0.0
    with Collection(run, ["--tasks", str(rollouts)]) as collection:
        while (sample := collection.sample()) is not None and sample.rollouts < rollouts:
            if sample.rollouts >= settled:
                samples.append(sample)
                seconds = collection.seconds
            time.sleep(_SAMPLE_SECONDS)
    _remove(run)
    if len(samples) < 2:
        raise SystemExit(f"{rollouts} rollouts were collected too fast to look at their memory.")
    slope, _ = statistics.linear_regression(
        [sample.rollouts for sample in samples], [sample.resident_bytes for sample in samples]
    )
    name = f"collect {rollouts:,} rollouts"
    note = f"from rollout {samples[0].rollouts:,} to {samples[-1].rollouts:,}"
    yield Figure(name, slope, "bytes/rollout", 50.0 if rollouts >= 200_000 else None, at_most=True, note=note)
    peak = max(sample.resident_bytes for sample in samples) / _MEGABYTE
    yield Figure(name, peak, "MB", note="resident, the most")
    yield Figure(name, samples[-1].rollouts / seconds, "rollouts/s", note="with the oracle, journal on, in one process")


def _memory(pid: int, field: str) -> int | None:
    try:
        status = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    except (FileNotFoundError, ProcessLookupError):
        return None
    for line in status.splitlines():
        if line.startswith(f"{field}:"):
            return 1024 * int(line.split()[1])
    return None  # a zombie has no memory


def _stream(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stderr is not None
    return process.stderr


def _remove(run: Path) -> None:
    for file in run.iterdir():
        file.unlink()
    run.rmdir()
