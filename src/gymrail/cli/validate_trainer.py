"""`gymrail validate-trainer`: the checklist of a trainer's integration, run on a recipe with a small model."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gymrail.cli.train import GROUP, find_trainer

if TYPE_CHECKING:
    from gymrail.recipe import Recipe
    from gymrail.validation.plan import Plan
    from gymrail.validation.report import Line
    from gymrail.validation.validate import CheckTrainer

COLORS = {"PASS": "green", "FAIL": "red", "SKIPPED": "yellow"}


def validate_trainer(
    recipe: Annotated[Path, typer.Argument(metavar="RECIPE", help="Recipe, a YAML file.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Recipe keys to set, as of gymrail train.", show_default=False),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            "--model", "-m", metavar="MODEL", help="tiny (made on the spot), or a checkpoint: a folder or a hub id."
        ),
    ] = "tiny",
    steps: Annotated[int, typer.Option("--steps", metavar="N", min=2, help="Optimiser steps, at least.")] = 4,
    config: Annotated[
        list[str] | None,
        typer.Option(
            "--config", metavar="NAME.KEY=VALUE", help="Setting of an environment of the recipe; may be repeated."
        ),
    ] = None,
    keep: Annotated[
        Path | None, typer.Option("--keep", metavar="DIR", help="Write what is made on the way here, and keep it.")
    ] = None,
    report: Annotated[Path | None, typer.Option("--json", metavar="FILE", help="Write the report as JSON too.")] = None,
    strict: Annotated[bool, typer.Option("--strict", help="Fail on skipped lines too.")] = False,
) -> None:
    """Check that a recipe's trainer and its environments fit together, before a long run: the integration checklist.

    Runs the recipe for a few optimiser steps with a small model. Exit code 1 when a line fails.
    """
    from gymrail.cli.output import show_warnings
    from gymrail.recipe import load_recipe
    from gymrail.validation.report import counts_of, to_json
    from gymrail.validation.validate import validate_trainer as run

    loaded = load_recipe(recipe, list(overrides or ()))
    settings = _settings(loaded, config or ())
    check = find_check(loaded.trainer)
    show_warnings()
    notes: list[str] = []
    lines: list[Line] = []
    shown = "the tiny policy" if model == "tiny" else model
    typer.echo(f"{loaded.name}: {loaded.algorithm} with trainer {loaded.trainer}, checked with {shown}.")
    with _folder(keep) as directory:
        for line in run(
            loaded, check, directory=directory, model=model, steps=steps, settings=settings, notes=notes, say=_say
        ):  # fmt: skip
            _print(line, lines[-1] if lines else None)
            lines.append(line)
    counts = counts_of(lines)
    head = {"recipe": str(recipe), "trainer": loaded.trainer, "algorithm": loaded.algorithm, "model": model}
    if report is not None:
        _write(report, to_json(lines, **head, notes=notes))
    if notes:
        typer.echo(f"\nRun here: {'; '.join(notes)}.")
    typer.echo(f"\n{counts['PASS']} passed, {counts['FAIL']} failed, {counts['SKIPPED']} skipped.")
    if counts["FAIL"] or (strict and counts["SKIPPED"]):
        raise typer.Exit(1)


def find_check(trainer: str) -> CheckTrainer:
    """Return what a trainer's package checks itself with: `check_trainer` of its module `validation`.

    A package that cannot be loaded, or that has none, is told in the report, where its lines would stand.

    Raises:
        InputError: there is no trainer of that name.
    """
    import importlib
    import importlib.metadata
    import importlib.util

    from gymrail.errors import InputError

    points = {point.name: point for point in importlib.metadata.entry_points(group=GROUP)}
    if trainer not in points:
        find_trainer(trainer)  # says which there are
    name = f"{points[trainer].module.rpartition('.')[0]}.validation"
    try:
        found = importlib.util.find_spec(name)
        if found is None:
            return _skipping(f"the trainer's package has no module {name}", "Ask its author; docs/validate_trainer.md.")
        return importlib.import_module(name).check_trainer
    except ImportError as error:
        said = str(error)
        fix = f"pip install 'gymrail[{trainer}]'"
        if "pip install" not in said:
            try:
                find_trainer(trainer)
            except InputError as refusal:
                said = str(refusal)
        return _skipping(said, fix)


def _skipping(why: str, fix: str) -> CheckTrainer:
    from gymrail.validation.report import GROUPS, Points

    def check(plan: Plan) -> Iterator[Line]:
        for group in ("endpoint", "tokens", "loop"):
            yield Points(group).skipped(GROUPS[group].lower(), why, fix)

    return check


def _settings(recipe: Recipe, pairs: Any) -> dict[str, dict[str, Any]]:
    """Return the settings of `--config` by the names of the recipe's entries."""
    from gymrail.cli.configured import parse_settings
    from gymrail.errors import InputError, did_you_mean
    from gymrail.registry import name_of

    entries = [entry.environment for entry in recipe.mixture]
    found: dict[str, dict[str, Any]] = {}
    for key, value in parse_settings(pairs).items():
        owner, dot, rest = key.partition(".")
        named = [entry for entry in entries if dot and owner in (entry, name_of(entry))]
        if not named and len(entries) == 1:
            named, rest = entries, key
        if not named:
            raise InputError(
                f"--config {key} does not say whose it is; write NAME.KEY=VALUE. {did_you_mean(owner, entries)}"
            )
        found.setdefault(named[0], {})[rest] = value
    return found


def _say(text: str) -> None:
    typer.echo(f"... {text}", err=True)


@contextlib.contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    from gymrail.errors import InputError

    if keep is None:
        with tempfile.TemporaryDirectory(prefix="gymrail-validate-", ignore_cleanup_errors=True) as name:
            yield Path(name)
        return
    if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
        raise InputError(f"--keep {str(keep)!r} is there already, and not an empty folder; name a new one.")
    keep.mkdir(parents=True, exist_ok=True)
    yield keep


def _print(line: Line, before: Line | None) -> None:
    import textwrap

    from gymrail.validation.report import GROUPS

    if before is None or before.group != line.group:
        typer.echo(f"\n{GROUPS[line.group]}")
    mark = typer.style(f"{line.status:<7}", fg=COLORS[line.status])
    width, indent = _width(), " " * 11
    text = textwrap.fill(f"{line.name}: {line.detail}", width, initial_indent=indent, subsequent_indent=indent)
    typer.echo(f"  {mark}  {text[len(indent) :]}")
    if line.fix:
        typer.echo(textwrap.fill(f"-> {line.fix}", width, initial_indent=indent, subsequent_indent=indent + "   "))


def _width() -> int:
    import shutil

    return max(60, min(shutil.get_terminal_size((120, 24)).columns, 120))


def _write(path: Path, report: dict[str, Any]) -> None:
    import orjson

    from gymrail.errors import InputError

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(orjson.dumps(report, option=orjson.OPT_INDENT_2) + b"\n")
    except OSError as error:
        raise InputError(f"--json {str(path)!r} cannot be written: {error.strerror}.") from None
