"""From a rollout's token fields to what a trainer trains on: ids, a mask of what was sampled, log-probs.

The rule: what is trained is what was sampled, token for token. Each model call recorded the ids it was prompted with
and the ids it sampled; a call's prompt must begin with everything before it (the prefix rule). What stands between is
the environment's (tool results, user turns, template scaffolding) and is masked. Where a prompt does not continue the
sequence, the history was rewritten (a template that drops reasoning, a re-tokenisation): the chain ends there and a new
sequence begins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gymrail.errors import GymrailError
from gymrail.rollout import Rollout
from gymrail.task import Item


class TokenError(GymrailError):
    """A rollout's token fields are missing or contradict each other, so it cannot be trained on as sampled."""


@dataclass(slots=True)
class TokenSequence:
    """One training row. `completion_ids`, `mask` and `log_probs` have equal lengths."""

    prompt_ids: list[int]
    completion_ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    """1 where the policy sampled the token, 0 where the environment or the template wrote it."""
    log_probs: list[float] = field(default_factory=list)
    """Natural logarithm of the sampling probability at the sampling temperature; 0.0 where the mask is 0."""

    @property
    def input_ids(self) -> list[int]:
        return self.prompt_ids + self.completion_ids

    @property
    def labels(self) -> list[int]:
        """For supervised training: the sampled tokens, -100 elsewhere."""
        sampled = [token if keep else -100 for token, keep in zip(self.completion_ids, self.mask, strict=True)]
        return [-100] * len(self.prompt_ids) + sampled


def sequences_of(rollout: Rollout) -> list[TokenSequence]:
    """Return the rollout's prefix-consistent chains, in order: one, unless its history was rewritten on the way.

    Raises:
        TokenError: no model call carries tokens, or the fields' lengths or values contradict each other.
    """
    return chains_of(rollout.model_calls(), f"Rollout {rollout.id}", rollout.model)


def chains_of(calls: Iterable[Item], where: str, model: str) -> list[TokenSequence]:
    """Return the same from the items that carry the model calls' tokens; `where` begins the text of an error.

    Raises:
        TokenError: as `sequences_of`.
    """
    chains: list[TokenSequence] = []
    seen: list[int] = []
    for number, item in enumerate(calls):
        prompt, sampled = item.get("prompt_token_ids"), item["generation_token_ids"]
        log_probs = item.get("generation_log_probs")
        if prompt is None or log_probs is None:
            raise TokenError(
                f"{where}, model call {number}: sampled token ids without those of the prompt or log-probs."
            )
        _check(where, number, sampled, log_probs)
        if not chains or prompt[: len(seen)] != seen:
            chains.append(TokenSequence(list(prompt)))
        else:
            chain = chains[-1]
            between = prompt[len(seen) :]
            chain.completion_ids += between
            chain.mask += [0] * len(between)
            chain.log_probs += [0.0] * len(between)
        chain = chains[-1]
        chain.completion_ids += sampled
        chain.mask += [1] * len(sampled)
        chain.log_probs += log_probs
        seen = [*prompt, *sampled]
    if not chains:
        raise TokenError(f"{where} carries no token ids: its model ({model or 'unknown'}) did not give them.")
    return chains


def sequence_of(rollout: Rollout) -> TokenSequence:
    """Return the one training row of a rollout.

    Raises:
        TokenError: as `sequences_of`, or the history was rewritten; the text names the first token that differs.
    """
    chains = sequences_of(rollout)
    if len(chains) > 1:
        first, second = chains[0].input_ids, chains[1].prompt_ids
        at = next(
            (i for i, (a, b) in enumerate(zip(first, second, strict=False)) if a != b), min(len(first), len(second))
        )
        raise TokenError(
            f"Rollout {rollout.id}: a later prompt does not continue what was sampled; token {at} differs "
            f"({_token(first, at)} was there, {_token(second, at)} came)."
        )
    return chains[0]


def last_sequence(rollout: Rollout) -> tuple[TokenSequence, int]:
    """Return the last chain, for trainers that take one row per rollout, and how many earlier chains are left out."""
    chains = sequences_of(rollout)
    return chains[-1], len(chains) - 1


def _token(ids: Sequence[int], at: int) -> str:
    return str(ids[at]) if at < len(ids) else "the end"


def _check(where: str, number: int, sampled: Sequence[int], log_probs: Sequence[float]) -> None:
    if len(sampled) != len(log_probs):
        raise TokenError(
            f"{where}, model call {number}: {len(sampled)} sampled tokens but {len(log_probs)} log-probs; "
            "they must be equal."
        )
    for value in log_probs:
        if value is None or not math.isfinite(value) or value > 1e-4:
            raise TokenError(f"{where}, model call {number}: log-prob {value!r}; it must be finite and at most 0.")
