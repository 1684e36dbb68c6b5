"""`gymrail play`: a person plays an episode in the terminal."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gymrail.cli.options import Configured, EnvironmentName

if TYPE_CHECKING:
    from gymrail.episode import Episode
    from gymrail.models.model import ModelRequest, ModelResponse
    from gymrail.rollout import Rollout
    from gymrail.spec import EnvironmentSpec
    from gymrail.task import Item, Task

TaskNumber = Annotated[int, typer.Option("--task", metavar="N", min=0, help="The task, counted from 0.")]
SplitName = Annotated[
    str | None, typer.Option("--split", metavar="SPLIT", help="The task's split; train, or the first there is.")
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Seed of generated tasks.")]
_HELP = """Write TOOL {"argument": ...} to call a tool, :tools to see them again, :quit to stop, all else to answer.
A line that ends with \\ goes on with the next one."""


def play(
    environment: EnvironmentName,
    task: TaskNumber = 0,
    split: SplitName = None,
    seed: Seed = 0,
    config: Configured = None,
) -> None:
    """Play one task yourself: call the tools, answer, and see what the verifier says.

    Exit code 1 when the episode failed, 130 when you stop it.
    """
    from gymrail.cli.configured import configured
    from gymrail.episode import Limits
    from gymrail.play import play as play_episode
    from gymrail.registry import find

    (spec,) = configured([find(environment)], config)
    chosen = _choose(spec, task, split, seed)
    day = 86_400.0  # people take their time
    limits = Limits(episode_seconds=day, idle_seconds=day)

    async def run() -> Rollout:
        try:
            return await play_episode(spec, chosen, _Person(), limits=limits, task_index=task)
        finally:
            await spec.teardown()

    rollout = asyncio.run(run())
    assert rollout.outcome is not None
    if rollout.failure is not None:
        typer.echo(f"Failed: {rollout.failure.kind} at stage {rollout.failure.stage}: {rollout.failure.message}")
        raise typer.Exit(1)
    reason = f" ({rollout.verdict_reason})" if rollout.verdict_reason else ""
    components = "".join(f"\n  {name}: {value:g}" for name, value in rollout.reward_components.items())
    typer.echo(f"Reward: {rollout.reward:g}{reason}{components}")


class _Person:
    """Answers with what is typed."""

    def bind(self, episode: Episode) -> _Typing:
        return _Typing(episode)


class _Typing:
    def __init__(self, episode: Episode) -> None:
        self.episode = episode
        self.shown = 0
        self.calls = 0

    async def respond(self, request: ModelRequest) -> ModelResponse:
        from gymrail.models.model import ModelResponse

        if self.shown == 0:
            _show_tools(self.episode)
        for item in request.input[self.shown :]:
            _show(item, self.shown == 0)
        answer = self._ask()  # on the event loop, which has nothing else to do while a person thinks
        self.shown = len(request.input) + 1
        return ModelResponse([answer], model="person")

    def _ask(self) -> Item:
        from gymrail.models.model import function_call, message

        while True:
            line = _read_line()
            name, _, rest = line.partition(" ")
            if line == ":quit":
                raise KeyboardInterrupt
            if line == ":tools":
                _show_tools(self.episode)
            elif name in self.episode.table and (not rest.strip() or rest.strip().startswith("{")):
                self.calls += 1
                return function_call(name, rest.strip() or "{}", f"call_{self.calls}")
            elif line:
                return message(line)


def _choose(spec: EnvironmentSpec, number: int, split: str | None, seed: int) -> Task:
    from gymrail.catalogue import splits_of
    from gymrail.errors import InputError

    known = splits_of(spec)
    name = split or (known[0] if known else "train")
    found = next(itertools.islice(spec.tasks(name, limit=number + 1, seed=seed), number, None), None)
    if found is None:
        raise InputError(f"The split {name!r} of {spec.name} has no task {number}; count from 0.")
    return found


def _read_line() -> str:
    # The event loop's own handler would let the first Ctrl-C pass while nothing is awaited.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        typer.echo("> ", nl=False)
        return _read_whole()
    finally:
        signal.signal(signal.SIGINT, before)


def _read_whole() -> str:
    lines: list[str] = []
    while True:
        line = sys.stdin.readline()
        if not line:
            raise KeyboardInterrupt  # the end of the input: nobody will answer
        line = line.rstrip("\n")
        if not line.endswith("\\"):
            return "\n".join([*lines, line]).strip()
        lines.append(line[:-1])


def _show_tools(episode: Episode) -> None:
    from gymrail.tools import dump_json

    for schema in episode.tool_schemas:
        properties: dict[str, Any] = (schema.get("parameters") or {}).get("properties") or {}
        arguments = {name: part.get("type", "any") for name, part in properties.items()}
        about = (schema.get("description") or "").partition("\n")[0]
        typer.echo(f"  {schema['name']} {dump_json(arguments)}  {about}")
    typer.echo(_HELP)


def _show(item: Item, is_prompt: bool) -> None:
    from gymrail.rollout import text_of

    if item.get("type") == "function_call_output":
        output = item["output"]
        typer.echo(output if isinstance(output, str) else text_of({"content": output}) or "[a picture]")
    elif is_prompt or item.get("role") == "user":
        typer.echo(f"\n{item.get('role', 'user')}: {text_of(item)}")
