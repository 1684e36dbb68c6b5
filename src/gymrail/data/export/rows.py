"""Training rows from rollouts in memory: conversations for SFT, pairs for preferences, token ids with labels."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gymrail import registry
from gymrail.data.export.conversation import conversation, shared_length
from gymrail.errors import InputError, did_you_mean
from gymrail.messages import Message, chat_tools, to_messages
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec
from gymrail.tokens import sequences_of

Row = dict[str, Any]
Specs = Mapping[str, EnvironmentSpec]


def sft_rows(
    rollouts: Iterable[Rollout],
    *,
    specs: Specs | None = None,
    min_reward: float | None = None,
    keep_reasoning: bool = True,
) -> Iterator[Row]:
    """Yield {"messages", "tools"} for each rollout that has a reward and in which the model spoke.

    Args:
        rollouts: from one run or several.
        specs: the environments by name, for the tools of tasks that do not list their own; found by name where absent.
        min_reward: leave out rollouts below it.
        keep_reasoning: keep the model's reasoning as `reasoning_content`.

    Raises:
        InputError: an environment is not known.
    """
    lookup = _ToolLookup(specs)
    for rollout in rollouts:
        if not _is_chosen(rollout, min_reward):
            continue
        messages = _messages(rollout, keep_reasoning)
        if any(message["role"] == "assistant" for message in messages[_prompt_length(rollout) :]):
            yield {"messages": messages, "tools": lookup(rollout)}


def preference_rows(
    rollouts: Iterable[Rollout], *, margin: float = 0.0, specs: Specs | None = None, keep_reasoning: bool = True
) -> Iterator[Row]:
    """Yield {"prompt", "chosen", "rejected", "tools"}: for each task, its best rollout against its worst.

    The prompt is as much of the conversation as the two share, up to an answer of the model; `chosen` and `rejected`
    are what came then.

    Args:
        rollouts: in any order; the best and the worst of each task are kept in memory.
        margin: the rewards must differ by at least this much, and by more than nothing.
        specs: as in `sft_rows`.
        keep_reasoning: as in `sft_rows`.

    Raises:
        InputError: an environment is not known, or the margin is negative.
    """
    if margin < 0:
        raise InputError(f"margin is {margin!r}; it must be at least 0.")
    lookup = _ToolLookup(specs)
    extremes: dict[tuple[str, str], tuple[Rollout, Rollout]] = {}
    for rollout in rollouts:
        if not _is_chosen(rollout, None):
            continue
        key = (rollout.environment, rollout.task.id)
        best, worst = extremes.get(key, (rollout, rollout))
        extremes[key] = (
            rollout if _reward(rollout) > _reward(best) else best,
            rollout if _reward(rollout) < _reward(worst) else worst,
        )
    for best, worst in extremes.values():
        gap = _reward(best) - _reward(worst)
        if gap <= 0 or gap < margin:
            continue
        good, bad = _messages(best, keep_reasoning), _messages(worst, keep_reasoning)
        cut = shared_length(good, bad)
        if cut is not None:
            yield {"prompt": good[:cut], "chosen": good[cut:], "rejected": bad[cut:], "tools": lookup(best)}


def token_rows(rollouts: Iterable[Rollout], *, min_reward: float | None = None) -> Iterator[Row]:
    """Yield {"input_ids", "labels"}: exactly the sampled tokens are trained on, all others have the label -100.

    A rollout whose history was rewritten on the way gives one row per stretch that was sampled in one piece.

    Raises:
        TokenError: a rollout carries no token ids.
    """
    for rollout in rollouts:
        if _is_chosen(rollout, min_reward):
            for sequence in sequences_of(rollout):
                yield {"input_ids": sequence.input_ids, "labels": sequence.labels}


class _ToolLookup:
    """The chat tools that a rollout's model was offered."""

    def __init__(self, specs: Specs | None) -> None:
        self._specs = specs

    def __call__(self, rollout: Rollout) -> list[dict[str, Any]]:
        own = rollout.task.offered_tools
        return chat_tools(own if own is not None else self._spec(rollout.environment).tool_schemas(rollout.task))

    def _spec(self, name: str) -> EnvironmentSpec:
        if self._specs is None:
            return _find(name)
        if name not in self._specs:
            raise InputError(
                f"No environment named {name!r} was given for its tools. {did_you_mean(name, self._specs)}"
            )
        return self._specs[name]


@functools.cache
def _find(name: str) -> EnvironmentSpec:
    return registry.find(name)


def _is_chosen(rollout: Rollout, min_reward: float | None) -> bool:
    return rollout.is_trainable and (min_reward is None or _reward(rollout) >= min_reward)


def _reward(rollout: Rollout) -> float:
    assert rollout.reward is not None, "only rollouts with a reward are exported"
    return rollout.reward


def _messages(rollout: Rollout, keep_reasoning: bool) -> list[Message]:
    return conversation(rollout.conversation, _instructions(rollout), keep_reasoning=keep_reasoning)


def _instructions(rollout: Rollout) -> str | None:
    return rollout.task.responses_create_params.get("instructions")


def _prompt_length(rollout: Rollout) -> int:
    return len(to_messages(rollout.conversation[: rollout.prompt_length], instructions=_instructions(rollout)))
