"""Extracted answers, each where it must stand."""

import asyncio
from typing import Any

import pytest

from gymrail.errors import InputError, VerifierError
from gymrail.verifiers.answer import in_tag, last_answer
from gymrail.verifiers.exact import ExactAnswer, Extract

OPTIONS = [{"A": "Oslo"}, {"B": "Rome"}]


@pytest.mark.parametrize(
    ("extract", "text", "expected", "reward"),
    [
        ("boxed", r"so \boxed{1,000}", "1000", 1.0),
        ("boxed", r"\boxed{4} no: \boxed{5}", "4", 0.0),
        ("boxed", "1000", "1000", 0.0),
        ("boxed", r"\boxed{25}", "5", 0.0),
        ("boxed", r"\boxed{4 or 5}", "5", 0.0),
        ("boxed", r"\boxed{60\%}", "60", 0.0),
        ("tag", "<answer>Rome</answer>", "rome", 1.0),
        ("tag", "<answer>Oslo</answer> <ANSWER> Rome </ANSWER>", "Rome", 1.0),
        ("tag", "Rome", "Rome", 0.0),
        ("label", "I think.\nAnswer: **Rome**", "Rome", 1.0),
        ("label", "Answer: Rome or Oslo", "Rome", 0.0),
        ("text", " Rome. ", "rome", 1.0),
        ("text", "It is Rome", "Rome", 0.0),
        ("auto", r"<answer>Oslo</answer> \boxed{Rome}", "Rome", 1.0),
        ("auto", "Answer: Rome", "Rome", 1.0),
        ("auto", "Rome", "Rome", 1.0),
        ("auto", "", "Rome", 0.0),
    ],
)
def test_the_answer_is_found_where_it_must_stand(extract: Extract, text: str, expected: str, reward: float) -> None:
    verdict = asyncio.run(ExactAnswer(extract)(text, expected_answer=expected))
    assert verdict.reward == reward
    assert (verdict.reason is None) == bool(reward)


def test_several_answers_may_be_as_good() -> None:
    verifier = ExactAnswer("boxed")
    assert asyncio.run(verifier(r"\boxed{NYC}", expected_answer=["New York", "NYC"])).reward == 1.0
    assert asyncio.run(verifier(r"\boxed{7}", expected_answer=7)).reward == 1.0
    assert asyncio.run(verifier(r"\boxed{LA}", expected_answer=["New York", "NYC"])).reason == "LA, not New York or NYC"


@pytest.mark.parametrize(
    ("text", "letter"),
    [(r"\boxed{B}", "B"), ("Answer: (b)", "B"), ("<answer>Rome</answer>", "B"), ("B: Rome", "B"), ("A", "A"),
     ("A or B", None), ("Rome or Oslo", None), ("C", None), ("", None)],
)  # fmt: skip
def test_a_letter_is_read_from_a_letter_or_its_text(text: str, letter: str | None) -> None:
    verdict = asyncio.run(ExactAnswer("letter")(text, expected_answer="B", options=OPTIONS))
    assert verdict.metrics["extracted_answer"] == letter
    assert verdict.reward == float(letter == "B")


def test_a_letter_needs_options() -> None:
    with pytest.raises(InputError, match="row's 'options'"):
        asyncio.run(ExactAnswer("letter")("B", expected_answer="B"))


def run_pattern(pattern: str, text: str, **settings: Any) -> float:
    async def main() -> float:
        verifier = ExactAnswer("regex", pattern=pattern, **settings)
        try:
            return (await verifier(text, expected_answer="72")).reward
        finally:
            await verifier.aclose()

    return asyncio.run(main())


def test_a_pattern_finds_the_answer_in_a_worker() -> None:
    assert run_pattern(r"#### (.*)", "#### 71\n#### 72") == 1.0
    assert run_pattern(r"#### (.*)", "72") == 0.0


def test_a_hostile_pattern_is_a_failure_and_the_loop_stays_responsive() -> None:
    async def main() -> int:
        verifier = ExactAnswer("regex", pattern=r"(a+)+$", cpu_seconds=1)
        asked = asyncio.ensure_future(verifier("a" * 60 + "!", expected_answer="72"))
        ticks = 0
        while not asked.done():
            await asyncio.sleep(0.01)
            ticks += 1
        with pytest.raises(VerifierError, match="cannot be used on 61 characters"):
            await asked
        await verifier.aclose()
        return ticks

    # Again where the whole process was held up that second.
    assert any(asyncio.run(main()) >= 10 for _ in range(4))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"extract": "box"}, "Did you mean 'boxed'"),
        ({"extract": "regex"}, "'regex' needs a pattern"),
        ({"extract": "boxed", "pattern": "x"}, "'regex' needs a pattern"),
        ({"extract": "regex", "pattern": "("}, "no regular expression"),
    ],
)
def test_bad_settings_are_refused_in_a_sentence(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        ExactAnswer(**settings)


def test_tags_and_patterns_of_judge_environments() -> None:
    assert in_tag("<answer>a</answer><answer>b") == "a"
    assert in_tag("</answer><answer>") is None
    assert in_tag("\u0130\u0130 <answer>\u0130</answer>") == "\u0130"
    assert in_tag("<Solution> x </solution>", "solution") == "x"
    assert last_answer(r"Answer: *(.+)$", "Answer: 1\nAnswer: 2") == "1\nAnswer: 2"
    assert last_answer(r"^Answer: *(\w*)$", "Answer: 1\nAnswer: 2") == "2"
    assert last_answer(r"Answer:( *)", "Answer: ") == "Answer:"
    assert last_answer("x", "y") is None
