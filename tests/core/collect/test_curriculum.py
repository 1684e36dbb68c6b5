"""A curriculum with dynamic sampling against uniform sampling, on a policy whose learning is a formula."""

import asyncio
import math
from random import Random
from typing import ClassVar

from gymrail import Environment, Rollout, Task
from gymrail.collect.batch import play_batch
from gymrail.data.member import Member
from gymrail.data.mixing import Curriculum, DynamicSampling, Late, Mixing
from gymrail.data.mixture import Mixture
from gymrail.data.mixture_stream import MixtureStream
from gymrail.models.scripted import ScriptedModel
from gymrail.spec import EnvironmentSpec

PLAYED_WHOLE = Mixing(late=Late(quorum=0.99, patience=1000))
"""Uniform sampling, played by the same code."""


class Ladder(Task):
    difficulty: float
    level: int


class Climb(Environment[Ladder]):
    """Passes with the logistic chance of skill over difficulty."""

    skill: ClassVar[float] = 0.0
    luck: ClassVar[Random] = Random(0)

    @classmethod
    def generate(cls, rng: Random) -> Ladder:
        difficulty = rng.uniform(-6, 6)
        return Ladder.ask(f"{rng.random()}", difficulty=difficulty, level=round(difficulty))

    def verify(self, rollout: Rollout) -> float:
        return float(Climb.luck.random() < 1 / (1 + math.exp(self.task.difficulty - Climb.skill)))


def rollouts_until(
    skill: float, mixing: Mixing, limit: int | None, subset_by: str | None = None, rate: float = 0.12
) -> int:
    """Train from skill -2: a group teaches in proportion to the variance of its rewards."""
    Climb.skill, Climb.luck = -2.0, Random("luck")
    member = Member(EnvironmentSpec("climb", Climb), limit=limit, subset_by=subset_by)
    stream = MixtureStream(Mixture([member], 0, mixing))

    async def train() -> int:
        rollouts = 0
        for step in range(0, 800, 4):
            batch = await play_batch(stream, ScriptedModel(["x"]), groups=16, repeats=8, step=step)
            rollouts += len(batch.rollouts)
            for played in batch.groups:
                passed = sum(played.rewards)
                Climb.skill += rate * passed * (len(played.rewards) - passed) / 64
            if Climb.skill >= skill:
                return rollouts
        raise AssertionError(f"skill {Climb.skill} after {rollouts} rollouts")

    return asyncio.run(asyncio.wait_for(train(), 300))


def test_a_curriculum_needs_a_quarter_fewer_rollouts_where_difficulties_differ() -> None:
    adaptive = Mixing(curriculum=Curriculum(fresh=0.3, rest=32), dynamic_sampling=DynamicSampling(refills=1, probe=4))
    for limit in (None, 200):
        uniform, chosen = (rollouts_until(1.0, mixing, limit) for mixing in (PLAYED_WHOLE, adaptive))
        assert chosen <= 0.75 * uniform, f"{chosen} of {uniform} rollouts, limit {limit}"


def test_a_curriculum_over_difficulties_needs_a_quarter_fewer_rollouts_without_meeting_a_task_twice() -> None:
    # Slower than above: what is known of thirteen levels is some two batches old.
    uniform = rollouts_until(1.0, PLAYED_WHOLE, None, rate=0.06)
    chosen = rollouts_until(1.0, Mixing(curriculum=Curriculum()), None, subset_by="level", rate=0.06)
    assert chosen <= 0.75 * uniform, f"{chosen} of {uniform} rollouts"
