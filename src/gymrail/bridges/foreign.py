"""What the bridges to other Python libraries share: whose fault an exception is, arguments that fit a tool's schema,
tools as rows, and data sets whose tasks are numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from gymrail.bridges.blocking import OwnThread
from gymrail.errors import InputError, Stage, ToolError, did_you_mean, guard
from gymrail.spec import GENERATED_SPLITS, DatasetEntry, EnvironmentSpec, make_config
from gymrail.task import Task

_KINDS: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
    "null": (type(None),),
}


async def ask(stage: Stage, thread: OwnThread, function: Callable[..., Any], *arguments: Any) -> Any:
    """Run somebody else's function in its thread; what it raises is the environment's failure at this stage.

    Raises:
        EpisodeFailed: it broke.
    """
    return await guard(stage, thread.run, function, *arguments, kind="environment")


def check_arguments(name: str, parameters: Mapping[str, Any], arguments: Mapping[str, Any]) -> None:
    """Hold a call's arguments against its tool's JSON Schema: names, those that are required, plain types, choices.
    What is nested deeper is left to the tool.

    Raises:
        ToolError: they do not fit; the text says what is allowed.
    """
    properties: Mapping[str, Any] = parameters.get("properties") or {}
    problems = [f"{key!r} is missing" for key in parameters.get("required") or () if key not in arguments]
    for key, value in arguments.items():
        schema = properties.get(key)
        if schema is None:
            if not parameters.get("additionalProperties"):
                problems.append(f"there is no {key!r} ({did_you_mean(key, properties)})")
        elif (allowed := schema.get("enum")) is not None and value not in allowed:
            problems.append(f"{key!r} is {value!r}; allowed: {json.dumps(allowed)}")
        elif not _fits(value, schema.get("type")):
            problems.append(f"{key!r} is {value!r}; it must be of type {schema['type']}")
    if problems:
        raise ToolError(f"Invalid arguments for tool {name!r}: {'; '.join(problems)}.")


def tool_row(name: str, description: str, parameters: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return a tool as a task's row lists it."""
    schema = dict(parameters) if parameters else {"type": "object", "properties": {}}
    return {"type": "function", "name": name, "description": description, "parameters": schema, "strict": False}


def split_numbers(count: int) -> dict[str, Sequence[int]]:
    """Share the numbers below `count` out among the splits, by a hash, as generated tasks are; `benchmark` has all of
    them. A data set of fewer than ten is for training as a whole."""
    everything = range(count)
    if count < 10:
        return {"train": everything, "benchmark": everything}
    tenths = [int(hashlib.blake2b(b"%d" % number, digest_size=8).hexdigest(), 16) % 10 for number in everything]
    shares = {
        split: [number for number in everything if tenths[number] in allowed]
        for split, allowed in GENERATED_SPLITS.items()
        if split != "example"
    }
    return {split: numbers for split, numbers in {**shares, "benchmark": everything}.items() if numbers}


def numbered_datasets(numbers: Mapping[str, Sequence[int]], license: str | None = None) -> list[DatasetEntry]:
    """Return the manifest's entries of such splits."""
    return [
        DatasetEntry.model_validate(
            {"name": split, "split": split, "source": "generator", "size": len(mine), "license": license}
        )
        for split, mine in numbers.items()
    ]


@dataclass(slots=True)
class NumberedSpec(EnvironmentSpec):
    """An environment whose tasks are the numbers of somebody's data set: {"task_idx": 3}."""

    numbers: Mapping[str, Sequence[int]] = field(default_factory=dict)
    """By split."""
    fields: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """By split: what a row says besides."""

    @property
    def is_generated(self) -> bool:
        return True

    def with_config(self, overrides: Mapping[str, Any]) -> NumberedSpec:
        config = make_config(self.cls, {**self.config.model_dump(exclude_unset=True), **overrides}, self.name)
        return NumberedSpec(
            self.name, self.cls, self.manifest, config, self.path, self.source, numbers=self.numbers, fields=self.fields
        )

    def generate(self, split: str, index: int, seed: int = 0) -> Task:
        numbers = self.numbers.get(split)
        if numbers is None:
            raise InputError(f"{self.name} has no split {split!r}. {did_you_mean(split, self.numbers)}")
        if index >= len(numbers):
            raise InputError(f"{self.name} has {len(numbers)} {split} tasks; number {index} was asked for.")
        row = {"responses_create_params": {"input": []}, "task_idx": numbers[index], **self.fields.get(split, {})}
        return self.cls.task_type.from_row(row)

    def tasks(self, split: str = "train", *, limit: int | None = None, seed: int = 0) -> Any:
        size = len(self.numbers.get(split, ()))
        return EnvironmentSpec.tasks(self, split, limit=size if limit is None else min(limit, size), seed=seed)


def _fits(value: Any, kind: Any) -> bool:
    kinds = [kind] if isinstance(kind, str) else kind
    if not isinstance(kinds, list) or not all(name in _KINDS for name in kinds):
        return True
    if isinstance(value, bool):
        return "boolean" in kinds
    return any(isinstance(value, _KINDS[name]) for name in kinds)
