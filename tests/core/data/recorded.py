"""Rollouts and runs as tests of exports need them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from gymrail import Outcome, Rollout, Task
from gymrail.collect.run_directory import RunDirectory
from gymrail.data.jsonl import read_rows
from gymrail.errors import Failure
from gymrail.models.model import function_call, message
from gymrail.task import Item

TOOL = {
    "type": "function",
    "name": "look_up",
    "description": "Look something up.",
    "parameters": {"type": "object", "properties": {"word": {"type": "string"}}, "required": ["word"]},
    "strict": False,
}
Run = Callable[..., Path]


def rollout(
    *items: Item,
    task: str = "Who?",
    reward: float | None = 1.0,
    repeat: int = 0,
    environment: str = "quiz",
    **more: Any,
) -> Rollout:
    asked = Task.ask(task, parameters={"tools": more.pop("tools", [TOOL])})
    made = Rollout(environment, asked, f"{task}{repeat}{environment}", repeat=repeat, reward=reward, steps=1)
    made.conversation = [*asked.input_items, *items]
    made.prompt_length = 1
    failed = Outcome("failed", Failure("model", "model", "down"))
    made.outcome = more.pop("outcome", None) or (failed if reward is None else Outcome("scored"))
    for name, value in more.items():
        setattr(made, name, value)
    return made


def said(text: str, **more: Any) -> Rollout:
    return rollout(message(text), **more)


def looked_up(word: str, heard: str, answer: str, **more: Any) -> Rollout:
    call_id = f"c{len(word)}{more.get('repeat', 0)}"
    output = {"type": "function_call_output", "call_id": call_id, "output": heard}
    return rollout(function_call("look_up", f'{{"word": "{word}"}}', call_id), output, message(answer), **more)


def write_run(folder: Path, *rollouts: Rollout, compress: bool = False) -> Path:
    """Write rollouts as a run."""
    with RunDirectory.create(folder, {}, compress=compress) as run:
        for place, made in enumerate(rollouts):
            made.task_index = made.task_index or place
            run.record(made)
    return folder


def rows_of(folder: str | Path) -> list[dict[str, Any]]:
    file = Path(folder)
    return [row for _, row in read_rows(file / "train.jsonl" if file.is_dir() else file)]
