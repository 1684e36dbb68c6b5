"""A single-turn environment as a plain reward function, for any TRL trainer that takes `reward_funcs`.

dataset, reward = reward_dataset(spec, "train", 1000), reward_function(spec)
RLOOTrainer(model, reward_funcs=[reward], train_dataset=dataset, ...)
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import orjson

from gymrail.environment import Environment
from gymrail.errors import InputError
from gymrail.messages import from_message, to_messages
from gymrail.models.model import ModelRequest, ModelResponse, message
from gymrail.play import play
from gymrail.spec import EnvironmentSpec

ROW = "gymrail_row"
"""The dataset column that carries the task row, as JSON text so that Arrow does not merge unlike rows."""


def reward_dataset(spec: EnvironmentSpec, split: str, size: int, seed: int = 0) -> Any:
    """Return a `datasets.Dataset` with conversational prompts and the task rows.

    Raises:
        InputError: the environment has tools or user turns, which a plain reward function cannot run.
    """
    from datasets import Dataset

    _check_single_turn(spec)
    tasks = list(spec.tasks(split, limit=size, seed=seed))
    return Dataset.from_dict(
        {
            "prompt": [
                to_messages(task.input_items, instructions=task.responses_create_params.get("instructions"))
                for task in tasks
            ],
            ROW: [orjson.dumps(task.row).decode() for task in tasks],
        }
    )


def reward_function(spec: EnvironmentSpec) -> Callable[..., Awaitable[list[float | None]]]:
    """Return an async TRL reward function: the completion is the episode's one answer, the environment verifies it.

    A verifier that breaks gives None, which TRL leaves out of the group; never 0.
    """
    _check_single_turn(spec)

    async def reward(completions: Sequence[Any], **columns: Any) -> list[float | None]:
        rows = columns.get(ROW)
        if rows is None:
            raise InputError(
                f"The dataset has no column {ROW!r}; make it with gymrail_trl.reward_dataset(spec, split, size)."
            )
        tasks = [spec.cls.task_type.from_row(orjson.loads(row)) for row in rows]
        rollouts = await asyncio.gather(
            *(play(spec, task, _Said(completion)) for task, completion in zip(tasks, completions, strict=True))
        )
        return [rollout.reward for rollout in rollouts]

    reward.__name__ = spec.name
    return reward


class _Said:
    """A model that has answered already."""

    def __init__(self, completion: Any) -> None:
        self.completion = completion

    async def respond(self, request: ModelRequest) -> ModelResponse:
        if isinstance(self.completion, str):
            return ModelResponse([message(self.completion)])
        return ModelResponse(from_message(self.completion[-1]))


def _check_single_turn(spec: EnvironmentSpec) -> None:
    if spec.tools:
        raise InputError(
            f"{spec.name} has tools ({', '.join(spec.tools)}); a plain reward function sees one answer. "
            "Use RolloutFunction (rollout_func) or environment_factory."
        )
    if spec.cls.reply is not Environment.reply:
        raise InputError(
            f"{spec.name} has user turns (reply); a plain reward function sees one answer. "
            "Use RolloutFunction (rollout_func)."
        )
