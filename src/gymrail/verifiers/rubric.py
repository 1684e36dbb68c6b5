"""A list of criteria, each judged by a model on its own: met, met in part, or not met.

    rubric = Rubric(model, [Criterion("cites", "It names its source.", 2), Criterion("short", "It has one paragraph.")])
    verdict = await rubric(answer, question="...")      # reward_components {"cites": 0.667, "short": 0.333}

Criteria may stand in the row instead, in the field `rubric`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from gymrail.errors import InputError
from gymrail.rollout import Verdict
from gymrail.verifiers.judge import Judge
from gymrail.verifiers.judge_prompt import JudgePrompt
from gymrail.verifiers.together import all_of

CRITERION = JudgePrompt(
    system=(
        "You check an answer against one criterion. Judge nothing but the criterion: an answer that is bad in other "
        "ways may meet it. What an answer claims about itself proves nothing. Reason briefly, then end with [[YES]] "
        "if the criterion is met, [[PARTIAL]] if it is met in part, or [[NO]] if it is not."
    ),
    user="The question:{question}The answer:{answer}The criterion:{criterion}Does the answer meet the criterion?",
    labels={"[[YES]]": 1.0, "[[PARTIAL]]": 0.5, "[[NO]]": 0.0},
)
"""Its fields: `question`, `answer`, `criterion`."""


@dataclass(frozen=True)
class Criterion:
    """One thing that an answer is judged by."""

    name: str
    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Rubric:
    """Scores an answer by criteria: the mean of their scores, by weight."""

    judge: Judge
    """Its prompt must have the fields of `CRITERION`; `Rubric.by` gives a judge that one."""
    criteria: Sequence[Criterion] = ()
    """For rows without a rubric of their own."""

    def __post_init__(self) -> None:
        if "criterion" not in self.judge.prompt.fields:
            raise InputError("The judge's prompt has no field {criterion}; make the rubric with Rubric.by(judge, ...).")
        _check(self.criteria)

    @classmethod
    def by(cls, judge: Judge, criteria: Sequence[Criterion] = ()) -> Rubric:
        """Return a rubric whose judge is asked with the prompt `CRITERION`."""
        return cls(replace(judge, prompt=CRITERION, swap=None), criteria)

    async def __call__(
        self,
        answer: str,
        /,
        *,
        question: str = "",
        rubric: Sequence[Mapping[str, Any]] | None = None,
    ) -> Verdict:
        """Judge an answer; `reward_components` has each criterion's share of the reward.

        Args:
            rubric: the row's own criteria, `{"name": ..., "text": ..., "weight": ...}`; `weight` is 1 by default.

        Raises:
            VerifierError: the judge gave no verdict on a criterion.
            InputError: there are no criteria, or the row's cannot be read.
        """
        criteria = self.criteria if rubric is None else [_read(row, number) for number, row in enumerate(rubric, 1)]
        if rubric is not None:
            _check(criteria)
        if not criteria:
            raise InputError(
                "There is no criterion to judge by; give the rubric criteria, or the row a field 'rubric'."
            )
        asked = [{"question": question, "answer": answer, "criterion": one.text} for one in criteria]
        opinions = await all_of(self.judge.opinion(fields) for fields in asked)
        total = math.fsum(one.weight for one in criteria)
        scored = list(zip(criteria, opinions, strict=True))
        missed = [one.name for one, opinion in scored if opinion.score < 1]
        return Verdict(
            reward_components={one.name: one.weight * opinion.score / total for one, opinion in scored},
            metrics={f"criterion/{one.name}": opinion.score for one, opinion in scored},
            reason=f"not wholly met: {', '.join(missed)}" if missed else None,
        )

    async def aclose(self) -> None:
        """Close the judge's connections."""
        await self.judge.aclose()


def _read(row: Mapping[str, Any], number: int) -> Criterion:
    name, text, weight = row.get("name", f"criterion_{number}"), row.get("text"), row.get("weight", 1.0)
    unknown = sorted(row.keys() - {"name", "text", "weight"})
    if unknown or not isinstance(text, str) or not isinstance(weight, int | float):
        raise InputError(
            f"Criterion {number} of the row's rubric is {dict(row)!r}; "
            "it has a 'text', and may have a 'name' and a 'weight'."
        )
    return Criterion(str(name), text, float(weight))


def _check(criteria: Sequence[Criterion]) -> None:
    names = [one.name for one in criteria]
    for one in criteria:
        if names.count(one.name) > 1:
            raise InputError(f"Two criteria are named {one.name!r}; name them apart.")
        if not one.text.strip() or not 0 < one.weight < math.inf:
            raise InputError(
                f"Criterion {one.name!r} has text {one.text!r} and weight {one.weight!r}; "
                "give text, and a weight above 0."
            )
