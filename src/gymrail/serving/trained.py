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
from gymrail.tokens import TokenError, sequences_of

_NO_TOKENS = {"prompt_token_ids": [0], "generation_token_ids": [0], "generation_log_probs": [0.0]}
"""For a masked answer that has none: one token, which nothing is trained on."""


def trained_row(rollout: Rollout, row: dict[str, Any]) -> dict[str, Any]:
    """Return a rollout's answer, made of its row, for a trainer.

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
    output = _last_chain(rollout) if has_tokens else [*rollout.items, {**_EMPTY, **_NO_TOKENS}]
    row = {**row, "response": {**row["response"], "output": output}}
    if failure is None and has_tokens:
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


def _last_chain(rollout: Rollout) -> list[dict[str, Any]]:
    """The items, of which only those of the last unbroken part carry tokens."""
    sequences_of(rollout)  # checks their lengths and values
    items = rollout.items
    calls = [place for place, item in enumerate(items) if item.get("generation_token_ids")]
    seen: list[int] = []
    first = calls[0]
    for place in calls:
        prompt = items[place]["prompt_token_ids"]
        if prompt[: len(seen)] != seen:
            first = place
        seen = [*prompt, *items[place]["generation_token_ids"]]
    return [
        {name: value for name, value in item.items() if name not in TOKEN_FIELDS} if place < first else item
        for place, item in enumerate(items)
    ]
