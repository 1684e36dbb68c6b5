"""State comparison: these rows changed and nothing else."""

import asyncio
import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gymrail.errors import InputError
from gymrail.verifiers.state import Comparison, Rules, StateComparison, changes, compare, row_changes
from gymrail.verifiers.verifier import Verifier

RULES = Rules(
    keys={"tasks": "id"},
    generated={"tasks": frozenset({"id"})},
    ignored={"tasks": frozenset({"seen_at"})},
    fold_case=True,
    exact=frozenset({"list"}),
)
BEFORE = {
    "tasks": [
        {"id": 1, "name": "Paint the fence", "list": "Open", "seen_at": 5},
        {"id": 2, "name": "Mow the lawn", "list": "Open", "seen_at": 5},
        {"id": 3, "name": "Feed the cat", "list": "Done", "seen_at": 5},
    ],
    "plots": [{"path": "a.png"}],
}


def after(*rows: dict[str, Any], plots: list[dict[str, Any]] | None = None) -> dict[str, Any]:
    return {"tasks": list(rows), "plots": BEFORE["plots"] if plots is None else plots}


def judged(actual: dict[str, Any], *wanted: dict[str, Any], rules: Rules = RULES) -> Comparison:
    return compare(changes(BEFORE, actual, rules), *(changes(BEFORE, one, rules) for one in wanted))


FENCE, LAWN, CAT = BEFORE["tasks"]
NEW = {"id": 4, "name": "Buy seeds", "list": "Open", "seen_at": 6}
CLOSED = {**FENCE, "list": "Done"}
RENAMED = {**LAWN, "name": "Mow the meadow"}


def test_the_order_of_rows_and_columns_does_not_count() -> None:
    turned = [dict(reversed(row.items())) for row in (NEW, CAT, RENAMED, CLOSED)]
    found = judged(after(*turned), after(CLOSED, RENAMED, CAT, NEW))
    assert (found.is_equal, found.score, found.difference) == (True, 1.0, "")


def test_an_unchanged_state_is_no_change_and_earns_nothing_where_one_is_wanted() -> None:
    assert not changes(BEFORE, BEFORE, RULES)
    found = judged(BEFORE, after(CLOSED, LAWN, CAT))
    assert (found.is_equal, found.score) == (False, 0.0)
    assert judged(BEFORE, BEFORE).score == 1.0


def test_a_side_effect_is_a_difference_and_lowers_the_partial_credit() -> None:
    found = judged(after(CLOSED, LAWN), after(CLOSED, LAWN, CAT))
    assert (found.is_equal, found.score, found.matched) == (False, 0.5, 1)
    assert found.difference == "tasks 3: its deletion was not expected"


def test_two_columns_of_one_row_are_two_changes() -> None:
    both = {**FENCE, "list": "Done", "name": "Paint the gate"}
    found = judged(after(CLOSED, LAWN, CAT), after(both, LAWN, CAT))
    assert (found.is_equal, found.score) == (False, 0.5)
    assert found.difference == "tasks 1: name 'paint the gate' is missing"


def test_a_wrong_value_is_told_once_with_what_was_expected() -> None:
    wrong = {**FENCE, "list": "Later"}
    found = judged(after(wrong, LAWN, CAT), after(CLOSED, LAWN, CAT))
    assert found.difference == "tasks 1: list is 'Later', expected 'Done'"


def test_of_a_new_row_only_the_columns_that_differ_are_told() -> None:
    wrong = {**NEW, "name": "Buy weeds"}
    found = judged(after(*BEFORE["tasks"], wrong), after(*BEFORE["tasks"], NEW))
    assert found.difference == "tasks, new row: name is 'buy weeds', expected 'buy seeds'"


def test_a_wrong_row_is_told_as_what_is_missing_and_what_should_not_be() -> None:
    found = judged(after(FENCE, {**LAWN, "list": "Done"}, CAT), after(CLOSED, LAWN, CAT))
    assert found.difference == "tasks 1: list 'Done' is missing; tasks 2: list 'Done' was not expected"


def test_the_number_that_a_new_row_was_given_does_not_count() -> None:
    second = {**NEW, "id": 5, "name": "Sell seeds"}
    swapped = [{**NEW, "id": 5}, {**second, "id": 4}]
    assert judged(after(*BEFORE["tasks"], *swapped), after(*BEFORE["tasks"], NEW, second)).is_equal


def test_a_row_made_twice_is_not_a_row_made_once() -> None:
    twice = after(*BEFORE["tasks"], NEW, {**NEW, "id": 5})
    found = judged(twice, after(*BEFORE["tasks"], NEW))
    assert (found.is_equal, found.score) == (False, 0.5)


def test_case_counts_in_exact_columns_alone() -> None:
    assert judged(after({**CLOSED, "name": "PAINT the fence"}, LAWN, CAT), after(CLOSED, LAWN, CAT)).is_equal
    assert not judged(after({**FENCE, "list": "done"}, LAWN, CAT), after(CLOSED, LAWN, CAT)).is_equal
    strict = Rules(keys={"tasks": "id"})
    assert not judged(after({**FENCE, "name": "PAINT the fence"}, LAWN, CAT), BEFORE, rules=strict).is_equal


def test_ignored_columns_never_count() -> None:
    assert judged(after({**CLOSED, "seen_at": 9}, LAWN, {**CAT, "seen_at": 9}), after(CLOSED, LAWN, CAT)).is_equal


