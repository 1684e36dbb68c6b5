"""Which option an answer chooses: by mode and by pattern. The rows' side is in tests/environments/test_mcqa.py."""

from __future__ import annotations

import pytest

from gymrail.rollout import Verdict
from gymrail.verifiers.multiple_choice import GradingMode, chosen, graded

OPTIONS = {"A": "Oslo", "B": "Rome"}


@pytest.mark.parametrize(
    ("text", "mode", "letter"),
    [
        (r"\boxed{B}", "strict_single_letter_boxed", "B"),
        (r"\boxed{b}", "strict_single_letter_boxed", None),
        (r"\boxed{C}", "strict_single_letter_boxed", None),
        (r"\boxed{B: Rome}", "strict_single_letter_boxed", None),
        ("Answer: B", "strict_single_letter_boxed", None),
        (r"\boxed{b}", "lenient_boxed", "B"),
        (r"\boxed{B: Rome}", "lenient_boxed", "B"),
        (r"\boxed{B: Oslo}", "lenient_boxed", None),
        ("**Answer:** rome", "lenient_answer_colon", "B"),
        (r"\boxed{B}", "lenient_answer_colon_md", None),
    ],
)
def test_a_mode_reads_its_own_form_alone(text: str, mode: GradingMode, letter: str | None) -> None:
    assert chosen(text, OPTIONS, mode) == letter


def test_patterns_go_before_the_mode_and_the_first_that_finds_an_option_wins() -> None:
    patterns = ["final: (.)", "choice: (.)"]
    assert chosen(r"Choice: A. Final: B. \boxed{A}", OPTIONS, patterns=patterns) == "B"
    assert chosen(r"Choice: A. Final: none. \boxed{B}", OPTIONS, patterns=patterns) == "A"
    assert chosen(r"\boxed{B}", OPTIONS, patterns=patterns) == "B"


def test_a_grade_says_what_was_found() -> None:
    assert graded(r"\boxed{B}", OPTIONS, "B") == Verdict(1.0, metrics={"extracted_answer": "B"})
    assert graded(r"\boxed{A}", OPTIONS, "B").reason == "A, not B"
    assert graded("B", OPTIONS, "B") == Verdict(0.0, metrics={"extracted_answer": None}, reason="no answer was found")
