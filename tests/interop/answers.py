"""Answers to judge twice, by us and by nemo-gym: right, nearly right and broken ones."""

from __future__ import annotations

import asyncio
import json
from random import Random
from typing import Any, NamedTuple

from gymrail.environment import Call
from gymrail.episode import Episode
from gymrail.registry import find
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task

WRECKS = {
    "whole": lambda text, rng: text,
    "empty": lambda text, rng: "",
    "blank": lambda text, rng: " \n ",
    "cut off": lambda text, rng: text[: rng.randrange(len(text) + 1)],
    "fenced": lambda text, rng: f"```json\n{text}\n```",
    "with a preface": lambda text, rng: f"Here you are:\n{text}",
    "with a farewell": lambda text, rng: f"{text}\nIs there anything else?",
    "twice": lambda text, rng: f"{text}\n{text}",
    "capital": lambda text, rng: text.upper(),
    "one character off": lambda text, rng: _replaced(text, rng),
    "a line less": lambda text, rng: "\n".join(text.split("\n")[:-1]),
    "other talk": lambda text, rng: "I am not sure what you mean. Is it either 1 or 2? Let us see!",
}


class Case(NamedTuple):
    """One answer to one task."""

    server: str
    """Nemo-gym's name of the environment; ours has the same."""
    kind: str
    task: dict[str, Any]
    output: list[dict[str, Any]]

    @property
    def text(self) -> str:
        return "".join(part["text"] for item in self.output for part in item.get("content", ()))

    def row(self) -> dict[str, Any]:
        return {"server": self.server, "task": self.task, "output": self.output}


def message(text: str) -> list[dict[str, Any]]:
    """Return the output of a model that says a text."""
    part = {"annotations": [], "text": text, "type": "output_text"}
    return [{"id": "msg_0", "content": [part], "role": "assistant", "status": "completed", "type": "message"}]


def calls(*made: tuple[str, str]) -> list[dict[str, Any]]:
    """Return the output of a model that makes tool calls: names and arguments."""
    return [
        {"type": "function_call", "id": f"fc_{number}", "call_id": f"call_{number}", "name": name, "arguments": text}
        for number, (name, text) in enumerate(made)
    ]


def generated_cases(name: str, count: int, seed: int = 0, **changes: Any) -> list[Case]:
    """Return answers to generated tasks: the gold one, a plausible mistake, and either of them wrecked.

    Args:
        changes: fields that each row gets, or loses by None.
    """
    spec = find(name)
    cases = []
    for index, task in enumerate(spec.tasks("train", limit=count, seed=seed)):
        rng = Random(f"{seed}:{index}")
        for turn, said in zip(_turns(spec, task, rng), ("gold", "mistaken"), strict=True):
            row = {key: value for key, value in {**task.row, **changes}.items() if value is not None}
            cases += _cases_of(name, said, row, turn, rng)
    return cases


def example_of(schema: dict[str, Any]) -> Any:
    """Return a value that fits a schema of objects, lists and scalars when every property is required."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    options = schema.get("anyOf") or schema.get("oneOf")
    if options:
        return example_of(options[0])
    kind = schema.get("type", "object" if "properties" in schema else "string")
    kind = kind[0] if isinstance(kind, list) else kind
    if kind == "object":
        return {name: example_of(part) for name, part in schema.get("properties", {}).items()}
    if kind == "array":
        return [example_of(schema.get("items", {})) for _ in range(max(1, schema.get("minItems", 1)))]
    if kind in ("integer", "number"):
        return schema.get("minimum", 1)
    text = "x" * max(1, schema.get("minLength", 1))
    return {"boolean": True, "null": None}.get(kind, text)


def _cases_of(name: str, said: str, row: dict[str, Any], turn: Any, rng: Random) -> list[Case]:
    if isinstance(turn, Call):
        right = (turn.name, json.dumps(dict(turn.arguments)))
        outputs = {
            "a call": calls(right),
            "two calls": calls(right, right),
            "another tool": calls((f"other_{turn.name}", right[1])),
            "broken arguments": calls((turn.name, right[1][:-1])),
            "arguments of no object": calls((turn.name, "[1]")),
            "words for a call": message(right[1]),
        }
        return [Case(name, f"{said}: {kind}", row, output) for kind, output in outputs.items()]
    kinds = rng.sample(sorted(WRECKS), 4)
    return [
        Case(name, f"{said}: {kind}", row, message(WRECKS[kind](turn, rng)))
        for kind in dict.fromkeys(["whole", *kinds])
    ]


def _turns(spec: EnvironmentSpec, task: Task, rng: Random) -> tuple[Any, Any]:
    """The last turn of the gold policy, and a mistake in its place."""

    async def solved() -> tuple[Any, Any]:
        episode = await Episode.open(spec, task)
        try:
            *_, last = episode.environment.solve()
            return last, episode.environment.sabotage(last, rng)
        finally:
            await episode.close()

    return asyncio.run(solved())


def _replaced(text: str, rng: Random) -> str:
    if not text:
        return "x"
    place = rng.randrange(len(text))
    return text[:place] + rng.choice('x1 ,."{[<*') + text[place + 1 :]
