"""The command line: `gymrail COMMAND`, one file per command.

Exit codes: 0 ok; 1 failed; 2 the command line, or an input that it names, is wrong; 130 interrupted. Results go to
stdout, progress and errors to stderr. A command imports what it needs when it runs, so that `--help` is quick.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from gymrail.cli import check as check_command
from gymrail.cli import data as data_command
from gymrail.cli import export as export_command
from gymrail.cli import export_nemo_gym as export_nemo_gym_command
from gymrail.cli import list as list_command
from gymrail.cli import mcp as mcp_command
from gymrail.cli import metrics as metrics_command
from gymrail.cli import new as new_command
from gymrail.cli import play as play_command
from gymrail.cli import profile as profile_command
from gymrail.cli import replay as replay_command
from gymrail.cli import reverify as reverify_command
from gymrail.cli import rollout as rollout_command
from gymrail.cli import serve as serve_command
from gymrail.cli import serve_model as serve_model_command
from gymrail.cli import show as show_command
from gymrail.cli import tokens as tokens_command
from gymrail.cli import train as train_command
from gymrail.cli import validate_trainer as validate_trainer_command
from gymrail.cli import version as version_command
from gymrail.errors import GymrailError, InputError

OK, FAILED, USAGE, INTERRUPTED = 0, 1, 2, 130


class _Commands(TyperGroup):
    """Prints an expected failure as one message and gives every ending its exit code."""

    def list_commands(self, ctx: Any) -> list[str]:
        # Otherwise groups come last; this is the order in which a person needs them.
        return [
            "list",
            "show",
            "new",
            "check",
            "play",
            "rollout",
            "metrics",
            "profile",
            "replay",
            "reverify",
            "data",
            "export",
            "train",
            "validate-trainer",
            "tokens",
            "serve",
            "serve-model",
            "mcp",
            "version",
        ]

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except GymrailError as error:
            typer.echo(f"Error: {error}", err=True)
            raise typer.Exit(USAGE if isinstance(error, InputError) else FAILED) from None
        except KeyboardInterrupt:
            typer.echo("Interrupted.", err=True)
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    name="gymrail",
    cls=_Commands,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Print Gymrail's version and exit.", is_eager=True, callback=version_command.print_short
        ),
    ] = False,
) -> None:
    """Write an RL environment once, play it with any model, train on it."""


app.command("list", short_help="List the installed environments.")(list_command.list_environments)
app.command("show", short_help="Show one environment, with an example task.")(show_command.show)
app.add_typer(new_command.app, name="new")
app.command("check", short_help="Check that an environment is sound, without a model.")(check_command.check)
app.command("play", short_help="Play one task yourself.")(play_command.play)
app.command("rollout", short_help="Play environments with a model.")(rollout_command.rollout)
app.command("metrics", short_help="Print a run in numbers.")(metrics_command.metrics)
app.command("profile", short_help="Write the tasks of a run with their pass rates.")(profile_command.profile)
app.command("replay", short_help="Show a rollout and its environment's state, step by step.")(replay_command.replay)
app.command("reverify", short_help="Judge a run again with today's verifier.")(reverify_command.reverify)
app.add_typer(data_command.app, name="data")
export_command.app.command("nemo-gym", short_help="Write the files of a NeMo Gym collection.")(
    export_nemo_gym_command.nemo_gym
)
app.add_typer(export_command.app, name="export")
app.command("train", short_help="Train by a recipe.")(train_command.train)
app.command("validate-trainer", short_help="Check a recipe's trainer against the integration checklist.")(
    validate_trainer_command.validate_trainer
)
app.add_typer(tokens_command.app, name="tokens")
app.command("serve", short_help="Serve environments over HTTP and MCP.")(serve_command.serve)
app.command("serve-model", short_help="Serve a model to agents.")(serve_model_command.serve_model)
app.command("mcp", short_help="Speak MCP on stdin and stdout.")(mcp_command.mcp)
app.command("version", short_help="Print what is installed, for bug reports.")(version_command.version)


def main() -> None:
    """Run the command line that this process was started with."""
    app(prog_name="gymrail")
