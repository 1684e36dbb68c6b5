"""A rollout as an answer that a trainer trains on as it stands, as NeMo RL does with what `/run` says.

NeMo RL asks for a reward and for tokens in every answer, and ends the run where one has none or where a prompt does not
continue what was sampled. So a failed rollout is answered with `instance_config.mask_sample`, which keeps it out of the
loss; its reward of 0 is a number for a field that must have one, and the answer says `failed` beside it. Where a
history was rewritten on the way, the tokens of the last unbroken part stay, as with our other trainers.
"""

from __future__ import annotations

from typing import Any

from gymrail.errors import EpisodeFailed
from gymrail.messages import TOKEN_FIELDS
from gymrail.rollout import Rollout
from gymrail.task import Item
from gymrail.tokens import TokenError, TokenSequence, last_sequence, training_row

_PLACEHOLDER = 0
"""The token of a masked answer that has none; nothing is trained on it."""


def trained_row(rollout: Rollout, row: dict[str, Any], *, train_truncated: bool = True) -> dict[str, Any]:
    """Return a rollout's answer, made of its row, for a trainer.

    Args:
        train_truncated: as in `tokens.training_row`, which decides what is masked.

    Raises:
        EpisodeFailed: the model broke before it said anything; the trainer serves it, so the trainer must hear of it.
        TokenError: the model gives no tokens, or ones that contradict each other; no row could be trained on.
    """
    failure = rollout.failure
    told = sum(1 for _ in rollout.model_calls())
    has_tokens = told > 0
    if failure is not None and failure.kind == "model" and not has_tokens:
        raise EpisodeFailed(failure)
    # The call that ran out of context has none.
    if failure is None and rollout.steps > told + (rollout.outcome is not None and rollout.outcome.reason is not None):
        raise TokenError(
            f"Rollout {rollout.id}: {told} of {rollout.steps} model calls carry the token ids that NeMo RL trains on. "
            "Serve the model with return_token_id_information."
        )
    made = training_row(rollout, placeholder_id=_PLACEHOLDER, train_truncated=train_truncated)
    # A masked answer keeps its tokens where it has any: NeMo RL logs how long it was.
    output = (
        _with_tokens_of(last_sequence(rollout)[0], rollout.items)
        if has_tokens
        else _with_placeholder(made.sequence, rollout)
    )
    row = {**row, "response": {**row["response"], "output": output}}
    if made.masked is None:
        return row
    settings = row.get("instance_config")
    row.pop("reward_components", None)  # NeMo RL holds their sum against the reward
    return {
        **row,
        "reward": rollout.reward if rollout.reward is not None else 0.0,
        "instance_config": {**(settings if isinstance(settings, dict) else {}), "mask_sample": True},
    }


_EMPTY = {
    "type": "message",
    "role": "assistant",
    "status": "completed",
    "content": [{"type": "output_text", "text": "", "annotations": []}],
}


def _with_tokens_of(sequence: TokenSequence, items: list[Item]) -> list[Item]:
    """The items, of which only those of the last unbroken part carry tokens."""
    calls = [place for place, item in enumerate(items) if item.get("generation_token_ids")]
    first = calls[-sequence.calls]
    return [
        {name: value for name, value in item.items() if name not in TOKEN_FIELDS} if place < first else item
        for place, item in enumerate(items)
    ]


def _with_placeholder(sequence: TokenSequence, rollout: Rollout) -> list[Item]:
    tokens = (sequence.prompt_ids, sequence.completion_ids, sequence.log_probs)
    return [*rollout.items, {**_EMPTY, **dict(zip(TOKEN_FIELDS, tokens, strict=True))}]
