"""Policies without a model: scripts for tests and load, the oracle that plays an environment's gold policy, the noisy
teacher.

ScriptedModel(["Hello", "Bye"])                      the same turns in every episode
ScriptedModel(lambda request: call("add", a=1, b=2)) a function of the request
Oracle()                                             Environment.solve
Oracle(noise=0.5, seed=0)                            ... with half of its turns spoilt by Environment.sabotage
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING, Any

import orjson

from gymrail.environment import Call, Turn
from gymrail.errors import EpisodeFailed, ModelError, guard
from gymrail.models.model import Model, ModelRequest, ModelResponse, function_call, message
from gymrail.task import Item

if TYPE_CHECKING:
    from gymrail.episode import Episode

Script = Sequence[Turn] | Callable[[ModelRequest], Turn]


class ScriptedModel:
    """Plays turns: a list is walked by how often the model has spoken in the conversation, a function is asked each
    time."""

    is_scripted = True
    """It knows the tools by the environment's own names, whatever a program calls them."""

    def __init__(self, script: Script, skip: int = 0) -> None:
        self.script = script
        self.skip = skip
        """Items at the beginning of the conversation that are not the script's."""

    def bind(self, episode: Episode) -> Model:
        """Play one episode; the turns that its prompt already has are not the script's."""
        return ScriptedModel(self.script, episode.rollout.prompt_length) if episode.rollout.prompt_length > 1 else self

    async def respond(self, request: ModelRequest) -> ModelResponse:
        if callable(self.script):
            return ModelResponse(turn_items(self.script(request), len(request.input)), model="scripted")
        spoken = turns_spoken(request.input[self.skip :])
        if spoken >= len(self.script):
            raise ModelError(f"The script has {len(self.script)} turns and was asked for turn {spoken + 1}.")
        return ModelResponse(turn_items(self.script[spoken], len(request.input)), model="scripted")


class Oracle:
    """Plays `Environment.solve`; with `noise`, that share of its turns is replaced by `Environment.sabotage`.

    Each episode's mistakes come from `Random(f"{seed}:{task index}:{repeat}")`.
    """

    def __init__(self, noise: float = 0.0, seed: int = 0) -> None:
        self.noise = noise
        self.seed = seed

    def bind(self, episode: Episode) -> Model:
        rollout = episode.rollout
        return _SolvingModel(episode, self.noise, Random(f"{self.seed}:{rollout.task_index}:{rollout.repeat}"))


class _SolvingModel:
    """One episode of the oracle: drives the generator that `solve` returned with the outputs of its calls."""

    is_scripted = True

    def __init__(self, episode: Episode, noise: float, rng: Random) -> None:
        self.environment = episode.environment
        self.noise = noise
        self.rng = rng
        self.steps: Generator[Turn, Any, None] | None = None

    async def respond(self, request: ModelRequest) -> ModelResponse:
        try:
            turn = await guard("reply", self._next_turn, request)
        except EpisodeFailed as error:  # the environment's own code broke, at the model's place in the episode
            raise EpisodeFailed(replace(error.failure, stage="model")) from error
        return ModelResponse(
            turn_items(turn, len(request.input)), model="oracle" if not self.noise else f"oracle-noise-{self.noise:g}"
        )

    def _next_turn(self, request: ModelRequest) -> Turn:
        try:
            if self.steps is None:
                self.steps = self.environment.solve()
                turn = next(self.steps)
            else:
                turn = self.steps.send(_last_outputs(request.input))
        except StopIteration:
            turn = "Done."
        return self.environment.sabotage(turn, self.rng) if self.noise and self.rng.random() < self.noise else turn


def turn_items(turn: Turn, position: int) -> list[Item]:
    """Turn a scripted turn into items; call ids are unique by the `position` in the conversation."""
    if isinstance(turn, str):
        return [message(turn)]
    calls = [turn] if isinstance(turn, Call) else turn
    return [
        function_call(call.name, orjson.dumps(dict(call.arguments)).decode(), f"call_{position}_{index}")
        for index, call in enumerate(calls)
    ]


def turns_spoken(items: Sequence[Item]) -> int:
    """Count the model's turns in a conversation: runs of its own items."""
    turns, was_model = 0, False
    for item in items:
        is_model = item.get("role") == "assistant" or item.get("type") in ("function_call", "reasoning")
        turns += is_model and not was_model
        was_model = is_model
    return turns


def _last_outputs(items: Sequence[Item]) -> Any:
    """The outputs of the last turn's calls: one value for one call, a list for several, the user's text after a
    message."""
    outputs: list[Any] = []
    for item in reversed(items):
        if item.get("type") != "function_call_output":
            break
        outputs.append(item["output"])
    if not outputs:
        return items[-1].get("content") if items else None
    return outputs[0] if len(outputs) == 1 else outputs[::-1]
