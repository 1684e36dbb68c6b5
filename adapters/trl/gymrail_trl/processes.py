"""One run in several processes, one per GPU: which of them this is, what only the first does, and how the others wait.

`accelerate launch`, `torch.distributed.run` and `gymrail train --processes N` (`launch`) say by environment variables
who a process is. Each plays its share of the episodes. The first one writes the run directory; the others journal to
`<run>/processes/<rank>/`, runs of their own, which the first takes over once a stage is over. So a rollout is durable
before it is counted, whichever process dies; all of them must see one file system.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gymrail.collect.finished import finished_of_row
from gymrail.collect.journal import encode_row, read_rows
from gymrail.collect.run_directory import FAILURES, ROLLOUTS, RunDirectory
from gymrail.spec import EnvironmentSpec

PARTS = "processes"


def count() -> int:
    """How many processes the run has."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def rank() -> int:
    """Which of them this is, from 0."""
    return int(os.environ.get("RANK", "0"))


def is_first() -> bool:
    """Whether this one writes and reports."""
    return rank() == 0


def is_first_here() -> bool:
    """Whether this one is the first of its machine: it says what is wrong there, once."""
    return int(os.environ.get("LOCAL_RANK", "0")) == 0


def wait() -> None:
    """Go on once every process is here; the trainer's configuration must have been built before."""
    if count() > 1:
        from accelerate import PartialState

        PartialState().wait_for_everyone()


def open_run(path: Path, config: Mapping[str, Any], specs: Sequence[EnvironmentSpec], *, resume: bool) -> RunDirectory:
    """Open the run's directory in the first process, and a part of it in the others.

    Raises:
        InputError: it holds a run and `resume` is not set.
    """
    own = path if is_first() else path / PARTS / str(rank())
    # A part says nothing about whether the run existed: the first process does.
    return RunDirectory.create(own, config, environments=specs, resume=resume or not is_first())


def take_over(run: RunDirectory) -> int:
    """Have the first process take what the others journalled into its own files, and wait for that.

    What it has of a part already, because it was stopped in the middle, it does not take again.

    Returns:
        How many rollouts it took; 0 in the other processes.
    """
    if count() == 1:
        return 0
    wait()
    taken = 0
    if is_first():
        for part in sorted((run.path / PARTS).glob("*"), key=lambda part: int(part.name)):
            taken += _take(run, part)
            shutil.rmtree(part)
        shutil.rmtree(run.path / PARTS, ignore_errors=True)
    wait()
    return taken


def _take(run: RunDirectory, part: Path) -> int:
    files = (ROLLOUTS, FAILURES)
    known = {_episode_of(row) for name in files for row in _rows(run.path / name)}
    new = [row for name in files for row in _rows(part / name) if _episode_of(row) not in known]
    for row in new:
        run.record_line(encode_row(row), finished_of_row(row))
    return len(new)


def _rows(file: Path) -> Iterator[dict[str, Any]]:
    return read_rows(file) if file.is_file() else iter(())


def _episode_of(row: Mapping[str, Any]) -> str:
    return row["gymrail"]["id"]
