"""What a program asked a model during one rollout, and how a trajectory is read from it.

A black-box program sends its whole conversation with every call, in its own words: it drops reasoning, rewrites old
turns, asks for a title on the side, starts over after it has summed up. So calls are tied together by what the model
said: a call whose conversation has an earlier answer's tool-call ids (or, for an answer without calls, its text) goes
on from that answer. The longest such thread is the trajectory; the model's own items stand in it as they were sampled,
with their token ids.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

from gymrail.errors import Failure, InputError
from gymrail.models.model import Model, ModelResponse
from gymrail.rollout import Reason, Rollout, Usage, text_of
from gymrail.task import Item

_MODEL_ITEMS = ("function_call", "reasoning")


@dataclass(frozen=True, slots=True)
class RecordedCall:
    """One answered model call."""

    input: list[Item]
    tools: tuple[str, ...]
    """Names of the tools that the program offered."""
    response: ModelResponse
    started_at: float
    """Seconds since the epoch."""
    seconds: float


@dataclass(slots=True)
class Record:
    """Every model call of one rollout, in the order in which they were answered."""

    name: str
    model: Model | None = None
    """Who answers this rollout's calls; the server's own model where None."""
    parameters: dict[str, Any] | None = None
    """How this rollout is sampled, whatever the program asks for; None leaves it to the program."""
    deadline: float | None = None
    """On the monotonic clock."""
    max_steps: int | None = None
    """Answers to calls that offered tools; the next such call is refused."""
    limit_of: Callable[[Usage], Reason | None] | None = None
    """Which of the episode's limits its tokens have reached; the next call is refused."""
    is_over: Callable[[], bool] | None = None
    """Whether the episode has ended by itself, so that nobody needs an answer any more."""
    is_private: bool = False
    """An agent under training reads the answers: they do not say why the model failed."""
    calls: list[RecordedCall] = field(default_factory=list)
    failure: Failure | None = None
    """Of the last model call, if it broke; a program that asked again and got its answer has got over it."""
    overflowed: bool = False
    """The last call's conversation no longer fitted the model."""
    exhausted_by: Reason | None = None
    """What a call was refused for; the rollout ends there."""

    @property
    def usage(self) -> Usage:
        """Tokens of all calls."""
        total = Usage()
        for call in self.calls:
            total = total.plus(call.response.usage)
        return total

    @property
    def seconds(self) -> float:
        return sum(call.seconds for call in self.calls)

    def refusal(self, has_tools: bool) -> str | None:
        """Say why another call is not answered, or None."""
        if self.is_over is not None and self.is_over():
            return "The episode is over."
        if self.exhausted_by is None and self.limit_of is not None:
            self.exhausted_by = self.limit_of(self.usage)
        if self.exhausted_by is None and has_tools and self.max_steps is not None:
            had_all = sum(bool(call.tools) for call in self.calls) >= self.max_steps
            self.exhausted_by = "max_steps" if had_all else None
        if self.exhausted_by == "max_steps":
            return f"This rollout has had its {self.max_steps} model calls."
        return f"This rollout has reached its {self.exhausted_by}." if self.exhausted_by else None

    def remaining_seconds(self) -> float | None:
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())


