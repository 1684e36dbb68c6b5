"""Every estimator against a count of all cases, or a computation that shares nothing with it."""

import functools
import itertools
import math
import statistics
from collections.abc import Sequence
from fractions import Fraction
from random import Random

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gymrail.collect.estimators import (
    average_at_k,
    described,
    interval,
    majority_at_k,
    paired_difference,
    pass_at_k,
    pass_hat_k,
    percentiles,
    student_interval,
    unpaired_difference,
)

outcomes = st.lists(st.booleans(), min_size=1, max_size=9)
votes = st.lists(
    st.tuples(st.sampled_from(["A", "B", "C", None]), st.sampled_from([0.0, 0.5, 1.0])), min_size=1, max_size=9
)
numbers = st.floats(-1e3, 1e3).map(lambda value: round(value, 3))


@given(outcomes, st.data())
def test_pass_at_k_and_pass_hat_k_are_shares_of_all_choices_of_k_attempts(
    attempts: list[bool], data: st.DataObject
) -> None:
    k = data.draw(st.integers(1, len(attempts)))
    choices = list(itertools.combinations(attempts, k))
    of = (len(attempts), sum(attempts), k)
    assert pass_at_k(*of) == pytest.approx(sum(map(any, choices)) / len(choices))
    assert pass_hat_k(*of) == pytest.approx(sum(map(all, choices)) / len(choices))


@pytest.mark.parametrize(("estimate", "truth"), [(pass_at_k, 1 - 0.7**3), (pass_hat_k, 0.3**3)])
def test_the_estimates_are_unbiased_over_all_outcomes_of_six_attempts(estimate, truth: float) -> None:
    expected = 0.0
    for attempts in itertools.product([0, 1], repeat=6):
        successes = sum(attempts)
        expected += 0.3**successes * 0.7 ** (6 - successes) * estimate(6, successes, 3)
    assert expected == pytest.approx(truth)


def test_a_thousand_attempts_do_not_overflow() -> None:
    assert 0.0 < pass_hat_k(10_000, 9_000, 1_000) < pass_at_k(10_000, 9_000, 1_000) <= 1.0


@given(votes, st.integers(1, 9))
def test_majority_is_the_score_expected_of_a_winner_drawn_from_those_that_no_pair_outvotes(
    cast: list[tuple[str | None, float]], k: int
) -> None:
    first = [vote for vote in cast[:k] if vote[0] is not None]
    # A pair wins when no other stands in the list more often; each winner is counted once.
    winners = [
        vote for place, vote in enumerate(first)
        if vote not in first[:place] and all(first.count(vote) >= first.count(other) for other in first)
    ]  # fmt: skip
    expected = sum(Fraction(score) for _, score in winners) / len(winners) if winners else 0
    answers, scores = [answer for answer, _ in cast], [score for _, score in cast]
    assert majority_at_k(answers, scores, k) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("answers", "scores", "expected"),
    [
        ("AAB", (1.0, 1.0, 0.0), 1.0),
        ("BBA", (0.0, 0.0, 1.0), 0.0),
        ("ABA", (1.0, 0.0, 1.0), 1.0),
        ("AB", (1.0, 0.0), 0.5),
        ("ABC", (1.0, 0.0, 0.0), 1 / 3),
        ((None, None, "A"), (0.0, 0.0, 1.0), 1.0),
        ((None, None), (0.0, 0.0), 0.0),
    ],
)
def test_ties_are_averaged_and_no_answer_does_not_vote(
    answers: Sequence[str | None], scores: Sequence[float], expected: float
) -> None:
    assert majority_at_k(answers, scores, len(scores)) == pytest.approx(expected)


@given(st.lists(numbers, min_size=1, max_size=9), st.integers(1, 12))
def test_average_is_that_of_the_first_k(scores: list[float], k: int) -> None:
    total = count = 0.0
    for place, score in enumerate(scores):
        if place < k:
            total, count = total + score, count + 1
    assert average_at_k(scores, k) == pytest.approx(total / count, abs=1e-9)


@functools.cache
def student_quantile(degrees: float) -> float:
    """The 0.975 quantile by integrating the density: slow, and independent of what is tested."""
    log_scale = math.lgamma((degrees + 1) / 2) - math.lgamma(degrees / 2) - 0.5 * math.log(degrees * math.pi)
    # x = tan(u) makes the tail of one degree of freedom finite.
    u = numpy.linspace(0, math.pi / 2, 400_001)[:-1]
    x = numpy.tan(u)
    density = numpy.exp(log_scale - (degrees + 1) / 2 * numpy.log1p(x**2 / degrees)) * (1 + x**2)
    area = numpy.concatenate([[0], numpy.cumsum((density[1:] + density[:-1]) / 2 * numpy.diff(u))])
    return float(numpy.interp(0.475, area, x))


