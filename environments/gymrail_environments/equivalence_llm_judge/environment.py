r"""Open questions, graded by a judge that compares the answer with the expected one.

One row:

    {"responses_create_params": {"input": "A film of 95 minutes begins at 18:40. When does it end? ... \\boxed{}."},
     "question": "A film of 95 minutes begins at 18:40. When does it end?", "expected_answer": "20:15",
     "template_metadata": {"output_regex": "\\\\boxed\\{(.*?)\\}"}}
"""

from __future__ import annotations

from collections.abc import Generator
from random import Random
from typing import NamedTuple

from pydantic import BaseModel, Field, model_validator

from gymrail import Config, Environment, Rollout, Task, Verdict
from gymrail.environment import Turn
from gymrail.rollout import text_of
from gymrail.verifiers.answer import is_same, last_answer
from gymrail.verifiers.exact import Pattern, match_in_worker
from gymrail.verifiers.judge import Judge, JudgeSettings
from gymrail.verifiers.workers import Workers
from gymrail_environments.equivalence_llm_judge.questions import make_question

FORMS = {r"\\boxed\{(.*?)\}": "\\boxed{%s}", r"Answer: *(.+)$": "Answer: %s", None: "%s"}
"""How a generated task wants its answer, by the row's pattern."""
ASKS = {"\\boxed{%s}": "Put the answer in \\boxed{}.", "Answer: %s": "End with a line 'Answer: ...'.", "%s": ""}


class TemplateMetadata(BaseModel):
    output_regex: Pattern | None = None
    """Where the answer stands: the first group of the last match."""


class EquivalenceTask(Task):
    question: str = ""
    """By default the prompt's last user message."""
    expected_answer: str = Field(min_length=1)
    template_metadata: TemplateMetadata = TemplateMetadata()

    @model_validator(mode="after")
    def _has_a_question(self) -> EquivalenceTask:
        users = [text_of(item) for item in self.input_items if item.get("role") == "user"]
        if not self.question and users:
            self.question = users[-1]
        return self

    @property
    def pattern(self) -> str | None:
        return self.template_metadata.output_regex


class EquivalenceConfig(Config):
    judge: JudgeSettings | None = None
    """Without one, rules compare: numbers as numbers, text without case and punctuation around it, no other wording."""
    check_twice_swap: bool = True
    """After "equal", ask again with the two answers exchanged."""
    reward_if_swap_fails: float = Field(0.0, ge=-1, le=1)
    response_extract_regex: Pattern | None = None
    """For rows without an `output_regex`."""
    extraction_length_threshold: int | None = 120
    """Above so many characters of the expected answer the judge sees the whole text, once, whatever `output_regex`."""
    check_full_generation_on_fail: bool = True
    """After "not equal" on what a row's `output_regex` found, ask about the whole text."""
    reward_if_full_generation_succeeds: float = Field(0.5, ge=-1, le=1)


class Shared(NamedTuple):
    judge: Judge | None
    workers: Workers


class Said(NamedTuple):
    is_equal: bool
    label: str | None


class EquivalenceLlmJudge(Environment[EquivalenceTask]):
    """1 where the judge calls the answers equal in both orders. A judge that fails makes the rollout a failure."""

    Config = EquivalenceConfig

    @classmethod
    def setup(cls, config: EquivalenceConfig) -> Shared:
        return Shared(config.judge.judge() if config.judge else None, Workers(1, cpu_seconds=2))

    @classmethod
    async def teardown(cls, shared: Shared) -> None:
        await shared.workers.aclose()
        if shared.judge is not None:
            await shared.judge.aclose()

    @classmethod
    def generate(cls, rng: Random) -> EquivalenceTask:
        question, answer = make_question(rng)
        pattern = rng.choice(list(FORMS))
        return EquivalenceTask.ask(
            f"{question} {ASKS[FORMS[pattern]]}".strip(),
            question=question, expected_answer=answer, template_metadata=TemplateMetadata(output_regex=pattern),
        )  # fmt: skip

    async def verify(self, rollout: Rollout) -> Verdict:
        text, task, config = rollout.final_text, self.task, self.config
        if not text.strip():
            return Verdict(0.0, reason="there is no answer")
        limit = config.extraction_length_threshold
        is_long = task.pattern is not None and limit is not None and len(task.expected_answer) > limit
        pattern = None if is_long else task.pattern or config.response_extract_regex
        found = await match_in_worker(self.shared.workers, last_answer, pattern, text) if pattern else None
        said = text if found is None else found
        first = await self._compare(task.expected_answer, said)
        metrics = {"judged_by": config.judge.shown if config.judge else "rules", "judge_label": first.label}
        if first.is_equal and (is_long or not config.check_twice_swap):
            return Verdict(1.0, metrics=metrics)
        if first.is_equal:
            agrees = (await self._compare(said, task.expected_answer)).is_equal
            reason = None if agrees else "the judge says something else when the answers are exchanged"
            return Verdict(
                1.0 if agrees else config.reward_if_swap_fails,
                metrics={**metrics, "swap_agrees": agrees},
                reason=reason,
            )
        if is_long or task.pattern is None or found is None or not config.check_full_generation_on_fail:
            return Verdict(0.0, metrics=metrics, reason=f"{said[:80]!r} is not {task.expected_answer[:80]!r}")
        whole = (await self._compare(task.expected_answer, text)).is_equal
        reason = "the whole text says it, what the pattern found does not" if whole else f"{said[:80]!r} is wrong"
        reward = config.reward_if_full_generation_succeeds * whole
        return Verdict(reward, metrics={**metrics, "full_generation_equal": whole}, reason=reason)

    async def _compare(self, first: str, second: str) -> Said:
        if self.shared.judge is None:
            return Said(is_same(first, second) and is_same(second, first), None)
        fields = {"question": self.task.question, "expected_answer": first, "answer": second}
        opinion = await self.shared.judge.opinion(fields)
        return Said(opinion.score > 0, opinion.label)

    def solve(self) -> Generator[Turn, str, None]:
        yield self._write(self.task.expected_answer)

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        return self._write(make_question(rng)[1])

    def _write(self, answer: str) -> str:
        return FORMS.get(self.task.pattern, "\\boxed{%s}") % answer
