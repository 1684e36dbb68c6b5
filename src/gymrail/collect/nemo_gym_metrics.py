"""Metrics under NeMo Gym's names, so that its dashboards and scripts read ours; shares are percentages.

mean/ max/ min/ median/ std/FIELD           every numeric field of the rows and of their usage
pass@K/NAME  pass@1[avg-of-K]/NAME          NAME is `accuracy` (the reward), or a field that is 0 or 1 throughout
majority@K/NAME, .../no_answer              where rows have `extracted_answer`
pass@1[avg-of-K]/NAME/std_dev_across_runs   run i is the i-th rollout of every task; .../std_err_across_runs too
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gymrail.collect.estimators import average_at_k, majority_at_k, pass_at_k
from gymrail.collect.scores import ANSWER
from gymrail.rollout import Rollout

_TASK, _REPEAT = "_ng_task_index", "_ng_rollout_index"
_TOO_LARGE = 1e150
"""Beyond, a square is no float any more; NaN is left out by the same comparison."""

Row = Mapping[str, Any]


def gym_metrics(rollouts: Iterable[Rollout]) -> dict[str, float]:
    """Return the metrics of the rollouts that have a reward, under NeMo Gym's names; verdict metrics count as fields.

    Tasks are told apart by `Rollout.task_key`.
    """
    tasks: dict[tuple[str, int, str], list[Row]] = {}
    for rollout in rollouts:
        if rollout.is_trainable:
            row = rollout.to_row()
            tasks.setdefault(rollout.task_key, []).append({**rollout.metrics, **row})
    return _agent_metrics(list(tasks.values()))


def aggregate_metrics(responses: Sequence[Row]) -> dict[str, Any]:
    """Return {"group_level_metrics": [...], "agent_metrics": {...}, "key_metrics": {...}} of verify responses.

    A group is a task, by `_ng_task_index`. The key metrics are the means.
    """
    groups: dict[int, list[Row]] = {}
    for response in responses:
        index = response.get(_TASK)
        groups.setdefault(index if isinstance(index, int) else 0, []).append(response)
    agent = _agent_metrics([groups[index] for index in sorted(groups)])
    return {
        "group_level_metrics": [
            {_TASK: index, "num_rollouts": len(groups[index]), **_statistics([_numbers(row) for row in groups[index]])}
            for index in sorted(groups)
        ],
        "agent_metrics": agent,
        "key_metrics": {name: value for name, value in agent.items() if name.startswith("mean/")},
    }


def _agent_metrics(tasks: Sequence[Sequence[Row]]) -> dict[str, float]:
    ordered = [sorted(rows, key=_repeat_of) for rows in tasks]
    numbers = [[_numbers(row) for row in rows] for rows in ordered]
    found = _statistics([row for rows in numbers for row in rows])
    names = {name for rows in numbers for row in rows for name in row}
    for name in sorted(names):
        if all(row.get(name, 0) in (0, 1) for rows in numbers for row in rows):
            found |= _attempts(name, numbers)
    if "reward" not in names:
        return found
    found |= _attempts("accuracy", [[{"accuracy": row.get("reward")} for row in rows] for rows in numbers])
    if any(ANSWER in row for rows in ordered for row in rows):
        found |= _answers(ordered, numbers)
    return found


def _answers(tasks: Sequence[Sequence[Row]], numbers: Sequence[Sequence[Mapping[str, float]]]) -> dict[str, float]:
    answers = [[_vote(row.get(ANSWER)) for row in rows] for rows in tasks]
    missing = [[float(answer is None) for answer in mine] for mine in answers]
    found = _attempts("no_answer", [[{"no_answer": value} for value in mine] for mine in missing])
    rewards = [[row.get("reward", 0.0) for row in rows] for rows in numbers]
    for k in range(1, max(map(len, answers)) + 1):
        for name, scores in (("accuracy", rewards), ("no_answer", missing)):
            values = [majority_at_k(mine, theirs, k) for mine, theirs in zip(answers, scores, strict=True)]
            found[f"majority@{k}/{name}"] = 100.0 * statistics.fmean(values)
    return found


def _attempts(name: str, tasks: Sequence[Sequence[Mapping[str, float | None]]]) -> dict[str, float]:
    """pass@k, pass@1[avg-of-k] and the spread across runs of one score, for every k that some task has."""
    by_run = [[row.get(name) for row in rows] for rows in tasks]
    columns = [[value for value in values if value is not None] for values in by_run]
    most = max(map(len, by_run))
    runs = [[v for values in by_run if run < len(values) and (v := values[run]) is not None] for run in range(most)]
    run_means = [100.0 * statistics.fmean(values) for values in runs if values]
    found: dict[str, float] = {}
    for k in range(1, most + 1):
        passed = [_best_of(values, k) for values in columns if len(values) >= k]
        if passed:
            found[f"pass@{k}/{name}"] = 100.0 * statistics.fmean(passed)
        firsts = [[v for v in values[:k] if v is not None] for values in by_run]
        averages = [average_at_k(values, k) for values in firsts if values]
        if averages:
            found[f"pass@1[avg-of-{k}]/{name}"] = 100.0 * statistics.fmean(averages)
        if len(run_means[:k]) > 1:
            spread = statistics.stdev(run_means[:k])
            found[f"pass@1[avg-of-{k}]/{name}/std_dev_across_runs"] = spread
            found[f"pass@1[avg-of-{k}]/{name}/std_err_across_runs"] = spread / math.sqrt(len(run_means[:k]))
    return found


def _best_of(values: Sequence[float], k: int) -> float:
    """The unbiased estimate where scores are 0 and 1; otherwise the best of the first k, as NeMo Gym has it."""
    if all(value in (0, 1) for value in values):
        return pass_at_k(len(values), round(sum(values)), k)
    return max(values[:k])


def _statistics(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    names = dict.fromkeys(name for row in rows for name in row)
    found: dict[str, float] = {}
    for name in names:
        values = [row[name] for row in rows if name in row]
        found[f"mean/{name}"] = statistics.fmean(values)
        found[f"max/{name}"] = max(values)
        found[f"min/{name}"] = min(values)
        found[f"median/{name}"] = statistics.median(values)
        if len(values) > 1 or len(rows) == 1:
            found[f"std/{name}"] = statistics.stdev(values) if len(values) > 1 else 0.0
    return found


def _numbers(row: Row) -> dict[str, float]:
    """The numeric fields of a row, and its usage; where both have a name, the usage counts."""
    answer = row.get("response")
    usage = answer.get("usage") if isinstance(answer, Mapping) else None
    fields = {**row, **(usage if isinstance(usage, Mapping) else {})}
    return {
        name: value if isinstance(value, float) else int(value)
        for name, value in fields.items()
        if isinstance(value, int | float) and abs(value) < _TOO_LARGE and name not in (_TASK, _REPEAT)
    }


def _repeat_of(row: Row) -> int:
    repeat = row.get(_REPEAT)
    return repeat if isinstance(repeat, int) else 0


def _vote(answer: Any) -> str | None:
    return answer if answer is None or isinstance(answer, str) else repr(answer)
