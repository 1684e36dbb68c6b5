"""A verifier as a plain reward function, for TRL's trainers and whoever else calls one.

    reward = reward_function(MathVerify())
    GRPOTrainer(model, reward_funcs=[reward], train_dataset=dataset, ...)     # with the column `expected_answer`

The dataset's columns are the verifier's fields. An environment as a reward function: `gymrail_trl.reward_function`.
"""

from __future__ import annotations

import asyncio
import logging
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from gymrail.errors import EpisodeFailed, InputError, did_you_mean, guard
from gymrail.rollout import text_of
from gymrail.verifiers.fields import Declared, declared_fields
from gymrail.verifiers.verifier import Verifier

Completion = str | Sequence[Mapping[str, Any]]
"""Plain text, or chat messages of which the last assistant message is the answer."""
RewardFunction = Callable[..., Awaitable[list[float | None]]]

_NOT_COLUMNS = frozenset({"completion_ids", "environments", "log_extra", "log_metric", "trainer_state"})
"""What TRL passes beside the dataset's columns."""
_log = logging.getLogger("gymrail.verifiers")


def reward_function(verifier: Verifier, *, name: str | None = None, timeout_seconds: float = 300.0) -> RewardFunction:
    """Return an async reward function with TRL's signature.

    A completion that could not be judged gets None, which TRL leaves out of its group, and never 0; the log says why,
    and TRL's metrics get the share as `NAME/failed`. A verifier that wants a `question` gets the prompt's last user
    message where the dataset has no such column.

    Args:
        name: in TRL's metrics; by default the verifier's.
        timeout_seconds: for one completion.
    """
    declared = declared_fields(verifier)
    shown = name or _name_of(verifier)

    async def reward(
        prompts: Sequence[Completion] | None = None, completions: Sequence[Completion] = (), **columns: Any
    ) -> list[float | None]:
        rows = _rows(declared, prompts, completions, columns)
        judged = [
            _judge(verifier, text, row, timeout_seconds)
            for text, row in zip(map(_text, completions), rows, strict=True)
        ]
        rewards = await asyncio.gather(*judged)
        log_metric = columns.get("log_metric")
        if callable(log_metric) and rewards:
            log_metric(f"{shown}/failed", sum(value is None for value in rewards) / len(rewards))
        return rewards

    reward.__name__ = shown
    return reward


async def _judge(verifier: Verifier, answer: str, fields: Mapping[str, Any], timeout_seconds: float) -> float | None:
    async def ask() -> float:
        verdict = await verifier(answer, **fields)
        if not math.isfinite(verdict.reward):
            raise InputError(f"The verifier's reward is {verdict.reward!r}; it must be a finite number.")
        return float(verdict.reward)

    try:
        return await guard("verify", ask, timeout_seconds=timeout_seconds)
    except EpisodeFailed as error:
        _log.warning("A completion could not be judged: %s", error.failure.message)
        return None


def _rows(
    declared: Declared,
    prompts: Sequence[Completion] | None,
    completions: Sequence[Completion],
    columns: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """The fields of each completion.

    Raises:
        InputError: a column that the verifier needs is missing, or has another length.
    """
    known = {name: values for name, values in columns.items() if name not in _NOT_COLUMNS}
    if prompts is not None and "question" not in known:
        known["question"] = [_text(prompt, "user") for prompt in prompts]
    for name in sorted(declared.required - known.keys()):
        raise InputError(f"The verifier needs the dataset's column {name!r}. {did_you_mean(name, known)}")
    taken = declared.of(known)
    for name, values in taken.items():
        if isinstance(values, str) or not isinstance(values, Sequence) or len(values) != len(completions):
            raise InputError(f"The column {name!r} must have one value for each of {len(completions)} completions.")
    return [{name: values[index] for name, values in taken.items()} for index in range(len(completions))]


def _text(said: Completion, role: str = "assistant") -> str:
    if isinstance(said, str):
        return said
    last = next((message for message in reversed(said) if message.get("role") == role), None)
    content = last.get("content") if last else None
    return content if isinstance(content, str) else text_of({"content": content}) if content else ""


def _name_of(verifier: Verifier) -> str:
    name = getattr(verifier, "__name__", None) or type(verifier).__name__
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
