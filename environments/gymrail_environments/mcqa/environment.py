r"""Multiple-choice questions, graded by the letter, in three modes or by the row's own regular expression.

One row:

    {"responses_create_params": {"input": "...A: Oslo\nB: Rome\nAnswer with the letter in \\boxed{}."},
     "options": [{"A": "Oslo"}, {"B": "Rome"}], "expected_answer": "B", "grading_mode": "strict_single_letter_boxed"}
"""

from __future__ import annotations

from collections.abc import Generator
from random import Random

from pydantic import BaseModel, Field, model_validator

from gymrail import Environment, Rollout, Task, Verdict
from gymrail.environment import Turn
from gymrail.errors import InputError
from gymrail.verifiers.exact import Pattern
from gymrail.verifiers.multiple_choice import GradingMode, chosen, graded
from gymrail_environments.mcqa.questions import FORMS, MODES, make_question


class TemplateMetadata(BaseModel):
    output_regex: Pattern | list[Pattern] | None = None
    """Where the answer stands, in any case of letters: the first group of the last match. It goes before
    `grading_mode`; of several the first that finds an option counts."""


class McqaTask(Task):
    options: list[dict[str, str]] = Field(min_length=2)
    expected_answer: str
    grading_mode: GradingMode = "strict_single_letter_boxed"
    template_metadata: TemplateMetadata | None = None

    @property
    def by_letter(self) -> dict[str, str]:
        return {letter: text for option in self.options for letter, text in option.items()}

    @property
    def patterns(self) -> list[str]:
        found = self.template_metadata and self.template_metadata.output_regex
        return [found] if isinstance(found, str) else found or []

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
        mode = rng.choice(list(MODES))
        return McqaTask.ask(
            "\n".join([question, *lines, MODES[mode]]),
            options=options,
            expected_answer="ABCDEFGH"[texts.index(right)],
            grading_mode=mode,
        )

    def verify(self, rollout: Rollout) -> Verdict:
        task = self.task
        return graded(rollout.final_text, task.by_letter, task.expected_answer, task.grading_mode, task.patterns)

    def solve(self) -> Generator[Turn, str, None]:
        yield self._write(self.task.expected_answer)

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Choose another option, in the right form."""
        wrong = [letter for letter in self.task.by_letter if letter != self.task.expected_answer]
        return self._write(rng.choice(wrong))

    def _write(self, letter: str) -> str:
        for form in FORMS:
            text = form.replace("X", letter)
            if extract(text, self.task) == letter:
                return text
        raise InputError(f"Task {self.task.id}: none of the forms in data/facts.yaml fits its output_regex; add one.")


def extract(text: str, task: McqaTask) -> str | None:
    """Return the letter that an answer to a task gives, or None."""
    return chosen(text, task.by_letter, task.grading_mode, task.patterns)
