"""What a run's rollouts say in numbers: rewards with intervals, k attempts, outcomes, tools, tokens, times, groups.

A failed rollout has no reward: it is counted, and left out of every mean. Rollouts of one task are not independent, so
a mean reward is the mean over tasks of each task's mean, and its interval counts tasks, not rollouts.
"""

from __future__ import annotations

import math
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from gymrail.collect.estimators import percentiles
from gymrail.collect.scores import Scores
from gymrail.rollout import NO_USAGE, Rollout, Usage
from gymrail.task import field_of

_STATUSES = ("scored", "truncated", "failed", "cancelled")
ABSENT = "(absent)"
"""The subset of the tasks that lack the field."""


def aggregate(rollouts: Iterable[Rollout], *, by: str | None = None) -> dict[str, Any]:
    """Return the metrics of all rollouts and of each environment as plain JSON values; streams.

    Args:
        by: a field of the tasks; each environment then has the same metrics for each of its values, as `subsets`.
    """
    metrics = Metrics(by=by)
    for rollout in rollouts:
        metrics.add(rollout)
    return metrics.result()


class Metrics:
    """Metrics that grow with every rollout; kept are a few numbers of each."""

    def __init__(self, *, by: str | None = None) -> None:
        self._by = by
        self._environments: dict[str, _Totals] = {}
        self._subsets: dict[str, dict[str, _Totals]] = {}

    def add(self, rollout: Rollout) -> None:
        """Count one finished rollout."""
        name = rollout.environment
        totals = self._environments.get(name)
        if totals is None:
            totals = self._environments[name] = _Totals()
        totals.add(rollout)
        if self._by is not None:
            found = field_of(rollout.task, self._by)
            subset = ABSENT if found is None else found
            self._subsets.setdefault(name, {}).setdefault(subset, _Totals()).add(rollout)

    def result(self, properties: Mapping[str, Mapping[str, str | Iterable[str]]] | None = None) -> dict[str, Any]:
        """Return {"overall": {...}, "environments": {name: {...}}}.

        Args:
            properties: by environment, the properties of its manifest, such as {"knowledge_domain": "math"}; the result
                then has "properties": {property: {value: {...}}}, each over the environments that have that value.
        """
        environments = {name: self._environments[name].result() for name in sorted(self._environments)}
        for name, subsets in self._subsets.items():
            environments[name]["subsets"] = {subset: subsets[subset].result() for subset in sorted(subsets)}
        found = {"overall": self._merged(self._environments).result(), "environments": environments}
        if properties is not None:
            found["properties"] = self._by_property(properties)
        return found

    def _by_property(self, properties: Mapping[str, Mapping[str, str | Iterable[str]]]) -> dict[str, Any]:
        members: dict[str, dict[str, list[str]]] = {}
        for environment in sorted(self._environments.keys() & properties.keys()):
            for name, said in properties[environment].items():
                for value in [said] if isinstance(said, str) else said:
                    members.setdefault(name, {}).setdefault(value, []).append(environment)
        return {
            name: {value: self._merged(values[value]).result() for value in sorted(values)}
            for name, values in members.items()
        }

    def _merged(self, environments: Iterable[str]) -> _Totals:
        parts = [self._environments[name] for name in environments]
        if len(parts) == 1:
            return parts[0]  # to be read only; a copy of a large run would double the memory
        merged = _Totals()
        for part in parts:
            merged.merge(part)
        return merged


@dataclass(slots=True)
class _Mean:
    count: int = 0
    total: float = 0.0

    def add(self, value: float, count: int = 1) -> None:
        self.count += count
        self.total += value

    @property
    def value(self) -> float:
        return self.total / self.count


@dataclass(slots=True)
class _ToolTotals:
    calls: int = 0
    errors: int = 0
    seconds: float = 0.0


