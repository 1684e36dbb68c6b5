"""Finding and comparing answers: one test per trap."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gymrail.verifiers.answer import (
    after_label,
    choice,
    contains_phrase,
    last_boxed,
    last_match,
    normalise,
    numbers_in,
    says,
    single_letter,
)
from tests.yardstick import seconds_of_steps

OPTIONS = {"A": "Oslo", "B": "Rome", "C": "New York"}


@pytest.mark.parametrize(
    ("text", "content"),
    [
        (r"\boxed{A} or rather \boxed{B}", "B"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{A} and then \boxed{B", "A"),
        (r"\boxed{\boxed{C}}", "C"),
        (r"\boxed {D}", "D"),
        (r"\boxed{\{1, 2\}}", r"\{1, 2\}"),
        (r"\boxed{}", ""),
        ("boxed{A}", None),
        ("} } {", None),
        ("", None),
    ],
)
def test_the_last_box_whose_braces_balance_is_taken(text: str, content: str | None) -> None:
    assert last_boxed(text) == content


def test_a_text_made_to_be_slow_is_read_in_linear_time() -> None:
    started = time.process_time()
    assert last_boxed("\\boxed{" * 100_000) is None
    assert last_boxed("\\boxed{" * 100_000 + "A" + "}" * 100_000) == "A"
    assert after_label("answer" + ":* " * 50_000) is not None
    assert numbers_in("1," * 100_000) == [1.0] * 100_000
    assert not contains_phrase("1." * 100_000, "1")
    assert time.process_time() - started < 150 * seconds_of_steps()


@given(st.text(alphabet="ab{} \\", max_size=40))
def test_what_is_boxed_is_read_back_when_its_braces_balance(text: str) -> None:
    balanced = text.replace("\\", "").replace("{", "").replace("}", "")
    assert last_boxed(f"so \\boxed{{{balanced}}}.") == balanced.strip()


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("Answer: B", "B"),
        ("Answer: A\nNo, wait.\nanswer: C", "C"),
        ("**Answer:** B", "B"),
        ("So the final answer : (B).", "(B)."),
        ("Answer:\nB", None),
        ("The answer is B", None),
        ("Nonanswer: B", None),
    ],
)
def test_the_last_line_with_the_label_is_taken(text: str, answer: str | None) -> None:
    assert after_label(text) == answer


def test_the_last_match_gives_its_first_group_that_took_part_or_itself() -> None:
    assert last_match(r"<a>(.)</a>", "<a>1</a> <a>2</a>") == "2"
    assert last_match(r"(x)|(y)", "x y") == "y"
    assert last_match(r"\d", "1 2 3") == "3"
    assert last_match(r"\d", "none") is None


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("(B)", "B"),
        (" B. ", "B"),
        ("b", None),
        ("AB", None),
        ("A, B", None),
        ("B2", None),
        ("", None),
        (r"\text{B}", None),
    ],
)
def test_a_single_letter_is_one_capital_and_no_other_letter(text: str, letter: str | None) -> None:
    assert single_letter(text) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("**B**.", "B"),
        ("B: Rome", "B"),
        ("B) rome.", "B"),
        ("rome", "B"),
        (r"\text{C}", "C"),
        ("new  york", "C"),
        ("B: Oslo", None),
        ("A or B", None),
        ("Rome or Oslo", None),
        ("D", None),
        ("", None),
        ("...", None),
    ],
)
def test_a_choice_is_read_by_letter_or_text_and_never_guessed(text: str, letter: str | None) -> None:
    assert choice(text, OPTIONS) == letter


def test_a_text_that_two_options_share_names_neither() -> None:
    assert choice("same", {"A": "same", "B": "Same"}) is None


def test_numbers_are_whole_words() -> None:
    assert numbers_in("It was 1,000 or -5 or 2.5 (x7, v1.2.3, 60%) and 3.") == [1000.0, -5.0, 2.5, 3.0]
    assert numbers_in("3-5 and 1,2") == [3.0, 5.0, 1.0, 2.0]


@pytest.mark.parametrize("text", ["25", "-5", "5.1", "1.5", "1,5", "5%", "x5", "5th"])
def test_a_phrase_is_not_found_inside_a_longer_word_or_number(text: str) -> None:
    assert not contains_phrase(f"It is {text} now", "5")


def test_a_phrase_is_found_across_case_blanks_and_punctuation() -> None:
    assert contains_phrase("Go to new\n york, now!", "New York")
    assert contains_phrase("It is 5.", "5")
    assert contains_phrase("It is -5.", "-5")
    assert not contains_phrase("anything", "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("12", "12"),
        ("It is 12.", "12"),
        ("12.0", "12"),
        (r"1 + 11 = \boxed{12}", "12"),
        ("7 + 5\nAnswer: 12", "12"),
        ("-4", "-4"),
        ("Kitchen.", "kitchen"),
        (r"In the \boxed{\text{kitchen}}", "kitchen"),
        ("1,200", "1200"),
    ],
)
def test_an_answer_says_what_is_expected(text: str, expected: str) -> None:
    assert says(text, expected)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("25", "5"),
        ("60%", "60"),
        ("12 or 13", "12"),
        ("-12", "12"),
        ("", "12"),
        ("twelve", "12"),
        (r"12, so \boxed{13}", "12"),
        ("kitchen or hall", "kitchen"),
        ("not the kitchen", "kitchen"),
        ("", "kitchen"),
        ("kitchens", "kitchen"),
    ],
)
def test_an_answer_that_hedges_or_only_resembles_says_something_else(text: str, expected: str) -> None:
    assert not says(text, expected)


def test_normalising_drops_case_blanks_and_outer_punctuation_only() -> None:
    assert normalise(' "The  Answer."\n') == "the answer"
    assert normalise("a.b") == "a.b"
