"""TRL's own trainers train a step on every export that is theirs, as it was written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import orjson
import pytest
from test_supervised import collected
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import DPOConfig, DPOTrainer, KTOConfig, KTOTrainer, SFTConfig, SFTTrainer

from gymrail.data.export import Dpo, Kto, Sft, export

COMMON = {
    "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": [], "max_steps": 1,
    "per_device_train_batch_size": 4, "save_strategy": "no", "logging_steps": 1, "disable_tqdm": True,
}  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> str:
    return collected(tmp_path_factory.mktemp("run") / "played", "treasure_hunt", noise=0.5, repeats=4, tasks=12)


SFT, PAIRS = Sft(), Dpo(rule="step", with_margin=True)
TRAINERS = {
    SFT: (SFTTrainer, SFTConfig, {"assistant_only_loss": True}),
    Sft(per="step"): (SFTTrainer, SFTConfig, {"completion_only_loss": True}),
    Sft(tokens=True): (SFTTrainer, SFTConfig, {}),
    PAIRS: (DPOTrainer, DPOConfig, {}),
    Kto(): (KTOTrainer, KTOConfig, {}),
}
CASES = [(kind, format) for kind in TRAINERS for format in ("jsonl", "dataset")] + [
    (SFT, "parquet"),
    (PAIRS, "parquet"),
]


@pytest.mark.parametrize(("kind", "format"), CASES)
def test_a_trainer_trains_a_step(
    run: str,
    checkpoint: Callable[[str], str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    kind: Any,
    format: str,
) -> None:
    trainer, config, options = TRAINERS[kind]
    if kind == Sft(tokens=True):
        run = with_tokens(run, tmp_path)
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    datasets.disable_progress_bars()
    export([run], tmp_path / "out", kind, format=format)
    if format == "dataset":
        rows = datasets.load_from_disk(str(tmp_path / "out"))["train"]
    else:
        rows = datasets.load_dataset(str(tmp_path / "out"), split="train")
    model = AutoModelForCausalLM.from_pretrained(checkpoint("tiny"), dtype="float32")
    made: Any = trainer(
        model=model,
        args=config(output_dir=str(tmp_path / "train"), **COMMON, **options),
        train_dataset=rows,
        processing_class=AutoTokenizer.from_pretrained(checkpoint("tiny")),
    )
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    made.train()
    losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    assert losses
    assert all(loss > 0 for loss in losses)
    assert any((parameter != before[name]).any() for name, parameter in made.model.named_parameters())


def with_tokens(run: str, folder: Path) -> str:
    """The run as a model that gives token ids would have written it: the oracle gives none."""
    lines = (Path(run) / "rollouts.jsonl").read_bytes().splitlines()
    file = folder / "tokens.jsonl"
    with file.open("wb") as out:
        for line in lines:
            row = orjson.loads(line)
            seen = [5, 6, 7]
            for item in row["response"]["output"]:
                if item["type"] in ("function_call", "message"):
                    item.update(
                        prompt_token_ids=list(seen), generation_token_ids=[8, 9], generation_log_probs=[-1.0, -1.0]
                    )
                    seen += [8, 9, 10]
            out.write(orjson.dumps(row) + b"\n")
    return str(file)
