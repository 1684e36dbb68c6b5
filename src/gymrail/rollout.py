"""The record of an episode: every item, every tool call, the reward, the outcome, the timing.

`Rollout.to_row` is NeMo Gym's verify response (the task row, `response`, `reward`, ...) plus what Gymrail adds;
`from_row` reads both. Token ids and log-probs stand on the items, as NeMo Gym has it: the last item of each model call
carries `prompt_token_ids`, `generation_token_ids` and `generation_log_probs`, all three or none.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from numbers import Real
from random import Random
from typing import Any, Literal, NamedTuple

import orjson

from gymrail.errors import EpisodeFailed, Failure
from gymrail.task import Item, Task
from gymrail.tools import Output

ADDED_FIELDS = (
    "response",
    "reward",
    "reward_components",
    "gymrail",
    "_ng_task_index",
    "_ng_rollout_index",
    "_ng_failure_class",
)
"""What a record adds to its task's row, beside an `AGENT_REF` where there is none."""
AGENT_REF = "agent_ref"

Status = Literal["scored", "truncated", "failed", "cancelled"]
Reason = Literal[
    "max_steps", "max_output_tokens", "context", "content_filter",
    "token_limit", "output_token_limit", "tool_call_limit", "time_limit", "cost_limit",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a rollout ended. `asked = scored + truncated + failed + cancelled`, always."""

    status: Status
    failure: Failure | None = None
    """Set when failed."""
    reason: Reason | None = None
    """Which budget ran out; set when truncated. A truncated rollout is verified too: it has the reward that its state
    earned; where that verifier failed the reason stays, so that it can be judged again."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier says. Give `reward`, or `reward_components` whose sum it is."""

    reward: float = math.nan
    reward_components: Mapping[str, float] = field(default_factory=dict)
    metrics: Mapping[str, float | int | bool | str | None] = field(default_factory=dict)
    """What else was measured; numbers are averaged in the run's metrics."""
    reason: str | None = None
    """One line for a person: why this reward."""

    def __post_init__(self) -> None:
        if self.reward_components and math.isnan(self.reward):
            object.__setattr__(self, "reward", float(sum(self.reward_components.values())))


@dataclass(slots=True)
class ToolCall:
    """One line of the episode's journal, in the order in which the calls began."""

    call_id: str
    name: str
    arguments: str
    """JSON text, as the model wrote it."""
    output: Output = ""
    is_error: bool = False
    """The model was told that its call cannot be done."""
    seconds: float = 0.0

    @property
    def parsed(self) -> dict[str, Any]:
        """The arguments as an object; empty where they are not one."""
        try:
            value = orjson.loads(self.arguments or "{}")
        except orjson.JSONDecodeError:
            return {}
        return value if isinstance(value, dict) else {}


class Usage(NamedTuple):
    """Tokens, summed over the model calls."""

    input_tokens: int = 0
    output_tokens: int = 0
    cached_tokens: int = 0
    """Of the input tokens, those that the endpoint says it had in its cache."""

    def plus(self, other: Usage) -> Usage:
        # By places, and past NamedTuple's own constructor: half the time, after every model call.
        return tuple.__new__(Usage, (self[0] + other[0], self[1] + other[1], self[2] + other[2]))

    @classmethod
    def from_row(cls, usage: Any) -> Usage:
        """Read a Responses `usage`; what is no count counts as 0."""
        if not isinstance(usage, Mapping):
            return cls()
        details = usage.get("input_tokens_details")
        cached = details.get("cached_tokens") if isinstance(details, Mapping) else 0
        return cls(_count(usage.get("input_tokens")), _count(usage.get("output_tokens")), _count(cached))


NO_USAGE = Usage()


@dataclass(slots=True)
class Timing:
    """Seconds of wall time spent waiting for each part; parallel tool calls add up."""

    started_at: float = field(default_factory=time.time)
    """Seconds since the epoch."""
    total: float = 0.0
    model: float = 0.0
    tools: float = 0.0
    verify: float = 0.0


@dataclass(slots=True)
class Rollout:
    """One attempt at one task, as it is written to the journal and trained on."""

    environment: str
    task: Task
    id: str
    task_index: int = 0
    repeat: int = 0
    """Which of the task's repeats (NeMo Gym's `_ng_rollout_index`)."""
    attempt: int = 1
    conversation: list[Item] = field(default_factory=list)
    """The prompt's items, then everything the episode added."""
    prompt_length: int = 0
    """How many of the conversation's items are the prompt."""
    calls: list[ToolCall] = field(default_factory=list)
    outcome: Outcome | None = None
    reward: float | None = None
    """None unless the verifier spoke: a failure has no reward."""
    reward_components: dict[str, float] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    verdict_reason: str | None = None
    step_rewards: list[float] = field(default_factory=list)
    """Rewards given along the way by `Environment.reply`; the verifier decides what they count for."""
    steps: int = 0
    """Model calls."""
    usage: Usage = NO_USAGE
    timing: Timing = field(default_factory=Timing)
    model: str = ""
    group: str | None = None
    """What the task's rollouts share where that is not the task's id: another program's row does not tell the task's
    fields from the verdict's."""
    cost: float | None = None
    """US dollars for the model's tokens, those of earlier attempts too; None where no prices are given."""
    earlier_usage: Usage = NO_USAGE
    """Tokens of the attempts before this one, which are not in `usage`."""
    environment_usage: Usage = NO_USAGE
    """Tokens of the environment's own models, its judges and simulated users, earlier attempts' included; they are in
    no limit of the episode."""
    environment_cost: float = 0.0
    """US dollars for those, as far as they have prices."""
    earlier_failures: list[Failure] = field(default_factory=list)
    """Why there were attempts before this one, in their order."""
    source: Mapping[str, Any] | None = field(default=None, init=False)
    """The row as another program wrote it, which `to_row` gives back. A copy by `dataclasses.replace` has none: it is
    written as ours."""

    @property
    def task_key(self) -> tuple[str, int, str]:
        """What the rollouts of one task share: environment, place, content."""
        return self.environment, self.task_index, self.task.id if self.group is None else self.group

    @property
    def items(self) -> list[Item]:
        """What the episode added to the prompt: the model's items, tool outputs, user turns."""
        return self.conversation[self.prompt_length :]

    @property
    def final_text(self) -> str:
        """The text of the last assistant message, or "" when the model never answered."""
        for index in range(len(self.conversation) - 1, self.prompt_length - 1, -1):
            item = self.conversation[index]
            if item.get("role") == "assistant":
                return text_of(item)
        return ""

    @property
    def answers(self) -> list[str]:
        """The texts of all assistant messages, in order."""
        return [text_of(item) for item in self.items if item.get("role") == "assistant"]

    def calls_of(self, name: str) -> list[ToolCall]:
        """The journal's calls of one tool, in order."""
        return [call for call in self.calls if call.name == name]

    @property
    def failure(self) -> Failure | None:
        return self.outcome.failure if self.outcome else None

    @property
    def is_trainable(self) -> bool:
        """Scored, or truncated with a reward: everything else is masked or sampled again."""
        return self.outcome is not None and self.outcome.status in ("scored", "truncated") and self.reward is not None

    def add_earlier(self, attempt: Rollout) -> None:
        """Keep of the attempt before this one how it failed and what it used up."""
        self.earlier_usage = attempt.earlier_usage.plus(attempt.usage)
        self.earlier_failures = [*attempt.earlier_failures, *([attempt.failure] if attempt.failure else ())]
        self.environment_usage = attempt.environment_usage.plus(self.environment_usage)
        self.environment_cost += attempt.environment_cost
        if attempt.cost is not None:
            self.cost = attempt.cost + (self.cost or 0.0)

    def model_calls(self) -> Iterator[Item]:
        """The items that carry a model call's tokens."""
        return (item for item in self.items if item.get("generation_token_ids"))

    def to_row(self) -> dict[str, Any]:
        """The rollout as one JSON line."""
        assert self.outcome is not None, "a rollout is written once it has an outcome"
        if self.source is not None:
            changed = self.reward is not None and self.reward != self.source.get("reward")
            return {**self.source, "reward": self.reward} if changed else dict(self.source)
        task_row = self.task.row
        row: dict[str, Any] = {
            **task_row,
            "_ng_task_index": self.task_index,
            "_ng_rollout_index": self.repeat,
            **self._reference(),
            "response": self.response,
            "gymrail": self._own_fields(task_row),
        }
        if self.reward is not None:
            row["reward"] = self.reward
        if self.reward_components:
            row["reward_components"] = self.reward_components
        if self.outcome.failure is not None:
            row["_ng_failure_class"] = f"{self.outcome.failure.kind}_failed"
        return row

    def _reference(self) -> dict[str, Any]:
        """By which NeMo Gym's tools tell environments apart, unless the task's row says it."""
        named = self.environment and AGENT_REF not in self.task.row
        return {AGENT_REF: agent_ref(self.environment)} if named else {}

    @property
    def response(self) -> dict[str, Any]:
        """The episode so far as one Responses answer that holds all its items."""
        parameters = self.task.responses_create_params
        return {
            "id": f"resp_{self.id}",
            "object": "response",
            "created_at": self.timing.started_at,
            "model": self.model,
            "output": self.items,
            "parallel_tool_calls": self.task.allows_parallel_calls,
            "tool_choice": parameters.get("tool_choice", "auto"),
            "tools": parameters.get("tools", []),
            "usage": _usage_row(self.usage),
        }

    def _own_fields(self, task_row: Mapping[str, Any]) -> dict[str, Any]:
        assert self.outcome is not None
        shadowed = {name: task_row[name] for name in ADDED_FIELDS if name in task_row}
        if AGENT_REF in task_row and task_row[AGENT_REF] == agent_ref(self.environment):
            shadowed[AGENT_REF] = task_row[AGENT_REF]
        return {
            # A task may have a field called `reward` itself; it comes back from here.
            **({"shadowed": shadowed} if shadowed else {}),
            "id": self.id,
            "environment": self.environment,
            "task_id": self.task.id,
            **({"group": self.group} if self.group is not None else {}),
            "attempt": self.attempt,
            "status": self.outcome.status,
            "reason": self.outcome.reason,
            "failure": asdict(self.outcome.failure) if self.outcome.failure else None,
            "metrics": self.metrics,
            "verdict": self.verdict_reason,
            "step_rewards": self.step_rewards,
            "steps": self.steps,
            **({"cost": self.cost} if self.cost is not None else {}),
            **({"earlier_usage": _usage_row(self.earlier_usage)} if any(self.earlier_usage) else {}),
            **({"environment_usage": _usage_row(self.environment_usage)} if any(self.environment_usage) else {}),
            **({"environment_cost": self.environment_cost} if self.environment_cost else {}),
            **({"earlier_failures": list(map(_failure_row, self.earlier_failures))} if self.earlier_failures else {}),
            "timing": _timing_row(self.timing),
            "calls": _call_rows(self.calls),
        }

    @classmethod
    def from_row(cls, row: Mapping[str, Any], task_type: type[Task] = Task) -> Rollout:
        """Read a journal line, ours or NeMo Gym's. A row without our fields counts as scored when it has a reward, else
        as failed."""
        own = row.get("gymrail") or {}
        task_row = task_row_of(row)
        task = task_type.from_row(task_row, "rollout row")
        if "task_id" in own:
            vars(task)["id"] = own["task_id"]  # the same hash again would cost a fifth of reading a row
        response = row.get("response") or {}
        prompt = task.input_items
        reward = row.get("reward")
        failure = Failure(**own["failure"]) if own.get("failure") else None
        if failure is None and not own and reward is None:
            failure = Failure("infrastructure", "verify", str(row.get("_ng_failure_class") or "the row has no reward"))
        agent = row.get(AGENT_REF)
        rollout = cls(
            environment=own.get("environment") or (agent.get("name", "") if isinstance(agent, Mapping) else ""),
            task=task,
            id=own.get("id") or str(response.get("id", "")),
            task_index=row.get("_ng_task_index", 0),
            repeat=row.get("_ng_rollout_index", 0),
            attempt=own.get("attempt", 1),
            conversation=[*prompt, *response.get("output", ())],
            prompt_length=len(prompt),
            calls=[ToolCall(**call) for call in own["calls"]]
            if "calls" in own
            else calls_in(response.get("output", ())),
            outcome=Outcome(own.get("status", "failed" if failure else "scored"), failure, own.get("reason")),
            reward=reward,
            reward_components=dict(row.get("reward_components") or {}),
            metrics=dict(own.get("metrics") or {}) if own else _numbers_and_texts(task_row, task_type),
            verdict_reason=own.get("verdict"),
            step_rewards=list(own.get("step_rewards") or ()),
            steps=own.get("steps", 0),
            usage=Usage.from_row(response.get("usage")),
            cost=own.get("cost"),
            earlier_usage=Usage.from_row(own.get("earlier_usage")),
            environment_usage=Usage.from_row(own.get("environment_usage")),
            environment_cost=own.get("environment_cost", 0.0),
            earlier_failures=[Failure(**failure) for failure in own.get("earlier_failures", ())],
            timing=Timing(**own["timing"]) if "timing" in own else Timing(started_at=response.get("created_at", 0.0)),
            model=str(response.get("model", "")),
            group=own.get("group") if own else _group_of(row),
        )
        if not own:
            rollout.source = dict(row)
        return rollout


def agent_ref(environment: str) -> dict[str, str]:
    """Return how NeMo Gym's rows name an environment: by the agent that plays it."""
    return {"type": "responses_api_agents", "name": environment}


def task_row_of(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record's task as it was read: the record without what it added."""
    own = row.get("gymrail") or {}
    kept = {name: value for name, value in row.items() if name not in ADDED_FIELDS}
    if own and AGENT_REF in kept and kept[AGENT_REF] == agent_ref(own["environment"]):
        del kept[AGENT_REF]
    return {**kept, **own["shadowed"]} if "shadowed" in own else kept


def _group_of(row: Mapping[str, Any]) -> str:
    """Tell the tasks of another program's rows apart: by their place or, where they have none, by what was asked."""
    if "_ng_task_index" in row:
        return ""
    return Task(responses_create_params=row["responses_create_params"]).id


def _numbers_and_texts(row: Mapping[str, Any], task_type: type[Task]) -> dict[str, Any]:
    """What another program's verdict may have added at top level: plain values that the task does not declare."""
    return {
        name: value
        for name, value in row.items()
        if (value is None or isinstance(value, str | int | float))
        and not name.startswith("_")
        and name not in task_type.model_fields
    }


def text_of(item: Item) -> str:
    """The text of a message item, its parts joined."""
    content = item.get("content", "")
    if isinstance(content, str):
        return content
    return "".join(part.get("text") or "" for part in content or () if isinstance(part, dict))


def calls_in(items: Any) -> list[ToolCall]:
    """Read tool calls back from items, for records that have no journal."""
    outputs = {
        item.get("call_id"): item.get("output", "") for item in items if item.get("type") == "function_call_output"
    }
    return [
        ToolCall(item["call_id"], item["name"], item.get("arguments") or "{}", outputs.get(item["call_id"], ""))
        for item in items
        if item.get("type") == "function_call"
    ]


def check_reward(verdict: Verdict, allowed: tuple[float, float]) -> None:
    """Refuse a reward that is not finite or outside the declared range.

    Raises:
        EpisodeFailed: kind `reward`.
    """
    low, high = allowed
    for name, value in (("reward", verdict.reward), *verdict.reward_components.items()):
        if not isinstance(value, Real) or not -math.inf < value < math.inf:
            raise EpisodeFailed(Failure("reward", "verify", f"{name} is {value!r}; it must be a finite number"))
    slack = 1e-9 * max(1.0, abs(low), abs(high))
    if not low - slack <= verdict.reward <= high + slack:
        message = f"reward is {verdict.reward!r}; the environment declares the range [{low:g}, {high:g}]"
        raise EpisodeFailed(Failure("reward", "verify", message))


# `asdict`, which copies whatever a record holds, would be half of the price of a journal line.
def _call_rows(calls: list[ToolCall]) -> list[dict[str, Any]]:
    return [
        {
            "call_id": call.call_id,
            "name": call.name,
            "arguments": call.arguments,
            "output": call.output,
            "is_error": call.is_error,
            "seconds": call.seconds,
        }
        for call in calls
    ]


def _failure_row(failure: Failure) -> dict[str, str]:
    """Without the trace: of what was played again, it would only make the line long."""
    return {"kind": failure.kind, "stage": failure.stage, "message": failure.message}


def _timing_row(timing: Timing) -> dict[str, float]:
    return {
        "started_at": timing.started_at,
        "total": timing.total,
        "model": timing.model,
        "tools": timing.tools,
        "verify": timing.verify,
    }


_ids = Random(os.urandom(16))
os.register_at_fork(after_in_child=lambda: _ids.seed(os.urandom(16)))


def new_id() -> str:
    """Return an id that no other rollout has. It is no secret: asking the system for each one costs ten times more."""
    return f"{_ids.getrandbits(128):032x}"


def _usage_row(usage: Usage) -> dict[str, Any]:
    return {
        "input_tokens": usage.input_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens},
        "output_tokens": usage.output_tokens,
        "output_tokens_details": {"reasoning_tokens": 0},
        "total_tokens": usage.input_tokens + usage.output_tokens,
    }


def _count(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else 0
