r"""Every dataset of the `reasoning-gym` library, graded by its own scorers, but hedging pays nothing.

One row:

    {"responses_create_params": {"input": "State the final answer to: 7 - 3 + 9 ..."}, "question": "State ...",
     "answer": "13", "metadata": {"source_dataset": "chain_sum"}}
"""

from __future__ import annotations

from collections.abc import Generator
from random import Random
from typing import Any

from pydantic import Field

from gymrail import Config, Environment, Rollout, Task, Verdict
from gymrail.environment import Turn
from gymrail.verifiers.reasoning_gym.library import dataset_names, dataset_of, gold_answer, make_entry
from gymrail.verifiers.reasoning_gym.scorer import Scorer

ASK = "Think first. Then give the final answer alone between <answer> and </answer>."


class ReasoningGymConfig(Config):
    datasets: list[str] = Field(default_factory=list)
    """Which of the library's datasets tasks are drawn from, each as often; empty for all that `library.EXCLUDED` does
    not name."""
    parameters: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Arguments of the datasets, by name: `{chain_sum: {min_terms: 5}}`."""
    score_seconds: float = Field(10.0, gt=0)
    """What scoring one answer may take."""
    workers: int = Field(1, ge=1, le=64)
    """Processes that score."""


DEFAULTS = ReasoningGymConfig()  # pyright: ignore[reportCallIssue]


class ReasoningGymTask(Task):
    question: str
    answer: str | None
    metadata: dict[str, Any]

    @property
    def dataset(self) -> str:
        return dataset_of(self.metadata)


class ReasoningGym(Environment[ReasoningGymTask]):
    """The library's scorer on `<answer>`, else on the box, else on the whole text."""

    Config = ReasoningGymConfig
    shared: Scorer

    @classmethod
    def setup(cls, config: ReasoningGymConfig) -> Scorer:
        dataset_names(config.datasets)
        return Scorer(config.score_seconds, config.workers, config.parameters)

    @classmethod
    def teardown(cls, shared: Scorer) -> None:
        shared.close()

    @classmethod
    def generate(cls, rng: Random, config: ReasoningGymConfig = DEFAULTS) -> ReasoningGymTask:
        name = rng.choice(dataset_names(config.datasets))
        # The library's neighbouring seeds share items; these are spread over 31 bits, and splits are told apart by
        # what the items hold.
        entry = make_entry(name, rng.getrandbits(31), config.parameters.get(name, {}))
        return ReasoningGymTask.ask(f"{entry['question']}\n\n{ASK}", **entry)

    async def verify(self, rollout: Rollout) -> Verdict:
        task = self.task
        return await self.shared(rollout.final_text, question=task.question, answer=task.answer, metadata=task.metadata)

    def solve(self) -> Generator[Turn, str, None]:
        entry = {"answer": self.task.answer, "metadata": self.task.metadata}
        yield f"<answer>{gold_answer(self.task.dataset, entry)}</answer>"

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Answer another task of the same dataset."""
        name = self.task.dataset
        for _ in range(20):
            other = make_entry(name, rng.getrandbits(31), self.config.parameters.get(name, {}))
            wrong = gold_answer(name, other)
            if f"<answer>{wrong}</answer>" != turn:
                return f"<answer>{wrong}</answer>"
        return "<answer>unknown</answer>"
