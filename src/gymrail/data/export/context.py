"""What the makers of training rows share: how a rollout is written as messages, where it came from, what is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Protocol

from gymrail.data.export.conversation import conversation
from gymrail.data.export.record import Record
from gymrail.data.export.sources import Environments, Source
from gymrail.messages import Message
from gymrail.spec import EnvironmentSpec

Row = dict[str, Any]


class Kind(Protocol):
    """One kind of training data: how rollouts become its rows."""

    name: ClassVar[str]
    by_task: ClassVar[bool]
    """Whether rows are made of all of a task's rollouts together, or of one rollout each."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that hold messages."""
        ...

    def rows(self, records: Sequence[Record], context: Context) -> Iterator[Row]:
        """Yield the rows of one rollout, or of one task's rollouts."""
        ...


class Context:
    """Where the rollouts come from and how they are written."""

    def __init__(
        self,
        sources: Sequence[Source],
        specs: Mapping[str, EnvironmentSpec] | None = None,
        *,
        keep_reasoning: bool = True,
    ) -> None:
        self.sources = sources
        self.environments = Environments(sources, specs)
        self.keep_reasoning = keep_reasoning
        self.removed: Counter[str] = Counter()
        """What was left out while rows were made, and why."""

    def messages(self, record: Record) -> list[Message]:
        """The conversation; it is shared, so it must not be changed."""
        return record.messages(self.keep_reasoning)

    def answers(self, record: Record) -> list[int]:
        """The places of the model's answers in the conversation."""
        return list(record.answers(self.keep_reasoning))

    def tools(self, record: Record) -> list[dict[str, Any]]:
        """The tools that the model was offered."""
        return self.environments.tools_of(record)

    def prompt_of(self, parameters: Mapping[str, Any]) -> list[Message]:
        """A task's prompt as messages."""
        asked = parameters.get("input", "")
        items = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
        return conversation(items, parameters.get("instructions"), keep_reasoning=self.keep_reasoning)

    def lineage(self, record: Record) -> Row:
        """Where a row came from."""
        source = self.sources[record.source]
        return {
            "run": source.name,
            "rollout": record.id,
            "environment": record.environment,
            "version": source.versions.get(record.environment, ""),
            "task": record.task_id,
            "reward": float(record.earned),
        }

    def task_lineage(self, records: Iterable[Record]) -> Row:
        """Where a row of a whole task came from."""
        records = list(records)
        first = self.lineage(records[0])
        return {
            "runs": sorted({self.sources[record.source].name for record in records}),
            "rollouts": [record.id for record in records],
            **{name: first[name] for name in ("environment", "version", "task")},
        }
