from random import Random

from gymrail import Config, Environment, Rollout, Task, Verdict
from gymrail.verifiers.judge import Judge, JudgeSettings
from gymrail.verifiers.math import MathVerify


class SumTask(Task):
    question: str
    expected_answer: str


class SumConfig(Config):
    judge: JudgeSettings | None = None


class Sum(Environment[SumTask]):
    """Add two numbers. What the library does not call equal, a judge may, where one is set."""

    Config = SumConfig

    @classmethod
    def setup(cls, config: SumConfig) -> tuple[MathVerify, Judge | None]:
        return MathVerify(), config.judge.judge(swap=("expected_answer", "answer")) if config.judge else None

    @classmethod
    async def teardown(cls, shared: tuple[MathVerify, Judge | None]) -> None:
        for verifier in shared:
            if verifier is not None:
                await verifier.aclose()

    @classmethod
    def generate(cls, rng: Random) -> SumTask:
        a, b = rng.randint(10, 99), rng.randint(10, 99)
        question = f"What is {a} + {b}?"
        return SumTask.ask(f"{question} Use \\boxed{{}}.", question=question, expected_answer=str(a + b))

    async def verify(self, rollout: Rollout) -> Verdict:
        library, judge = self.shared
        verdict = await library(rollout.final_text, expected_answer=self.task.expected_answer)
        if verdict.reward or judge is None:
            return verdict
        return await judge(rollout.final_text, question=self.task.question, expected_answer=self.task.expected_answer)

    def solve(self):
        yield f"\\boxed{{{self.task.expected_answer}}}"
