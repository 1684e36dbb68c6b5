"""Batches of a mixture: every place has its rollouts, slow episodes are not waited for, groups without spread are
refilled."""

import asyncio
from collections import Counter, defaultdict
from collections.abc import Awaitable
from random import Random
from typing import Any, ClassVar

import pytest

from gymrail import Environment, Rollout, Task
from gymrail.collect.batch import PlayedBatch, placeholder, play_batch
from gymrail.data.member import Member
from gymrail.data.mixing import Curriculum, DynamicSampling, Late, Mixing
from gymrail.data.mixture import Mixture
from gymrail.data.mixture_stream import MixtureStream
from gymrail.errors import InputError
from gymrail.models.scripted import ScriptedModel
from gymrail.spec import EnvironmentSpec


class Luck(Task):
    chance: float


class Dice(Environment[Luck]):
    """The reward is 1 with the task's chance, whatever the answer."""

    episodes: ClassVar[Counter[str]] = Counter()

    @classmethod
    def generate(cls, rng: Random) -> Luck:
        number, chance = rng.randint(0, 10**9), rng.choice((0.0, 0.5, 1.0))
        return Luck.ask(f"Roll {number}.", chance=chance)

    def verify(self, rollout: Rollout) -> float:
        self.episodes[self.task.id] += 1
        return float(Random(f"{self.task.id}:{self.episodes[self.task.id]}").random() < self.task.chance)


