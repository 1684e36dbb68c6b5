r"""Multiple choice as NeMo Gym's mcqa has it: which option an answer chooses, in three modes or by a pattern.

options = {"A": "Oslo", "B": "Rome"}
chosen(r"\boxed{B}", options)                               B
chosen("Answer: rome", options, "lenient_answer_colon")     B
chosen("<<b>>", options, patterns=["<<(.)>>"])              B
graded(r"\boxed{A}", options, "B").reason                   A, not B
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Literal

from gymrail.rollout import Verdict
from gymrail.verifiers.answer import after_label, choice, last_boxed, last_match, single_letter

GradingMode = Literal["strict_single_letter_boxed", "lenient_boxed", "lenient_answer_colon", "lenient_answer_colon_md"]


def chosen(
    text: str,
    options: Mapping[str, str],
    grading_mode: GradingMode = "strict_single_letter_boxed",
    patterns: Sequence[str] = (),
) -> str | None:
    r"""Return the letter that an answer gives, or None.

    Strict takes the last balanced `\boxed{}` with one capital letter in it. The lenient modes and the patterns also
    take the letter in another case, the letter with its text, or the option's text alone. Patterns go before the mode:
    each is a regular expression in any case of letters, whose last match counts; the first that finds an option wins.
    """
    for pattern in patterns:
        found = last_match(re.compile(pattern, re.IGNORECASE), text)
        letter = choice(found, options) if found else None
        if letter is not None:
            return letter
    if grading_mode.startswith("lenient_answer_colon"):
        found = after_label(text)
    else:
        found = last_boxed(text)
        if grading_mode == "strict_single_letter_boxed":
            letter = single_letter(found) if found else None
            return letter if letter in options else None
    return choice(found, options) if found else None


def graded(
    text: str,
    options: Mapping[str, str],
    expected_answer: str,
    grading_mode: GradingMode = "strict_single_letter_boxed",
    patterns: Sequence[str] = (),
) -> Verdict:
    """Pay 1 for the expected letter, 0 otherwise; the metric `extracted_answer` is for majority votes."""
    answer = chosen(text, options, grading_mode, patterns)
    if answer == expected_answer:
        return Verdict(1.0, metrics={"extracted_answer": answer})
    reason = "no answer was found" if answer is None else f"{answer}, not {expected_answer}"
    return Verdict(0.0, metrics={"extracted_answer": answer}, reason=reason)
