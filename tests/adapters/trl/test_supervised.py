"""SFT with assistant-only loss and DPO on pairs, from rollouts, with TRL's own trainers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from families import PAD
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import SFTConfig, SFTTrainer

from gymrail.collect.run_directory import RunDirectory
from gymrail.collect.runner import Job, collect
from gymrail.data.export import Dpo, Selection, Sft, export, sft_rows, to_dataset
from gymrail.errors import InputError
from gymrail.models.scripted import Oracle
from gymrail.recipe import Recipe
from gymrail.registry import find
from gymrail_trl.stages import rows_from
from gymrail_trl.train import train


def collected(path: Path, name: str, noise: float, repeats: int = 1, tasks: int = 32) -> str:
    spec = find(name)
    jobs = [
        Job(spec, task, index, repeat)
        for index, task in enumerate(spec.tasks(limit=tasks))
        for repeat in range(repeats)
    ]
    with RunDirectory.create(path, {}) as run:
        asyncio.run(collect(jobs, Oracle(noise=noise), record=run.record))
    return str(path)


def test_only_the_assistant_s_turns_carry_loss(checkpoint: Callable[[str], str], tmp_path: Path) -> None:
    rollouts = []
    asyncio.run(
        collect([Job(PAD, task, i) for i, task in enumerate(PAD.tasks(limit=4))], Oracle(), on_rollout=rollouts.append)
    )
    tokenizer = AutoTokenizer.from_pretrained(checkpoint("tiny"))
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(checkpoint("tiny"), dtype="float32"),
        args=SFTConfig(
            output_dir=str(tmp_path),
            assistant_only_loss=True,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            report_to=[],
        ),
        train_dataset=to_dataset(sft_rows(rollouts, specs={"pad": PAD})),
        processing_class=tokenizer,
    )
    batch = next(iter(trainer.get_train_dataloader()))

    for ids, labels in zip(batch["input_ids"], batch["labels"], strict=True):
        trained = tokenizer.decode(ids[labels != -100])
        whole = tokenizer.decode(ids)
        assert trained.count("<tool_call>") == whole.count("<tool_call>") == 2
        assert "Typed" in trained
        assert "The pad shows" in whole
        assert "The pad shows" not in trained
        assert "Now type" not in trained


def recipe(path: Path, algorithm: str, checkpoint: str, data: str, **fields: Any) -> Recipe:
    settings = {"max_steps": 2, "per_device_train_batch_size": 4, "save_strategy": "no", "learning_rate": 1e-3}
    return Recipe.model_validate(
        {
            "name": "t",
            "algorithm": algorithm,
            "model": checkpoint,
            "output": str(path),
            "data": [data],
            "settings": settings,
            "threads": 1,
            **fields,
        }
    )


def test_sft_trains_a_checkpoint_from_a_run_directory(checkpoint: Callable[[str], str], tmp_path: Path) -> None:
    data = collected(tmp_path / "data", "word_math", noise=0.5)

    summary = train(recipe(tmp_path / "run", "sft", checkpoint("tiny"), data, min_reward=1.0))

    assert (Path(summary["policy"]) / "model.safetensors").is_file()


def test_dpo_trains_a_checkpoint_from_pairs_of_one_task(checkpoint: Callable[[str], str], tmp_path: Path) -> None:
    data = collected(tmp_path / "data", "word_math", noise=0.5, repeats=6)

    summary = train(recipe(tmp_path / "run", "dpo", checkpoint("tiny"), data, margin=0.5))

    assert (Path(summary["policy"]) / "model.safetensors").is_file()


@pytest.mark.parametrize("algorithm", ["sft", "dpo"])
def test_an_export_trains_as_the_run_does_that_it_was_made_of(tmp_path: Path, algorithm: str) -> None:
    data = collected(tmp_path / "data", "treasure_hunt", noise=0.5, repeats=4, tasks=8)
    kind, selection = (Sft(), Selection(min_reward=1.0)) if algorithm == "sft" else (Dpo(), Selection())
    export([data], tmp_path / "export", kind, selection=selection)
    fields = {"name": "t", "algorithm": algorithm, "model": "tiny", "data": [data], "min_reward": 1.0}
    recipe = Recipe.model_validate(fields)

    rows = rows_from(recipe, [], [str(tmp_path / "export")], algorithm).remove_columns("lineage")

    assert rows.to_list() == rows_from(recipe, [], [data], algorithm).to_list() != []
    export([data], tmp_path / "saved", kind, format="dataset")
    with pytest.raises(InputError, match="is an export in another format"):
        rows_from(recipe, [], [str(tmp_path / "saved")], algorithm)


def test_pairs_for_dpo_end_with_the_answer_in_which_they_part(tmp_path: Path) -> None:
    data = collected(tmp_path / "data", "treasure_hunt", noise=0.5, repeats=6)
    fields = {"name": "t", "algorithm": "dpo", "model": "tiny", "data": [data]}

    rows = rows_from(Recipe.model_validate(fields), [], [data], "dpo").to_list()

    assert len(rows) > 10
    assert any(message["role"] == "tool" for row in rows for message in row["prompt"])
    for row in rows:
        assert [message["role"] for message in row["chosen"] + row["rejected"]] == ["assistant", "assistant"]
        assert row["chosen"] != row["rejected"]


def test_data_that_holds_nothing_to_train_on_says_which_filter(
    checkpoint: Callable[[str], str], tmp_path: Path
) -> None:
    data = collected(tmp_path / "data", "word_math", noise=1.0, tasks=4)

    with pytest.raises(InputError, match=r"min_reward=1\.0"):
        train(recipe(tmp_path / "run", "sft", checkpoint("tiny"), data, min_reward=1.0))
