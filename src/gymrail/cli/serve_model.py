"""`gymrail serve-model`: a model over HTTP, in the three APIs that agents speak."""

from __future__ import annotations

import os
from typing import Annotated

import typer

from gymrail.cli.serve import KEY_VARIABLE, Host, IsOpen, Port, require_serve_extra

ModelText = Annotated[
    str,
    typer.Option(
        "--model", "-m", metavar="MODEL", show_default=False,
        help="openai:MODEL, http://HOST:PORT/v1, script:FILE.json, or a checkpoint's folder.",
    ),
]  # fmt: skip
ModelName = Annotated[
    str | None, typer.Option("--model-name", metavar="NAME", help="The model, where --model is an address.")
]
KeyName = Annotated[
    str, typer.Option("--api-key-env", metavar="NAME", help="Environment variable that holds the endpoint's key.")
]
MaxOutputTokens = Annotated[
    int | None,
    typer.Option(
        "--max-output-tokens", metavar="N", min=1, help="The most that a client is given, whatever it asks for."
    ),
]


def serve_model(
    model: ModelText,
    model_name: ModelName = None,
    host: Host = "127.0.0.1",
    port: Port = 8001,
    is_open: IsOpen = False,
    max_output_tokens: MaxOutputTokens = None,
    api_key_env: KeyName = "OPENAI_API_KEY",
) -> None:
    """Serve a model as /v1/responses, /v1/chat/completions and /v1/messages, and record what it is asked under
    /r/NAME/v1.

    The server's key is GYMRAIL_KEY, or a random one that is printed once.
    """
    require_serve_extra()
    from gymrail.cli.output import show_warnings
    from gymrail.errors import InputError
    from gymrail.models.build import build_model
    from gymrail.serving.model import ModelSettings, create_model_app
    from gymrail.serving.run import run_server

    given = None if is_open else os.environ.get(KEY_VARIABLE) or None
    name = model_name or model.removeprefix("openai:")
    settings = ModelSettings.for_address(
        host, key=given, is_open=is_open, name=name, max_output_tokens=max_output_tokens
    )
    key = os.environ.get(api_key_env) or None
    served = build_model(model, model_name=model_name, api_key=key, api_key_name=api_key_env)
    if not hasattr(served, "respond"):
        raise InputError(
            f"Model {model!r} plays episodes that it knows, and a served model knows none; serve another one."
        )
    show_warnings()

    def announce(url: str) -> None:
        typer.echo(f"Serving {name} on {url}/v1", err=True)
        if settings.key is None:
            typer.echo("No key is needed: everybody on this machine can ask.", err=True)
        elif given is None:
            typer.echo(f"Key (shown once): {settings.key}", err=True)

    run_server(create_model_app(served, settings), host, port, announce)  # pyright: ignore[reportArgumentType]
