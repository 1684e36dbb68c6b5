"""`gymrail serve`: environments over HTTP and MCP."""

from __future__ import annotations

import importlib.util
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from gymrail.cli.options import Configured
from gymrail.cli.serve_agent import (
    AgentModel,
    AgentName,
    ForTraining,
    KeyVariable,
    MaxSteps,
    ModelName,
    serve_agent,
)

if TYPE_CHECKING:
    from gymrail.spec import EnvironmentSpec

KEY_VARIABLE = "GYMRAIL_KEY"
_PACKAGES = ("fastapi", "mcp_types", "prometheus_client", "uvicorn")
"""Of the extra; `mcp_types` comes with mcp 2 alone."""

Served = Annotated[
    list[str],
    typer.Argument(
        metavar="ENVIRONMENT", help="Names, folders or FILE.py[:CLASS]; or a tool server's name.", show_default=False
    ),
]
Host = Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")]
Port = Annotated[int, typer.Option("--port", "-p", metavar="N", min=0, max=65535, help="Port; 0 takes a free one.")]
IsOpen = Annotated[
    bool, typer.Option("--open", help="No key: for NeMo Gym's clients on this machine. Loopback addresses only.")
]
MaxEpisodes = Annotated[
    int, typer.Option("--max-episodes", metavar="N", min=1, help="Open episodes; one more gets the status 429.")
]
IdleSeconds = Annotated[
    float, typer.Option("--idle-seconds", metavar="S", min=0.1, help="An episode idle for so long is closed.")
]
EpisodeSeconds = Annotated[
    float, typer.Option("--episode-seconds", metavar="S", min=0.1, help="Longest time from seeding to the verdict.")
]
Origins = Annotated[
    list[str] | None,
    typer.Option("--allow-origin", metavar="ORIGIN", help="A browser's origin that may send requests; repeatable."),
]
PublicUrl = Annotated[
    str | None,
    typer.Option("--public-url", metavar="URL", help="Address in the URLs that seeding answers, behind a proxy."),
]


def serve(
    environments: Served,
    config: Configured = None,
    host: Host = "127.0.0.1",
    port: Port = 8000,
    is_open: IsOpen = False,
    max_episodes: MaxEpisodes = 10_000,
    idle_seconds: IdleSeconds = 900.0,
    episode_seconds: EpisodeSeconds = 3600.0,
    allow_origin: Origins = None,
    public_url: PublicUrl = None,
    agent: AgentName = None,
    model: AgentModel = None,
    model_name: ModelName = None,
    api_key_env: KeyVariable = "OPENAI_API_KEY",
    max_steps: MaxSteps = None,
    for_training: ForTraining = False,
) -> None:
    """Serve environments and tool servers over HTTP and MCP, until interrupted.

    The server's key is GYMRAIL_KEY, or a random one that is printed once.
    """
    require_serve_extra()
    from gymrail.cli.configured import configured
    from gymrail.cli.output import show_warnings
    from gymrail.episode import DEFAULT_LIMITS
    from gymrail.errors import InputError
    from gymrail.serving.http import create_app
    from gymrail.serving.run import run_server
    from gymrail.serving.settings import Settings

    given = None if is_open else os.environ.get(KEY_VARIABLE) or None
    settings = Settings.for_address(
        host,
        key=given,
        is_open=is_open,
        limits=replace(DEFAULT_LIMITS, idle_seconds=idle_seconds, episode_seconds=episode_seconds),
        max_episodes=max_episodes,
        allowed_origins=tuple(allow_origin or ()),
        public_url=public_url,
    )
    specs = configured([find_served(name) for name in dict.fromkeys(environments)], config)
    show_warnings()

    def announce(url: str) -> None:
        typer.echo(f"Serving {', '.join(spec.name for spec in specs)} on {url}", err=True)
        if settings.key is None:
            typer.echo("No key is needed: everybody on this machine can seed and verify.", err=True)
        elif given is None:
            typer.echo(f"Key (shown once): {settings.key}", err=True)

    if agent is not None:
        serve_agent(
            specs, settings, agent=agent, model=model, model_name=model_name, api_key_env=api_key_env,
            max_steps=max_steps, for_training=for_training, host=host, port=port, announce=announce,
        )  # fmt: skip
        return
    if model is not None or for_training:
        raise InputError(
            "A model is asked by an agent: --agent tool_loop; without one, the environments alone are served."
        )
    run_server(create_app(specs, settings), host, port, announce)


def find_served(name: str) -> EnvironmentSpec:
    """Load an environment, or a tool server to be served alone.

    Raises:
        InputError: there is neither.
    """
    from gymrail.errors import InputError
    from gymrail.registry import find, find_tool_server
    from gymrail.serving.alone import alone

    try:
        return find(name)
    except InputError as error:
        try:
            server = find_tool_server(name)
        except InputError:
            raise error from None
        return alone(name, server)


def require_serve_extra() -> None:
    """Say which extra is missing before something fails to import."""
    from gymrail.errors import InputError

    missing = [name for name in _PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"This needs packages that are not installed ({', '.join(missing)}): pip install 'gymrail[serve]'"
        )
