"""`gymrail data`: tasks in. Prepare, split, validate, render, download and push them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gymrail.cli import data_hub
from gymrail.cli.options import AsJson

if TYPE_CHECKING:
    from gymrail.data.contamination import BenchmarkIndex
    from gymrail.data.prompts import Prompt
    from gymrail.data.rows import Problem
    from gymrail.data.validate import Validation

app = typer.Typer(help="Bring tasks in: fetch, check, split and prepare them.", no_args_is_help=True)

Files = Annotated[list[Path], typer.Argument(metavar="FILE", help="JSONL files, .gz too.", show_default=False)]
OutputFolder = Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="New directory to write.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what this command wrote there before.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Leave bad rows out, and write them to a file.")]
MaxErrors = Annotated[int, typer.Option("--max-errors", metavar="N", min=1, help="Problems to list; all are counted.")]
PromptFile = Annotated[
    Path | None, typer.Option("--prompt", metavar="FILE", help="Prompt config (YAML) for rows without a prompt.")
]
Against = Annotated[
    list[Path] | None,
    typer.Option("--against", metavar="FILE", help="Benchmark to look for in the rows; may be repeated."),
]
Ngram = Annotated[int, typer.Option("--ngram", metavar="N", help="Words that make an overlap with a benchmark.")]
Field = Annotated[
    list[str] | None,
    typer.Option("--field", metavar="FIELD", help="Compare this field with the benchmark; may be repeated."),
]


@app.command("prepare", short_help="Merge, check and measure tasks, split by split.")
def prepare(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="SOURCE",
            help="ENVIRONMENT, ENVIRONMENT=FILE.jsonl, or a plan in YAML.",
            show_default=False,
        ),
    ],
    output: OutputFolder,
    split: Annotated[
        list[str] | None,
        typer.Option("--split", metavar="SPLIT", help="Splits of the environments, or the one of the files."),
    ] = None,
    prompt: PromptFile = None,
    repeats: Annotated[int, typer.Option("--repeats", metavar="N", min=1, help="Write each row so often.")] = 1,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="First rows of each source to use.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Seed of generated tasks.")] = 0,
    agent: Annotated[
        str, typer.Option("--agent-ref", metavar="NAME", help="Agent that the rows name; {environment} is filled in.")
    ] = "{environment}",
    tools: Annotated[bool, typer.Option("--tools", help="Write the tools' schemas into rows without tools.")] = False,
    skip_bad: SkipBad = False,
    max_errors: MaxErrors = 20,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Merge the datasets of environments and other files into one file of tasks per split, with metrics."""
    from gymrail.data.plan import Defaults, sources_of
    from gymrail.data.prepare import prepare as run

    defaults = Defaults(tuple(split or ()), _read_prompt(prompt), repeats, limit, seed)
    with data_hub.packages():
        made = run(
            sources_of(sources, defaults),
            output,
            agent_name=agent,
            with_tools=tools,
            skip_bad=skip_bad,
            max_errors=max_errors,
            overwrite=overwrite,
        )
    _warn(made.warnings)
    if as_json:
        _print({"output": str(output), **made.to_json()})
        return
    for name, entry in made.splits.items():
        typer.echo(f"{name}: {entry['rows']} rows in {output / entry['file']}")
    _say_skipped(made.bad_rows, output / "bad_rows.jsonl")


