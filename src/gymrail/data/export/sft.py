"""SFT: whole conversations, single answers, or token ids exactly as sampled."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from gymrail.data.export.context import Context, Row
from gymrail.data.export.record import Record
from gymrail.errors import InputError, did_you_mean


@dataclass(frozen=True)
class Sft:
    """Supervised training on what the model said."""

    name: ClassVar[str] = "sft"
    by_task: ClassVar[bool] = False

    per: Literal["rollout", "step"] = "rollout"
    """`rollout`: one conversation as `messages`. `step`: one row per answer, as `completion`, after a `prompt` of
    everything before it."""
    tokens: bool = False
    """`input_ids` and `labels` instead: exactly the sampled tokens are trained on, all others have the label -100. A
    rollout whose history was rewritten gives one row per stretch that was sampled in one piece; with `step`, each model
    call is a row, after the very tokens that it was prompted with."""

    def __post_init__(self) -> None:
        if self.per not in ("rollout", "step"):
            raise InputError(f"per is {self.per!r}. {did_you_mean(self.per, ('rollout', 'step'))}")

    @property
    def columns(self) -> tuple[str, ...]:
        if self.tokens:
            return ()
        return ("messages",) if self.per == "rollout" else ("prompt", "completion")

    def rows(self, records: Sequence[Record], context: Context) -> Iterator[Row]:
        """Yield one rollout's rows.

        Raises:
            TokenError: token rows are asked for and the rollout carries none.
        """
        for record in records:
            lineage = context.lineage(record)
            if self.tokens:
                yield from self._token_rows(record, lineage)
                continue
            if not context.keep_reasoning and not context.answers(record):  # its reasoning was all it said
                context.removed["the model never spoke"] += 1
                continue
            messages, tools = context.messages(record), context.tools(record)
            if self.per == "rollout":
                yield {"messages": messages, "tools": tools, "lineage": lineage}
                continue
            for step, place in enumerate(context.answers(record)):
                yield {
                    "prompt": messages[:place],
                    "completion": messages[place : place + 1],
                    "tools": tools,
                    "lineage": {**lineage, "step": step},
                }

    def _token_rows(self, record: Record, lineage: Row) -> Iterator[Row]:
        if self.per == "rollout":
            for chain in record.chains():
                yield {"input_ids": chain.input_ids, "labels": chain.labels, "lineage": lineage}
            return
        for step, call in enumerate(record.calls()):
            yield {"input_ids": call.input_ids, "labels": call.labels, "lineage": {**lineage, "step": step}}
