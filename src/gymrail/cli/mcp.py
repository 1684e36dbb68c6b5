"""`gymrail mcp`: one episode on stdin and stdout, for MCP clients that start their servers."""

from __future__ import annotations

import asyncio
import itertools
import sys
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from gymrail.spec import EnvironmentSpec
    from gymrail.task import Task

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="SERVER", help="A tool server's name; or an environment's name, folder or file.", show_default=False
    ),
]
Url = Annotated[
    str | None,
    typer.Option("--url", metavar="URL", help="Pass everything on to this episode's URL, and hold nothing else."),
]
TaskNumber = Annotated[
    int | None, typer.Option("--task", metavar="N", min=0, help="The environment's task, counted from 0; 0 by default.")
]
SplitName = Annotated[
    str | None, typer.Option("--split", metavar="SPLIT", help="The task's split; train, or the first there is.")
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Seed of generated tasks.")]


def mcp(
    server: Name = None,
    url: Url = None,
    task: TaskNumber = None,
    split: SplitName = None,
    seed: Seed = 0,
) -> None:
    """Speak MCP on stdin and stdout: with a tool server or an environment's task in this process, or with --url."""
    from gymrail.errors import InputError

    if (server is None) == (url is None):
        raise InputError("Name a tool server or an environment, or give --url, and not both.")
    if url is not None:
        if task is not None or split is not None:
            raise InputError("With --url the episode has its task already; leave --task and --split out.")
        from gymrail.serving.bridge import bridge

        bridge(url, sys.stdin, sys.stdout)
        return
    assert server is not None
    from gymrail.cli.serve import find_served, require_serve_extra

    require_serve_extra()
    from gymrail.serving.stdio import serve_stdio

    spec = find_served(server)
    asyncio.run(serve_stdio(spec, _choose(spec, task, split, seed)))


def _choose(spec: EnvironmentSpec, number: int | None, split: str | None, seed: int) -> Task:
    from gymrail.cli.list import splits_of
    from gymrail.errors import InputError
    from gymrail.serving.alone import empty_task
    from gymrail.serving.service import has_verifier

    if not has_verifier(spec):
        if number is not None or split is not None:
            raise InputError(f"{spec.name} is a tool server and has no tasks; leave --task and --split out.")
        return empty_task()
    known = splits_of(spec)
    name = split or (known[0] if known else "train")
    index = number or 0
    found = next(itertools.islice(spec.tasks(name, limit=index + 1, seed=seed), index, None), None)
    if found is None:
        raise InputError(f"The split {name!r} of {spec.name} has no task {index}; count from 0.")
    return found
