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
from tests.core.data.recorded import said, write_run


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
    for format in ("dataset", "parquet"):
        export([data], tmp_path / format, kind, selection=selection, format=format)
        read = rows_from(recipe, [], [str(tmp_path / format)], algorithm)
        assert read.remove_columns("lineage").to_list() == rows.to_list()
        assert read["lineage"] == rows_from(recipe, [], [str(tmp_path / "export")], algorithm)["lineage"]


def test_a_recipe_asks_its_own_reward_of_an_export_too(tmp_path: Path) -> None:
    run = write_run(
        tmp_path / "run", *(said(f"{reward}", reward=reward, repeat=n) for n, reward in enumerate([0.0, 0.4, 1.0]))
    )
    export([run], tmp_path / "sft", Sft())
    export([run], tmp_path / "dpo", Dpo(rule="all"))

    def rows(algorithm: str, **fields: Any) -> list[dict[str, Any]]:
        source = str(tmp_path / algorithm)
        made = Recipe.model_validate({"name": "t", "algorithm": algorithm, "model": "tiny", "data": [source], **fields})
        return rows_from(made, [], [source], algorithm).to_list()

    assert [row["messages"][-1]["content"] for row in rows("sft")] == ["0.0", "0.4", "1.0"]
    assert [row["messages"][-1]["content"] for row in rows("sft", min_reward=0.4)] == ["0.4", "1.0"]
    assert len(rows("dpo")) == 3
    assert [[row[side][0]["content"] for side in ("chosen", "rejected")] for row in rows("dpo", margin=0.5)] == [
        ["1.0", "0.0"],
        ["1.0", "0.4"],
    ]


def test_what_a_recipe_cannot_train_on_is_named(tmp_path: Path) -> None:
    data = collected(tmp_path / "data", "word_math", noise=0.5, repeats=4, tasks=8)
    export([data], tmp_path / "pairs", Dpo())
    export([data], tmp_path / "theirs", Sft(), destination="nemo-rl")
    (tmp_path / "plain.jsonl").write_text('{"messages": [], "tools": []}\n', encoding="utf-8")

    def refused(source: str, **fields: Any) -> str:
        made = Recipe.model_validate({"name": "t", "algorithm": "sft", "model": "tiny", "data": [source], **fields})
        with pytest.raises(InputError) as caught:
            rows_from(made, [], [str(tmp_path / source)], "sft")
        return str(caught.value)

    assert "is an export of dpo rows for trl, and sft needs sft rows for trl or unsloth: gymrail export sft" in refused(
        "pairs"
    )
    assert "is an export of sft rows for nemo-rl" in refused("theirs")
    assert "neither a run directory, an export nor a file of rows" in refused("nowhere.jsonl")
    assert "has no reward in its lineage" in refused("plain.jsonl", min_reward=1.0)


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