def test_rows_without_a_key_are_compared_as_a_bag() -> None:
    plot = {"path": "b.png"}
    wanted = after(*BEFORE["tasks"], plots=[{"path": "a.png"}, plot])
    assert judged(after(*BEFORE["tasks"], plots=[plot, {"path": "A.png"}]), wanted).is_equal
    assert not judged(after(*BEFORE["tasks"], plots=[plot]), wanted).is_equal
    assert not judged(after(*BEFORE["tasks"], plots=[{"path": "a.png"}, plot, plot]), wanted).is_equal


def test_the_nearest_alternative_counts() -> None:
    wanted = (after(CLOSED, LAWN, CAT), after(FENCE, RENAMED, CAT))
    assert judged(after(FENCE, RENAMED, CAT), *wanted).is_equal
    assert judged(after(FENCE, RENAMED), *wanted).score == 0.5
    with pytest.raises(InputError, match="at least one"):
        compare(changes(BEFORE, BEFORE, RULES))


def test_nested_values_are_compared_by_content_and_are_no_text() -> None:
    rules = Rules(keys={"t": "id"})

    def found(one: Any, two: Any) -> bool:
        before = {"t": [{"id": 1, "v": None}]}
        states = [changes(before, {"t": [{"id": 1, "v": value}]}, rules) for value in (one, two)]
        return compare(*states).is_equal

    assert found({"a": [1, 2], "b": None}, {"b": None, "a": [1, 2]})
    assert not found({"a": [1, 2]}, {"a": [2, 1]})
    assert not found([1], "[1]")


def test_a_key_of_several_columns_tells_rows_apart() -> None:
    rules = Rules(keys={"seats": ("row", "seat")})
    before = {"seats": [{"row": 1, "seat": "A", "free": True}, {"row": 1, "seat": "B", "free": True}]}
    taken = {"seats": [before["seats"][0], {"row": 1, "seat": "B", "free": False}]}
    (change,) = changes(before, taken, rules)
    assert (change.kind, change.key, change.column, change.value) == ("updated", (1, "B"), "free", False)


@pytest.mark.parametrize(
    ("rows", "message"), [([{"name": "x"}], "no key column 'id'"), ([FENCE, FENCE], "two rows with the key 1")]
)
def test_rows_that_cannot_be_told_apart_are_refused(rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        changes({"tasks": []}, {"tasks": rows}, RULES)


def test_tracked_rows_give_the_same_changes_as_whole_tables() -> None:
    pairs = [(FENCE, CLOSED), (CAT, None), (None, NEW), (None, None), (LAWN, LAWN)]
    assert list(changes(BEFORE, after(CLOSED, LAWN, NEW), RULES)) == list(row_changes("tasks", pairs, RULES))


TABLES = st.fixed_dictionaries(
    {
        "tasks": st.lists(
            st.fixed_dictionaries({"id": st.integers(0, 5), "list": st.sampled_from(["a", "A", "b"])}),
            max_size=5, unique_by=lambda row: row["id"],
        ),
        "plots": st.lists(st.fixed_dictionaries({"path": st.sampled_from(["x", "y"])}), max_size=4),
    }
)  # fmt: skip


@given(TABLES, TABLES, TABLES, st.randoms(use_true_random=False))
def test_equal_means_that_every_change_is_the_same(before: Any, one: Any, two: Any, rng: Random) -> None:
    rules = Rules(keys={"tasks": "id"})
    shuffled = {name: rng.sample(rows, len(rows)) for name, rows in one.items()}
    assert compare(changes(before, one, rules), changes(before, shuffled, rules)).is_equal
    found = compare(changes(before, one, rules), changes(before, two, rules))
    same = {name: sorted(map(str, rows)) for name, rows in one.items()} == {
        name: sorted(map(str, rows)) for name, rows in two.items()
    }
    assert found.is_equal == same == (found.difference == "") == (found.score == 1.0)
    assert 0.0 <= found.score <= 1.0


def test_the_verifier_judges_a_final_state_or_the_state_that_an_answer_holds() -> None:
    verifier = StateComparison(RULES)
    assert isinstance(verifier, Verifier)
    wanted = after(CLOSED, LAWN, CAT)

    def verdict(answer: str, **fields: Any) -> Any:
        return asyncio.run(verifier(answer, initial_state=BEFORE, expected_state=wanted, **fields))

    assert verdict("", final_state=wanted).reward == 1.0
    assert verdict(f"Here it is:\n```json\n{json.dumps(wanted)}\n```").reward == 1.0
    missed = verdict("", final_state=BEFORE)
    assert (missed.reward, missed.reason) == (0.0, "tasks 1: list 'Done' is missing")
    assert missed.metrics == {"partial": 0.0, "missing": 1, "unexpected": 0}


@pytest.mark.parametrize(
    "answer", ["", "no state", "{", "[]", '{"tasks": 3}', '{"tasks": [1]}', '{"tasks": [{}]}', "{" * 9000 + "}" * 9000]
)
def test_an_answer_without_readable_tables_earns_nothing_and_breaks_nothing(answer: str) -> None:
    verdict = asyncio.run(StateComparison(RULES)(answer, initial_state=BEFORE, expected_state=BEFORE))
    assert verdict.reward == 0.0
    assert verdict.reason


def test_partial_credit_pays_the_share_and_alternatives_are_a_list() -> None:
    verifier = StateComparison(RULES, partial_credit=True)
    wanted = [after(CLOSED, RENAMED, CAT), after(FENCE, LAWN)]
    verdict = asyncio.run(
        verifier("", initial_state=BEFORE, expected_state=wanted, final_state=after(CLOSED, LAWN, CAT))
    )
    assert verdict.reward == 0.5
