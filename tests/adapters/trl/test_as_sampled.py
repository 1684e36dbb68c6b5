"""What SFT and DPO train on is what a policy would have sampled, in every template family: an answer up to the token
that ends it, and not what the template writes behind."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import orjson
import pytest
from families import FAMILIES, PAD, make_checkpoint
from test_export import with_tokens
from test_supervised import collected
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

from gymrail.collect.runner import Job, collect
from gymrail.data.export import Kto, Sft, export, preference_rows, sft_rows, to_dataset, token_rows
from gymrail.errors import InputError
from gymrail.models.chat_template import ChatTemplate
from gymrail.models.scripted import Oracle
from gymrail.rollout import Rollout
from gymrail_trl import train_as_sampled
from gymrail_trl.as_sampled import prepared

COMMON: dict[str, Any] = {
    "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": [], "disable_tqdm": True,
}  # fmt: skip
TURNS = 4
"""Of the policy, in an episode of the pad."""
WITHOUT_MARKS = {"llama3_1", "gemma", "deepseek"}
"""Families whose template TRL cannot mask."""


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], str]:
    """Untrained checkpoints: here it is the template that speaks."""
    made: dict[str, str] = {}

    def make(family: str) -> str:
        if family not in made:
            path = tmp_path_factory.mktemp(family)
            make_checkpoint(family, path, steps=0)
            made[family] = str(path)
        return made[family]

    return make


def rollouts_of(noise: float) -> list[Rollout]:
    rollouts: list[Rollout] = []
    jobs = [Job(PAD, task, index) for index, task in enumerate(PAD.tasks(limit=4))]
    asyncio.run(collect(jobs, Oracle(noise=noise), on_rollout=rollouts.append))
    return rollouts


def parts(family: str, checkpoint: Callable[[str], str]) -> tuple[Any, Any, int]:
    tokenizer = AutoTokenizer.from_pretrained(checkpoint(family))
    model = AutoModelForCausalLM.from_pretrained(checkpoint(family), dtype="float32")
    return model, tokenizer, ChatTemplate(tokenizer).turn_end


def runs_of(row: dict[str, Any]) -> list[list[int]]:
    """The stretches of a row that are trained on."""
    runs: list[list[int]] = [[]]
    for token, label in zip(row["input_ids"], row["labels"], strict=True):
        if label == -100:
            runs.append([])
        else:
            assert label == token
            runs[-1].append(token)
    return [run for run in runs if run]


@pytest.mark.parametrize("family", FAMILIES)
def test_sft_trains_each_turn_up_to_the_token_that_ends_it(
    checkpoint: Callable[[str], str], tmp_path: Path, family: str
) -> None:
    model, tokenizer, end = parts(family, checkpoint)
    rows = prepared(to_dataset(sft_rows(rollouts_of(0.0), specs={"pad": PAD})), tokenizer, model, "sft")
    assert ("labels" in rows.column_names) == (family in WITHOUT_MARKS)
    trainer: Any = SFTTrainer(
        model=model,
        args=SFTConfig(output_dir=str(tmp_path), assistant_only_loss="messages" in rows.column_names, **COMMON),
        train_dataset=rows,
        processing_class=tokenizer,
    )

    train_as_sampled(trainer)

    assert len(trainer.train_dataset) == 4
    for row in trainer.train_dataset:
        runs = runs_of(row)
        assert len(runs) == TURNS
        for run in runs:
            assert run[-1] == end
            assert run.count(end) == 1
            said = tokenizer.decode(run)
            assert said.strip() == said, f"a header or what follows a turn is trained on: {said!r}"
        assert "press" in tokenizer.decode(runs[0])
        assert "Typed" in tokenizer.decode(runs[1])


@pytest.mark.parametrize("family", FAMILIES)
def test_both_sides_of_a_pair_end_where_the_policy_stops(
    checkpoint: Callable[[str], str], tmp_path: Path, family: str
) -> None:
    model, tokenizer, end = parts(family, checkpoint)
    pairs = preference_rows([*rollouts_of(0.0), *rollouts_of(1.0)], specs={"pad": PAD}, margin=0.5)
    rows = to_dataset({**pair, "chosen": pair["chosen"][:1], "rejected": pair["rejected"][:1]} for pair in pairs)
    if family == "deepseek":
        with pytest.raises(InputError, match="takes a tool call's arguments as text"):
            prepared(rows, tokenizer, model, "dpo")
        return
    trainer: Any = DPOTrainer(
        model=model,
        args=DPOConfig(output_dir=str(tmp_path), **COMMON),
        train_dataset=prepared(rows, tokenizer, model, "dpo"),
        processing_class=tokenizer,
    )
    rendered = trainer.train_dataset

    train_as_sampled(trainer)

    assert len(trainer.train_dataset) == 4
    for row, before in zip(trainer.train_dataset, rendered, strict=True):
        for side in ("chosen_ids", "rejected_ids"):
            assert row[side][-1] == end
            assert row[side].count(end) == 1
            assert before[side][: len(row[side])] == row[side], "nothing but an end is taken out"
        assert row["chosen_ids"] != row["rejected_ids"]
        assert row["prompt_ids"] == before["prompt_ids"]
    has_newline = family in ("tiny", "qwen3", "qwen3_instruct_2507", "qwen2_5")
    assert any(row["chosen_ids"] != before["chosen_ids"]
               for row, before in zip(trainer.train_dataset, rendered, strict=True)) == has_newline  # fmt: skip


def test_single_answers_and_unpaired_ones_end_there_too(checkpoint: Callable[[str], str], tmp_path: Path) -> None:
    model, tokenizer, end = parts("qwen3", checkpoint)
    run = collected(tmp_path / "run", "treasure_hunt", noise=0.5, repeats=4, tasks=8)
    kinds: list[tuple[Any, Any, Any]] = [(Sft(per="step"), SFTTrainer, SFTConfig), (Kto(), KTOTrainer, KTOConfig)]
    for kind, trainer_class, config in kinds:
        rows = to_dataset(exported(run, tmp_path / kind.name, kind))
        options = {**COMMON, "per_device_train_batch_size": 4}
        trainer: Any = trainer_class(
            model=model, args=config(output_dir=str(tmp_path), **options), train_dataset=rows,
            processing_class=tokenizer,
        )  # fmt: skip
        train_as_sampled(trainer)
        columns = trainer.train_dataset.column_names
        for row in trainer.train_dataset:
            if "labels" in columns:
                (answer,) = runs_of(row)
                assert answer[-1] == end
            else:
                assert row["completion_ids"][-1] == end


def test_rows_of_sampled_tokens_are_trained_on_as_they_are(checkpoint: Callable[[str], str], tmp_path: Path) -> None:
    model, tokenizer, _ = parts("qwen3", checkpoint)
    lines = Path(with_tokens(collected(tmp_path / "run", "treasure_hunt", noise=0.0, tasks=4), tmp_path)).read_bytes()
    rollouts = [Rollout.from_row(orjson.loads(line)) for line in lines.splitlines()]
    rows = [{name: row[name] for name in ("input_ids", "labels")} for row in token_rows(rollouts)]
    assert rows
    trainer: Any = SFTTrainer(
        model=model, args=SFTConfig(output_dir=str(tmp_path), **COMMON),
        train_dataset=datasets.Dataset.from_list(rows), processing_class=tokenizer,
    )  # fmt: skip

    train_as_sampled(trainer)

    assert [{name: row[name] for name in ("input_ids", "labels")} for row in trainer.train_dataset] == rows


def exported(run: str, folder: Path, kind: Any) -> list[dict[str, Any]]:
    export([run], folder, kind)
    return [orjson.loads(line) for line in (folder / "train.jsonl").read_bytes().splitlines()]
