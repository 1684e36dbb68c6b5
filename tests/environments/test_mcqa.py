r"""mcqa: three grading modes, a row's own pattern, and the traps of each."""

import asyncio
from typing import Any

import pytest

from gymrail import GymrailError, Rollout
from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail_environments.mcqa.environment import McqaTask, extract

SPEC = find("mcqa")
OPTIONS = [{"A": "Oslo"}, {"B": "Rome"}, {"C": "Bern"}]


def task(mode: str = "strict_single_letter_boxed", **fields: Any) -> McqaTask:
    return McqaTask.ask("Capital of Italy?", options=OPTIONS, expected_answer="B", grading_mode=mode, **fields)


def played(text: str, asked: McqaTask) -> Rollout:
    rollout = asyncio.run(play(SPEC, asked, ScriptedModel([text])))
    assert rollout.failure is None
    return rollout


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (r"\boxed{B}", "B"),
        (r"First \boxed{A}, no: \boxed{B}", "B"),
        (r"\boxed{B} and then \boxed{A", "B"),
        (r"\boxed{(B)}", "B"),
        (r"\boxed{b}", None),
        (r"\boxed{\text{B}}", None),
        (r"\boxed{A, B}", None),
        (r"\boxed{AB}", None),
        (r"\boxed{B: Rome}", None),
        (r"\boxed{Rome}", None),
        (r"\boxed{Z}", None),
        (r"\boxed{}", None),
        ("B", None),
        ("Answer: B", None),
    ],
)
def test_strict_takes_one_capital_letter_in_the_last_balanced_box(text: str, letter: str | None) -> None:
    assert extract(text, task()) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        (r"\boxed{b}", "B"),
        (r"\boxed{\text{B}}", "B"),
        (r"\boxed{B: Rome}", "B"),
        (r"\boxed{Rome}", "B"),
        (r"\boxed{B: Oslo}", None),
        (r"\boxed{A or B}", None),
        ("B", None),
    ],
)
def test_lenient_boxed_takes_the_letter_or_the_text_but_no_two(text: str, letter: str | None) -> None:
    assert extract(text, task("lenient_boxed")) == letter


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        ("Answer: B", "B"),
        ("Answer: A\nanswer: b.", "B"),
        ("**Answer:** Rome", "B"),
        ("Answer: A or B", None),
        (r"\boxed{B}", None),
    ],
)
def test_lenient_answer_colon_takes_the_last_labelled_line(text: str, letter: str | None) -> None:
    assert extract(text, task("lenient_answer_colon")) == letter


def test_a_rows_own_pattern_goes_before_the_mode() -> None:
    own = task(template_metadata={"output_regex": r"<answer>\s*([A-Za-z])\s*</answer>"})
    assert extract(r"<answer>A</answer> <ANSWER> b </Answer> \boxed{A}", own) == "B"
    assert extract(r"\boxed{B}", own) == "B", "the mode is asked where the pattern finds nothing"
    assert extract(r"\boxed{{B}}", own) == "B"
    assert extract("B", own) is None


def test_of_several_patterns_the_first_that_finds_an_option_counts() -> None:
    own = task(template_metadata={"output_regex": [r"Final: (\w+)", r"Choice: (\w+)"]})
    assert extract("Choice: A, Final: B", own) == "B"
    assert extract("Choice: A, Final: none", own) == "A"


def test_the_extracted_answer_is_reported_for_majority_votes() -> None:
    assert played(r"\boxed{A}", task()).metrics == {"extracted_answer": "A"}
    assert played("no idea", task()).metrics == {"extracted_answer": None}
    rollout = played(r"\boxed{B}", task())
    assert (rollout.reward, rollout.metrics) == (1.0, {"extracted_answer": "B"})


def test_the_reason_tells_a_wrong_answer_from_a_missing_one() -> None:
    assert played(r"\boxed{A}", task()).verdict_reason == "A, not B"
    assert played("Rome", task()).verdict_reason == "no answer was found"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"expected_answer": "D"}, "expected_answer 'D' is none of the options A, B, C"),
        ({"grading_mode": "strict"}, "grading_mode"),
        ({"template_metadata": {"output_regex": "("}}, "no regular expression"),
        ({"options": [{"A": "x"}]}, "options"),
    ],
)
def test_a_bad_row_is_refused_with_its_place_and_field(fields: dict[str, Any], message: str) -> None:
    row = {**task().row, **fields}
    with pytest.raises(GymrailError, match=r"rows\.jsonl, line 7: .*") as error:
        McqaTask.from_row(row, "rows.jsonl, line 7")
    assert message in str(error.value)


def test_generated_options_are_all_different_and_hold_the_answer_once() -> None:
    for index in range(400):
        made = SPEC.generate("train", index)
        texts = list(made.by_letter.values())
        assert len({text.casefold() for text in texts}) == len(texts) >= 4
        assert (
            extract(f"\\boxed{{{made.expected_answer}}}\nAnswer: {made.expected_answer}", made) == made.expected_answer
        )
