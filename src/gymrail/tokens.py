"""The on-policy token rule: what is trained is what was sampled, token for token.

Each model call records the ids it was prompted with and the ids it sampled. The rule has four parts, and all of them
stand here:

- Splice: the next prompt is what stood before, then the sampled ids untouched, then the template's scaffolding for what
  is new (`next_prompt`). A turn that was cut off is closed first.
- Prefix: a call's prompt begins with everything before it. What stands between is the environment's (tool results, user
  turns, scaffolding) and is masked. Where a prompt does not continue the sequence, the history was rewritten (a
  template that drops reasoning, a re-tokenisation): the chain ends there and a new sequence begins.
- Stop: a turn that ends without an end-of-turn token was cut off; no such token is trained, because none was sampled.
- Mask: a rollout that failed, was truncated where those are left out, or holds no tokens is one masked row without a
  reward (`training_row`), never reward 0.

Trainers take a row's lists as they are: TRL and Unsloth prompt, completion, mask and log-probs; NeMo RL `segments` on
its native path, and the calls' own fields on its NeMo Gym path.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from gymrail.errors import GymrailError
from gymrail.rollout import Rollout
from gymrail.task import Item

_MOST_LOG_PROB = 1e-4
"""Above 0 only by rounding, as in bfloat16."""


class TokenError(GymrailError):
    """A rollout's token fields are missing or contradict each other, so it cannot be trained on as sampled."""


class Segment(NamedTuple):
    """A stretch of a sequence that one side wrote: a message of NeMo RL's `message_log`, where the role is the mask."""

    role: Literal["user", "assistant"]
    """`assistant` for what the policy sampled, `user` for all else: prompts, tool results, scaffolding."""
    token_ids: list[int]
    log_probs: list[float]
    """Of sampled tokens; empty for others."""


@dataclass(slots=True)
class TokenSequence:
    """One training row. `completion_ids`, `mask` and `log_probs` have equal lengths."""

    prompt_ids: list[int]
    completion_ids: list[int] = field(default_factory=list)
    mask: list[int] = field(default_factory=list)
    """1 where the policy sampled the token, 0 where the environment or the template wrote it."""
    log_probs: list[float] = field(default_factory=list)
    """Natural logarithm of the sampling probability at the sampling temperature; 0.0 where the mask is 0."""
    calls: int = field(default=0, compare=False)
    """Model calls that it is made of."""

    @property
    def input_ids(self) -> list[int]:
        return self.prompt_ids + self.completion_ids

    @property
    def labels(self) -> list[int]:
        """For supervised training: the sampled tokens, -100 elsewhere."""
        sampled = [token if keep else -100 for token, keep in zip(self.completion_ids, self.mask, strict=True)]
        return [-100] * len(self.prompt_ids) + sampled

    @property
    def segments(self) -> list[Segment]:
        """The sequence cut where the writer changes; joined again, the segments are `input_ids`."""
        found = [Segment("user", list(self.prompt_ids), [])]
        for token, keep, log_prob in zip(self.completion_ids, self.mask, self.log_probs, strict=True):
            role = "assistant" if keep else "user"
            if found[-1].role != role:
                found.append(Segment(role, [], []))
            found[-1].token_ids.append(token)
            if keep:
                found[-1].log_probs.append(log_prob)
        return found


@dataclass(frozen=True, slots=True)
class TrainingRow:
    """What a trainer is given of one rollout, whatever became of it: one row of equal lengths, never empty."""

    sequence: TokenSequence
    reward: float | None
    """None where the row is masked: it must not enter its group's mean."""
    masked: Literal["no_reward", "truncated", "no_tokens"] | None = None
    """Why nothing of the row is trained; None where it is. `no_reward`: it failed, or was not judged."""
    left_out: int = 0
    """Earlier chains, sampled before the history was rewritten, that one row cannot hold."""
    problem: str | None = None
    """What was wrong with the tokens, where they are why the row is masked."""


def training_row(rollout: Rollout, *, placeholder_id: int, train_truncated: bool = True) -> TrainingRow:
    """Return the row for trainers that take one row per rollout.

    Args:
        placeholder_id: the one token of a masked row's prompt and completion; trainers refuse empty rows. Any id of
            the vocabulary does, such as the end of a turn.
        train_truncated: train rollouts that ran out of a budget with the reward they earned; False masks them.
    """
    masked = TokenSequence([placeholder_id], [placeholder_id], [0], [0.0])
    reason = left_out_because(rollout, train_truncated=train_truncated)
    if reason is not None:
        return TrainingRow(masked, None, reason)
    try:
        sequence, left_out = last_sequence(rollout)
    except TokenError as error:
        # Context ran out before the first answer, or an endpoint gave no ids: there is nothing to train on.
        return TrainingRow(masked, None, "no_tokens", problem=str(error))
    return TrainingRow(sequence, rollout.reward, left_out=left_out)


