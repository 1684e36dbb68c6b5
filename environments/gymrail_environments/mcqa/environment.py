r"""Multiple-choice questions, graded by the letter, in three modes or by the row's own regular expression.

One row:

    {"responses_create_params": {"input": "...A: Oslo\nB: Rome\nAnswer with the letter in \\boxed{}."},
     "options": [{"A": "Oslo"}, {"B": "Rome"}], "expected_answer": "B", "grading_mode": "strict_single_letter_boxed"}
"""

from __future__ import annotations

import re
from collections.abc import Generator
from random import Random
from typing import Literal

from pydantic import BaseModel, Field, field_validator, model_validator

from gymrail import Environment, Rollout, Task, Verdict
from gymrail.environment import Turn
from gymrail.errors import InputError
from gymrail.verifiers.answer import after_label, choice, last_boxed, last_match, single_letter
from gymrail_environments.mcqa.questions import make_question

GradingMode = Literal["strict_single_letter_boxed", "lenient_boxed", "lenient_answer_colon"]
FORMS = (
    r"\boxed{X}",
    "Answer: X",
    "<answer>X</answer>",
    "((X))",
    "[[X]]",
    "**X**",
    "X",
    "The answer is X.",
    "The correct answer is (X).",
)
"""Ways to write an answer; the oracle takes the first that a row's grading reads."""
ASKS = {
    "strict_single_letter_boxed": "Answer with the letter in \\boxed{}.",
    "lenient_boxed": "Put your answer in \\boxed{}.",
    "lenient_answer_colon": "End with a line 'Answer: <letter>'.",
}


class TemplateMetadata(BaseModel):
    output_regex: str | None = None
    """Where the answer stands: the first group of the last match. It goes before `grading_mode`."""

    @field_validator("output_regex")
    @classmethod
    def _compiles(cls, pattern: str | None) -> str | None:
        try:
            re.compile(pattern or "")
        except re.error as error:
            raise ValueError(f"not a regular expression: {error}") from None
        return pattern


class McqaTask(Task):
    options: list[dict[str, str]] = Field(min_length=2)
    expected_answer: str
    grading_mode: GradingMode = "strict_single_letter_boxed"
    template_metadata: TemplateMetadata | None = None

    @property
    def by_letter(self) -> dict[str, str]:
        return {letter: text for option in self.options for letter, text in option.items()}

    @model_validator(mode="after")
    def _answer_is_an_option(self) -> McqaTask:
        if self.expected_answer not in self.by_letter:
            raise ValueError(
                f"expected_answer {self.expected_answer!r} is none of the options {', '.join(self.by_letter)}"
            )
        return self


class Mcqa(Environment[McqaTask]):
    """The extracted letter must be the expected one; `extracted_answer` is reported for majority votes."""

    @classmethod
    def generate(cls, rng: Random) -> McqaTask:
        question, right, wrong = make_question(rng)
        texts = [right, *wrong]
        rng.shuffle(texts)
        options = [{letter: text} for letter, text in zip("ABCDEFGH", texts, strict=False)]
        lines = [f"{letter}: {text}" for option in options for letter, text in option.items()]
        mode = rng.choice(list(ASKS))
        return McqaTask.ask(
            "\n".join([question, *lines, ASKS[mode]]),
            options=options,
            expected_answer="ABCDEFGH"[texts.index(right)],
            grading_mode=mode,
        )

    def verify(self, rollout: Rollout) -> Verdict:
        answer = extract(rollout.final_text, self.task)
        is_right = answer == self.task.expected_answer
        reason = (
            None
            if is_right
            else "no answer was found"
            if answer is None
            else f"{answer}, not {self.task.expected_answer}"
        )
        return Verdict(float(is_right), metrics={"extracted_answer": answer}, reason=reason)

    def solve(self) -> Generator[Turn, str, None]:
        yield self._write(self.task.expected_answer)

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Choose another option, in the right form."""
        return self._write(
            rng.choice([letter for letter in self.task.by_letter if letter != self.task.expected_answer])
        )

    def _write(self, letter: str) -> str:
        for form in FORMS:
            text = form.replace("X", letter)
            if extract(text, self.task) == letter:
                return text
        raise InputError(f"Task {self.task.id}: no known way to write an answer fits its output_regex; extend FORMS.")


def extract(text: str, task: McqaTask) -> str | None:
    r"""Return the letter that an answer gives, or None.

    Strict takes the last balanced `\boxed{}` with one capital letter in it. The lenient modes and `output_regex` also
    take the letter in another case, the letter with its text, or the option's text alone.
    """
    options = task.by_letter
    pattern = task.template_metadata.output_regex if task.template_metadata else None
    if pattern is not None:
        found = last_match(pattern, text)
    elif task.grading_mode == "lenient_answer_colon":
        found = after_label(text)
    else:
        found = last_boxed(text)
        if task.grading_mode == "strict_single_letter_boxed":
            letter = single_letter(found) if found else None
            return letter if letter in options else None
    return choice(found, options) if found else None
