"""Loads exports with verl's dataset classes; runs in their environment, reads and prints JSON."""

import json
import sys
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from transformers import PreTrainedTokenizerFast
from verl.utils.dataset.multiturn_sft_dataset import MultiTurnSFTDataset
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.utils.dataset.rm_dataset import RMDataset

_LENGTH = 2048


def tokenizer_at(folder: str) -> Any:
    """The tokenizer; its configuration is of a newer Transformers."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=f"{folder}/tokenizer.json", eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = (Path(folder) / "chat_template.jinja").read_text(encoding="utf-8")
    return tokenizer


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    tokenizer = tokenizer_at(request["tokenizer"])
    sft = MultiTurnSFTDataset(request["sft"], tokenizer, OmegaConf.create({"max_length": _LENGTH}))
    rows = []
    for place in range(len(sft)):
        row = sft[place]
        ids = row["input_ids"][row["attention_mask"] == 1]
        rows.append(
            {
                "text": tokenizer.decode(ids),
                "trained": tokenizer.decode(row["input_ids"][row["loss_mask"] == 1]),
                "tools": sft.tools[place],
            }
        )
    pairs = RMDataset(request["dpo"], tokenizer, max_length=_LENGTH, cache_dir="cache")
    sides = [
        [tokenizer.decode(ids[mask == 1]) for ids, mask in zip(row["input_ids"], row["attention_mask"], strict=True)]
        for row in (pairs[place] for place in range(len(pairs)))
    ]
    tasks = RLHFDataset(request["rft"], tokenizer, OmegaConf.create({"cache_dir": "cache", "return_raw_chat": True}))
    names = ("raw_prompt", "data_source", "reward_model", "extra_info", "index")
    prompts = [{name: tasks[place][name] for name in names} for place in range(len(tasks))]
    print("\n" + json.dumps({"sft": rows, "dpo": sides, "rft": prompts}))


main()
