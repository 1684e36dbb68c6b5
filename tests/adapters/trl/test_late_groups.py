"""A slow environment in TRL's loop: steps do not wait for it, and its episodes are trained on when they are over."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import ClassVar

from grpo_runs import train

from gymrail import Environment, Rollout, Task
from gymrail.data.member import Member
from gymrail.data.mixing import Late, Mixing
from gymrail.data.mixture import Mixture
from gymrail.spec import EnvironmentSpec


class Number(Task):
    number: int


class Fast(Environment[Number]):
    judged: ClassVar[int] = 0

    @classmethod
    def generate(cls, rng: Random) -> Number:
        number = rng.randint(0, 1000)
        return Number.ask(f"{number}?", number=number)

    async def verify(self, rollout: Rollout) -> float:
        Fast.judged += 1
        return float(rollout.repeat % 2)


class Slow(Fast):
    """Its verdicts come when the fast one has judged 24 episodes: at least two batches later."""

    async def verify(self, rollout: Rollout) -> float:
        for _ in range(3000):
            if Fast.judged >= 24:
                return float(rollout.repeat % 2)
            await asyncio.sleep(0.01)
        raise TimeoutError("the other environment was not played")


def test_late_groups_are_trained_on_when_they_are_over(checkpoint: Callable[[str], str], tmp_path: Path) -> None:
    Fast.judged = 0
    fast, slow = EnvironmentSpec("fast", Fast), EnvironmentSpec("slow", Slow)
    members = [Member(fast), Member(slow, deadline_seconds=0.2)]
    mixture = Mixture(members, 0, Mixing(late=Late(quorum=0.99, patience=1000, carry=30)))
    recorded: list[Rollout] = []
    trainer, rollouts = train(
        checkpoint("qwen3"), fast, tmp_path, steps=8, groups=4, mixture=mixture, record=recorded.append
    )
    log = [entry for entry in trainer.state.log_history if "env/fast/share" in entry]
    assert log[0]["env/slow/empty"] == 2
    late = [entry for entry in log if entry.get("env/slow/steps_old", 0) > 0 and entry["env/slow/empty"] == 0]
    assert late, "no late group took a place"
    assert all(entry["env/slow/failed"] == 0 for entry in late)
    assert all(entry["env/slow/late"] == 0 for entry in log if "env/slow/late" in entry)
    # The untrained policy runs out of tokens now and then.
    assert {rollout.outcome.status for rollout in recorded if rollout.outcome} <= {"scored", "truncated"}
    assert max(Counter((rollout.task_index, rollout.repeat) for rollout in recorded).values()) == 1

    rollouts.close()
    assert not [thread for thread in threading.enumerate() if thread.name == "gymrail-loop"]
    rollouts.close()