@app.command("split", short_help="Split rows so that no task is in two splits.")
def split_rows(
    files: Files,
    output: OutputFolder,
    shares: Annotated[
        str, typer.Option("--shares", metavar="SHARES", help="Splits and their shares, which add up to 1.")
    ] = "train=0.9,validation=0.1",
    by: Annotated[
        str | None, typer.Option("--by", metavar="FIELD", help="Keep rows with one value of this field together.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", metavar="N", help="Another seed splits otherwise.")] = 0,
    against: Against = None,
    ngram: Ngram = 13,
    field: Field = None,
    drop: Annotated[
        bool, typer.Option("--drop-contaminated", help="Leave out training rows that overlap a benchmark.")
    ] = False,
    skip_bad: SkipBad = False,
    max_errors: MaxErrors = 20,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Split rows by a hash of what they ask; rows that are added later move none. Lines are copied as they stand."""
    from gymrail.data.splits import split_files
    from gymrail.errors import InputError

    if drop and not against:
        raise InputError("--drop-contaminated needs a benchmark to compare with: --against FILE.")
    made = split_files(
        files,
        output,
        _shares(shares),
        by=by,
        seed=seed,
        benchmarks=_index(against, ngram, field),
        drop_contaminated=drop,
        skip_bad=skip_bad,
        max_errors=max_errors,
        overwrite=overwrite,
    )
    if as_json:
        _print({"output": str(output), **made.to_json()})
        return
    for name, rows in made.splits.items():
        typer.echo(f"{name}: {rows} rows in {output / f'{name}.jsonl'}")
    if made.left_out:
        typer.echo(
            f"{made.left_out} rows left out, whose task another group has in another split: {output / 'left_out.jsonl'}"
        )
    if made.contaminated:
        done = "dropped" if made.dropped else "kept; --drop-contaminated leaves them out"
        typer.echo(f"{made.contaminated} rows overlap a benchmark ({done}): {output / 'contaminated.jsonl'}")
    elif against:
        typer.echo("No row overlaps a benchmark.")
    _say_skipped(made.bad_rows, output / "bad_rows.jsonl")


@app.command("validate", short_help="List bad rows, duplicates and overlaps of files.")
def validate(
    files: Files,
    environment: Annotated[str, typer.Option("--env", metavar="ENVIRONMENT", help="Environment that plays the rows.")],
    prompt: PromptFile = None,
    against: Against = None,
    ngram: Ngram = 13,
    field: Field = None,
    max_errors: MaxErrors = 20,
    as_json: AsJson = False,
) -> None:
    """Hold files of tasks against an environment's task type, and look for rows that stand twice.

    Exit code 1 when anything is found.
    """
    from gymrail.data.validate import validate as run
    from gymrail.registry import find

    found = run(
        files,
        find(environment),
        prompt=_read_prompt(prompt),
        benchmarks=_index(against, ngram, field),
        max_errors=max_errors,
    )
    if as_json:
        _print(found.to_json())
    else:
        _show(found)
    if not found.passed:
        raise typer.Exit(1)


@app.command("render", short_help="Make prompts from a prompt config and rows.")
def render(
    files: Files,
    prompt: Annotated[Path, typer.Option("--prompt", metavar="FILE", help="Prompt config (YAML).")],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="JSONL file to write.")],
    environment: Annotated[
        str | None, typer.Option("--env", metavar="ENVIRONMENT", help="Hold the rows against its task type too.")
    ] = None,
    skip_bad: SkipBad = False,
    max_errors: MaxErrors = 20,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write rows with the prompt that a prompt config makes of their fields."""
    from dataclasses import asdict

    from gymrail.data.prompts import Prompt
    from gymrail.data.render import render as run
    from gymrail.registry import find

    made = run(
        files,
        Prompt.read(prompt),
        output,
        spec=find(environment) if environment else None,
        skip_bad=skip_bad,
        max_errors=max_errors,
        overwrite=overwrite,
    )
    _warn(made.warnings)
    if as_json:
        _print({"output": str(output), **asdict(made)})
        return
    hidden = f"; not shown: {', '.join(made.does_not_show)}" if made.does_not_show else ""
    typer.echo(f"Wrote {made.rows} rows to {output}; the prompt shows {', '.join(made.shows) or 'no field'}{hidden}")
    _say_skipped(made.bad_rows, output.with_name(f"{output.name.removesuffix('.jsonl')}.bad.jsonl"))


app.command("download", short_help="Fetch a dataset of the hub, or a file.")(data_hub.download)
app.command("push", short_help="Upload a folder of data to the hub.")(data_hub.push)


def _read_prompt(path: Path | None) -> Prompt | None:
    from gymrail.data.prompts import Prompt

    return None if path is None else Prompt.read(path)


def _index(files: list[Path] | None, ngram: int, fields: list[str] | None) -> BenchmarkIndex | None:
    from gymrail.data.contamination import BenchmarkIndex

    return BenchmarkIndex.read(files, ngram=ngram, fields=tuple(fields or ())) if files else None


def _shares(text: str) -> dict[str, float]:
    from gymrail.errors import InputError

    shares: dict[str, float] = {}
    for part in text.split(","):
        name, _, share = part.strip().partition("=")
        try:
            shares[name] = float(share)
        except ValueError:
            raise InputError(f"--shares has {part!r}; write SPLIT=SHARE, such as train=0.9,validation=0.1.") from None
    return shares


def _show(found: Validation) -> None:
    total = sum(found.rows.values())
    listed: list[tuple[str, int, list[Problem]]] = [
        ("bad rows", found.bad_rows, found.problems),
        ("rows stand twice in a file", found.duplicates, found.repeated),
        ("rows stand in another file too", found.overlaps, found.shared),
        ("rows overlap a benchmark", found.contaminated, found.benchmarked),
    ]
    for what, count, problems in listed:
        if count:
            typer.echo(f"{count} {what}:")
            for problem in problems:
                typer.echo(f"  {problem}")
    typer.echo(f"{total} rows in {len(found.rows)} files: {'all good' if found.passed else 'see above'}")


def _warn(warnings: list[str]) -> None:
    for warning in warnings:
        typer.echo(f"Warning: {warning}", err=True)


def _say_skipped(count: int, path: Path) -> None:
    if count:
        typer.echo(f"{count} bad rows left out: {path}")


def _print(value: Any) -> None:
    from gymrail.cli.output import print_json

    print_json(value)
