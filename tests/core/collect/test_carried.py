"""Late groups that are played on beside later batches: the batch does not wait, no episode is lost or doubled, and
shares hold over the run."""

import asyncio
import json
from collections import Counter
from collections.abc import Awaitable
from random import Random
from typing import Any, ClassVar

import pytest
from pydantic import ValidationError

from gymrail import Environment, Rollout, Task
from gymrail.collect.batch import PlayedBatch, play_batch
from gymrail.collect.carried import Carried
from gymrail.data.member import Member
from gymrail.data.mixing import DynamicSampling, Late, Mixing
from gymrail.data.mixture import Mixture
from gymrail.data.mixture_stream import MixtureStream
from gymrail.errors import InputError
from gymrail.models.model import ModelRequest, ModelResponse, message
from gymrail.models.scripted import ScriptedModel
from gymrail.spec import EnvironmentSpec


class Number(Task):
    number: int


class Fast(Environment[Number]):
    @classmethod
    def generate(cls, rng: Random) -> Number:
        number = rng.randint(0, 10**9)
        return Number.ask(f"Say {number}.", number=number)

    async def verify(self, rollout: Rollout) -> float:
        return float(rollout.repeat % 2)


class Slow(Fast):
    """Judges when it is let."""

    ready: ClassVar[asyncio.Event]
    begun: ClassVar[int] = 0
    most: ClassVar[int] = 0

    async def verify(self, rollout: Rollout) -> float:
        Slow.begun += 1
        Slow.most = max(Slow.most, Slow.begun)
        await self.ready.wait()
        Slow.begun -= 1
        return float(rollout.repeat % 2)


class SlowStart(Fast):
    """Begins when it is let."""

    async def seed(self) -> None:
        await Slow.ready.wait()


def mixture(carry: int = 8, slow: type[Environment[Any]] = Slow, **options: Any) -> Mixture:
    options = {"deadline_seconds": 0.05, **options}
    members = [Member(EnvironmentSpec("fast", Fast), 3.0), Member(EnvironmentSpec("slow", slow), **options)]
    return Mixture(members, 0, Mixing(late=Late(quorum=0.99, patience=1000, carry=carry)))


def run(work: Awaitable[None]) -> None:
    async def bounded() -> None:
        Slow.ready, Slow.begun, Slow.most = asyncio.Event(), 0, 0
        await asyncio.wait_for(work, 30)

    asyncio.run(bounded())


class Run:
    """Batches of 8 groups with 4 rollouts each, one after another."""

    def __init__(self, mixture: Mixture, model: Any = None, record: Any = None) -> None:
        self.stream = MixtureStream(mixture)
        self.carried = Carried()
        self.model = model or ScriptedModel(["Said."])
        self.recorded: list[Rollout] = []
        self.record = record or self.recorded.append
        self.step = 0

    async def batch(self) -> PlayedBatch:
        batch = await play_batch(
            self.stream,
            self.model,
            groups=8,
            repeats=4,
            step=self.step,
            record=lambda rollout: self.record(rollout),
            carried=self.carried,
        )
        self.step += 4
        return batch

    async def all_over(self) -> None:
        Slow.ready.set()
        for _ in range(1000):
            if not sum(self.carried.episodes.values()):
                return
            await asyncio.sleep(0)
        raise AssertionError(f"still playing: {self.carried.episodes}")


def places(batch: PlayedBatch) -> Counter[tuple[str, bool]]:
    """By environment, and whether the place has rollouts."""
    return Counter((played.group.spec.name, bool(played.rollouts)) for played in batch.groups)


