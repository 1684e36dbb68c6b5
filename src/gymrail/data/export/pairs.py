"""DPO: pairs of a better and a worse continuation of one conversation."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from statistics import fmean
from typing import ClassVar, Literal, NamedTuple

from gymrail.data.export.context import Context, Row
from gymrail.data.export.conversation import fingerprint, shared_length
from gymrail.data.export.record import Record
from gymrail.errors import InputError, did_you_mean

RULES = ("best-worst", "all", "threshold", "step")
_CHOICES = {
    "rule": RULES,
    "ties": ("drop", "shorter"),
    "completion": ("turn", "rest"),
    "malformed_calls": ("drop", "keep"),
}


class Pair(NamedTuple):
    """Two rollouts of one task, and how much more the first is worth."""

    good: Record
    bad: Record
    gap: float
    cut: int | None
    """The message in which they part."""


@dataclass(frozen=True)
class Dpo:
    """Preference pairs within a task. A rollout that was not judged stands on neither side."""

    name: ClassVar[str] = "dpo"
    by_task: ClassVar[bool] = True

    rule: Literal["best-worst", "all", "threshold", "step"] = "best-worst"
    """`best-worst`: the best rollout against the worst. `all`: every two whose rewards differ. `threshold`: those at or
    above it against those below, each once, the best with the worst. `step`: wherever rollouts that were equal so far
    part, the answer whose rollouts earned most on average against the one whose earned least."""
    margin: float = 0.0
    """The rewards must differ by at least this much, and by more than nothing."""
    threshold: float = 0.5
    """For the rule `threshold`."""
    ties: Literal["drop", "shorter"] = "drop"
    """Where all of a task's rollouts earned the same: no pair, or the shortest against the longest."""
    max_length_ratio: float | None = None
    """The longer rollout has at most so many times the characters of the shorter, as the model wrote them."""
    max_pairs: int | None = None
    """Pairs per task; those that differ most come first."""
    completion: Literal["turn", "rest"] = "turn"
    """`turn`: the answers in which the two part. `rest`: all that came from there, which trains on the tools' words too
    where the trainer cannot mask them, as TRL's cannot."""
    with_margin: bool = False
    """Add the column `margin`."""
    malformed_calls: Literal["drop", "keep"] = "drop"
    """Rollouts in which the model wrote a tool call whose arguments are no JSON object. A chat template renders those
    otherwise than they were sampled, so a pair with one teaches about a text that the model never says."""

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if getattr(self, name) not in allowed:
                raise InputError(f"{name} is {getattr(self, name)!r}. {did_you_mean(getattr(self, name), allowed)}")
        if self.rule != "threshold" and self.threshold != Dpo.threshold:
            raise InputError(
                f"threshold is {self.threshold!r}, and rule is {self.rule!r}; it goes with rule='threshold'."
            )
        if not 0 <= self.margin < math.inf:
            raise InputError(f"margin is {self.margin!r}; it must be at least 0.")
        if self.ties == "shorter" and (self.margin > 0 or self.rule == "step"):
            raise InputError(
                "ties='shorter' pairs rollouts of equal reward; it goes with margin=0 and not with the rule 'step'."
            )
        if self.max_length_ratio is not None and not self.max_length_ratio >= 1:
            raise InputError(f"max_length_ratio is {self.max_length_ratio!r}; it must be at least 1.")
        if self.max_pairs is not None and self.max_pairs < 1:
            raise InputError(f"max_pairs is {self.max_pairs!r}; it must be at least 1.")

    @property
    def columns(self) -> tuple[str, ...]:
        return ("prompt", "chosen", "rejected")

    def rows(self, records: Sequence[Record], context: Context) -> Iterator[Row]:
        """Yield the pairs of one task's rollouts."""
        if self.malformed_calls == "drop":
            wellformed = [record for record in records if not record.has_malformed_calls]
            if len(wellformed) < len(records):
                context.removed["rollouts whose tool calls are not JSON"] += len(records) - len(wellformed)
            records = wellformed
        if len(records) < 2:
            context.removed["tasks with one rollout"] += 1
            return
        made = 0
        found = list(self._steps(records, context) if self.rule == "step" else self._rollouts(records, context))
        for pair in sorted(found, key=lambda pair: -pair.gap):
            row = self._row(pair, context)
            if row is None:
                continue
            if made == self.max_pairs:
                context.removed[f"pairs over {self.max_pairs} of their task"] += 1
                continue
            made += 1
            yield row

    def _rollouts(self, records: Sequence[Record], context: Context) -> Iterator[Pair]:
        ranked = sorted(records, key=lambda record: -record.earned)
        best, worst = ranked[0], next(record for record in ranked if record.earned == ranked[-1].earned)
        if best.earned == worst.earned:
            if self.ties == "drop":
                context.removed["tasks whose rollouts all earned the same"] += 1
                return
            ranked = sorted(records, key=lambda record: record.size)
            candidates = [(ranked[0], ranked[-1])]
        elif self.rule == "best-worst":
            candidates = [(best, worst)]
        elif self.rule == "all":
            candidates = [(good, bad) for good, bad in combinations(ranked, 2) if good.earned > bad.earned]
        else:
            above = [record for record in ranked if record.earned >= self.threshold]
            below = [record for record in reversed(ranked) if record.earned < self.threshold]
            if not above or not below:
                context.removed[f"tasks with no rollout {'below' if above else 'at or above'} {self.threshold:g}"] += 1
            candidates = list(zip(above, below, strict=False))
        for good, bad in candidates:
            yield Pair(good, bad, good.earned - bad.earned, None)

    def _steps(self, records: Sequence[Record], context: Context) -> Iterator[Pair]:
        """Where rollouts that were equal so far part at an answer: a rollout of the best answer, one of the worst."""
        waiting = [(list(records), 0)]
        parted = False
        while waiting:
            members, depth = waiting.pop()
            branches: dict[bytes, list[Record]] = defaultdict(list)
            for record in members:
                messages = context.messages(record)
                if depth < len(messages):
                    branches[fingerprint(messages[depth])].append(record)
            waiting += [(branch, depth + 1) for branch in branches.values() if len(branch) > 1]
            answers = [
                branch for branch in branches.values() if context.messages(branch[0])[depth]["role"] == "assistant"
            ]
            if len(answers) < 2:
                continue
            parted = True
            worth = {id(branch): fmean(record.earned for record in branch) for branch in answers}
            best = max(answers, key=lambda branch: worth[id(branch)])
            worst = min(answers, key=lambda branch: worth[id(branch)])
            good = max(best, key=lambda record: record.earned)
            bad = min(worst, key=lambda record: record.earned)
            yield Pair(good, bad, worth[id(best)] - worth[id(worst)], depth)
        if not parted:
            context.removed["tasks whose rollouts never part at an answer"] += 1

    def _row(self, pair: Pair, context: Context) -> Row | None:
        if pair.gap < self.margin or (pair.gap <= 0 and self.ties == "drop"):
            what = f"margin below {self.margin:g}" if self.margin else "equal worth"
            context.removed[f"pairs: {what}"] += 1
            return None
        sizes = sorted((pair.good.size, pair.bad.size))
        if self.max_length_ratio is not None and sizes[1] > self.max_length_ratio * sizes[0]:
            context.removed[f"pairs: one side over {self.max_length_ratio:g} times as long"] += 1
            return None
        good, bad = context.messages(pair.good), context.messages(pair.bad)
        cut = shared_length(good, bad) if pair.cut is None else pair.cut
        end = None if self.completion == "rest" or cut is None else cut + 1
        if cut is None or (end is not None and fingerprint(good[cut]) == fingerprint(bad[cut])):
            context.removed["pairs: the answers do not differ"] += 1
            return None
        row = {
            "prompt": good[:cut],
            "chosen": good[cut:end],
            "rejected": bad[cut:end],
            "tools": context.tools(pair.good),
            "lineage": {"chosen": context.lineage(pair.good), "rejected": context.lineage(pair.bad)},
        }
        return {**row, "margin": float(pair.gap)} if self.with_margin else row
