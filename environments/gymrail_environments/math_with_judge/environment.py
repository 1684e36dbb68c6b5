r"""Mathematical problems, compared by `math-verify`; where it sees no equality, a judge may.

One row:

    {"responses_create_params": {"input": "Half of 14:00 and 15:00? Put the answer in \\boxed{}."},
     "question": "Half of 14:00 and 15:00?", "expected_answer": "14:30"}
"""

from __future__ import annotations

from collections.abc import Generator
from random import Random
from typing import NamedTuple

from pydantic import Field

from gymrail import Config, Environment, Rollout, Verdict
from gymrail.environment import Turn
from gymrail.verifiers.judge import Judge, JudgeSettings
from gymrail.verifiers.math import MathVerify
from gymrail_environments.math.environment import MathConfig, MathTask, make_task, near_miss, worked_out


class MathWithJudgeConfig(Config):
    judge: JudgeSettings | None = None
    """Asked on a miss of the library; without one a miss is final."""
    cpu_seconds: int = Field(10, ge=1)
    """Of one comparison by the library, in a worker process."""


class Shared(NamedTuple):
    library: MathVerify
    judge: Judge | None


class MathWithJudge(Environment[MathTask]):
    """1 where the library sees equality, or where the judge sees it in both orders of the two answers."""

    Config = MathWithJudgeConfig
    split_by = ("question",)

    @classmethod
    def setup(cls, config: MathWithJudgeConfig) -> Shared:
        judge = config.judge.judge(swap=("expected_answer", "answer")) if config.judge else None
        return Shared(MathVerify(cpu_seconds=config.cpu_seconds), judge)

    @classmethod
    async def teardown(cls, shared: Shared) -> None:
        await shared.library.aclose()
        if shared.judge is not None:
            await shared.judge.aclose()

    @classmethod
    def generate(cls, rng: Random) -> MathTask:
        return make_task(MathTask, rng, MathConfig())  # pyright: ignore[reportCallIssue]

    async def verify(self, rollout: Rollout) -> Verdict:
        text, task = rollout.final_text, self.task
        found = await self.shared.library(text, expected_answer=task.expected_answer)
        library = worked_out(found, task)
        metrics = {**library.metrics, "library_reward": library.reward}
        judge = self.shared.judge
        # What the library calls equal and the task does not accept is no matter of opinion; silence is no answer.
        if judge is None or found.reward > 0 or not text.strip():
            return Verdict(library.reward, metrics=metrics, reason=library.reason)
        said = library.metrics.get("extracted_answer") or text
        judged = await judge(str(said), question=task.question, expected_answer=task.expected_answer)
        return Verdict(judged.reward, metrics={**metrics, **judged.metrics}, reason=judged.reason)

    def solve(self) -> Generator[Turn, str, None]:
        yield f"\\boxed{{{self.task.expected_answer}}}"

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        return f"\\boxed{{{near_miss(self.task.expected_answer, rng)}}}"