@dataclass(slots=True)
class _Totals:
    outcomes: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    truncations: Counter[str] = field(default_factory=Counter)
    retries: Counter[str] = field(default_factory=Counter)
    """Attempts that were played again, by what had failed."""
    scores: Scores = field(default_factory=Scores)
    components: dict[str, _Mean] = field(default_factory=dict)
    metrics: dict[str, _Mean] = field(default_factory=dict)
    tools: dict[str, _ToolTotals] = field(default_factory=dict)
    steps: int = 0
    input_tokens: array[int] = field(default_factory=lambda: array("q"))
    output_tokens: array[int] = field(default_factory=lambda: array("q"))
    cached_tokens: int = 0
    environment_usage: Usage = NO_USAGE
    environment_cost: float = 0.0
    costs: array[float] = field(default_factory=lambda: array("d"))
    """Of the rollouts that were played with prices."""
    seconds: array[float] = field(default_factory=lambda: array("d"))
    model_seconds: array[float] = field(default_factory=lambda: array("d"))

    def add(self, rollout: Rollout) -> None:
        outcome = rollout.outcome
        assert outcome is not None, "a rollout is counted once it has an outcome"
        self.outcomes[outcome.status] += 1
        if outcome.failure is not None:
            self.failures[outcome.failure.kind] += 1
        self.retries.update(failure.kind for failure in rollout.earlier_failures)
        if outcome.reason is not None and outcome.status == "truncated":
            self.truncations[outcome.reason] += 1
        self.input_tokens.append(rollout.usage.input_tokens)
        self.output_tokens.append(rollout.usage.output_tokens)
        self.cached_tokens += rollout.usage.cached_tokens
        if any(rollout.environment_usage):
            self.environment_usage = self.environment_usage.plus(rollout.environment_usage)
            self.environment_cost += rollout.environment_cost
        if rollout.cost is not None:
            self.costs.append(rollout.cost)
        self.steps += rollout.steps
        self.seconds.append(rollout.timing.total)
        self.model_seconds.append(rollout.timing.model)
        for call in rollout.calls:
            tool = self.tools.setdefault(call.name, _ToolTotals())
            tool.calls += 1
            tool.errors += call.is_error
            tool.seconds += call.seconds
        if rollout.is_trainable:
            self.scores.add(rollout)
            _add_numbers(self.components, rollout.reward_components)
            _add_numbers(self.metrics, rollout.metrics)

    def merge(self, other: _Totals) -> None:
        """Add another environment's totals; tasks of two environments are never the same."""
        self.outcomes.update(other.outcomes)
        self.failures.update(other.failures)
        self.truncations.update(other.truncations)
        self.retries.update(other.retries)
        self.scores.merge(other.scores)
        for mine, theirs in ((self.components, other.components), (self.metrics, other.metrics)):
            for name, mean in theirs.items():
                mine.setdefault(name, _Mean()).add(mean.total, mean.count)
        for name, tool in other.tools.items():
            mine_tool = self.tools.setdefault(name, _ToolTotals())
            mine_tool.calls += tool.calls
            mine_tool.errors += tool.errors
            mine_tool.seconds += tool.seconds
        self.steps += other.steps
        self.input_tokens.extend(other.input_tokens)
        self.output_tokens.extend(other.output_tokens)
        self.cached_tokens += other.cached_tokens
        self.environment_usage = self.environment_usage.plus(other.environment_usage)
        self.environment_cost += other.environment_cost
        self.costs.extend(other.costs)
        self.seconds.extend(other.seconds)
        self.model_seconds.extend(other.model_seconds)

    def result(self) -> dict[str, Any]:
        count = sum(self.outcomes.values())
        return {
            "rollouts": count,
            "tasks": self.scores.task_count,
            "outcomes": {status: self.outcomes[status] for status in _STATUSES},
            "outcome_shares": {status: self.outcomes[status] / count for status in _STATUSES} if count else {},
            "failures": dict(sorted(self.failures.items())),
            "truncations": dict(sorted(self.truncations.items())),
            "truncation_shares": {reason: number / count for reason, number in sorted(self.truncations.items())},
            "retries": dict(sorted(self.retries.items())),
            "reward": self.scores.reward(),
            **self.scores.attempts(),
            "no_answer_share": self.scores.no_answer_share(),
            "groups": self.scores.groups(),
            "reward_components": {name: mean.value for name, mean in sorted(self.components.items())},
            "metrics": {name: mean.value for name, mean in sorted(self.metrics.items())},
            "measures": self.scores.measures(),
            "tools": {name: _tool_row(tool) for name, tool in sorted(self.tools.items())},
            "tokens": {
                "input": sum(self.input_tokens), "cached": self.cached_tokens, "output": sum(self.output_tokens),
            },
            "environment_tokens": {
                "input": self.environment_usage.input_tokens, "output": self.environment_usage.output_tokens,
            },
            "environment_cost": self.environment_cost,
            "tokens_per_rollout": {
                "input": percentiles(self.input_tokens), "output": percentiles(self.output_tokens),
            },
            "cost": {"total": math.fsum(self.costs), "per_rollout": percentiles(self.costs)} if self.costs else None,
            "steps": self.steps / count if count else None,
            "seconds": percentiles(self.seconds),
            "model_seconds": percentiles(self.model_seconds),
        }  # fmt: skip


def _add_numbers(means: dict[str, _Mean], values: dict[str, Any]) -> None:
    for name, value in values.items():
        if isinstance(value, int | float) and math.isfinite(value):
            means.setdefault(name, _Mean()).add(value)


def _tool_row(tool: _ToolTotals) -> dict[str, float | int]:
    return {
        "calls": tool.calls,
        "errors": tool.errors,
        "error_share": tool.errors / tool.calls,
        "mean_seconds": tool.seconds / tool.calls,
    }
