"""`gymrail mcp`: one episode on stdin and stdout, for MCP clients that start their servers."""

from __future__ import annotations

import asyncio
import itertools
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from gymrail.cli.options import Configured

if TYPE_CHECKING:
    from gymrail.spec import EnvironmentSpec
    from gymrail.task import Task

Name = Annotated[
    str | None,
    typer.Argument(
        metavar="SERVER",
        help="A tool server's name; or an environment's name, folder or file. Without it the tool servers are listed.",
        show_default=False,
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
    config: Configured = None,
) -> None:
    """Speak MCP on stdin and stdout: with a tool server or an environment's task in this process, or with --url."""
    from gymrail.errors import InputError

    if server is not None and url is not None:
        raise InputError("Name a tool server or an environment, or give --url, and not both.")
    if server is None and (task is not None or split is not None or config):
        raise InputError(
            "With --url the episode has its task and settings already; leave --task, --split and --config out."
            if url is not None
            else "Tasks and settings are a server's; name one: `gymrail mcp SERVER --task N --config KEY=VALUE`."
        )
    if url is not None:
        from gymrail.serving.bridge import bridge

        bridge(url, sys.stdin, sys.stdout)
        return
    if server is None:
        _list_servers()
        return
    from gymrail.cli.serve import find_served, require_serve_extra

    require_serve_extra()
    from gymrail.serving.stdio import serve_stdio

    spec = find_served(server)
    asyncio.run(serve_stdio(*_choose(spec, task, split, seed, config or [])))


def _list_servers() -> None:
    from rich.text import Text

    from gymrail.catalogue import tool_count, tool_server_rows
    from gymrail.cli.output import console, table

    shown = table("name", "tools", "description", fixed=("name",), right=("tools",))
    for row in tool_server_rows():
        about = Text(f"cannot be loaded: {row['error']}", "red") if row["error"] else Text(row["description"])
        shown.add_row(Text(row["name"], "bold"), Text(tool_count(row)), about)
    out = console()
    out.print(shown)
    out.print("\n`gymrail mcp NAME` serves one on stdin and stdout, for MCP clients to start.", markup=False)


def _choose(
    spec: EnvironmentSpec, number: int | None, split: str | None, seed: int, config: list[str]
) -> tuple[EnvironmentSpec, Task]:
    from gymrail.catalogue import splits_of
    from gymrail.cli.configured import parse_settings
    from gymrail.errors import InputError
    from gymrail.serving.alone import empty_task
    from gymrail.serving.service import has_verifier

    if not has_verifier(spec):
        if number is not None or split is not None:
            raise InputError(f"{spec.name} is a tool server and has no tasks; leave --task and --split out.")
        return spec, empty_task(spec, parse_settings(config))
    spec = spec.with_config(parse_settings(config))
    known = splits_of(spec)
    name = split or (known[0] if known else "train")
    index = number or 0
    found = next(itertools.islice(spec.tasks(name, limit=index + 1, seed=seed), index, None), None)
    if found is None:
        raise InputError(f"The split {name!r} of {spec.name} has no task {index}; count from 0.")
    return spec, found
