"""What is left of a rollout once it is on disk: enough to count it, to show it, and to leave it out of a resumed run.

A worker process sends this beside the rollout's line, and a resumed run reads it from its files, so neither builds the
rollout again.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from gymrail.collect.journal import Key, key_of
from gymrail.rollout import Rollout, Status, Usage


class ToolUse(NamedTuple):
    """One tool's part of a rollout."""

    name: str
    calls: int
    seconds: float
    """Wall time of all calls together."""


class Finished(NamedTuple):
    """A rollout that has its outcome."""

    key: Key
    status: Status
    reward: float | None = None
    failure: str | None = None
    """Its kind, where the rollout failed."""
    usage: Usage = Usage()
    seconds: float = 0.0
    """Wall time of the episode."""
    tools: tuple[ToolUse, ...] = ()
    cost: float | None = None
    """US dollars, where prices are given; earlier attempts count."""
    other_tokens: int = 0
    """Input and output tokens that are not in `usage`: of earlier attempts, and of the environment's own models."""
    environment_cost: float = 0.0
    """US dollars for the environment's own models."""


def finished_of(rollout: Rollout) -> Finished:
    """Return what is kept of a rollout that has its outcome."""
    outcome = rollout.outcome
    assert outcome is not None, "a rollout is finished once it has an outcome"
    failure = outcome.failure.kind if outcome.failure is not None else None
    tools = _tools((call.name, call.seconds) for call in rollout.calls)
    others = (rollout.earlier_usage, rollout.environment_usage)
    return Finished(
        key_of(rollout), outcome.status, rollout.reward, failure, rollout.usage, rollout.timing.total, tools,
        rollout.cost, sum(usage.input_tokens + usage.output_tokens for usage in others), rollout.environment_cost,
    )  # fmt: skip


def finished_of_row(row: Mapping[str, Any]) -> Finished:
    """Return the same from a journal line, ours or NeMo Gym's."""
    own = row.get("gymrail")
    if not own:
        return finished_of(Rollout.from_row(row))
    key = Key(own["environment"], row.get("_ng_task_index", 0), own["task_id"], row.get("_ng_rollout_index", 0))
    failure = own.get("failure")
    # Few rollouts have these; a resumed run reads millions of rows.
    others = [Usage.from_row(own[name]) for name in ("earlier_usage", "environment_usage") if name in own]
    calls = own.get("calls")
    return Finished(
        key,
        own["status"],
        row.get("reward"),
        failure["kind"] if failure else None,
        _usage((row.get("response") or {}).get("usage")),
        (own.get("timing") or {}).get("total", 0.0),
        _tools((call["name"], call.get("seconds", 0.0)) for call in calls) if calls else (),
        own.get("cost"),
        sum(usage.input_tokens + usage.output_tokens for usage in others) if others else 0,
        own.get("environment_cost", 0.0),
    )


def _usage(usage: Any) -> Usage:
    """`Usage.from_row`, three times as fast for a row of ours."""
    try:
        return Usage(usage["input_tokens"], usage["output_tokens"], usage["input_tokens_details"]["cached_tokens"])
    except (KeyError, TypeError):
        return Usage.from_row(usage)


def _tools(calls: Any) -> tuple[ToolUse, ...]:
    found: dict[str, ToolUse] = {}
    for name, seconds in calls:
        before = found.get(name)
        found[name] = ToolUse(name, 1, seconds) if before is None else ToolUse(name, before[1] + 1, before[2] + seconds)
    return tuple(found.values())