class Records:
    """The records of a server, by name; the oldest are dropped when there are too many."""

    def __init__(self, max_records: int = 10_000, *, opens_on_demand: bool = True) -> None:
        self.max_records = max_records
        self.opens_on_demand = opens_on_demand
        """Whether a name that nobody has opened starts a record; else it is not found."""
        self._records: OrderedDict[str, Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def add(self, record: Record) -> Record:
        if record.name in self._records:
            raise InputError(f"There is a record named {record.name!r} already; use a new name.")
        self._records[record.name] = record
        while len(self._records) > self.max_records:
            self._records.popitem(last=False)
        return record

    def get(self, name: str) -> Record | None:
        return self._records.get(name)

    def find(self, name: str) -> Record | None:
        """Return the record that a call belongs to."""
        record = self._records.get(name)
        return self.add(Record(name)) if record is None and self.opens_on_demand else record

    def remove(self, name: str) -> Record | None:
        return self._records.pop(name, None)


@dataclass(slots=True)
class Trajectory:
    """A rollout as its model calls tell it."""

    items: list[Item]
    """Everything after the prompt; tools have the environment's own names."""
    steps: int
    side_calls: int
    """Model calls that are not part of it: titles, probes, sub-agents, answers that the program threw away."""


def short_name(name: str, known: Collection[str]) -> str:
    """Return the environment's name of a tool: programs call it `mcp__SERVER__NAME`, `SERVER__NAME` and the like."""
    if name in known:
        return name
    fitting = [
        tool for tool in known if name.endswith(f"_{tool}") or name.endswith(f".{tool}") or name.endswith(f"/{tool}")
    ]
    return max(fitting, key=len, default=name)


def trajectory_of(record: Record, tools: Collection[str] = ()) -> Trajectory:
    """Read the trajectory from a record: the longest thread, behind those that ended before it began (a program that
    summed up and started over).

    Args:
        record: what was asked and answered.
        tools: the environment's tool names.
    """
    calls = record.calls
    parents = _parents(calls)
    threads = _threads(calls, parents, tools)
    if not threads:
        return Trajectory([], 0, 0)
    main = max(threads, key=lambda thread: (len(thread), thread[-1]))
    kept = [
        thread
        for thread in threads
        if thread is main or (len(thread) > 1 and thread[-1] < main[0] and _calls_a_tool(calls, thread, tools))
    ]
    items: list[Item] = []
    for thread in kept:
        for index in thread:
            parent = parents[index] if index != thread[0] else None
            if parent is not None:
                items += _news(calls[index].input, calls[parent].response.items)
            items += calls[index].response.items
    steps = sum(len(thread) for thread in kept)
    return Trajectory([_with_short_name(item, tools) for item in items], steps, len(calls) - steps)


def recorded_rollout(rollout: Rollout, record: Record, tools: Collection[str] = ()) -> Rollout:
    """Write what a record tells into the rollout of its episode, and return that."""
    trajectory = trajectory_of(record, tools)
    rollout.conversation[rollout.prompt_length :] = trajectory.items
    rollout.steps = trajectory.steps
    rollout.usage = record.usage
    rollout.timing.model = record.seconds
    if record.calls:
        rollout.model = record.calls[-1].response.model or rollout.model
    if trajectory.side_calls:
        rollout.metrics["side_calls"] = trajectory.side_calls
    return rollout


def _parents(calls: Sequence[RecordedCall]) -> list[int | None]:
    """For each call, the earlier call whose answer its conversation goes on from."""
    by_id: dict[str, int] = {}
    by_text: dict[str, list[int]] = {}
    parents: list[int | None] = []
    for index, call in enumerate(calls):
        parents.append(_parent(call.input, by_id, by_text))
        for item in call.response.items:
            if item.get("type") == "function_call":
                by_id[item["call_id"]] = index
        text = _said(call.response.items)
        if text:
            by_text.setdefault(text, []).append(index)
    return parents


def _parent(items: Sequence[Item], by_id: dict[str, int], by_text: dict[str, list[int]]) -> int | None:
    found: int | None = None
    for item in items:
        if item.get("type") == "function_call":
            found = by_id.get(item.get("call_id", ""), found)
        elif item.get("role") == "assistant":
            # The same words may have been said twice; in a conversation they follow what was found before them.
            later = [index for index in by_text.get(text_of(item).strip(), ()) if found is None or index > found]
            found = later[0] if later else found
    return found


def _threads(calls: Sequence[RecordedCall], parents: list[int | None], tools: Collection[str]) -> list[list[int]]:
    """The conversations, each from its first call to its last, in the order in which they end. Of several answers to
    one conversation, the one that the program went on from counts."""
    inner = {parent for parent in parents if parent is not None}
    threads: list[list[int]] = []
    for leaf in range(len(calls)):
        if leaf in inner:
            continue
        thread = [leaf]
        while (parent := parents[thread[0]]) is not None:
            thread.insert(0, parent)
        threads.append(thread)
    playing = [thread for thread in threads if any(_offers(calls[index], tools) for index in thread)]
    return playing or threads


def _offers(call: RecordedCall, tools: Collection[str]) -> bool:
    return any(short_name(name, tools) in tools for name in call.tools)


def _calls_a_tool(calls: Sequence[RecordedCall], thread: list[int], tools: Collection[str]) -> bool:
    return any(
        item.get("type") == "function_call" and short_name(item["name"], tools) in tools
        for index in thread
        for item in calls[index].response.items
    )


def _news(items: Sequence[Item], answer: Sequence[Item]) -> list[Item]:
    """What the program added after an answer: tool outputs and turns, not the answer itself."""
    ids = {item["call_id"] for item in answer if item.get("type") == "function_call"}
    text = _said(answer)
    last = -1
    for index, item in enumerate(items):
        is_call = item.get("type") == "function_call" and item.get("call_id") in ids
        if is_call or (text and item.get("role") == "assistant" and text_of(item).strip() == text):
            last = index
    news: list[Item] = []
    for index, item in enumerate(items):
        # Some programs write each output behind its call, and so before the answer's last call.
        is_output = item.get("type") == "function_call_output" and item.get("call_id") in ids
        if is_output or (index > last and not _is_models(item)):
            news.append(item)
    return news


def _is_models(item: Item) -> bool:
    return item.get("role") == "assistant" or item.get("type") in _MODEL_ITEMS


def _said(items: Sequence[Item]) -> str:
    """The words by which an answer without tool calls is known again."""
    if any(item.get("type") == "function_call" for item in items):
        return ""
    return "".join(text_of(item) for item in items if item.get("role") == "assistant").strip()


def _with_short_name(item: Item, tools: Collection[str]) -> Item:
    if item.get("type") != "function_call":
        return item
    name = short_name(item["name"], tools)
    return item if name == item["name"] else {**item, "name": name}