def left_out_because(rollout: Rollout, *, train_truncated: bool = True) -> Literal["no_reward", "truncated"] | None:
    """Say why a rollout is not trained on, whatever its tokens are; None where it is."""
    if not rollout.is_trainable:
        return "no_reward"
    is_truncated = rollout.outcome is not None and rollout.outcome.status == "truncated"
    return "truncated" if is_truncated and not train_truncated else None


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
        problem = token_problem(prompt, sampled, log_probs)
        if problem is not None or prompt is None or log_probs is None:
            raise TokenError(f"{where}, model call {number}: {problem}.")
        if not chains or prompt[: len(seen)] != seen:
            chains.append(TokenSequence(list(prompt)))
        else:
            chain = chains[-1]
            between = prompt[len(seen) :]
            chain.completion_ids += between
            chain.mask += [0] * len(between)
            chain.log_probs += [0.0] * len(between)
        chain = chains[-1]
        chain.calls += 1
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
        at = first_difference(first, second)
        raise TokenError(
            f"Rollout {rollout.id}: a later prompt does not continue what was sampled; token {at} differs "
            f"({_token(first, at)} was there, {_token(second, at)} came)."
        )
    return chains[0]


def last_sequence(rollout: Rollout) -> tuple[TokenSequence, int]:
    """Return the last chain, for trainers that take one row per rollout, and how many earlier chains are left out."""
    chains = sequences_of(rollout)
    return chains[-1], len(chains) - 1


def next_prompt(
    prompt_ids: Sequence[int],
    sampled_ids: Sequence[int],
    scaffolding: Sequence[int],
    *,
    end_ids: Collection[int],
    turn_end: int,
) -> list[int]:
    """Return the prompt after a sampled turn.

    Args:
        sampled_ids: kept as they are, whatever the template would make of them.
        scaffolding: the template's ids for what is new, from the end of the turn to where the next answer begins.
        end_ids: the ids at which sampling stops.
        turn_end: the one that the template writes; it closes a turn that was cut off, and is not trained.
    """
    closing = [] if finish_of(sampled_ids, end_ids) == "stop" else [turn_end]
    return [*prompt_ids, *sampled_ids, *closing, *scaffolding]


def finish_of(sampled_ids: Sequence[int], end_ids: Collection[int]) -> Literal["stop", "max_output_tokens"]:
    """Tell from the ids why sampling ended: the policy ended its turn, or ran out of tokens."""
    return "stop" if sampled_ids and sampled_ids[-1] in end_ids else "max_output_tokens"


def up_to_end(token_ids: Sequence[int], end_ids: Collection[int]) -> list[int]:
    """Return a rendered answer as a policy would have sampled it: without what its template writes after the last
    token at which sampling stops, such as a newline."""
    last = max((place for place, token in enumerate(token_ids) if token in end_ids), default=len(token_ids) - 1)
    return list(token_ids[: last + 1])


def labels_as_sampled(
    labels: Sequence[int], input_ids: Sequence[int], *, end_ids: Collection[int], header: Sequence[int]
) -> list[int]:
    """Return a rendered conversation's labels for the tokens alone that a policy samples.

    Args:
        labels: a trainer's own: runs of tokens that are trained on, -100 elsewhere.
        end_ids: the ids at which sampling stops; what follows one in a run is the template's, and gets -100.
        header: the ids that begin a turn of the policy; those of them that stand in a run get -100, too.
    """
    found = [-100] * len(labels)
    place = 0
    while place < len(labels):
        if labels[place] == -100:
            place += 1
            continue
        stop = next((end for end in range(place, len(labels)) if labels[end] == -100), len(labels))
        first = place + _header_within(input_ids, place, stop, header)
        end = next((at + 1 for at in range(first, stop) if input_ids[at] in end_ids), stop)
        found[first:end] = labels[first:end]
        place = stop
    return found


def first_difference(first: Sequence[int], second: Sequence[int]) -> int:
    """Return the first place where two sequences differ: the shorter one's length where one begins with the other."""
    pairs = enumerate(zip(first, second, strict=False))
    return next((index for index, (one, other) in pairs if one != other), min(len(first), len(second)))


def token_problem(prompt: Any, sampled: Any, log_probs: Any) -> str | None:
    """Say what is wrong with a model call's token fields, or None."""
    fields = {"prompt_token_ids": prompt, "generation_token_ids": sampled, "generation_log_probs": log_probs}
    for name, value in fields.items():
        if not isinstance(value, list) or not value:
            return f"{name} is missing or empty"
    if len(sampled) != len(log_probs):
        return f"{len(sampled)} generation_token_ids stand against {len(log_probs)} generation_log_probs"
    try:
        is_finite = math.isfinite(sum(log_probs))
        sum(prompt, sum(sampled))
        highest = max(log_probs)
    except TypeError:
        return "one of the values is no number (a log-prob of NaN arrives as null)"
    if not is_finite:
        return "a log-prob is not finite"
    return f"a log-prob is {highest!r}; it must be at most 0" if highest > _MOST_LOG_PROB else None


def _token(ids: Sequence[int], at: int) -> str:
    return str(ids[at]) if at < len(ids) else "the end"


def _header_within(ids: Sequence[int], start: int, stop: int, header: Sequence[int]) -> int:
    """How many of a run's first tokens are the end of a header that begins before it, or with it."""
    for inside in range(min(len(header), stop - start), 0, -1):
        begin = start + inside - len(header)
        if begin >= 0 and list(ids[begin : start + inside]) == list(header):
            return inside
    return 0
