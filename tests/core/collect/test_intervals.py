"""Intervals against computations that share nothing with them: inverted tests, integrated densities, the sandwich
estimator of clustered data, and how often the truth lies inside."""

import functools
import math
from random import Random

import numpy
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from gymrail import Outcome, Rollout, Task
from gymrail.collect.estimators import interval, student_interval, unpaired_difference
from gymrail.collect.metrics import aggregate

Z = 1.959963984540054
spread_out = st.lists(st.integers(-1000, 1000).map(lambda value: value / 7), min_size=2, max_size=12)


@functools.cache
def student_quantile(degrees: float) -> float:
    """The 0.975 quantile: the density is integrated after x = sqrt(degrees) tan(u), which makes its tail finite."""
    log_scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - 0.5 * math.log(math.pi)
    u = numpy.linspace(0, math.pi / 2, 200_001)[:-1]
    density = numpy.exp(log_scale + (degrees - 1) * numpy.log(numpy.cos(u)))
    area = numpy.concatenate([[0], numpy.cumsum((density[1:] + density[:-1]) / 2 * numpy.diff(u))])
    return float(math.sqrt(degrees) * numpy.tan(numpy.interp(0.475, area, u)))


def test_the_reference_quantile_is_the_one_that_books_print() -> None:
    printed = {1: 12.706, 2: 4.3027, 5: 2.5706, 10: 2.2281, 30: 2.0423, 120: 1.9799}
    assert {degrees: student_quantile(degrees) for degrees in printed} == pytest.approx(printed, rel=1e-4)


@given(st.integers(2, 5000).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_successes_have_the_interval_of_all_rates_that_the_score_test_keeps(passes: tuple[int, int]) -> None:
    successes, count = passes
    share = successes / count

    def is_kept(rate: float) -> bool:
        return abs(share - rate) <= Z * math.sqrt(rate * (1 - rate) / count)

    def edge(inside: float, outside: float) -> float:
        for _ in range(80):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if is_kept(middle) else (inside, middle)
        return inside

    low, high = interval([1.0] * successes + [0.0] * (count - successes))
    assert (low, high) == pytest.approx((edge(share, 0.0), edge(share, 1.0)), abs=1e-9)


@settings(max_examples=60, deadline=None)
@given(spread_out)
def test_a_mean_has_students_interval(values: list[float]) -> None:
    half = student_quantile(len(values) - 1) * numpy.std(values, ddof=1) / math.sqrt(len(values))
    mean = numpy.mean(values)
    assert student_interval(values) == pytest.approx((mean - half, mean + half), rel=1e-4, abs=1e-6 + 1e-5 * half)


@settings(max_examples=40, deadline=None)
@given(spread_out, spread_out)
def test_two_samples_have_welchs_interval_at_most_one_degree_too_wide(before: list[float], after: list[float]) -> None:
    errors = [numpy.var(sample, ddof=1) / len(sample) for sample in (before, after)]
    assume(sum(errors) > 1e-9)
    degrees = sum(errors) ** 2 / sum(
        error**2 / (len(sample) - 1) for error, sample in zip(errors, (before, after), strict=True)
    )
    narrow, wide = (
        student_quantile(round(quantile, 6)) * math.sqrt(sum(errors))
        for quantile in (degrees, max(1, math.floor(degrees)))
    )
    found = unpaired_difference(before, after)
    assert found.mean == pytest.approx(numpy.mean(after) - numpy.mean(before), abs=1e-9)
    assert found.high - found.mean == pytest.approx(found.mean - found.low, rel=1e-6, abs=1e-9)
    assert narrow * (1 - 1e-4) <= found.high - found.mean <= wide * (1 + 1e-4)


def make(index: int, repeat: int, reward: float) -> Rollout:
    return Rollout("a", Task.ask(f"{index}"), f"{index}-{repeat}", index, repeat, outcome=Outcome("scored"),
                   reward=reward)  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(st.integers(2, 6).flatmap(lambda repeats: st.lists(
    st.lists(st.floats(-1, 1).map(lambda value: round(value, 3)), min_size=repeats, max_size=repeats),
    min_size=2, max_size=10,
)))  # fmt: skip
def test_repeats_of_a_task_are_one_cluster_of_the_sandwich_estimator(tasks: list[list[float]]) -> None:
    rewards_T_R = numpy.array(tasks)
    clusters = len(tasks)
    assume(any(mean not in (0, 1) for mean in rewards_T_R.mean(axis=1)))
    # Liang and Zeger's variance of a mean: residuals are added up within a cluster before they are squared.
    residuals = (rewards_T_R - rewards_T_R.mean()).sum(axis=1)
    error = math.sqrt(clusters / (clusters - 1) * (residuals**2).sum()) / rewards_T_R.size
    half = student_quantile(clusters - 1) * error
    rollouts = [make(task, repeat, reward) for task, mine in enumerate(tasks) for repeat, reward in enumerate(mine)]
    found = aggregate(rollouts)["overall"]["reward"]
    expected = [rewards_T_R.mean(), rewards_T_R.mean() - half, rewards_T_R.mean() + half]
    if set(rewards_T_R.flat) <= {0, 1}:
        # No mean of zeros and ones lies beyond them.
        expected = [min(max(value, 0), 1) for value in expected]
    assert [found["mean"], found["low"], found["high"]] == pytest.approx(expected, rel=1e-4, abs=1e-6 + 1e-5 * half)


def test_the_interval_of_clustered_rollouts_holds_the_truth_about_95_times_in_100_and_a_naive_one_does_not() -> None:
    rng = Random("clusters")
    covered = naive = 0
    runs = 200
    for _ in range(runs):
        rates = [rng.betavariate(0.5, 0.5) for _ in range(24)]
        rewards = [[float(rng.random() < rate) for _ in range(6)] for rate in rates]
        found = aggregate(make(task, repeat, reward) for task, mine in enumerate(rewards)
                          for repeat, reward in enumerate(mine))["overall"]["reward"]  # fmt: skip
        covered += found["low"] <= 0.5 <= found["high"]
        low, high = interval([reward for mine in rewards for reward in mine])
        naive += low <= 0.5 <= high
    assert 0.92 < covered / runs < 0.98
    assert naive / runs < 0.75
