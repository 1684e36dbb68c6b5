"""What must not pay: policies that answer nothing, something wrong, the form without the content, or call tools at
random."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import orjson

from gymrail.environment import Call, Turn
from gymrail.episode import Episode
from gymrail.models.model import EpisodePolicy, Model, ModelRequest, ModelResponse, function_call
from gymrail.models.scripted import ScriptedModel, turns_spoken
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task

MakePolicy = Callable[[EnvironmentSpec, Task, Random], Model | EpisodePolicy]

_WRONG = (
    "After weighing everything carefully I am confident that the result is 7341, and that the heron flies at dawn.",
    "I have completed the request successfully. All steps were carried out and checked twice, as you wished.",
    "It is either the first or the second, 0 or 1, yes or no, true or false.",
)
_FORMS = (
    "Done.", "\\boxed{}", "\\boxed{Z}", "\\boxed{A}", "\\boxed{0}", "Answer: Z", "Answer: A", "<answer></answer>",
    "```json\n[]\n```", "{}", "The answer is \\boxed{\\text{none}}.",
)  # fmt: skip
_WORDS = ("alpha", "north", "table", "x", "2024-01-01", "")
_RANDOM_CALLS = 3


class Interleaved:
    """Gives way to every other episode before each answer, so that episodes that run together take turns step by
    step."""

    def __init__(self, policy: Model | EpisodePolicy) -> None:
        self.policy = policy

    def bind(self, episode: Episode) -> Model:
        bound = self.policy.bind(episode) if isinstance(self.policy, EpisodePolicy) else self.policy
        return _GivingWay(bound)


class _GivingWay:
    def __init__(self, model: Model) -> None:
        self.model = model

    async def respond(self, request: ModelRequest) -> ModelResponse:
        await asyncio.sleep(0)
        return await self.model.respond(request)


def _says(texts: Sequence[str]) -> MakePolicy:
    def make(spec: EnvironmentSpec, task: Task, rng: Random) -> Model:
        text = rng.choice(texts)
        return ScriptedModel(lambda request: text)

    return make


@dataclass(frozen=True, slots=True)
class _WhenOpened:
    """A policy that is made for the episode's task: seeding may have told its prompt and its tools."""

    make: Callable[[EnvironmentSpec, Task, Random], Model]
    rng: Random

    def bind(self, episode: Episode) -> Model:
        return self.make(episode.spec, episode.task, self.rng)


def _random_calls(spec: EnvironmentSpec, task: Task, rng: Random) -> Model:
    """Valid calls of random tools, with words and numbers of the prompt as far as it has any, then "Done."."""
    offered = [(name, tool.parameters) for name, tool in spec.offered(task).items()]
    prompt = orjson.dumps(task.responses_create_params.get("input", "")).decode()
    words = [*_WORDS, *re.findall(r"[A-Za-z]{3,}", prompt)]
    count = rng.randint(1, _RANDOM_CALLS)

    def turn(request: ModelRequest) -> Turn:
        if not offered or turns_spoken(request.input) >= count:
            return "Done."
        name, parameters = rng.choice(offered)
        return Call(name, random_value(parameters, parameters.get("$defs", {}), words, rng))

    return ScriptedModel(turn)


def _malformed_calls(spec: EnvironmentSpec, task: Task, rng: Random) -> Model:
    return _Malformed(list(spec.offered(task)), rng)


class _Malformed:
    """Calls every tool with arguments that are no JSON, no object, or not what the schema says; and a tool that does
    not exist."""

    def __init__(self, names: list[str], rng: Random) -> None:
        self.names = [*names, "verify"]
        self.rng = rng

    async def respond(self, request: ModelRequest) -> ModelResponse:
        spoken = turns_spoken(request.input)
        if spoken >= len(self.names):
            return await ScriptedModel(lambda request: "Done.").respond(request)
        arguments = self.rng.choice(('{"', "[]", "null", '{"no_such_argument": 1}', "7", '"text"', "\ud83d"))
        items = [function_call(self.names[spoken], arguments.encode("utf-8", "replace").decode(), f"call_{spoken}")]
        return ModelResponse(items, model="malformed")


BAD_POLICIES: dict[str, MakePolicy] = {
    "empty answer": _says(("",)),
    "wrong answer": _says(_WRONG),
    "format only": _says(_FORMS),
    "random calls": lambda spec, task, rng: _WhenOpened(_random_calls, rng),
    "malformed calls": lambda spec, task, rng: _WhenOpened(_malformed_calls, rng),
}
"""By the name of the check that plays them."""


def random_value(
    schema: dict[str, Any], defs: dict[str, Any], words: Sequence[str], rng: Random, depth: int = 0
) -> Any:
    """Return a random value that a tool's schema allows."""
    if "$ref" in schema:
        return random_value(defs[schema["$ref"].rsplit("/", 1)[-1]], defs, words, rng, depth + 1)
    if "const" in schema:
        return schema["const"]
    if "enum" in schema:
        return rng.choice(schema["enum"])
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        # Past some depth the last option, null in an optional field, ends what refers to itself.
        return random_value(options[-1] if depth > 4 else rng.choice(options), defs, words, rng, depth + 1)
    kind = schema.get("type")
    if kind == "object":
        properties = schema.get("properties", {})
        return {name: random_value(part, defs, words, rng, depth + 1) for name, part in properties.items()}
    if kind == "array":
        count = 0 if depth > 4 else rng.randint(0, 3)
        count = min(max(count, schema.get("minItems", 0)), schema.get("maxItems", 3))
        return [
            random_value(schema.get("items") or {"type": "string"}, defs, words, rng, depth + 1) for _ in range(count)
        ]
    return _random_scalar(kind, schema, words, rng)


def _random_scalar(kind: Any, schema: dict[str, Any], words: Sequence[str], rng: Random) -> Any:
    if kind in ("integer", "number"):
        low = schema.get("minimum", schema.get("exclusiveMinimum", -1) + 1)
        high = schema.get("maximum", schema.get("exclusiveMaximum", low + 101) - 1)
        return rng.randint(int(low), int(high)) if kind == "integer" or high - low > 1 else rng.uniform(low, high)
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "null":
        return None
    return rng.choice(words)
