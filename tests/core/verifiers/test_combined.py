"""Verifiers together: weights, rubrics, and plain reward functions."""

import asyncio
import logging
from typing import Any

import pytest

from gymrail.errors import InputError, VerifierError
from gymrail.rollout import Verdict
from gymrail.verifiers.combined import Combined
from gymrail.verifiers.exact import ExactAnswer
from gymrail.verifiers.judge import Judge
from gymrail.verifiers.reward import reward_function
from gymrail.verifiers.rubric import Criterion, Rubric
from gymrail.verifiers.verifier import Verifier
from tests.core.verifiers.judges import Scripted, texts_of


async def short(answer: str, *, limit: int = 10) -> Verdict:
    return Verdict(float(len(answer) <= limit), metrics={"length": len(answer)})


async def broken(answer: str, /, **fields: Any) -> Verdict:
    raise VerifierError("the judge is down")


def test_a_combination_pays_the_weighted_sum_and_its_components_add_up_to_it() -> None:
    both = Combined({"correct": (ExactAnswer("boxed"), 0.75), "short": (short, 0.25)})
    verdict = asyncio.run(both(r"well, \boxed{4}", expected_answer="4", limit=3, unused=1))
    assert verdict.reward_components == {"correct": 0.75, "short": 0.0}
    assert verdict.reward == sum(verdict.reward_components.values()) == 0.75
    assert verdict.metrics == {"correct/extracted_answer": "4", "short/length": 15}
    assert isinstance(both, Verifier)


def test_a_penalty_is_a_negative_weight() -> None:
    both = Combined({"correct": (ExactAnswer("text"), 1.0), "short": (short, -0.5)})
    assert asyncio.run(both("4", expected_answer="4")).reward == 0.5


def test_where_one_part_cannot_judge_there_is_no_reward() -> None:
    both = Combined({"correct": (ExactAnswer(), 0.5), "judge": (broken, 0.5)})
    with pytest.raises(VerifierError, match="the judge is down"):
        asyncio.run(both("4", expected_answer="4"))


def test_bad_weights_and_missing_fields_are_said() -> None:
    with pytest.raises(InputError, match="weight of 'a' is 0"):
        Combined({"a": (short, 0.0)})
    with pytest.raises(InputError, match="needs a verifier"):
        Combined({})
    with pytest.raises(InputError, match=r"needs the field 'expected_answer'\. Did you mean 'expected_answr'"):
        asyncio.run(Combined({"a": (ExactAnswer(), 1.0)})("4", expected_answr="4"))


def rates(request: Any) -> str:
    (_, answer, criterion), _ = texts_of(request)
    marks = {"cites": "[[YES]]", "short": "[[PARTIAL]]", "polite": "[[NO]]"}
    return f"{answer}: {marks[criterion]}"


def test_a_rubric_pays_the_weighted_mean_of_its_criteria() -> None:
    criteria = [Criterion("c", "cites", 2.0), Criterion("s", "short"), Criterion("p", "polite")]
    verdict = asyncio.run(Rubric.by(Judge(Scripted(rates)), criteria)("text", question="q"))
    assert verdict.reward_components == {"c": 0.5, "s": 0.125, "p": 0.0}
    assert verdict.reward == sum(verdict.reward_components.values()) == 0.625
    assert verdict.metrics == {"criterion/c": 1.0, "criterion/s": 0.5, "criterion/p": 0.0}
    assert verdict.reason == "not wholly met: s, p"


def test_a_row_may_bring_its_own_rubric() -> None:
    rubric = Rubric.by(Judge(Scripted(rates)))
    verdict = asyncio.run(rubric("text", rubric=[{"text": "cites"}, {"text": "polite", "name": "p", "weight": 3}]))
    assert verdict.reward_components == {"criterion_1": 0.25, "p": 0.0}


@pytest.mark.parametrize(
    "row", [[{"name": "x"}], [{"text": "cites", "wight": 2}], [{"text": "a"}, {"text": "", "weight": 1}]]
)
def test_a_rubric_that_cannot_be_read_is_refused(row: list[dict[str, Any]]) -> None:
    with pytest.raises(InputError, match=r"(?i)criterion"):
        asyncio.run(Rubric.by(Judge(Scripted(rates)))("text", rubric=row))


