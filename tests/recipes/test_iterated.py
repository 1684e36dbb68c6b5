"""The iterated recipe, cut short: every stage runs for real, and nothing is done twice after a stop."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from gymrail.collect.run_directory import RunDirectory
from gymrail.errors import InputError
from gymrail.recipe import Recipe, load_recipe
from gymrail.recipe_mixture import plain_mixture_of
from gymrail.recipe_stages import StageSection
from gymrail_trl.iterated import overall
from gymrail_trl.train import train

FILE = Path(__file__).parents[2] / "recipes" / "iterated" / "quickstart.yaml"
SHORT = [
    "stages.0.collect.tasks=48",
    "stages.1.sft.settings={max_steps: 4, save_steps: 2, save_total_limit: 1, learning_rate: 6e-3}",
    "stages.2.collect={tasks: 8, repeats: 3}",
    # An untrained policy earns nothing, so pairs are made by length.
    "stages.3.dpo.pairs={ties: shorter}",
    "stages.3.dpo.settings={max_steps: 4, save_steps: 2, save_total_limit: 1, per_device_train_batch_size: 2}",
    "evaluation.tasks=4",
    "evaluation.repeats=1",
    "agent.max_steps=2",
]
PLAYED = {
    "start/evaluation": 8, "1_collect": 48, "2_sft/evaluation": 8, "3_collect": 24, "4_dpo/evaluation": 8,
}  # fmt: skip


class Stop(Exception):
    """Stands for the process being killed."""


def short(output: Path, *more: str) -> Recipe:
    return load_recipe(FILE, [f"output={output}", *SHORT, *more])


def played(run: Path) -> dict[str, Counter[Any]]:
    """How often each rollout stands in the files of every run directory below `run`."""
    return {
        str(file.parent.relative_to(run)): Counter(
            (row["gymrail"]["environment"], row["gymrail"]["task_id"], row["_ng_task_index"], row["_ng_rollout_index"])
            for row in map(json.loads, file.read_text(encoding="utf-8").splitlines())
        )
        for file in run.glob("*/**/rollouts.jsonl")
    }


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "4_dpo" / "policy" / "model.safetensors")


def stop_after(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, calls: int) -> None:
    """Let a method work so many times, then stop the run."""
    original = getattr(owner, name)
    count = 0

    def stopping(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count > calls:
            raise Stop
        return original(*arguments, **named)

    monkeypatch.setattr(owner, name, stopping)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """A run that nothing disturbed: its directory, its summary and what it printed."""
    run = tmp_path_factory.mktemp("iterated") / "whole"
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        summary = train(short(run))
    return run, summary, shown.getvalue()


def test_every_stage_leaves_its_result_and_the_summary_shows_it(whole: tuple[Path, dict[str, Any], str]) -> None:
    run, summary, shown = whole

    assert [(row["stage"], row["what"]) for row in summary["stages"]] == [
        ("start", "held out"),
        ("1_collect", "collected, oracle:0.55"),
        ("2_sft", "held out"),
        ("3_collect", "collected, policy"),
        ("4_dpo", "held out"),
    ]
    assert all(set(row["scores"]) == {"word_math", "treasure_hunt", "all"} for row in summary["stages"])
    assert json.loads((run / "metrics.json").read_text())["stages"] == summary["stages"]
    assert "95% interval" in shown
    assert {name: sum(found.values()) for name, found in played(run).items()} == PLAYED
    assert summary["policy"] == str(run / "4_dpo" / "policy")
    good = [rollout.id for rollout in RunDirectory.open(run / "1_collect").rollouts() if rollout.reward == 1.0]
    rows = (run / "2_sft" / "data" / "train.jsonl").read_text(encoding="utf-8").splitlines()
    assert len(rows) == len(good) > 0
    trained = [load_file(run / name / "policy" / "model.safetensors") for name in ("2_sft", "4_dpo")]
    assert any(not torch.equal(trained[0][name], trained[1][name]) for name in trained[0])


def test_the_second_collecting_goes_on_with_tasks_of_its_own(whole: tuple[Path, dict[str, Any], str]) -> None:
    first, second = (played(whole[0])[name] for name in ("1_collect", "3_collect"))

    assert {index for _, _, index, _ in first} == set(range(48))
    assert {index for _, _, index, _ in second} == set(range(48, 56))


def test_a_run_broken_off_within_and_between_stages_does_nothing_twice(
    whole: tuple[Path, dict[str, Any], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gymrail_trl.iterated as iterated
    import gymrail_trl.stages as stages

    run = tmp_path / "run"
    trained: list[str] = []
    fine_tune = stages.fine_tune

    def counted(policy: Any, dataset: Any, config: Any, algorithm: str, *more: Any) -> None:
        trained.append(algorithm)
        fine_tune(policy, dataset, config, algorithm, *more)

    monkeypatch.setattr(stages, "fine_tune", counted)
    places = [
        (RunDirectory, "record", 20),
        (iterated, "export", 0),
        (stages, "evaluate", 0),
        (RunDirectory, "record", 18),
    ]
    for place, (owner, name, calls) in enumerate(places):
        with monkeypatch.context() as patch:
            stop_after(patch, owner, name, calls)
            with pytest.raises(Stop):
                train(short(run, *(["resume=true"] if place else [])))
    train(short(run, "resume=true"))

    assert played(run) == played(whole[0])
    assert trained == ["sft", "dpo"]


def test_training_that_was_broken_off_goes_on_from_its_checkpoint_to_the_same_policy(
    whole: tuple[Path, dict[str, Any], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gymrail_trl.progress import Progress

    run = tmp_path / "run"
    steps: list[int] = []
    on_step_end = Progress.on_step_end

    def noted(self: Progress, args: Any, state: Any, control: Any, **more: Any) -> Any:
        steps.append(state.global_step)
        return on_step_end(self, args, state, control, **more)

    monkeypatch.setattr(Progress, "on_step_end", noted)
    for calls in (3, 4):  # within SFT, then within DPO
        with monkeypatch.context() as patch:
            stop_after(patch, Progress, "on_step_end", calls)
            with pytest.raises(Stop):
                train(short(run, *(["resume=true"] if steps else [])))
    train(short(run, "resume=true"))

    assert steps == [1, 2, 3, 3, 4, 1, 2, 3, 4]
    assert all(torch.equal(tensor, weights(run)[name]) for name, tensor in weights(whole[0]).items())


def test_a_finished_run_takes_further_stages_and_repeats_none(
    whole: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)
    before = {file: file.read_bytes() for file in run.glob("*_*/**/*") if file.is_file()}
    recipe = short(run, "resume=true", "lora={r: 4}")
    more = [*recipe.stages, StageSection.model_validate({"sft": {"settings": {"max_steps": 2}}})]

    with pytest.raises(InputError, match="differs in lora"):
        train(recipe)
    summary = train(recipe.model_copy(update={"stages": more, "lora": None}))

    assert [row["stage"] for row in summary["stages"]][-2:] == ["4_dpo", "5_sft"]
    assert summary["stages"][:-1] == whole[1]["stages"]
    assert {file: file.read_bytes() for file in before} == before
    assert (run / "5_sft" / "policy" / "model.safetensors").is_file()


def test_low_rank_adapters_are_merged_so_that_the_next_stage_has_a_whole_policy(tmp_path: Path) -> None:
    train(short(tmp_path / "run", "lora={r: 4}", "evaluation=null"))

    first, last = (load_file(tmp_path / "run" / name / "policy" / "model.safetensors") for name in ("2_sft", "4_dpo"))
    assert set(first) == set(last) == set(load_file(tmp_path / "run" / "policy" / "model.safetensors"))
    assert any(not torch.equal(first[name], last[name]) for name in first)


def test_a_begun_stage_that_was_changed_is_not_gone_on_with(
    whole: tuple[Path, dict[str, Any], str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole[0], run)

    for change, words in (
        ("stages.1.sft.filter.min_reward=0.5", "differs in the stage 2_sft, which has begun"),
        ("mixture.0.weight=3", "differs in mixture"),
    ):
        with pytest.raises(InputError, match=words):
            train(short(run, "resume=true", change))
    with pytest.raises(InputError, match="already holds a run"):
        train(short(run))


def test_a_filter_that_nothing_passes_says_how_many_it_removed(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"None of 48 rollouts in .*1_collect' makes a row of sft\. .*fewer than 9 steps: \d+"
    ):
        train(short(tmp_path / "run", "stages.1.sft.filter.min_steps=9", "evaluation=null"))


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("stages=[]", "algorithm iterated needs `stages`: a list of collect, sft and dpo"),
        ("stages.0={sft: {}}", "stages.0 is sft, and no collect stage comes before it"),
        ("stages.2.collect.repeats=1", "stages.3 is dpo, and the collect stage before it plays each task once"),
        ("stages.0={}", "a stage has exactly one of collect, sft and dpo"),
        ("stages.0.sft={}", "a stage has exactly one of collect, sft and dpo"),
        ("stages.0={colect: {}}", "unknown key 'stages.0.colect'. Did you mean 'collect'?"),
        ("stages.0.collect.task=3", "unknown key 'stages.0.collect.task'. Did you mean 'tasks'?"),
        ("stages.1.sft.filter.min_rewrd=1", "unknown key 'min_rewrd'. Did you mean 'min_reward'?"),
        ("stages.1.sft.filter.min_reward=high", "'min_reward' is 'high'"),
        ("stages.1.sft.filter.balance=tasks", "balance"),
        ("stages.3.dpo.pairs.rule=best", "rule"),
        ("stages.3.dpo.pairs.margn=1", "unknown key 'margn'. Did you mean 'margin'?"),
        ("stages.3.dpo.filter.best_of=2", "filter: best_of does not go with this export"),
        ("settings.max_steps=3", "`settings` does not go with algorithm iterated: each sft and dpo stage has its own"),
        ("min_reward=1", "`min_reward` does not go with algorithm iterated"),
        ("warm_start={}", "`warm_start` does not go with algorithm iterated: begin the stages with collect and sft"),
        ("mixture=[]", "algorithm iterated needs a mixture"),
        ("algorithm=grpo", "`stages` goes with algorithm iterated, not with grpo"),
    ],
)
def test_a_wrong_stage_is_one_sentence_with_the_fix(override: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        load_recipe(FILE, [override])
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("override", "words"),
    [
        (
            "stages.1.sft.settings.lerning_rate=1",
            "stages.1.sft.settings.lerning_rate: SFTConfig has no such key. Did you mean 'learning_rate'?",
        ),
        ("stages.0.collect.model=orcale", "stages.0, collect: Model 'orcale' is not known. Did you mean 'oracle'?"),
    ],
)
def test_settings_and_teachers_are_checked_before_anything_is_made(tmp_path: Path, override: str, words: str) -> None:
    with pytest.raises(InputError) as error:
        train(short(tmp_path / "run", override))
    assert words in str(error.value)
    assert not (tmp_path / "run").exists()


def test_the_mean_over_all_weighs_environments_alike_and_has_the_interval_of_independent_means() -> None:
    one = {"mean": 0.5, "low": 0.2, "high": 0.8, "tasks": 10}
    two = {"mean": 0.9, "low": 0.5, "high": 0.94, "tasks": 1000}

    assert overall({"one": one, "two": two}) == pytest.approx(
        {"mean": 0.7, "low": 0.7 - 0.25, "high": 0.7 + (0.3**2 + 0.04**2) ** 0.5 / 2, "tasks": 1010}
    )


def test_collect_stages_play_the_mixture_s_temperature_and_refuse_what_changes_over_steps(tmp_path: Path) -> None:
    weights = ["mixture.0.weight=1", "mixture.1.weight=9"]
    for temperature, expected in ((1, 80), (2, 200)):
        recipe = short(tmp_path / str(temperature), *weights, f"mixing.temperature={temperature}")
        groups = list(map(plain_mixture_of(recipe, recipe.specs()).group, range(800)))
        assert sum(group.spec.name == "word_math" for group in groups) == expected
    for override in ("mixing.unit=tokens", "mixing.curriculum={}", "mixing.dynamic_sampling={}", "mixing.late={}"):
        with pytest.raises(InputError, match=r"mixing\.\w+ goes with algorithm grpo, not with iterated"):
            short(tmp_path, override)
    for key in ("floor=1", "epochs=1", "concurrency=1", "deadline_seconds=1", "reward_scale=2"):
        with pytest.raises(InputError, match=rf"{key.partition('=')[0]} of word_math goes with algorithm grpo"):
            short(tmp_path, f"mixture.0.{key}")
    with pytest.raises(InputError, match="schedule of word_math goes with algorithm grpo"):
        short(tmp_path, "mixture.0={environment: word_math, schedule: [[0, 1], [9, 2]]}")
