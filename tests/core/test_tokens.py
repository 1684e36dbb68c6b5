"""The on-policy token rule: splice, prefix, stop, mask; and what each trainer is handed."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gymrail import Outcome, Rollout, Task
from gymrail.errors import Failure
from gymrail.task import Item
from gymrail.tokens import (
    Segment,
    TokenError,
    TokenSequence,
    TrainingRow,
    finish_of,
    first_difference,
    last_sequence,
    next_prompt,
    sequence_of,
    sequences_of,
    token_problem,
    training_row,
)

END = 9
MASKED = TokenSequence([END], [END], [0], [0.0])


def call(prompt: list[int], sampled: list[int], log_probs: list[float] | None = None) -> Item:
    values = [-0.5] * len(sampled) if log_probs is None else log_probs
    return {"prompt_token_ids": prompt, "generation_token_ids": sampled, "generation_log_probs": values}


def rollout_of(*calls: Item, status: Any = "scored", reward: float | None = 1.0) -> Rollout:
    failure = Failure("tool", "tool", "broke") if status == "failed" else None
    rollout = Rollout("counter", Task.ask("Count."), "r1", model="policy")
    rollout.conversation = [{"role": "assistant", "content": "x", **fields} for fields in calls]
    rollout.outcome = Outcome(status, failure, "max_steps" if status == "truncated" else None)
    rollout.reward = None if failure else reward
    return rollout


def test_what_stands_between_two_samples_is_masked() -> None:
    rollout = rollout_of(call([1, 2], [3, END], [-0.1, -0.2]), call([1, 2, 3, END, 5, 6], [7, END], [-0.3, -0.4]))
    assert sequence_of(rollout) == TokenSequence(
        prompt_ids=[1, 2],
        completion_ids=[3, END, 5, 6, 7, END],
        mask=[1, 1, 0, 0, 1, 1],
        log_probs=[-0.1, -0.2, 0.0, 0.0, -0.3, -0.4],
    )
    assert sequence_of(rollout).labels == [-100, -100, 3, END, -100, -100, 7, END]


def test_segments_are_nemo_rl_s_messages_whose_role_is_the_mask() -> None:
    rollout = rollout_of(call([1, 2], [3, END], [-0.1, -0.2]), call([1, 2, 3, END, 5], [7], [-0.3]))
    assert sequence_of(rollout).segments == [
        Segment("user", [1, 2], []),
        Segment("assistant", [3, END], [-0.1, -0.2]),
        Segment("user", [5], []),
        Segment("assistant", [7], [-0.3]),
    ]


def test_a_rewritten_history_begins_a_new_sequence_and_the_token_is_named() -> None:
    rollout = rollout_of(call([1, 2], [3, 4, END]), call([1, 2, 4, END, 5], [7, END]))
    first, second = sequences_of(rollout)
    assert (first.prompt_ids, first.completion_ids) == ([1, 2], [3, 4, END])
    assert (second.prompt_ids, second.completion_ids, second.mask) == ([1, 2, 4, END, 5], [7, END], [1, 1])
    assert last_sequence(rollout) == (second, 1)
    with pytest.raises(TokenError, match=r"token 2 differs \(3 was there, 4 came\)"):
        sequence_of(rollout)


def test_a_prompt_shorter_than_what_was_sampled_is_a_rewritten_history() -> None:
    rollout = rollout_of(call([1, 2], [3, 4]), call([1, 2, 3], [7]))
    with pytest.raises(TokenError, match=r"token 3 differs \(4 was there, the end came\)"):
        sequence_of(rollout)


tokens = st.lists(st.integers(0, 50), min_size=1, max_size=6)
steps = st.lists(st.tuples(st.lists(st.integers(0, 50), max_size=5), tokens), min_size=1, max_size=5)


@given(tokens, steps)
def test_every_sampled_token_is_trained_once_and_in_order(start: list[int], turns: Any) -> None:
    seen, calls, sampled, log_probs = list(start), [], [], []
    for number, (between, said) in enumerate(turns):
        seen += between if number else []
        values = [-(len(sampled) + index + 1) / 100 for index in range(len(said))]
        calls.append(call(list(seen), list(said), values))
        seen += said
        sampled += said
        log_probs += values

    sequence = sequence_of(rollout_of(*calls))

    trained = [index for index, keep in enumerate(sequence.mask) if keep]
    assert [sequence.completion_ids[index] for index in trained] == sampled
    assert [sequence.log_probs[index] for index in trained] == log_probs
    assert sequence.input_ids == seen
    assert [token for token in sequence.labels if token != -100] == sampled
    joined = [token for segment in sequence.segments for token in segment.token_ids]
    assert joined == seen
    assert [value for segment in sequence.segments for value in segment.log_probs] == log_probs
    roles = [segment.role for segment in sequence.segments]
    assert all(one != other for one, other in pairwise(roles))
    assert all(len(segment.log_probs) == len(segment.token_ids) * (segment.role == "assistant")
               for segment in sequence.segments)  # fmt: skip


def test_a_scored_rollout_is_a_row_with_its_reward() -> None:
    rollout = rollout_of(call([1], [2, END]), reward=0.25)
    assert training_row(rollout, placeholder_id=END) == TrainingRow(sequence_of(rollout), 0.25)


def test_a_failed_rollout_is_a_masked_row_without_a_reward() -> None:
    rollout = rollout_of(call([1], [2, END]), status="failed")
    assert training_row(rollout, placeholder_id=END) == TrainingRow(MASKED, None, "no_reward")


@pytest.mark.parametrize("is_trained", [True, False])
def test_a_truncated_rollout_is_trained_with_what_it_earned_or_masked(is_trained: bool) -> None:
    rollout = rollout_of(call([1], [2, 3]), status="truncated", reward=0.5)
    row = training_row(rollout, placeholder_id=END, train_truncated=is_trained)
    expected = TrainingRow(TokenSequence([1], [2, 3], [1, 1], [-0.5, -0.5]), 0.5)
    assert row == (expected if is_trained else TrainingRow(MASKED, None, "truncated"))


def test_a_truncated_rollout_that_was_not_judged_is_masked() -> None:
    row = training_row(rollout_of(call([1], [2, 3]), status="truncated", reward=None), placeholder_id=END)
    assert (row.masked, row.reward) == ("no_reward", None)


@pytest.mark.parametrize(
    ("calls", "problem"),
    [((), "carries no token ids"), ((call([1], [2, 3], [-0.5]),), "stand against 1"),
     ((call([1], [2], [math.nan]),), "not finite")],
)  # fmt: skip
def test_a_rollout_whose_tokens_cannot_be_used_is_masked_and_says_why(calls: Any, problem: str) -> None:
    row = training_row(rollout_of(*calls), placeholder_id=END)
    assert (row.sequence, row.reward, row.masked) == (MASKED, None, "no_tokens")
    assert row.problem is not None
    assert problem in row.problem


def test_one_row_holds_the_last_stretch_and_counts_those_before() -> None:
    row = training_row(rollout_of(call([1], [2, END]), call([7], [8, END])), placeholder_id=END)
    assert (row.sequence.prompt_ids, row.left_out, row.reward) == ([7], 1, 1.0)


def test_the_next_prompt_keeps_the_sampled_ids_and_closes_a_turn_that_was_cut_off() -> None:
    assert next_prompt([1], [2, END], [5], end_ids={END, 8}, turn_end=END) == [1, 2, END, 5]
    assert next_prompt([1], [2, 3], [5], end_ids={END, 8}, turn_end=END) == [1, 2, 3, END, 5]
    # Another end than the template's is what was sampled, so it stays.
    assert next_prompt([1], [2, 8], [5], end_ids={END, 8}, turn_end=END) == [1, 2, 8, 5]


def test_the_closing_token_of_a_cut_turn_is_not_trained() -> None:
    prompt = next_prompt([1], [2, 3], [5], end_ids={END}, turn_end=END)
    sequence = sequence_of(rollout_of(call([1], [2, 3]), call(prompt, [4, END])))
    assert sequence.completion_ids == [2, 3, END, 5, 4, END]
    assert sequence.mask == [1, 1, 0, 0, 1, 1]


def test_a_turn_stops_only_at_an_end_of_turn() -> None:
    assert finish_of([1, END], {END}) == "stop"
    assert finish_of([END, 1], {END}) == "max_output_tokens"
    assert finish_of([], {END}) == "max_output_tokens"


def test_the_first_difference_is_the_shorter_length_where_one_begins_with_the_other() -> None:
    assert first_difference([1, 2, 3], [1, 5, 3]) == 1
    assert first_difference([1, 2], [1, 2, 3]) == 2
    assert first_difference([], [1]) == 0


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        (([1], [2], [-0.5]), None),
        (([1], [2], [1e-5]), None),
        ((None, [2], [-0.5]), "prompt_token_ids is missing or empty"),
        (([], [2], [-0.5]), "prompt_token_ids is missing or empty"),
        (([1], [2], None), "generation_log_probs is missing or empty"),
        (([1], [2, 3], [-0.5]), "2 generation_token_ids stand against 1 generation_log_probs"),
        (([1], ["a"], [-0.5]), "one of the values is no number (a log-prob of NaN arrives as null)"),
        (([1], [2], [None]), "one of the values is no number (a log-prob of NaN arrives as null)"),
        (([1], [2], [-math.inf]), "a log-prob is not finite"),
        (([1], [2], [0.5]), "a log-prob is 0.5; it must be at most 0"),
    ],
)
def test_token_fields_that_cannot_be_trained_on_are_told_apart(fields: Any, problem: str | None) -> None:
    assert token_problem(*fields) == problem
