"""Arguments and options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ENVIRONMENT = "ENVIRONMENT"

EnvironmentName = Annotated[
    str,
    typer.Argument(
        metavar=ENVIRONMENT, help="Name, folder, FILE.py[:CLASS], address or BRIDGE:REST.", show_default=False
    ),
]
RunPath = Annotated[Path, typer.Argument(metavar="RUN", help="Run directory.", show_default=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document.")]
RunOrFile = Annotated[
    Path, typer.Argument(metavar="RUN", help="Run directory, or a JSONL file of rollouts.", show_default=False)
]
PlayedBy = Annotated[
    str | None,
    typer.Option("--env", metavar=ENVIRONMENT, help="Environment to use instead of the run's; a file's environment."),
]
TasksFile = Annotated[
    Path | None,
    typer.Option(
        "--tasks", metavar="FILE",
        help="JSONL file of the tasks that were played, where the rollouts leave out their fields.",
    ),
]  # fmt: skip
Configured = Annotated[
    list[str] | None,
    typer.Option("--config", metavar="KEY=VALUE", help="Setting of the environment; may be repeated."),
]
