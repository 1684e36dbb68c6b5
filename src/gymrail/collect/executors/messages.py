"""What the run's process and its workers say to each other. Both are ours and of one version, so it is pickled."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from gymrail.collect.finished import Finished
from gymrail.models.pace import Load

Command = Literal["drain", "stop", "cancel"]
"""drain: give back what is not being played yet. stop: finish what is being played, close, end. cancel: close, end."""


class Assignment(NamedTuple):
    """A job on its way to a worker. The row is one object for all repeats of a task, so a message has it once."""

    number: int
    environment: str
    row: dict[str, Any]
    task_index: int
    repeat: int
    lost: tuple[str, ...] = ()
    """Of each worker that was lost while it had the job, why."""


class Result(NamedTuple):
    """A rollout on its way back, encoded already."""

    number: int
    line: bytes
    finished: Finished


class Note(NamedTuple):
    """A warning that the worker logged."""

    logger: str
    level: int
    text: str
    arguments: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Orders:
    """From the run's process."""

    jobs: list[Assignment] = field(default_factory=list)
    command: Command | None = None

    def pack(self) -> bytes:
        return pickle.dumps(self, pickle.HIGHEST_PROTOCOL)


@dataclass(slots=True)
class Report:
    """From a worker. One without news says that it lives."""

    is_ready: bool = False
    """It has built what it plays with; said once."""
    problem: str | None = None
    """Why it cannot play at all."""
    results: list[Result] = field(default_factory=list)
    returned: list[int] = field(default_factory=list)
    """Numbers of jobs that it gives back unplayed."""
    retried: int = 0
    notes: list[Note] = field(default_factory=list)
    loads: dict[str, Load] = field(default_factory=dict)
    """How busy it keeps its model's endpoints, by address."""
    is_closed: bool = False
    """Its last one."""

    def pack(self) -> bytes:
        return pickle.dumps(self, pickle.HIGHEST_PROTOCOL)


def unpack_orders(message: bytes) -> Orders:
    """Read what `Orders.pack` wrote."""
    return pickle.loads(message)


def unpack_report(message: bytes) -> Report:
    """Read what `Report.pack` wrote."""
    return pickle.loads(message)
