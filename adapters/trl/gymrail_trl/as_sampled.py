"""Supervised and preference rows, trained on as a policy would have sampled them.

    trainer = SFTTrainer(..., train_dataset=to_dataset(sft_rows(...)))
    train_as_sampled(trainer)
    trainer.train()

TRL renders a row's messages with the chat template and trains on what the template writes. Qwen's writes a newline
after each `<|im_end|>`, at which sampling has stopped: the policy would learn to say a token that it never gets to say,
in DPO as a part of both sides. Which tokens those are is `gymrail.tokens`' to say.
"""

from __future__ import annotations

import logging
from typing import Any

from gymrail.errors import InputError
from gymrail.models.chat_template import ChatTemplate, TemplateError
from gymrail.models.supervised import supervised_row
from gymrail.models.transformers import eos_ids
from gymrail.tokens import labels_as_sampled, up_to_end

logger = logging.getLogger("gymrail.trl")

_ANSWERS = ("chosen_ids", "rejected_ids", "completion_ids", "KL_completion_ids")
"""Columns of answers that DPO and KTO trainers make."""


def train_as_sampled(trainer: Any) -> None:
    """Take out of a trainer's prepared rows what its template writes and no policy samples.

    Args:
        trainer: an `SFTTrainer`, `DPOTrainer` or `KTOTrainer`, of TRL or of Unsloth, before it trains. Its datasets are
            replaced. Rows that carry their own `labels` lose nothing that was sampled.
    """
    tokenizer = getattr(trainer, "_tokenizer", trainer.processing_class)
    try:
        template = _template(tokenizer, trainer.model)
        keys = {"end_ids": [template.turn_end], "header": template.header}
    except TemplateError as error:
        logger.warning("Rows are trained on as they are rendered: %s", error)
        return
    trainer.train_dataset = _as_sampled(trainer.train_dataset, keys)
    held_out = trainer.eval_dataset
    if isinstance(held_out, dict):
        trainer.eval_dataset = {name: _as_sampled(dataset, keys) for name, dataset in held_out.items()}
    elif held_out is not None:
        trainer.eval_dataset = _as_sampled(held_out, keys)


def prepared(dataset: Any, tokenizer: Any, model: Any, algorithm: str) -> Any:
    """Return rows that TRL's trainer can take with this tokenizer's template: as they are, or as token ids and labels
    where TRL could not tell the assistant's tokens.

    Args:
        model: its generation configuration names ends of a turn that the tokenizer may lack.

    Raises:
        InputError: neither can be done; with the reason.
    """
    from datasets import Dataset

    try:
        if algorithm == "dpo":
            if _template(tokenizer, model).arguments == "text" and any(map(_has_calls, dataset)):
                raise InputError(
                    f"The chat template of {tokenizer.name_or_path!r} takes a tool call's arguments as text, and TRL's "
                    "DPO hands it objects. Train on it with sft or grpo, or export pairs without tools."
                )
            return dataset
        if "messages" not in dataset.column_names or _has_marks(tokenizer):
            return dataset
        template = _template(tokenizer, model)
        rows = [supervised_row(template, row["messages"], row.get("tools") or ()) for row in dataset]
        return Dataset.from_list(rows)
    except TemplateError as error:
        raise InputError(f"data: {error}") from error


def _template(tokenizer: Any, model: Any) -> ChatTemplate:
    return ChatTemplate(tokenizer, eos_token_ids=sorted(eos_ids(model, tokenizer)))


def _has_marks(tokenizer: Any) -> bool:
    """Whether TRL can mask this template: it marks the assistant's tokens, or TRL has a copy of it that does."""
    from trl.chat_template_utils import get_training_chat_template

    try:
        get_training_chat_template(tokenizer)
    except ValueError:
        return False
    return True


def _has_calls(row: dict[str, Any]) -> bool:
    sides = (row.get(side) or () for side in ("prompt", "chosen", "rejected"))
    return any(isinstance(message, dict) and message.get("tool_calls") for side in sides for message in side)


def _as_sampled(dataset: Any, keys: dict[str, list[int]]) -> Any:
    columns = dataset.column_names or ()
    if not {"labels", *_ANSWERS} & set(columns):
        return dataset  # with pictures, TRL renders when it collates
    return dataset.map(_row_as_sampled, fn_kwargs=keys)


def _row_as_sampled(row: dict[str, Any], end_ids: list[int], header: list[int]) -> dict[str, list[int]]:
    changed = {name: up_to_end(row[name], end_ids) for name in _ANSWERS if name in row}
    if "labels" in row:
        changed["labels"] = labels_as_sampled(row["labels"], row["input_ids"], end_ids=end_ids, header=header)
    return changed
