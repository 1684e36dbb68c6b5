"""Training data from rollouts: conversations for SFT, pairs for preference training, token ids with labels.

    write_jsonl(sft_rows(run.rollouts(), min_reward=1.0), path)
    to_dataset(preference_rows(run.rollouts(), margin=0.5))

A failed rollout is never exported: nobody knows whether it was good.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from gymrail import registry
from gymrail.data.jsonl import write_jsonl
from gymrail.errors import InputError, did_you_mean
from gymrail.messages import Message, chat_tools, to_messages
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec
from gymrail.tokens import sequences_of

__all__ = ["preference_rows", "sft_rows", "to_dataset", "token_rows", "write_jsonl"]

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
        cut = _shared_length(good, bad)
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


def to_dataset(rows: Iterable[Row]) -> Any:
    """Return the rows as a `datasets.Dataset`.

    Tool calls and tools are JSON columns: as Arrow structs, every call would get the arguments of all others, as nulls.

    Raises:
        InputError: there are no rows.
        ImportError: `datasets` is not installed, or is too old to have JSON columns.
    """
    try:
        from datasets import Dataset, Features, Json, List, Value  # pyright: ignore[reportAttributeAccessIssue]
    except ImportError as error:
        raise ImportError(
            "Datasets need a release of `datasets` with JSON columns: pip install -U 'gymrail[data]'"
        ) from error
    collected = list(rows)
    if not collected:
        raise InputError("There are no rows to make a dataset of; no rollout passed the selection.")
    if "input_ids" in collected[0]:
        numbers = Features({"input_ids": List(Value("int64")), "labels": List(Value("int64"))})
        return Dataset.from_list(collected, features=numbers)
    conversations = [name for name in collected[0] if name != "tools"]
    keys = {key for row in collected for name in conversations for message in row[name] for key in message}
    kinds = {"content": Json(), "tool_calls": List(Json())}
    message = {key: kinds.get(key, Value("string")) for key in sorted(keys)}
    return Dataset.from_list(
        collected, features=Features({**{name: List(message) for name in conversations}, "tools": List(Json())})
    )


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
    items = (
        rollout.conversation
        if keep_reasoning
        else [item for item in rollout.conversation if item.get("type") != "reasoning"]
    )
    return to_messages(items, arguments="object", instructions=_instructions(rollout))


def _instructions(rollout: Rollout) -> str | None:
    return rollout.task.responses_create_params.get("instructions")


def _prompt_length(rollout: Rollout) -> int:
    return len(to_messages(rollout.conversation[: rollout.prompt_length], instructions=_instructions(rollout)))


def _shared_length(good: list[Message], bad: list[Message]) -> int | None:
    """Where the conversations part: the last answer of the model before which all is equal; None if they never do."""
    comparable = [[_comparable(message) for message in messages] for messages in (good, bad)]
    if comparable[0] == comparable[1]:
        return None
    cut = None
    for place, (mine, theirs) in enumerate(zip(good, bad, strict=False)):
        if mine["role"] == "assistant" == theirs["role"]:
            cut = place
        if comparable[0][place] != comparable[1][place]:
            break
    return cut


def _comparable(message: Message) -> Message:
    """The message without the ids of its calls, which differ between rollouts that said the same."""
    kept = {key: value for key, value in message.items() if key != "tool_call_id"}
    if "tool_calls" in kept:
        kept["tool_calls"] = [call["function"] for call in kept["tool_calls"]]
    return kept
