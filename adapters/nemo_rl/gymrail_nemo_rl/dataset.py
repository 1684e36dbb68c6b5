"""A mixture's tasks as a NeMo RL dataset: rows in the mixture's order, prompts as our template module writes them.

    data: {train: {data_path: tasks.jsonl}, default: {dataset_name: gymrail_nemo_rl.dataset.TaskDataset, ...}}

One row of the file:

    {"environment": "word_math", "task_index": 3, "task": {...the task's row}, "tools": [...Responses function tools]}
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

try:
    import torch
    from datasets import Dataset
    from nemo_rl.data.datasets.raw_dataset import RawDataset
    from nemo_rl.data.interfaces import DatumSpec, TaskDataSpec
except ImportError as error:
    raise ImportError(
        f"The dataset runs inside NeMo RL, which cannot be imported here: {error}. "
        "Set NEMO_RL_SOURCE to a checkout and NEMO_RL_PYTHON to its interpreter; see docs/nemo_rl.md."
    ) from error

from gymrail.task import Task
from gymrail.tokens import TokenSequence
from gymrail_nemo_rl.configuration import ENVIRONMENT
from gymrail_nemo_rl.segments import Segments

_CUT = 4
"""Tokens that are left of a prompt that does not fit; its sample has no weight."""


class TaskDataset(RawDataset):
    """A file of tasks. All of its rows go to one environment actor, which tells their environments apart."""

    def __init__(self, data_path: str, repeat: int = 1, **_: Any) -> None:
        self.task_name = ENVIRONMENT
        lines = [line for line in Path(data_path).read_text(encoding="utf-8").splitlines() if line.strip()]
        # As text: the tasks of several environments have no columns in common.
        self.dataset = Dataset.from_dict({"line": lines * repeat, "task_name": [ENVIRONMENT] * len(lines) * repeat})
        self.val_dataset = None
        self._segments: Segments | None = None

    def set_processor(self) -> None:
        """Take ours, whatever the configuration names: NeMo RL's own know no tools."""
        self.processor = self.to_datum

    def to_datum(
        self, row: dict[str, Any], task_data_spec: TaskDataSpec, tokenizer: Any, max_seq_length: int | None, idx: int
    ) -> DatumSpec:
        """Return a row as NeMo RL's loop takes it: the prompt's tokens, and the task for the environment."""
        if self._segments is None or self._segments.tokenizer is not tokenizer:
            self._segments = Segments(tokenizer)
        entry = json.loads(row["line"])
        parameters = entry["task"].get("responses_create_params") or {}
        items = Task.from_row({"responses_create_params": parameters}).input_items
        ids = self._segments.prompt(items, entry["tools"], parameters.get("instructions"))
        info = {name: entry[name] for name in ("environment", "task_index")} | {"task": json.dumps(entry["task"])}
        fits = max_seq_length is None or len(ids) < max_seq_length
        if not fits:
            ids, info = ids[:_CUT], {**info, "too_long": True}
        return {
            "message_log": [
                {
                    "role": part.role,
                    "content": self._segments.text(part.token_ids),
                    "token_ids": torch.tensor(part.token_ids),
                }
                for part in TokenSequence(ids).segments
            ],
            "length": len(ids),
            "extra_env_info": info,
            "loss_multiplier": 1.0 if fits else 0.0,
            "idx": idx,
            "task_name": ENVIRONMENT,
            "stop_strings": None,
        }