@pytest.mark.parametrize("count", [2, 3, 5, 10, 31, 32, 50, 200])
def test_the_interval_of_a_mean_is_students(count: int) -> None:
    values = [Random(f"interval:{index}").gauss(3, 2) for index in range(count)]
    low, high = interval(values)
    half = student_quantile(count - 1) * statistics.stdev(values) / math.sqrt(count)
    assert (low, high) == pytest.approx((statistics.mean(values) - half, statistics.mean(values) + half), rel=1e-4)


def test_the_interval_covers_the_true_mean_about_95_times_in_100() -> None:
    rng = Random("coverage")
    covered = 0
    for _ in range(2_000):
        low, high = interval([rng.random() for _ in range(8)])
        covered += low <= 0.5 <= high
    assert 0.93 < covered / 2_000 < 0.97


def test_the_interval_of_many_values_is_the_one_that_resampling_gives() -> None:
    rng = numpy.random.default_rng(7)
    values = rng.beta(0.5, 0.5, size=400)
    means = rng.choice(values, size=(4_000, 400)).mean(axis=1)
    assert interval(list(values)) == pytest.approx(tuple(numpy.percentile(means, [2.5, 97.5])), abs=0.005)


@pytest.mark.parametrize(("count", "successes"), [(10, 0), (10, 3), (10, 10), (50, 1), (200, 77)])
def test_the_interval_of_successes_holds_the_rates_that_a_score_test_does_not_reject(
    count: int, successes: int
) -> None:
    rates = numpy.linspace(0, 1, 200_001)[1:-1]
    kept = rates[numpy.abs(successes / count - rates) <= 1.959964 * numpy.sqrt(rates * (1 - rates) / count)]
    low, high = interval([1.0] * successes + [0.0] * (count - successes))
    assert (low, high) == pytest.approx((kept.min(), kept.max()), abs=2e-5)


def test_one_value_has_no_interval() -> None:
    assert all(math.isnan(bound) for bound in interval([0.5]) + interval([]))
    assert described([0.5]) == {"mean": 0.5, "low": None, "high": None}
    assert described([]) == {"mean": None, "low": None, "high": None}


def test_the_interval_of_a_chance_stays_between_0_and_1() -> None:
    found = described([0.9, 1.0, 0.5], (0.0, 1.0))
    assert found["high"] == 1.0
    assert interval([0.9, 1.0, 0.5])[1] > 1.0


@settings(deadline=None)
@given(st.lists(st.tuples(numbers, numbers), min_size=2, max_size=20))
def test_a_paired_difference_is_students_interval_of_the_changes_and_not_wilsons(
    pairs: list[tuple[float, float]],
) -> None:
    found = paired_difference([pair[0] for pair in pairs], [pair[1] for pair in pairs])
    changes = numpy.array([after - before for before, after in pairs])
    half = student_quantile(len(pairs) - 1) * changes.std(ddof=1) / math.sqrt(len(pairs))
    mean = changes.mean()
    # An end near 0 is a difference of two large numbers, so what is right is right relative to the half-width.
    assert tuple(found) == pytest.approx((mean, mean - half, mean + half), rel=1e-3, abs=1e-6 + 1e-5 * half)


def test_an_unpaired_difference_covers_the_truth_about_95_times_in_100_with_unequal_spreads() -> None:
    rng = Random("welch")
    covered = 0
    for _ in range(2_000):
        before = [rng.gauss(0, 3) for _ in range(6)]
        after = [rng.gauss(1, 0.5) for _ in range(25)]
        _, low, high = unpaired_difference(before, after)
        covered += low <= 1.0 <= high
    assert 0.935 < covered / 2_000 < 0.98


def test_an_unpaired_difference_agrees_with_a_worked_example() -> None:
    # Welch: variances 2.5/5 and 10/5, degrees 2.5**2 / (0.5**2/4 + 2**2/4) = 5.88, taken as 5; t(5) = 2.5706.
    found = unpaired_difference([1, 2, 3, 4, 5], [2, 4, 6, 8, 10])
    half = 2.5706 * math.sqrt(2.5)
    assert tuple(found) == pytest.approx((3.0, 3.0 - half, 3.0 + half), abs=1e-3)


def test_too_few_values_give_a_difference_without_an_interval_or_none() -> None:
    assert unpaired_difference([1.0], [2.0, 3.0]).mean == 1.5
    assert math.isnan(unpaired_difference([1.0], [2.0, 3.0]).low)
    assert all(math.isnan(value) for value in unpaired_difference([], [1.0]))
    assert unpaired_difference([1.0, 1.0], [0.0, 0.0]) == (-1.0, -1.0, -1.0)
    assert all(math.isnan(value) for value in student_interval([3.0]))


@given(st.lists(st.floats(0, 1e3), min_size=1, max_size=30))
def test_percentiles_agree_with_numpy(values: list[float]) -> None:
    found = percentiles(values)
    assert [found["p50"], found["p90"], found["p99"], found["max"]] == pytest.approx(
        list(numpy.percentile(values, [50, 90, 99, 100])), abs=1e-9
    )
