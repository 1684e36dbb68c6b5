"""Loads exports as Unsloth's users do, and trains a step on each; runs in its environment, reads and prints JSON."""

import json
import sys
from pathlib import Path
from typing import Any

from gymrail_unsloth import start_unsloth

start_unsloth(Path("compiled"))

import datasets  # noqa: E402
import torch  # noqa: E402
import trl  # noqa: E402
from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: E402
from unsloth.chat_templates import standardize_sharegpt  # noqa: E402  # pyright: ignore[reportMissingImports]

COMMON = {
    "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "report_to": [], "max_steps": 1,
    "optim": "adamw_torch", "per_device_train_batch_size": 4, "save_strategy": "no", "logging_steps": 1,
    "disable_tqdm": True,
}  # fmt: skip


def trained(policy: str, tokenizer: Any, rows: Any, algorithm: str, **settings: Any) -> dict[str, Any]:
    """Train a step; say with which trainer, on how many rows, and with what loss."""
    trainer, config = (getattr(trl, f"{algorithm}{part}") for part in ("Trainer", "Config"))
    made = trainer(
        model=AutoModelForCausalLM.from_pretrained(policy, dtype="float32"),
        args=config(output_dir="train", **COMMON, **settings),
        train_dataset=rows,
        processing_class=tokenizer,
    )
    made.train()
    losses = [entry["loss"] for entry in made.state.log_history if "loss" in entry]
    return {"trainer": type(made).__module__, "rows": rows.num_rows, "losses": losses}


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    tokenizer = AutoTokenizer.from_pretrained(request["tokenizer"])
    rows = {name: datasets.load_dataset(path, split="train") for name, path in request["exports"].items()}
    talks = standardize_sharegpt(rows["sharegpt"])
    texts = talks.map(
        lambda row: {"text": tokenizer.apply_chat_template(row["conversations"], tokenize=False)},
        remove_columns=talks.column_names,
    )
    policy = request["tokenizer"]
    found = {
        "talks": list(talks["conversations"]),
        "texts": list(texts["text"]),
        "sharegpt": trained(policy, tokenizer, texts, "SFT"),
        "sft": trained(policy, tokenizer, rows["sft"], "SFT", assistant_only_loss=True),
        "dpo": trained(policy, tokenizer, rows["dpo"], "DPO"),
    }
    print("\n" + json.dumps(found))


main()
