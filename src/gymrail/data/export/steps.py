"""PRM: the steps of a rollout, each labelled good or bad."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from gymrail.data.export.context import Context, Row
from gymrail.data.export.conversation import fingerprint
from gymrail.data.export.record import Record
from gymrail.data.export.text import as_text, with_tools
from gymrail.errors import InputError, did_you_mean

SOURCES = ("siblings", "rewards")


@dataclass(frozen=True)
class Prm:
    """Steps with labels, in TRL's stepwise format. A step is an answer of the model, with its tool calls; what tools
    and users said before it stands at its beginning."""

    name: ClassVar[str] = "prm"
    by_task: ClassVar[bool] = True

    labels: Literal["siblings", "rewards"] = "siblings"
    """`siblings`: a step is good if at least one of the task's rollouts that are equal up to and with it succeeded, as
    in the hard estimation of Math-Shepherd (Wang et al. 2024). `rewards`: its step reward reaches the threshold."""
    threshold: float = 0.5
    """A rollout succeeded that earned at least this much; a step reward of this much is good."""
    min_siblings: int = 1
    """Rollouts that must share a step for its label to count; a rollout ends before the first step with fewer."""

    def __post_init__(self) -> None:
        if self.labels not in SOURCES:
            raise InputError(f"labels is {self.labels!r}. {did_you_mean(self.labels, SOURCES)}")
        if self.min_siblings < 1:
            raise InputError(f"min_siblings is {self.min_siblings!r}; it must be at least 1.")
        if self.labels == "rewards" and self.min_siblings > 1:
            raise InputError(f"min_siblings is {self.min_siblings!r}; it goes with labels='siblings'.")

    @property
    def columns(self) -> tuple[str, ...]:
        return ()

    def rows(self, records: Sequence[Record], context: Context) -> Iterator[Row]:
        """Yield a row for each of one task's rollouts."""
        prefixes = [self._prefixes(record, context) for record in records] if self.labels == "siblings" else []
        reached: dict[bytes, list[bool]] = {}
        for record, mine in zip(records, prefixes, strict=False):
            for prefix in mine:
                reached.setdefault(prefix, []).append(record.earned >= self.threshold)
        for number, record in enumerate(records):
            if self.labels == "siblings":
                shared = [reached[prefix] for prefix in prefixes[number]]
                values = [sum(succeeded) / len(succeeded) for succeeded in shared]
                known = next((i for i, s in enumerate(shared) if len(s) < self.min_siblings), len(shared))
                labels = [value > 0 for value in values]
            else:
                values = self._step_rewards(record, context)
                known = len(values)
                labels = [value >= self.threshold for value in values]
            if known == 0:
                context.removed["rollouts without a step that has a label"] += 1
                continue
            yield self._row(record, context, labels[:known], values[:known])

    def _row(self, record: Record, context: Context, labels: list[bool], values: list[float]) -> Row:
        messages, answers = context.messages(record), context.answers(record)
        start = answers[0]
        completions = []
        for place in answers[: len(labels)]:
            completions.append(as_text(messages[start : place + 1]))
            start = place + 1
        return {
            "prompt": as_text(with_tools(messages[: answers[0]], context.tools(record))),
            "completions": completions,
            "labels": labels,
            "values": values,
            "lineage": context.lineage(record),
        }

    def _prefixes(self, record: Record, context: Context) -> list[bytes]:
        """For each answer, a hash of the conversation up to and with it."""
        digest = hashlib.blake2b(digest_size=16)
        answers, found = set(context.answers(record)), []
        for place, message in enumerate(context.messages(record)):
            digest.update(fingerprint(message) + b"\n")
            if place in answers:
                found.append(digest.digest())
        return found

    def _step_rewards(self, record: Record, context: Context) -> list[float]:
        rewards = record.own.get("step_rewards") or []
        answers = context.answers(record)
        if len(rewards) != len(answers):
            # An environment may reward the answer to a whole turn of several calls, so which step earned it is unknown.
            context.removed[f"rollouts with {'no' if not rewards else 'other than one'} step reward per step"] += 1
            return []
        return [float(reward) for reward in rewards]
