"""What a rollout's sampler gave, token by token, read from the model calls alone.

This is written apart from `gymrail.tokens` on purpose: what that module and the trainers make of a rollout is held
against it.
"""

from __future__ import annotations

from gymrail.rollout import Rollout

Sampled = dict[int, float]
"""The places of sampled tokens in a sequence, and their log-probs at sampling."""


def sampled_of(rollout: Rollout) -> tuple[tuple[int, ...], Sampled] | None:
    """Return a rollout's whole last sequence and its sampled tokens; None where nothing of it may be trained."""
    if not rollout.is_trainable:
        return None
    sequence: list[int] = []
    sampled: Sampled = {}
    for item in rollout.model_calls():
        prompt, ids = item["prompt_token_ids"], item["generation_token_ids"]
        if prompt[: len(sequence)] != sequence:  # the history was rewritten: the last chain alone is trained
            sampled = {}
        sampled |= {len(prompt) + place: value for place, value in enumerate(item["generation_log_probs"])}
        sequence = [*prompt, *ids]
    return (tuple(sequence), sampled) if sampled else None
