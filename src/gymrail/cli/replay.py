"""`gymrail replay`: a rollout's messages and its environment's state, step by step."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gymrail.cli.options import AsJson, Configured, PlayedBy, RunOrFile, TasksFile

if TYPE_CHECKING:
    from gymrail.collect.replay import Step
    from gymrail.rollout import Rollout
    from gymrail.spec import EnvironmentSpec
    from gymrail.task import Task


def replay(
    run: RunOrFile,
    rollout: Annotated[
        str, typer.Option("--rollout", metavar="ID", help="Its id, or TASK:REPEAT, counted from 0.", show_default=False)
    ],
    to_step: Annotated[
        int | None,
        typer.Option("--to-step", metavar="N", min=0, help="Last step to play; 0 is the prompt, the last by default."),
    ] = None,
    environment: PlayedBy = None,
    config: Configured = None,
    tasks: TasksFile = None,
    as_json: AsJson = False,
) -> None:
    """Play a recorded rollout again, without a model, and show its messages and the environment's state.

    A step is one turn of the model and what it heard. Exit code 1 when an output is not what the record says.
    """
    import asyncio

    from gymrail.cli.output import console, print_json
    from gymrail.cli.recorded import open_recorded
    from gymrail.collect.replay import replay_steps
    from gymrail.errors import InputError

    recorded = open_recorded(run, environment, config or (), tasks)
    found = _find(recorded.rollouts(), rollout, str(run))
    if found.environment not in recorded.specs:
        raise InputError(f"Rollout {rollout!r} is of {found.environment!r}; --env names another environment.")
    spec = recorded.specs[found.environment]
    task = _task_of(spec, found)

    async def play() -> list[Step]:
        try:
            return await replay_steps(spec, replace(found, task=task), to_step)
        finally:
            await spec.teardown()

    steps = asyncio.run(play())
    if to_step is not None and to_step >= len(steps) and steps[-1].failure is None:
        raise InputError(f"--to-step is {to_step}; rollout {found.id} has {len(steps) - 1} steps.")
    if as_json:
        print_json(_document(found, steps))
    else:
        _print(console(), found, steps)
    if any(step.differences for step in steps) or steps[-1].failure is not None:
        raise typer.Exit(1)


def _find(rollouts: Iterable[Rollout], wanted: str, run: str) -> Rollout:
    from gymrail.errors import InputError, did_you_mean

    names = []
    for rollout in rollouts:
        place = f"{rollout.task_index}:{rollout.repeat}"
        if wanted in (rollout.id, place):
            return rollout
        names += [place, rollout.id]
    raise InputError(f"'{run}' has no rollout {wanted!r}. {did_you_mean(wanted, names)}")


def _task_of(spec: EnvironmentSpec, rollout: Rollout) -> Task:
    """Another program's file may leave out what only the verifier needs; what was played can be shown without."""
    from gymrail.errors import InputError

    try:
        return spec.cls.task_type.from_row(rollout.task.row, f"task of rollout {rollout.id}")
    except InputError as error:
        if rollout.group is None:  # a row of ours
            raise
        typer.echo(f"Played without all that the task has ({error}) --tasks FILE gives what is left out.", err=True)
        return spec.cls.task_type.from_part(rollout.task.row)


def _document(rollout: Rollout, steps: list[Step]) -> dict[str, Any]:
    return {
        "rollout": rollout.id,
        "environment": rollout.environment,
        "task_index": rollout.task_index,
        "repeat": rollout.repeat,
        "reward": rollout.reward,
        "steps": [asdict(step) for step in steps],
    }


def _print(out: Any, rollout: Rollout, steps: list[Step]) -> None:
    from rich.text import Text

    reward = "no reward" if rollout.reward is None else f"reward {rollout.reward:g}"
    out.print(Text(f"{rollout.environment} task {rollout.task_index} repeat {rollout.repeat} ({rollout.id}): {reward}"))
    for step in steps:
        out.print(Text(f"\nstep {step.number}", "bold"))
        for item in step.items:
            out.print(Text(f"  {_line(item)}"), soft_wrap=True)
        if not step.items:
            for made in step.calls:
                out.print(Text(f"  {made.name} {made.arguments} -> {made.output}"), soft_wrap=True)
        for difference in step.differences:
            out.print(Text(f"  differs: {difference}", "red"), soft_wrap=True)
        if step.failure is not None:
            out.print(Text(f"  failed: {step.failure.message}", "red"), soft_wrap=True)
    out.print(Text(f"\nstate after step {steps[-1].number}", "bold"))
    out.print(Text(_json(steps[-1].state)), soft_wrap=True)


def _line(item: dict[str, Any]) -> str:
    from gymrail.rollout import text_of

    kind = item.get("type")
    if kind == "function_call":
        return f"calls {item.get('name')} {item.get('arguments')}"
    if kind == "function_call_output":
        return f"hears {item.get('output')}"
    if kind == "reasoning":
        return "thinks"
    return f"{item.get('role')}: {text_of(item)}"


def _json(value: Any) -> str:
    import orjson

    return orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_NON_STR_KEYS).decode()
