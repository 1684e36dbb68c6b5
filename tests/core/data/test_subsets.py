"""A curriculum over subsets: tasks are taken by what the groups of their subset came to."""

import json
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gymrail import Environment, Rollout, Task
from gymrail.data.member import Member
from gymrail.data.mixing import Curriculum, DynamicSampling, Mixing
from gymrail.data.mixture import Group, Mixture
from gymrail.data.mixture_stream import Measured, MixtureStream
from gymrail.errors import InputError
from gymrail.spec import DatasetEntry, EnvironmentSpec, Manifest

EVEN, MIXED = [1.0, 1.0], [0.0, 1.0]


class Levelled(Task):
    level: int


class Levels(Environment[Levelled]):
    """Tasks of four levels, equally often."""

    @classmethod
    def generate(cls, rng: Random) -> Levelled:
        return Levelled.ask(f"{rng.random()}", level=rng.randint(1, 4))

    def verify(self, rollout: Rollout) -> float:
        return 0.0


LEVELS = EnvironmentSpec("levels", Levels)


def stream_of(member: Member, **curriculum: object) -> MixtureStream:
    return MixtureStream(Mixture([member], 0, Mixing(curriculum=Curriculum.model_validate(curriculum))))


def play(stream: MixtureStream, steps: Iterable[int], spread: Callable[[str, int], bool]) -> list[Group]:
    """Draw a batch of eight at each step; a group's rewards differ where those of its subset do at that step."""
    drawn = []
    for step in steps:
        groups = stream.batch(8, step)
        measured = []
        for group in groups:
            assert group.subset is not None
            measured.append(Measured(group, MIXED if spread(group.subset, step) else EVEN, 10))
        stream.observe(measured, step)
        drawn += groups
    return drawn


def subsets(groups: Iterable[Group]) -> Counter[str | None]:
    return Counter(group.subset for group in groups)


def test_tasks_of_subsets_that_teach_are_taken_and_few_of_the_others() -> None:
    stream = stream_of(Member(LEVELS, subset_by="level"), subset_floor=0.1)
    play(stream, range(20), lambda subset, _: subset in "23")
    later = subsets(play(stream, range(20, 70), lambda subset, _: subset in "23"))
    # Of 2.2 tasks that are taken, one is of each level that teaches and a tenth of each that does not.
    assert {level: later[level] / 400 for level in "1234"} == pytest.approx(
        {"1": 0.045, "2": 0.455, "3": 0.455, "4": 0.045}, abs=0.04
    )


def test_a_subset_gets_its_part_in_proportion_to_how_much_its_rewards_vary() -> None:
    luck = Random("spread")
    stream = stream_of(Member(LEVELS, subset_by="level"), subset_floor=0.01)
    chance = {"1": 0.0, "2": 0.3, "3": 0.6, "4": 0.9}
    drawn = subsets(play(stream, range(300), lambda subset, _: luck.random() < chance[subset]))
    # A level without any spread is taken for one group of the twenty that are remembered.
    assert {level: drawn[level] / drawn["4"] for level in "23"} == pytest.approx({"2": 1 / 3, "3": 2 / 3}, abs=0.08)
    assert 0.03 < drawn["1"] / drawn["4"] < 0.09


@pytest.mark.parametrize("spread", [True, False])
def test_where_all_subsets_teach_alike_tasks_come_as_without_a_curriculum(spread: bool) -> None:
    chosen = play(stream_of(Member(LEVELS, subset_by="level")), range(10), lambda *_: spread)
    plain = Mixture([Member(LEVELS)])
    if spread:
        assert [group.task.id for group in chosen] == [plain.group(index).task.id for index in range(80)]
    shares = subsets(chosen)
    assert all(0.1 < shares[level] / 80 < 0.45 for level in "1234"), shares


def test_a_subset_that_begins_to_teach_is_found_out_and_one_that_is_mastered_too() -> None:
    stream = stream_of(Member(LEVELS, subset_by="level"))
    play(stream, range(40), lambda subset, _: subset == "1")
    turned = play(stream, range(40, 160), lambda subset, _: subset == "4")
    last = subsets(turned[-400:])
    assert last["4"] > 200 > 80 > last["1"], last


def test_a_group_is_known_to_teach_once_most_of_its_subset_s_groups_had_spread() -> None:
    stream = stream_of(Member(LEVELS, subset_by="level"))
    assert not any(group.is_known for group in stream.batch(8))
    stream = stream_of(Member(LEVELS, subset_by="level"))
    later = play(stream, range(40), lambda subset, _: subset in "23")[-80:]
    assert {group.is_known for group in later if group.subset in ("2", "3")} == {True}
    assert {group.is_known for group in later if group.subset in ("1", "4")} <= {False}


def test_a_group_with_less_than_two_rewards_says_nothing_of_its_subset() -> None:
    stream = stream_of(Member(LEVELS, subset_by="level"))
    before = {name: values["groups"] for name, values in stream.state()["members"]["levels"]["curriculum"].items()}
    stream.observe([Measured(group, [1.0][: group.index % 2], 10) for group in stream.batch(8)])
    after = stream.state()["members"]["levels"]["curriculum"]
    assert before == {}
    assert {values["groups"] for values in after.values()} == {0.0}


