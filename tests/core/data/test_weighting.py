"""A profile's tasks drawn by their pass rate: how often each comes, against the rule worked out anew."""

import math
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gymrail.data.mixture import Member, Mixture
from gymrail.data.profiled import signal_of
from gymrail.errors import InputError
from gymrail.spec import EnvironmentSpec

Quiz = Callable[..., EnvironmentSpec]

PASSES = [(0, 8), (1, 8), (2, 8), (4, 8), (7, 8), (8, 8), (0, 64), (32, 64), (1, 2), (64, 64)]
"""Successes and rollouts per task."""
CHI_SQUARE_9_AT_A_THOUSANDTH = 27.877


def write_profile(path: Path, passes: list[tuple[int, int]]) -> Path:
    rows = [
        {
            "responses_create_params": {"input": f"Question {index}"}, "answer": str(index),
            "_profile": {"environment": "quiz", "task_index": index, "count": count, "pass_rate": successes / count},
        }
        for index, (successes, count) in enumerate(passes)
    ]  # fmt: skip
    path.write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    return path


def weighted(spec: EnvironmentSpec, profile: Path, seed: int = 0, **options: object) -> Mixture:
    return Mixture([Member(spec, profile=profile, weight_by="pass_rate", **options)], seed)  # type: ignore[arg-type]


@given(st.integers(1, 40).flatmap(lambda count: st.tuples(st.integers(0, count), st.just(count))))
def test_the_signal_is_the_expected_variance_of_the_reward(passes: tuple[int, int]) -> None:
    successes, count = passes
    failures = count - successes

    def beta(a: int, b: int) -> Fraction:
        return Fraction(math.factorial(a - 1) * math.factorial(b - 1), math.factorial(a + b - 1))

    # The mean of p (1 - p) over the posterior p^s (1 - p)^f, as a ratio of two integrals.
    exact = beta(successes + 2, failures + 2) / beta(successes + 1, failures + 1)
    assert signal_of(successes / count, count) == pytest.approx(float(exact), rel=1e-9)


def test_many_rollouts_weigh_as_p_times_one_minus_p_and_few_leave_room_for_doubt() -> None:
    for rate in (0.1, 0.25, 0.5, 0.9):
        assert signal_of(rate, 10**6) == pytest.approx(rate * (1 - rate), rel=1e-4)
    assert signal_of(0.0, 64) < signal_of(0.0, 4) < signal_of(0.25, 4) < signal_of(0.5, 4)
    assert signal_of(0.25, 8) == pytest.approx(signal_of(0.75, 8))


@pytest.mark.parametrize("seed", range(3))
def test_tasks_come_as_often_as_the_rule_says(make_quiz: Quiz, tmp_path: Path, seed: int) -> None:
    mixture = weighted(make_quiz("quiz"), write_profile(tmp_path / "profile.jsonl", PASSES), seed)
    groups = 3000
    drawn = Counter(mixture.group(index).task_index for index in range(groups))
    weights = [(s + 1) * (n - s + 1) / ((n + 2) * (n + 3)) for s, n in PASSES]
    expected = [groups * weight / sum(weights) for weight in weights]

    def chi_square(expected: list[float]) -> float:
        return sum((drawn[index] - value) ** 2 / value for index, value in enumerate(expected))

    assert min(expected) > 5
    assert chi_square(expected) < CHI_SQUARE_9_AT_A_THOUSANDTH < chi_square([groups / len(PASSES)] * len(PASSES))


def test_an_epoch_gives_every_task_its_share_rounded_up_or_down_in_a_new_order(make_quiz: Quiz, tmp_path: Path) -> None:
    mixture = weighted(make_quiz("quiz"), write_profile(tmp_path / "profile.jsonl", PASSES))
    weights = [signal_of(successes / count, count) for successes, count in PASSES]
    shares = [len(PASSES) * weight / sum(weights) for weight in weights]
    epochs = [[mixture.group(10 * epoch + place).task_index for place in range(10)] for epoch in range(30)]
    for epoch in epochs:
        counts = Counter(epoch)
        assert all(math.floor(share) <= counts[index] <= math.ceil(share) for index, share in enumerate(shares))
    assert len(set(map(tuple, epochs))) > 25
    assert [mixture.group(index).task_index for index in range(30)] == [*epochs[0], *epochs[1], *epochs[2]]


def test_weights_go_with_the_filter_and_are_part_of_the_fingerprint(make_quiz: Quiz, tmp_path: Path) -> None:
    spec, path = make_quiz("quiz"), write_profile(tmp_path / "profile.jsonl", PASSES)
    within = weighted(spec, path, pass_rate=(0.1, 0.9))
    tasks = {within.group(index).task.row["answer"] for index in range(100)}
    assert tasks == {str(index) for index, (s, n) in enumerate(PASSES) if 0.1 <= s / n <= 0.9}
    prints = {weighted(spec, path).fingerprint, within.fingerprint, Mixture([Member(spec, profile=path)]).fingerprint}
    again = [(2 * successes, 2 * count) for successes, count in PASSES]
    prints.add(weighted(spec, write_profile(tmp_path / "again.jsonl", again)).fingerprint)
    assert len(prints) == 4


def test_weighting_needs_a_profile_with_counts(make_quiz: Quiz, tmp_path: Path) -> None:
    spec = make_quiz("quiz")
    with pytest.raises(InputError, match="weight_by of 'quiz' needs a profile: `gymrail profile RUN -o FILE`"):
        Mixture([Member(spec, weight_by="pass_rate")])
    path = write_profile(tmp_path / "profile.jsonl", [(1, 2)])
    path.write_bytes(path.read_bytes().replace(b'"count":2', b'"count":0'))
    with pytest.raises(InputError, match="line 1: the profile's count is 0; it is a number of rollouts"):
        weighted(spec, path).group(0)
    path.write_bytes(path.read_bytes().replace(b'"count":0,', b""))
    with pytest.raises(InputError, match="does not say of how many rollouts the pass rate of 'quiz' task"):
        weighted(spec, path).group(0)
    assert Mixture([Member(spec, profile=path)]).group(0).task.row["answer"] == "0"
