"""KTO: single answers, each labelled good or bad."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from gymrail.data.export.context import Context, Row
from gymrail.data.export.record import Record
from gymrail.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Kto:
    """Answers with a label, for Kahneman-Tversky optimisation (Ethayarajh et al. 2024)."""

    name: ClassVar[str] = "kto"
    by_task: ClassVar[bool] = False

    threshold: float = 0.5
    """A rollout is good that earned at least this much."""
    completion: Literal["turn", "rest"] = "turn"
    """`turn`: the last answer, after a prompt of all before it. `rest`: all after the task's prompt, which trains on
    the tools' words too, because TRL's trainer does not mask them."""

    def __post_init__(self) -> None:
        if self.completion not in ("turn", "rest"):
            raise InputError(f"completion is {self.completion!r}. {did_you_mean(self.completion, ('turn', 'rest'))}")

    @property
    def columns(self) -> tuple[str, ...]:
        return ("prompt", "completion")

    def rows(self, records: Sequence[Record], context: Context) -> Iterator[Row]:
        """Yield one rollout's row."""
        for record in records:
            messages, answers = context.messages(record), context.answers(record)
            if not answers:
                context.removed["the model never spoke"] += 1
                continue
            cut, end = (answers[-1], answers[-1] + 1) if self.completion == "turn" else (record.prompt_length, None)
            yield {
                "prompt": messages[:cut],
                "completion": messages[cut:end],
                "label": record.earned >= self.threshold,
                "tools": context.tools(record),
                "lineage": context.lineage(record),
            }


def balanced_weights(desirable: int, undesirable: int) -> dict[str, float]:
    """Return weights with which the good and the bad answers count for the same; the rarer side's is above 1.

    The paper asks for (weight x count) of the good side to be 1 to 4/3 times that of the bad one.
    """
    if not desirable or not undesirable:
        return {"desirable_weight": 1.0, "undesirable_weight": 1.0}
    more = max(desirable, undesirable)
    return {"desirable_weight": more / desirable, "undesirable_weight": more / undesirable}
