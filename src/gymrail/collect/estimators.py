"""Estimators: means with 95% intervals, and what k attempts at a task are worth. Numbers in, numbers out."""

from __future__ import annotations

import math
import statistics
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

_Z = statistics.NormalDist().inv_cdf(0.975)


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the 95% interval of the mean of independent values: Wilson's where all are 0 or 1, Student's otherwise.

    One value, or none, says nothing about the spread: (nan, nan).
    """
    if len(values) < 2 or not all(value in (0, 1) for value in values):
        return student_interval(values)
    count, mean = len(values), statistics.fmean(values)
    centre = (mean + _Z**2 / (2 * count)) / (1 + _Z**2 / count)
    half = _Z / (1 + _Z**2 / count) * math.sqrt(mean * (1 - mean) / count + _Z**2 / (4 * count**2))
    # Rounding must not leave the mean outside.
    return min(max(0.0, centre - half), mean), max(min(1.0, centre + half), mean)


def student_interval(values: Sequence[float]) -> tuple[float, float]:
    """Return Student's 95% interval of the mean of independent values; (nan, nan) for fewer than two."""
    count = len(values)
    if count < 2:
        return math.nan, math.nan
    mean = statistics.fmean(values)
    half = _student(count - 1) * statistics.stdev(values, mean) / math.sqrt(count)
    return mean - half, mean + half


class Difference(NamedTuple):
    """How much one mean exceeds another, with its 95% interval; nan where there are too few values."""

    mean: float
    low: float
    high: float


def paired_difference(before: Sequence[float], after: Sequence[float]) -> Difference:
    """Return the mean of after - before for values that belong together, place by place."""
    changes = [later - earlier for earlier, later in zip(before, after, strict=True)]
    return Difference(statistics.fmean(changes) if changes else math.nan, *student_interval(changes))


def unpaired_difference(before: Sequence[float], after: Sequence[float]) -> Difference:
    """Return mean(after) - mean(before) for independent samples, with Welch's interval."""
    if not before or not after:
        return Difference(math.nan, math.nan, math.nan)
    mean = statistics.fmean(after) - statistics.fmean(before)
    if min(len(before), len(after)) < 2:
        return Difference(mean, math.nan, math.nan)
    first, second = (statistics.variance(values) / len(values) for values in (before, after))
    if first + second == 0:
        return Difference(mean, mean, mean)
    # As shares of their sum: squares of tiny variances would vanish.
    share = first / (first + second)
    degrees = 1 / (share**2 / (len(before) - 1) + (1 - share) ** 2 / (len(after) - 1))
    half = _student(degrees) * math.sqrt(first + second)
    return Difference(mean, mean - half, mean + half)


def pass_at_k(attempts: int, successes: int, k: int) -> float:
    """Return the unbiased estimate of the chance that one of `k` attempts succeeds; `k` is at most `attempts`."""
    return 1.0 - math.comb(attempts - successes, k) / math.comb(attempts, k)


def pass_hat_k(attempts: int, successes: int, k: int) -> float:
    """Return the unbiased estimate of the chance that all of `k` attempts succeed (pass^k)."""
    return math.comb(successes, k) / math.comb(attempts, k)


def average_at_k(scores: Sequence[float], k: int) -> float:
    """Return the mean of the first `k` scores, or of all where there are fewer."""
    return statistics.fmean(scores[:k])


def majority_at_k(answers: Sequence[Hashable | None], scores: Sequence[float], k: int) -> float:
    """Return the score of the most common answer among the first `k`.

    Answers are told apart together with their scores; those that tie are averaged. None is no answer and does not vote;
    without any vote the score is 0.
    """
    pairs = zip(answers[:k], scores[:k], strict=True)
    votes = Counter((answer, score) for answer, score in pairs if answer is not None)
    if not votes:
        return 0.0
    most = max(votes.values())
    return statistics.fmean(score for (_, score), count in votes.items() if count == most)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return mean, p50, p90, p99 and max; between two values it is linear. Empty for none."""
    if not values:
        return {}
    ordered = sorted(values)
    last = len(ordered) - 1
    shares = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {"mean": statistics.fmean(ordered), **{name: _at(ordered, share * last) for name, share in shares.items()}}


def described(values: Sequence[float], bounds: tuple[float, float] = (-math.inf, math.inf)) -> dict[str, Any]:
    """Return {"mean", "low", "high"} of independent values as JSON: None where the interval, or all, is unknown.

    Args:
        bounds: where the quantity cannot lie outside, such as (0, 1) of a chance; the interval is cut there.
    """
    if not values:
        return {"mean": None, "low": None, "high": None}
    low, high = interval(values)
    known = not math.isnan(low)
    return {
        "mean": statistics.fmean(values),
        "low": max(low, bounds[0]) if known else None,
        "high": min(high, bounds[1]) if known else None,
    }


def _at(ordered: Sequence[float], place: float) -> float:
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


# Student's t at 0.975 for 1 to 30 degrees of freedom; beyond, the expansion below is exact to five digits.
_STUDENT = (
    12.706205, 4.302653, 3.182446, 2.776445, 2.570582, 2.446912, 2.364624, 2.306004, 2.262157, 2.228139,
    2.200985, 2.178813, 2.160369, 2.144787, 2.131450, 2.119905, 2.109816, 2.100922, 2.093024, 2.085963,
    2.079614, 2.073873, 2.068658, 2.063899, 2.059539, 2.055529, 2.051831, 2.048407, 2.045230, 2.042272,
)  # fmt: skip


def _student(degrees: float) -> float:
    """The quantile; between two whole numbers of degrees the wider one."""
    if degrees < len(_STUDENT) + 1:
        return _STUDENT[max(1, math.floor(degrees)) - 1]
    z = _Z
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    return z + first / degrees + second / degrees**2
