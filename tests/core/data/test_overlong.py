"""Overlong shaping: what an answer's length costs."""

from __future__ import annotations

import pytest

from gymrail.data.overlong import Overlong
from gymrail.tokens import TokenSequence


def answers(*lengths: int) -> TokenSequence:
    """A talk whose answers have these lengths, with a tool's five tokens after each."""
    mask = [bit for length in lengths for bit in [1] * length + [0] * 5]
    return TokenSequence([1, 2, 3], [7] * len(mask), mask, [-0.5 * bit for bit in mask])


@pytest.mark.parametrize(
    ("length", "cost"),
    [(1, 0.0), (60, 0.0), (61, -0.0125), (80, -0.25), (100, -0.5), (130, -0.5)],
)
def test_the_buffer_before_the_limit_costs_linearly_and_the_limit_all(length: int, cost: float) -> None:
    assert Overlong(limit=100, buffer=40, penalty=0.5).of(answers(length)) == pytest.approx(cost)


def test_of_several_answers_the_longest_counts_and_not_what_tools_said() -> None:
    overlong = Overlong(limit=100, buffer=40)
    assert overlong.of(answers(50, 55, 50)) == 0.0
    assert overlong.of(answers(50, 80, 50)) == pytest.approx(-0.5)


def test_a_row_that_holds_no_sampled_token_costs_nothing() -> None:
    assert Overlong(limit=100, buffer=40).of(TokenSequence([1], [2], [0], [0.0])) == 0.0
