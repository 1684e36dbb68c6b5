"""Holds a disturbed run against an undisturbed one: each (task, repeat) once, failures as failures, no other reward."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, NamedTuple

import orjson

from gymrail.collect.journal import Key, key_of
from gymrail.collect.run_directory import RunDirectory
from gymrail.rollout import Rollout
from tests.chaos.environment import number_of, story_of

PASSING = frozenset(
    {
        ("model", "model"),
        ("timeout", "model"),
        ("timeout", "tool"),
        ("infrastructure", "tool"),
        ("infrastructure", "seed"),
        ("tool", "tool"),
    }
)
"""Kind and stage of what the chaos does to a rollout: a model or a tool that broke, hung or was lost, and an episode
whose worker was lost again and again."""
_SHOWN = 5


FAILS_ALWAYS: dict[str, tuple[str, str]] = {
    "crashes": ("tool", "tool"),
    "hangs": ("timeout", "tool"),
    "unjudged": ("verifier", "verify"),
}
"""What becomes of tasks with such a fate, also in peace."""


class Ended(NamedTuple):
    """How a rollout ended, and what was said in it."""

    status: str
    reward: float | None
    failure: tuple[str, str] | None = None
    """Kind and stage."""
    story: int = 0
    """A number that changes with every word, argument and output."""
    fate: str = "sound"
    """Of the task."""


@dataclass
class Recorded:
    """What a run directory says."""

    final: dict[Key, Ended] = field(default_factory=dict)
    finals: Counter[Key] = field(default_factory=Counter)
    """How often each key stands among the final records."""
    lines: Counter[Key] = field(default_factory=Counter)
    """How often each key stands in the file of those that were scored or truncated."""
    tasks: Counter[bytes] = field(default_factory=Counter)
    """The lines of the file of tasks."""

    def add(self, key: Key, ended: Ended) -> None:
        """Take one final record."""
        self.final[key] = ended
        self.finals[key] += 1

    @property
    def statuses(self) -> Counter[str]:
        return Counter(ended.status for ended in self.final.values())

    @property
    def failures(self) -> Counter[tuple[str, str]]:
        return Counter(ended.failure for ended in self.final.values() if ended.failure is not None)


def read(path: Path) -> Recorded:
    """Read a run directory as everybody does, by `RunDirectory`; and count its lines without it."""
    recorded = Recorded()
    for rollout in RunDirectory.open(path).rollouts():
        recorded.add(key_of(rollout), ended_of(rollout))
    recorded.lines.update(map(_key_of_line, _lines(path, "rollouts")))
    recorded.tasks.update(_lines(path, "tasks"))
    return recorded


def ended_of(rollout: Rollout) -> Ended:
    """Return what must not depend on what was killed meanwhile."""
    assert rollout.outcome is not None
    failure = (rollout.failure.kind, rollout.failure.stage) if rollout.failure is not None else None
    fate = rollout.task.row["fate"]
    return Ended(rollout.outcome.status, rollout.reward, failure, number_of(*story_of(rollout)), fate)


def problems_undisturbed(recorded: Recorded, asked: int) -> list[str]:
    """Say what is wrong with a run that nothing disturbed: it must hold what was asked for, and fail where it must."""
    found = [] if recorded.finals.total() == asked else [f"{recorded.finals.total()} rollouts of {asked} have a record"]
    wrong = [
        key
        for key, ended in recorded.final.items()
        if ended.failure != FAILS_ALWAYS.get(ended.fate) or (ended.status == "scored") != (ended.fate == "sound")
    ]
    return [*found, *_about("undisturbed, and did not end as the task must", wrong)]


def problems(undisturbed: Recorded, disturbed: Recorded, *, is_clean: bool) -> list[str]:
    """Say in sentences what is wrong with the disturbed run; empty where nothing is.

    Args:
        is_clean: its last resume met no faults, so that nothing may have failed but what fails undisturbed too.
    """
    asked = undisturbed.final.keys()
    found = [
        *_about("has no final record", (key for key in asked if key not in disturbed.final)),
        *_about("was never asked for", (key for key in disturbed.final if key not in asked)),
        *_about("has more than one final record", (key for key, times in disturbed.finals.items() if times > 1)),
        *_about("was written twice", (key for key, times in disturbed.lines.items() if times > 1)),
    ]
    if disturbed.tasks != undisturbed.tasks:
        wrong, missing = disturbed.tasks - undisturbed.tasks, undisturbed.tasks - disturbed.tasks
        found.append(
            f"tasks.jsonl has {disturbed.tasks.total()} lines, {wrong.total()} of them wrong, "
            f"and {missing.total()} are missing"
        )
    counts = disturbed.statuses
    if sum(counts.values()) != counts["scored"] + counts["truncated"] + counts["failed"]:
        found.append(f"asked is not scored + truncated + failed: {dict(counts)}")
    different: dict[str, list[Key]] = {}
    for key in asked & disturbed.final.keys():
        sentence = _difference(undisturbed.final[key], disturbed.final[key], is_clean)
        if sentence is not None:
            different.setdefault(sentence, []).append(key)
    return found + [sentence for what, keys in different.items() for sentence in _about(what, keys)]


def _difference(before: Ended, now: Ended, is_clean: bool) -> str | None:
    if now.status == "failed":
        if now.reward is not None:
            return "failed and has a reward"
        if now.failure == before.failure or (not is_clean and now.failure in PASSING):
            return None
        return f"failed with {now.failure}, and undisturbed it is {before.failure or before.status}"
    if before.status == "failed":
        return f"is {now.status}, and undisturbed it failed with {before.failure}"
    if now.status != before.status:
        return f"is {now.status}, and undisturbed it is {before.status}"
    if now.reward != before.reward:
        return "has another reward than undisturbed"
    return None if now.story == before.story else "has another conversation than undisturbed"


def _lines(run: Path, name: str) -> Iterator[bytes]:
    for file in run.glob(f"{name}.jsonl*"):
        if file.suffix in (".jsonl", ".zst"):
            with file.open("rb") as content:
                yield from content if file.suffix == ".jsonl" else _decompressed(content)


def _key_of_line(line: bytes) -> Key:
    row = orjson.loads(line)
    own = row["gymrail"]
    return Key(own["environment"], row["_ng_task_index"], own["task_id"], row["_ng_rollout_index"])


def _decompressed(file: IO[bytes]) -> IO[bytes]:
    import zstandard

    return io.BufferedReader(zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True))


def _about(what: str, keys: Iterable[Key]) -> list[str]:
    named = sorted(keys)
    if not named:
        return []
    shown = ", ".join(f"task {key.task_index} repeat {key.repeat}" for key in named[:_SHOWN])
    return [f"{len(named)} rollouts: {what} ({shown}{', ...' if len(named) > _SHOWN else ''})"]


def kinds(counts: Mapping[tuple[str, str], int]) -> str:
    """Write failures for the table."""
    return ", ".join(f"{times} {kind} at {stage}" for (kind, stage), times in sorted(counts.items())) or "none"
