"""TRL's rows of a mixture that is drawn batch by batch: each prompt its own rollout, and nothing out of step."""

from __future__ import annotations

import asyncio
import inspect
import logging
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import pytest
from trl.trainer import grpo_trainer

from gymrail import Environment, Rollout, Task
from gymrail.collect.batch import PlayedBatch
from gymrail.data.member import Member
from gymrail.data.mixing import DynamicSampling, Mixing
from gymrail.data.mixture import Mixture
from gymrail.errors import InputError
from gymrail.models.scripted import ScriptedModel
from gymrail.rollout import Verdict
from gymrail.spec import EnvironmentSpec
from gymrail_trl import RolloutFunction, group_dataset
from gymrail_trl.places import SaveMixture, play_places, restore_mixture, rows_of
from gymrail_trl.rollout import batch_metrics


class Number(Task):
    number: int


class Even(Environment[Number]):
    """Right for every second task."""

    @classmethod
    def generate(cls, rng: Random) -> Number:
        number = rng.randint(0, 1000)
        return Number.ask(f"{number}?", number=number)

    def verify(self, rollout: Rollout) -> Verdict:
        return Verdict(float(self.task.number % 2), metrics={"size": self.task.number})


class Silent(Even):
    def verify(self, rollout: Rollout) -> Verdict:
        return Verdict(0.5)


class Broken(Even):
    def verify(self, rollout: Rollout) -> Verdict:
        raise ValueError("no metric at all")


def spec(name: str, cls: type[Environment[Any]] = Even) -> EnvironmentSpec:
    return EnvironmentSpec(name, cls)


def function(*members: Member, mixing: Mixing | None = None) -> RolloutFunction:
    return RolloutFunction({"train": Mixture(members, 0, mixing or Mixing(unit="tokens"))})


def trainer(processes: int = 1, step: int = 0) -> Any:
    return SimpleNamespace(
        accelerator=SimpleNamespace(num_processes=processes), state=SimpleNamespace(global_step=step)
    )


def keys(places: range, repeats: int) -> list[tuple[str, int]]:
    return [("train", place) for place in places for _ in range(repeats)]


def play(rollouts: RolloutFunction, wanted: list[tuple[str, int]], **options: Any) -> PlayedBatch:
    stream = rollouts.streams["train"]
    return asyncio.run(play_places(rollouts, stream, wanted, ScriptedModel(["Even."]), trainer(**options)))  # type: ignore[arg-type]


def test_each_prompt_gets_the_rollout_of_its_place_and_repeat() -> None:
    rollouts = function(Member(spec("a")), Member(spec("b"), 2.0))
    for places in (range(6), range(6, 12)):
        wanted = keys(places, 3)
        batch = play(rollouts, wanted)
        rows = rows_of(batch, wanted)
        assert [row.repeat for row in rows] == [0, 1, 2] * 6
        assert all(rows[3 * place : 3 * place + 3] == list(batch.groups[place].rollouts.values()) for place in range(6))
        assert all(row.metrics["train_step"] == 0 for row in rows)


def test_what_was_not_played_is_a_row_without_a_reward() -> None:
    mixing = Mixing(dynamic_sampling=DynamicSampling(refills=1, probe=2))
    rollouts = function(Member(spec("a")), mixing=mixing)
    wanted = keys(range(4), 4)
    batch = play(rollouts, wanted)
    rows = rows_of(batch, wanted)

    # No group has spread here, so only the probes were played, each of them twice.
    assert [row.outcome.status for row in rows if row.outcome] == ["scored", "scored", "cancelled", "cancelled"] * 4
    assert len(batch.given_up) == 4
    columns = rollouts.to_columns([row for row in rows if not row.is_trainable], eos_token_id=2)
    assert columns["gymrail_reward"] == [None] * 8
    assert columns["env_mask"] == [[0]] * 8


def test_a_mixture_s_last_batch_fills_the_places_that_are_left() -> None:
    rollouts = function(Member(spec("a"), limit=3, epochs=1))
    wanted = keys(range(4), 2)
    rows = rows_of(play(rollouts, wanted), wanted)
    assert [row.is_trainable for row in rows] == [True] * 6 + [False] * 2