def test_a_late_group_takes_a_place_of_a_later_batch_with_all_its_rollouts() -> None:
    async def work() -> None:
        run = Run(mixture())
        first = await run.batch()
        assert places(first) == {("fast", True): 6, ("slow", False): 2}
        assert first.late == {}
        assert first.metrics()["env/slow/empty"] == 2
        assert first.metrics()["env/slow/beside"] == 8
        # Known to be slow by now: its next groups are begun beside, and others fill the batch.
        second = await run.batch()
        assert places(second) == {("fast", True): 8}
        assert second.beside["slow"] > first.beside["slow"]
        await run.all_over()
        third = await run.batch()
        late = [played for played in third.groups if played.step < third.step]
        assert [played.group.spec.name for played in late] == ["slow"] * len(late)
        assert len(late) == second.beside["slow"] / 4
        assert {played.group.index for played in late} >= {p.group.index for p in first.groups if not p.rollouts}
        assert all(played.has_spread and sorted(played.rollouts) == [0, 1, 2, 3] for played in late)
        assert third.metrics()["env/slow/steps_old"] > 3
        identities = [(rollout.task_index, rollout.repeat) for rollout in run.recorded]
        assert len(identities) == len(set(identities))
        assert {rollout.outcome.status for rollout in run.recorded if rollout.outcome} == {"scored"}
        # What was begun beside that batch comes in the next, and nothing is left.
        waiting = {index for index, *_ in run.stream.state()["unplayed"]}
        await run.all_over()
        fourth = await run.batch()
        assert waiting
        assert {played.group.index for played in fourth.groups} >= waiting

    run(work())


def test_shares_hold_over_the_run_once_a_slow_environment_s_groups_come_back() -> None:
    async def work() -> None:
        run = Run(mixture())
        filled: Counter[str] = Counter()
        for index in range(24):
            if index % 4 == 3:
                await run.all_over()
                Slow.ready.clear()
            filled += Counter(played.group.spec.name for played in (await run.batch()).groups if played.rollouts)
        await run.all_over()
        filled += Counter(played.group.spec.name for played in (await run.batch()).groups if played.rollouts)
        assert abs(filled["slow"] / sum(filled.values()) - 0.25) < 0.02

    run(work())


def test_what_is_in_flight_for_too_long_has_failed_and_is_never_reward_0() -> None:
    async def work() -> None:
        run = Run(mixture(carry=2))
        batches = [await run.batch() for _ in range(4)]
        assert [batch.late["slow"] for batch in batches] == [0, 0, 0, 8]
        assert {r.failure.kind for r in run.recorded if r.failure and r.reward is None} == {"timeout"}
        assert len([played for played in batches[3].given_up if played.group.spec.name == "slow"]) == 2
        assert await run.carried.close() > 0
        assert run.carried.environments == set()

    run(work())


def test_a_restored_stream_plays_what_was_in_flight_anew() -> None:
    async def work() -> None:
        before = Run(mixture())
        first = await before.batch()
        state = json.loads(json.dumps(before.stream.state()))
        waiting = {played.group.index: played.group.task.id for played in first.groups if not played.rollouts}
        await before.carried.close()

        after = Run(mixture())
        after.stream.restore(state)
        assert {group.index: group.task.id for group in after.stream.unplayed} == waiting
        await after.batch()
        await after.all_over()
        third = await after.batch()
        late = {played.group.index: played.group.task.id for played in third.groups if played.step < third.step}
        assert late.items() >= waiting.items()

    run(work())


def test_the_model_is_not_asked_between_batches() -> None:
    asked = 0

    class Counted:
        async def respond(self, request: ModelRequest) -> ModelResponse:
            nonlocal asked
            asked += 1
            return ModelResponse([message("Said.")])

    async def work() -> None:
        run = Run(mixture(slow=SlowStart), Counted())
        await run.batch()
        before = asked
        Slow.ready.set()
        for _ in range(50):
            await asyncio.sleep(0)
        assert asked == before
        await run.batch()
        assert asked > before

    run(work())


def test_an_environment_s_own_limit_holds_over_all_batches() -> None:
    async def work() -> None:
        run = Run(mixture(concurrency=5))
        for _ in range(4):
            await run.batch()
        assert Slow.most == 5
        await run.carried.close()

    run(work())


def test_an_error_while_recording_a_late_rollout_ends_the_next_batch() -> None:
    async def work() -> None:
        run = Run(mixture())
        await run.batch()

        def fail(rollout: Rollout) -> None:
            raise OSError("disk full")

        run.record = fail
        await run.all_over()
        with pytest.raises(OSError, match="disk full"):
            await run.batch()
        await run.carried.close()

    run(work())


def test_settings_that_do_not_go_together_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"late\.carry and dynamic_sampling"):
        Mixing(late=Late(carry=2), dynamic_sampling=DynamicSampling())
    with pytest.raises(InputError, match="has epochs"):
        mixture(limit=4, epochs=1)
    with pytest.raises(InputError, match="carried=Carried"):
        run(play_batch(MixtureStream(mixture()), ScriptedModel(["Said."]), groups=2, repeats=2))  # type: ignore[arg-type]
