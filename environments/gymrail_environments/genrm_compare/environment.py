"""Messages that are compared with each other: a generative reward model judges the rollouts of a task pair by pair.

One row:

    {"responses_create_params": {"input": "Write to Ana, who is invited: ..."}, "principle": "A message is better ...",
     "facts": ["Friday", "7 pm"], "private": ["90 euros"], "anchors": ["Hi Ana, see you on Friday."]}
"""

from __future__ import annotations

from collections.abc import Generator
from random import Random
from typing import NamedTuple

from pydantic import Field

from gymrail import Config, Environment, Rollout, Task, Verdict
from gymrail.environment import Turn
from gymrail.errors import InputError
from gymrail.rollout import text_of
from gymrail.verifiers.answer import contains_phrase
from gymrail.verifiers.genrm import PAIRWISE, Cohorts, Member, Pairing, PairwiseJudge
from gymrail.verifiers.judge import JudgeSettings
from gymrail_environments.genrm_compare.invitations import make_invitation


class CompareConfig(Config):
    judge: JudgeSettings | None = None
    """The generative reward model. Without one, rows with `facts` are compared by rule, offline: see the README."""
    cohort_size: int = Field(default=1, ge=1)
    """Rollouts of a task that are compared: `--repeats`, `num_generations`. With 1 the anchors alone count."""
    cohort_wait_seconds: float = Field(default=30.0, gt=0)
    """How long a cohort waits for those who are missing, from its first answer on."""
    pairing: Pairing = "all"
    """"circle" lets each answer meet its two neighbours alone: n judgements of pairs instead of n (n - 1) / 2."""


class CompareTask(Task):
    principle: str = ""
    """What makes an answer better; empty for the verifier's own."""
    anchors: list[str] = Field(default_factory=list)
    """Answers that every rollout is compared with as well."""
    facts: list[str] = Field(default_factory=list)
    """What a message must tell, for the comparison by rule."""
    private: list[str] = Field(default_factory=list)
    """What it must not tell."""


class Facts(NamedTuple):
    """Compares by rule: fewer private things told, then more facts told, then fewer words, is better."""

    facts: list[str]
    private: list[str]

    async def share(self, one: str, other: str, *, question: str, principle: str) -> float:
        first, second = self._worth(one), self._worth(other)
        return 0.5 if first == second else float(first > second)

    def _worth(self, message: str) -> tuple[int, int, int]:
        told, leaked = (sum(contains_phrase(message, part) for part in parts) for parts in self)
        # Nothing told is nothing saved: brevity counts among messages that tell as much.
        return -leaked if told else -len(self.private) - 1, told, -len(message.split())


class Shared(NamedTuple):
    judge: PairwiseJudge | None
    cohorts: Cohorts


class GenrmCompare(Environment[CompareTask]):
    """The reward is the share of its comparisons that an answer won: against its cohort, and against the anchors."""

    Config = CompareConfig
    config: CompareConfig
    shared: Shared
    member: Member | None = None

    @classmethod
    def setup(cls, config: CompareConfig) -> Shared:
        judge = PairwiseJudge(config.judge.judge(PAIRWISE)) if config.judge else None
        return Shared(judge, Cohorts(config.cohort_size, config.cohort_wait_seconds, config.pairing))

    @classmethod
    async def teardown(cls, shared: Shared) -> None:
        if shared.judge is not None:
            await shared.judge.judge.aclose()

    @classmethod
    def generate(cls, rng: Random) -> CompareTask:
        prompt, fields = make_invitation(rng)
        return CompareTask.ask(prompt, **fields)

    def seed(self) -> None:
        task = self.task
        if self.shared.judge is None and not task.facts:
            raise InputError(f"Task {task.id} has no 'facts' to compare by; name a generative reward model: judge.")
        if self.config.cohort_size == 1 and not task.anchors:
            raise InputError(f"Task {task.id} has no 'anchors', so cohort_size must be 2 or more, not 1.")
        self.member = self.shared.cohorts.join(task.id)

    def close(self) -> None:
        if self.member is not None:
            self.member.leave()

    async def verify(self, rollout: Rollout) -> Verdict:
        task, comparer = self.task, self.shared.judge or Facts(self.task.facts, self.task.private)
        assert self.member is not None, "seed joins a cohort"
        standing = await self.member.standing(
            rollout.final_text, comparer, question="\n\n".join(map(text_of, task.input_items)),
            principle=task.principle, anchors=task.anchors, order=rollout.repeat,
            is_second_attempt=rollout.attempt > 1,
        )  # fmt: skip
        return standing.verdict

    def solve(self) -> Generator[Turn, str, None]:
        yield "Hi! " + ", ".join(self.task.facts) + "."

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Let slip what is private, or leave facts out."""
        is_leak, brief = rng.random() < 0.5, "Hi! " + ", ".join(self.task.facts[2:]) + "."
        return f"{turn} And between us: {rng.choice(self.task.private)}." if is_leak else brief