def test_a_rubric_without_criteria_and_a_prompt_without_the_field_are_refused() -> None:
    with pytest.raises(InputError, match="no criterion to judge by"):
        asyncio.run(Rubric.by(Judge(Scripted(rates)))("text"))
    with pytest.raises(InputError, match=r"no field \{criterion\}"):
        Rubric(Judge(Scripted(rates)), [])
    with pytest.raises(InputError, match="Two criteria are named 'a'"):
        Rubric.by(Judge(Scripted(rates)), [Criterion("a", "x"), Criterion("a", "y")])


def test_a_rubric_whose_judge_fails_on_one_criterion_gives_no_score() -> None:
    def half(request: Any) -> str:
        return "[[YES]]" if texts_of(request)[0][2] == "cites" else "no idea"

    rubric = Rubric.by(Judge(Scripted(half), retries=0), [Criterion("a", "cites"), Criterion("b", "short")])
    with pytest.raises(VerifierError, match="no verdict"):
        asyncio.run(rubric("text"))


def rewards_of(verifier: Verifier, **arguments: Any) -> list[float | None]:
    async def main() -> list[float | None]:
        return await reward_function(verifier)(**arguments)

    return asyncio.run(main())


def test_a_reward_function_takes_plain_and_conversational_completions() -> None:
    completions = [
        "4",
        [{"role": "assistant", "content": "5"}],
        [{"role": "assistant", "content": [{"type": "text", "text": "4"}]}],
    ]
    assert rewards_of(
        ExactAnswer("text"), prompts=["2+2"] * 3, completions=completions, expected_answer=["4", "4", "4"],
        completion_ids=[[1], [2], [3]], trainer_state=object(),
    ) == [1.0, 0.0, 1.0]  # fmt: skip


def test_a_completion_that_cannot_be_judged_gets_none_and_never_zero(caplog: pytest.LogCaptureFixture) -> None:
    async def picky(answer: str, *, bound: float) -> Verdict:
        if answer == "down":
            raise VerifierError("the judge is down")
        if answer == "bug":
            raise KeyError("bug")
        return Verdict(float("nan") if answer == "nan" else bound)

    logged: dict[str, float] = {}
    with caplog.at_level(logging.WARNING):
        rewards = rewards_of(
            picky, completions=["fine", "down", "bug", "nan"], bound=[0.5] * 4, log_metric=logged.__setitem__
        )
    assert rewards == [0.5, None, None, None]
    assert "the judge is down" in caplog.text
    assert logged == {"picky/failed": 0.75}


def test_a_verifier_that_hangs_gets_none_after_the_time_limit() -> None:
    async def hangs(answer: str) -> Verdict:
        await asyncio.Event().wait()
        raise AssertionError

    async def main() -> list[float | None]:
        return await reward_function(hangs, timeout_seconds=0.05)(completions=["x"])

    assert asyncio.run(main()) == [None]


def test_the_question_is_the_prompts_last_user_message_where_there_is_no_column() -> None:
    async def repeats(answer: str, *, question: str) -> Verdict:
        return Verdict(float(answer == question))

    talk = [{"role": "system", "content": "s"}, {"role": "user", "content": "hi"}]
    assert rewards_of(repeats, prompts=["hi", talk], completions=["hi", "hi"]) == [1.0, 1.0]
    assert rewards_of(repeats, prompts=["hi"], completions=["ho"], question=["ho"]) == [1.0]


def test_a_missing_or_broken_column_is_an_error_and_not_a_failure_of_every_completion() -> None:
    with pytest.raises(InputError, match=r"column 'expected_answer'\. Did you mean 'expected_answers'"):
        rewards_of(ExactAnswer(), completions=["4"], expected_answers=["4"])
    with pytest.raises(InputError, match="one value for each of 2 completions"):
        rewards_of(ExactAnswer(), completions=["4", "5"], expected_answer=["4"])


def test_names_are_those_of_the_verifier() -> None:
    assert reward_function(ExactAnswer()).__name__ == "exact_answer"  # pyright: ignore[reportFunctionMemberAccess]
    assert reward_function(short, name="brief").__name__ == "brief"  # pyright: ignore[reportFunctionMemberAccess]