@pytest.mark.parametrize("wanted", [keys(range(2, 6), 2), [*keys(range(2), 2), ("train", 2)], keys(range(2), 2)[::-1]])
def test_places_out_of_step_are_refused(wanted: list[tuple[str, int]]) -> None:
    with pytest.raises(InputError, match="shuffle_dataset=False"):
        play(function(Member(spec("a"))), wanted)


def test_several_processes_are_refused() -> None:
    with pytest.raises(InputError, match="in one process"):
        play(function(Member(spec("a"))), keys(range(2), 2), processes=2)


def test_a_place_has_no_text_until_it_is_reached() -> None:
    rows = group_dataset(Mixture([Member(spec("a"), floor=1)]), "train", 3)["prompt"]
    assert [row[0]["gymrail_task"] for row in rows] == ["train:0", "train:1", "train:2"]
    assert {row[0]["content"] for row in rows} == {""}


def test_a_missing_metric_changes_nothing_of_another_environment() -> None:
    rollouts = function(Member(spec("a")), Member(spec("broken", Broken)), Member(spec("silent", Silent)))
    wanted = keys(range(6), 2)
    metrics = batch_metrics(rows_of(play(rollouts, wanted), wanted))

    alone = function(Member(spec("a")))
    wanted = keys(range(2), 2)
    expected = batch_metrics(rows_of(play(alone, wanted), wanted))
    names = ("env/a/reward", "env/a/size", "env/a/scored", "env/a/steps")
    assert {name: metrics[name] for name in names} == {name: expected[name] for name in names}
    assert metrics["env/broken/failed"] == 1.0
    assert "env/broken/reward" not in metrics
    assert metrics["env/silent/reward"] == 0.5
    assert "env/silent/size" not in metrics


def test_the_state_is_saved_beside_a_checkpoint_and_restored(tmp_path: Path) -> None:
    rollouts = function(Member(spec("a")), Member(spec("b")))
    play(rollouts, keys(range(5), 2))
    (tmp_path / "checkpoint-7").mkdir()
    SaveMixture(rollouts.streams["train"]).on_save(
        SimpleNamespace(output_dir=str(tmp_path)), SimpleNamespace(global_step=7), None
    )

    again = function(Member(spec("a")), Member(spec("b")))
    restore_mixture(again.streams["train"], tmp_path / "checkpoint-7")
    wanted = keys(range(5, 9), 2)
    first, second = ([row.task.id for row in rows_of(play(each, wanted), wanted)] for each in (rollouts, again))
    assert first == second
    with pytest.raises(InputError, match=r"mixture\.json"):
        restore_mixture(again.streams["train"], tmp_path)


def test_rows_that_have_no_reward_on_purpose_are_not_warned_of_and_others_are(caplog: pytest.LogCaptureFixture) -> None:
    function(Member(spec("even")))
    theirs = logging.getLogger("trl.trainer.grpo_trainer")
    text = "All reward functions returned None for the following kwargs:"
    assert text in inspect.getsource(grpo_trainer)
    with caplog.at_level("WARNING"):
        theirs.warning(f"{text}\n{{'gymrail_reward': None, 'prompt': []}}")
        assert not caplog.messages
        theirs.warning(f"{text}\n{{'answer': None, 'prompt': []}}")
        theirs.warning("Something else.")
    assert [message.split("\n")[0] for message in caplog.messages] == [text, "Something else."]


def test_a_field_s_values_are_logged_apart() -> None:
    rollouts = function(Member(spec("even"), subset_by="number"), Member(spec("other")))
    logged: dict[str, float] = {}
    wanted = keys(range(0, 6), 2)
    stream = rollouts.streams["train"]
    batch = asyncio.run(play_places(rollouts, stream, wanted, ScriptedModel(["Even."]), trainer()))  # type: ignore[arg-type]
    rollouts.last_batch, rollouts.last_rollouts = batch, rows_of(batch, wanted)
    rollouts.reward([None] * 12, [0.0] * 12, logged.__setitem__)
    numbers = [group.group.task.number for group in batch.groups if group.group.spec.name == "even"]  # type: ignore[attr-defined]
    for number in numbers:
        found = {key: logged[f"env/even/number={number}/{key}"] for key in ("share", "reward", "with_spread")}
        assert found == {"share": pytest.approx(1 / 3), "reward": number % 2, "with_spread": 0.0}
    assert not any(key.startswith("env/other/number") for key in logged)
