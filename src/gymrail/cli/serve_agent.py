"""`gymrail serve --agent`: environments behind NeMo Gym's agent protocol, played in this process."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gymrail.cli.agents import AgentChoice

if TYPE_CHECKING:
    from gymrail.serving.settings import Settings
    from gymrail.spec import EnvironmentSpec

_MAX_BODY_BYTES = 256 * 1024 * 1024
"""Verify responses come back with every token id to have their metrics made."""

AgentName = Annotated[
    str | None,
    typer.Option(
        "--agent", metavar="AGENT", help="Serve /run instead: tool_loop, or a ready-made program, plays the rows."
    ),
]
AgentModel = Annotated[
    str | None,
    typer.Option(
        "--model",
        "--model-url",
        "-m",
        metavar="MODEL",
        help="With --agent, the model; as of rollout, or an endpoint's address.",
    ),
]
ModelName = Annotated[
    str | None, typer.Option("--model-name", metavar="NAME", help="The model, where --model is an address.")
]
KeyVariable = Annotated[
    str, typer.Option("--api-key-env", metavar="NAME", help="Environment variable that holds the endpoint's key.")
]
MaxSteps = Annotated[
    int | None,
    typer.Option("--max-steps", metavar="N", min=1, help="Model calls per episode; the environment's own by default."),
]
ForTraining = Annotated[
    bool,
    typer.Option(
        "--for-training",
        help="With --agent, for NeMo RL: ask the model over Responses for token ids and send them back to it, and "
        "answer failures as masked rows instead of errors.",
    ),
]


def serve_agent(
    specs: Sequence[EnvironmentSpec],
    settings: Settings,
    *,
    agent: str,
    model: str | None,
    model_name: str | None,
    api_key_env: str,
    max_steps: int | None,
    for_training: bool,
    host: str,
    port: int,
    announce: Callable[[str], None],
) -> None:
    """Serve `/run` for environments until interrupted.

    Raises:
        InputError: there is no model, or the model or the agent is not there.
    """
    from gymrail.errors import InputError
    from gymrail.models.trained import trained_model
    from gymrail.serving.agent import create_agent_app
    from gymrail.serving.run import run_server

    if model is None:
        raise InputError("--agent needs the model that it asks: --model MODEL, or --model-url http://HOST:PORT/v1.")
    choice = AgentChoice(agent)
    key = os.environ.get(api_key_env) or None
    if for_training:
        player: Any = trained_model(model, model_name, key)
    else:
        player = choice.model(model, model_name=model_name, api_key=key, api_key_name=api_key_env)
    settings = replace(settings, max_body_bytes=max(settings.max_body_bytes, _MAX_BODY_BYTES))
    app = create_agent_app(specs, player, choice.build(max_steps, ()), settings, for_training=for_training)
    run_server(app, host, port, announce)
