"""Loads exports with NeMo RL's dataset classes and processors; runs in their environment, reads and prints JSON."""

import json
import sys
from typing import Any

from nemo_rl.data.datasets.preference_datasets.preference_dataset import PreferenceDataset
from nemo_rl.data.datasets.response_datasets.nemogym_dataset import NemoGymDataset
from nemo_rl.data.datasets.response_datasets.oai_format_dataset import OpenAIFormatDataset
from nemo_rl.data.processors import nemo_gym_data_processor, preference_preprocessor, sft_processor
from transformers import AutoTokenizer

_LENGTH = 4096


def text_of(tokenizer: Any, log: list[dict[str, Any]]) -> str:
    """The tokens of a message log, as text."""
    return "".join(tokenizer.decode(message["token_ids"]) for message in log)


def conversations(path: str, tokenizer: Any, preserving: bool) -> list[dict[str, Any]]:
    """Each row's tokens beside what the template writes of the whole conversation."""
    data = OpenAIFormatDataset(path, use_preserving_dataset=preserving)
    data.set_task_spec({})
    rows = []
    for place, row in enumerate(data.dataset):
        made = sft_processor(row, data.task_spec, tokenizer, _LENGTH, place, add_bos=False, add_eos=False)
        whole = tokenizer.apply_chat_template(row["messages"], tools=row["tools"], tokenize=False)
        rows.append(
            {
                "text": text_of(tokenizer, made["message_log"]),
                "whole": whole,
                "weight": made["loss_multiplier"],
                "messages": row["messages"],
            }
        )
    return rows


def pairs(path: str, tokenizer: Any) -> list[dict[str, str]]:
    """Each pair's two sides: all of it, and the message that is trained on."""
    data = PreferenceDataset(path, split="train")
    data.set_task_spec({})
    rows = []
    for place, row in enumerate(data.dataset):
        made = preference_preprocessor(row, data.task_spec, tokenizer, _LENGTH, place)
        sides = {side: made[f"message_log_{side}"] for side in ("chosen", "rejected")}
        rows.append(
            {side: text_of(tokenizer, log) for side, log in sides.items()}
            | {f"{side}_answer": log[-1]["content"] for side, log in sides.items()}
        )
    return rows


def main() -> None:
    """Answer one request."""
    request = json.load(sys.stdin)
    tokenizer = AutoTokenizer.from_pretrained(request["tokenizer"])
    gym = NemoGymDataset(request["rft"])
    found = {
        "sft": conversations(request["sft"], tokenizer, preserving=True),
        "sft_standard": conversations(request["sft"], tokenizer, preserving=False),
        "dpo": pairs(request["dpo"], tokenizer),
        "rft": [nemo_gym_data_processor(row, None, None, None, 0)["extra_env_info"] for row in gym.dataset],
    }
    print("\n" + json.dumps(found))


main()
