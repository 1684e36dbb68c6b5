r"""Mathematical problems of many families, or a dataset's, graded by `math-verify`.

One row:

    {"responses_create_params": {"input": "What is 12 * 34?\nWork it out. Put the final answer in \\boxed{}."},
     "question": "What is 12 * 34?", "expected_answer": "408", "topic": "arithmetic", "level": 2, "is_evaluated": true}

`question` and `expected_answer` are enough: such rows come from DAPO-Math-17k and its like.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Sequence
from random import Random

from pydantic import Field, field_validator, model_validator

from gymrail import Config, Environment, Rollout, Task, Verdict
from gymrail.environment import Turn
from gymrail.errors import InputError, did_you_mean
from gymrail.verifiers.math import MathVerify, is_evaluated
from gymrail_environments.math.families import LEVELS, TOPICS

INSTRUCTION = "Work it out. Put the final answer in \\boxed{}."
_DRAWS = 1000


class MathTask(Task):
    question: str = ""
    expected_answer: str
    topic: str | None = None
    level: int | None = None
    is_evaluated: bool = False
    """Whether the answer must be worked out: "12 * 34" is not, where 408 is expected."""

    @field_validator("expected_answer", mode="before")
    @classmethod
    def _as_text(cls, answer: object) -> object:
        return str(answer) if isinstance(answer, int | float) else answer


class MathConfig(Config):
    topics: tuple[str, ...] = tuple(TOPICS)
    """Of generated problems."""
    min_level: int = Field(1, ge=LEVELS[0], le=LEVELS[-1])
    max_level: int = Field(3, ge=LEVELS[0], le=LEVELS[-1])
    """Larger numbers, more terms; 1 to 5."""
    only_boxed: bool = True
    r"""Look at nothing but the last `\boxed{}`; otherwise `math-verify` finds the answer in the text too."""
    cpu_seconds: int = Field(10, ge=1)
    """Of one comparison, in a worker process; an answer that takes more is a miss."""

    @field_validator("topics")
    @classmethod
    def _are_topics(cls, topics: tuple[str, ...]) -> tuple[str, ...]:
        for topic in topics:
            if topic not in TOPICS:
                raise ValueError(f"no topic {topic!r}. {did_you_mean(topic, TOPICS)}")
        if not topics:
            raise ValueError(f"no topic at all. {did_you_mean('', TOPICS)}")
        return topics

    @model_validator(mode="after")
    def _has_levels(self) -> MathConfig:
        if self.max_level < self.min_level:
            raise ValueError(f"min_level {self.min_level} is above max_level {self.max_level}")
        return self


class Math(Environment[MathTask]):
    """The boxed answer must equal the expected one as mathematics."""

    Config = MathConfig
    split_by = ("question",)

    @classmethod
    def setup(cls, config: MathConfig) -> MathVerify:
        return MathVerify(cpu_seconds=config.cpu_seconds, only_boxed=config.only_boxed)

    @classmethod
    async def teardown(cls, shared: MathVerify) -> None:
        await shared.aclose()

    @classmethod
    def generate(cls, rng: Random, config: MathConfig | None = None) -> MathTask:
        return make_task(MathTask, rng, config or MathConfig())  # pyright: ignore[reportCallIssue]

    async def verify(self, rollout: Rollout) -> Verdict:
        verdict = await self.shared(rollout.final_text, expected_answer=self.task.expected_answer)
        return worked_out(verdict, self.task)

    def solve(self) -> Generator[Turn, str, None]:
        yield f"\\boxed{{{self.task.expected_answer}}}"

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        return f"\\boxed{{{near_miss(self.task.expected_answer, rng)}}}"

    @classmethod
    def compute_metrics(cls, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Mean reward by topic and by level, as far as the rows tell them."""
        rewards: dict[str, list[float]] = {}
        for rollout in rollouts:
            task = rollout.task
            if rollout.reward is not None and isinstance(task, MathTask):
                for name in (task.topic, task.level and f"level {task.level}"):
                    rewards.setdefault(f"mean/reward/{name}", []).extend([rollout.reward] if name else [])
        return {name: sum(values) / len(values) for name, values in sorted(rewards.items()) if values}


def make_task(kind: type[MathTask], rng: Random, config: MathConfig) -> MathTask:
    """Make a problem of one of the configured topics and levels."""
    for _ in range(_DRAWS):
        topic, level = rng.choice(config.topics), rng.randint(config.min_level, config.max_level)
        question, answer = rng.choice(TOPICS[topic])(rng, level)
        if answer not in ("0", ""):  # an answer of 0 can be guessed
            prompt = f"{question}\n{INSTRUCTION}"
            return kind.ask(
                prompt, question=question, expected_answer=answer, topic=topic, level=level, is_evaluated=True
            )
    raise InputError(f"No problem of the topics {', '.join(config.topics)} has an answer other than 0.")


def worked_out(verdict: Verdict, task: MathTask) -> Verdict:
    """Take the reward from an answer that leaves the work to whoever reads it, where the task wants it done."""
    said = str(verdict.metrics.get("extracted_answer") or "")
    if verdict.reward == 0 or not task.is_evaluated or is_evaluated(said, task.expected_answer):
        return verdict
    return Verdict(0.0, metrics=verdict.metrics, reason=f"{said} is not worked out")


def near_miss(answer: str, rng: Random) -> str:
    """Return an answer whose first number is another one."""
    wrong = re.sub(r"\d+", lambda found: str(int(found[0]) + rng.randint(1, 9)), answer, count=1)
    return wrong if wrong != answer else f"{answer} + 1"