class Stuck(Dice):
    """Never gets ready."""

    closed = 0

    async def seed(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None:
        type(self).closed += 1


class Broken(Dice):
    def verify(self, rollout: Rollout) -> float:
        raise KeyError("metric")


def dice(name: str = "dice", cls: type[Environment[Any]] = Dice) -> EnvironmentSpec:
    return EnvironmentSpec(name, cls)


def run(work: Awaitable[PlayedBatch]) -> PlayedBatch:
    async def bounded() -> PlayedBatch:
        return await asyncio.wait_for(work, 120)

    return asyncio.run(bounded())


def batches(mixture: Mixture, count: int = 1, **options: Any) -> list[PlayedBatch]:
    Dice.episodes.clear()
    stream = MixtureStream(mixture)
    options = {"groups": 8, "repeats": 4, **options}
    return [run(play_batch(stream, ScriptedModel(["Rolled."]), step=step, **options)) for step in range(count)]


def test_every_place_has_its_rollouts_and_each_is_recorded_once() -> None:
    recorded: list[Rollout] = []
    (batch,) = batches(Mixture([Member(dice("a")), Member(dice("b"), 3.0)]), record=recorded.append)

    assert [sorted(played.rollouts) for played in batch.groups] == [[0, 1, 2, 3]] * 8
    assert Counter(rollout.environment for rollout in recorded) == {"a": 8, "b": 24}
    assert sorted(rollout.id for rollout in recorded) == sorted(rollout.id for rollout in batch.rollouts)
    assert batch.metrics()["env/b/share"] == 0.75


def test_an_environment_that_never_answers_costs_its_own_episodes_and_no_more() -> None:
    mixture = Mixture([Member(dice("fast"), 3.0), Member(dice("slow", Stuck))], 0, Mixing(late=Late()))
    recorded: list[Rollout] = []
    (batch,) = batches(mixture, record=recorded.append)

    assert batch.late == {"slow": 8}
    outcomes = {(r.environment, r.outcome.status, r.reward is None) for r in recorded if r.outcome}
    assert outcomes == {("fast", "scored", False), ("slow", "failed", True)}
    assert {r.failure.kind for r in recorded if r.failure} == {"timeout"}
    assert len(recorded) == 32
    assert batch.metrics()["env/slow/late"] == 8
    assert batch.metrics()["env/fast/late"] == 0


def test_a_deadline_holds_for_its_own_environment_through_refills() -> None:
    members = [Member(dice("fast"), 3.0), Member(dice("slow", Stuck), deadline_seconds=0.05)]
    mixture = Mixture(members, 0, Mixing(dynamic_sampling=DynamicSampling(probe=2)))
    (batch,) = batches(mixture)

    # The probes were late; nothing more of that environment was played, nor was it refilled.
    assert batch.late == {"slow": 4}
    assert all(len(played.rollouts) == 2 for played in batch.groups if played.group.spec.name == "slow")
    assert all(played.group.spec.name == "fast" for played in batch.given_up)


def test_no_environment_has_more_episodes_at_once_than_its_limit() -> None:
    running: Counter[str] = Counter()
    most: dict[str, int] = defaultdict(int)

    class Watched(Dice):
        async def seed(self) -> None:
            running[self.name] += 1
            most[self.name] = max(most[self.name], running[self.name])
            for _ in range(3):
                await asyncio.sleep(0)

        def verify(self, rollout: Rollout) -> float:
            running[self.name] -= 1
            return super().verify(rollout)

    class A(Watched):
        name = "a"

    class B(Watched):
        name = "b"

    mixture = Mixture([Member(dice("a", A), concurrency=3), Member(dice("b", B))])
    (batch,) = batches(mixture, concurrency=10)
    assert len(batch.rollouts) == 32
    assert most["a"] <= 3
    assert 3 < most["b"] <= 10


@pytest.mark.parametrize("probe", [None, 3])
def test_groups_without_spread_are_refilled_and_the_rest_of_a_probe_is_saved(probe: int | None) -> None:
    def play(mixing: Mixing) -> list[PlayedBatch]:
        return batches(Mixture([Member(dice())], 0, mixing), 6, groups=12)

    plain = play(Mixing(late=Late(quorum=0.99, patience=1000)))
    refilled = play(Mixing(dynamic_sampling=DynamicSampling(refills=3, probe=probe)))

    def share(batches: list[PlayedBatch]) -> float:
        groups = [played for batch in batches for played in batch.groups]
        return sum(played.has_spread for played in groups) / len(groups)

    assert share(plain) < 0.45
    assert share(refilled) > share(plain) + 0.2
    for batch in refilled:
        assert len(batch.groups) == 12
        assert len(batch.given_up) <= 3 * 12
        assert not any(played.has_spread for played in batch.given_up)
        assert {len(played.rollouts) for played in batch.given_up} <= {probe or 4}
        assert all(len(played.rollouts) == 4 for played in batch.groups if played.has_spread)
    assert sum(len(batch.given_up) for batch in refilled) > 10


def test_tasks_that_are_known_to_teach_are_played_whole_and_the_others_probed() -> None:
    class Split(Dice):
        """A third of the tasks pass every other time, the others never."""

        def verify(self, rollout: Rollout) -> float:
            return float(self.task.chance == 0.5 and rollout.repeat % 2)

    mixing = Mixing(curriculum=Curriculum(fresh=0.5, rest=0), dynamic_sampling=DynamicSampling(refills=0, probe=2))
    played = batches(Mixture([Member(dice("split", Split))], 0, mixing), 4)
    groups = [group for batch in played for group in batch.groups]
    assert {len(group.rollouts) for group in groups if group.group.is_known} == {4}
    assert {len(group.rollouts) for group in groups if not group.has_spread} == {2}
    assert not any(batch.given_up for batch in played)
    assert sum(group.group.is_known for group in played[-1].groups) >= 4


def test_an_environment_where_hardly_a_group_has_spread_is_not_refilled() -> None:
    class Hopeless(Dice):
        def verify(self, rollout: Rollout) -> float:
            return 0.0

    class Even(Dice):
        def verify(self, rollout: Rollout) -> float:
            return float(rollout.repeat % 2)

    dynamic = DynamicSampling(refills=1, probe=2, least_spread=0.5)
    mixture = Mixture(
        [Member(dice("even", Even)), Member(dice("hopeless", Hopeless))], 0, Mixing(dynamic_sampling=dynamic)
    )
    first, *_, last = batches(mixture, 5)
    assert [played.group.spec.name for played in first.given_up] == ["hopeless"] * 4
    assert last.given_up == []
    assert Counter(rollout.environment for rollout in last.rollouts) == {"even": 16, "hopeless": 8}


def test_refilling_draws_the_same_groups_again() -> None:
    mixture = Mixture([Member(dice("a")), Member(dice("b"))], 0, Mixing(dynamic_sampling=DynamicSampling(probe=2)))
    first, second = (
        [[played.group.task.id for played in batch.groups] for batch in batches(mixture, 4)] for _ in range(2)
    )
    assert first == second


def test_a_broken_verifier_fails_its_own_environment_alone() -> None:
    mixture = Mixture([Member(dice("fine")), Member(dice("broken", Broken))], 0, Mixing(unit="tokens"))
    (batch,) = batches(mixture)
    by_name = {played.group.spec.name: played for played in batch.groups}
    assert by_name["broken"].rewards == []
    assert len(by_name["fine"].rewards) == 4
    assert all(rollout.reward is None for rollout in by_name["broken"].rollouts.values())


def test_an_error_while_recording_ends_the_batch() -> None:
    def record(rollout: Rollout) -> None:
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        batches(Mixture([Member(dice()), Member(dice("slow", Stuck))]), record=record)


def test_a_mixture_that_is_over_is_refused() -> None:
    mixture = Mixture([Member(dice(), limit=3, epochs=1)])
    stream = MixtureStream(mixture)
    batch = run(play_batch(stream, ScriptedModel(["Rolled."]), groups=8, repeats=2))
    assert len(batch.groups) == 3
    with pytest.raises(InputError, match="gave 3 groups"):
        run(play_batch(stream, ScriptedModel(["Rolled."]), groups=8, repeats=2))


def test_a_placeholder_has_no_reward_and_cannot_be_trained_on() -> None:
    group = MixtureStream(Mixture([Member(dice(), floor=1)])).batch(1)[0]
    rollout = placeholder(group, 2)
    assert not rollout.is_trainable
    assert (rollout.reward, rollout.repeat, rollout.environment) == (None, 2, "dice")