def test_no_task_of_a_dataset_that_teaches_is_left_out_of_an_epoch(tmp_path: Path) -> None:
    rows = [{"responses_create_params": {"input": str(index)}, "level": index % 4} for index in range(40)]
    (tmp_path / "train.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    dataset = DatasetEntry(name="train", split="train", path="train.jsonl")
    spec = EnvironmentSpec("levels", Levels, Manifest(datasets=[dataset]), path=tmp_path)
    stream = stream_of(Member(spec, subset_by="level"))
    drawn = play(stream, range(40), lambda subset, _: subset == "3")
    counts = Counter(group.task_index for group in drawn if group.subset == "3")
    assert len(counts) == 10
    assert max(counts.values()) - min(counts.values()) <= 1


@given(cut=st.integers(0, 15), floor=st.floats(0.01, 1), seed=st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_a_stream_over_subsets_goes_on_from_its_state_with_the_same_groups(cut: int, floor: float, seed: int) -> None:
    def spread(subset: str, step: int) -> bool:
        return Random(f"{seed}:{subset}:{step}").random() < int(subset) / 4

    member = Member(LEVELS, subset_by="level")
    whole = play(stream_of(member, subset_floor=floor), range(16), spread)
    first, second = stream_of(member, subset_floor=floor), stream_of(member, subset_floor=floor)
    play(first, range(cut), spread)
    second.restore(json.loads(json.dumps(first.state())))
    rest = play(second, range(cut, 16), spread)
    described = [(group.index, group.task.id, group.subset, group.is_known) for group in whole[8 * cut :]]
    assert [(group.index, group.task.id, group.subset, group.is_known) for group in rest] == described


def test_subsets_are_named_in_a_field_of_the_rows_within_fields_too(tmp_path: Path) -> None:
    rows = [
        {"responses_create_params": {"input": "a"}, "level": 1, "verifier_metadata": {"source": {"name": "old"}}},
        {"responses_create_params": {"input": "b"}, "level": 1, "verifier_metadata": {"source": {"name": "new"}}},
    ]
    (tmp_path / "train.jsonl").write_bytes(b"".join(orjson.dumps(row) + b"\n" for row in rows))
    dataset = DatasetEntry(name="train", split="train", path="train.jsonl")
    spec = EnvironmentSpec("levels", Levels, Manifest(datasets=[dataset]), path=tmp_path)
    assert set(subsets(stream_of(Member(spec, subset_by="source.name")).batch(2))) == {"old", "new"}


def test_a_field_that_no_row_has_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match=r"'digits', and task .* has no such field; its row has: level"):
        stream_of(Member(LEVELS, subset_by="digits")).batch(4)


def test_a_field_with_a_value_for_nearly_every_task_is_refused(sums: EnvironmentSpec) -> None:
    stream = stream_of(Member(sums, subset_by="answer"))
    stream.batch(1000)
    with pytest.raises(InputError, match="more than 1,000 values, such as"):
        stream.batch(1)


def test_the_field_decides_the_stream_of_a_curriculum_and_no_other() -> None:
    members = [Member(LEVELS), Member(LEVELS, subset_by="level")]
    for mixing, differs in ((Mixing(), False), (Mixing(dynamic_sampling=DynamicSampling()), False)):
        assert (len({Mixture([member], 0, mixing).fingerprint for member in members}) == 2) is differs
    curriculum = Mixing(curriculum=Curriculum())
    assert len({Mixture([member], 0, curriculum).fingerprint for member in members}) == 2


def test_a_plain_mixture_has_the_mean_of_a_schedule_and_nobody_without_a_share(sums: EnvironmentSpec) -> None:
    never = Member(EnvironmentSpec("never", sums.cls), schedule=((0, 0.0),))
    rising = Member(EnvironmentSpec("rising", sums.cls), schedule=((0, 0.0), (10, 6.0)))
    plain = Mixture([Member(sums, 1.0), rising, never]).plain()
    assert plain.is_plain
    assert plain.counts(8) == {"rising": 6, "sums": 2}


def test_small_differences_of_rewards_teach_little_though_every_group_has_them() -> None:
    stream = stream_of(Member(LEVELS, subset_by="level"))
    rewards = {"1": [0.5, 0.51], "2": [0.0, 1.0], "3": [0.4, 0.6], "4": [0.0, 0.0]}
    drawn: Counter[str | None] = Counter()
    for step in range(100):
        groups = stream.batch(8, step)
        stream.observe([Measured(group, rewards[str(group.subset)], 10) for group in groups])
        drawn += subsets(groups)
    assert {level: drawn[level] / drawn["2"] for level in "134"} == pytest.approx(
        {"1": 0.1, "3": 0.1, "4": 0.1}, abs=0.06
    )
