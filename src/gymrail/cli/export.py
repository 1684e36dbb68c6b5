"""`gymrail export`: training rows from the rollouts of runs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gymrail.cli.export_options import (
    Against,
    Balance,
    BestOf,
    Dedup,
    DropReasoning,
    Env,
    For,
    Format,
    MaxMessages,
    MaxPerTask,
    MaxReward,
    MaxSteps,
    MaxTokens,
    MinReward,
    MinSteps,
    NearThreshold,
    NoToolErrors,
    OutcomeOption,
    Output,
    Overwrite,
    Processes,
    Runs,
    Seed,
    Threshold,
    TopShare,
    Validation,
)
from gymrail.cli.options import AsJson

if TYPE_CHECKING:
    from gymrail.data.export.context import Kind

app = typer.Typer(help="Write training rows from the rollouts of runs.", no_args_is_help=True)

_PARALLEL_BYTES = 64_000_000
"""Below it, starting more processes costs more than it saves."""


@app.command("sft", short_help="Write conversations, for supervised training.")
def sft(
    runs: Runs,
    output: Output,
    per: Annotated[
        str,
        typer.Option(
            "--per", metavar="WHAT", help="One row per rollout, or per step: each answer after all before it."
        ),
    ] = "rollout",
    tokens: Annotated[bool, typer.Option("--tokens", help="Write token ids and labels exactly as sampled.")] = False,
    drop_reasoning: DropReasoning = False,
    env: Env = None,
    outcome: OutcomeOption = None,
    min_reward: MinReward = None,
    max_reward: MaxReward = None,
    no_tool_errors: NoToolErrors = False,
    min_steps: MinSteps = None,
    max_steps: MaxSteps = None,
    max_messages: MaxMessages = None,
    max_tokens: MaxTokens = None,
    dedup: Dedup = None,
    near_threshold: NearThreshold = 0.8,
    best_of: BestOf = None,
    top_share: TopShare = None,
    max_per_task: MaxPerTask = None,
    balance: Balance = None,
    seed: Seed = 0,
    against: Against = None,
    validation: Validation = None,
    destination: For = "trl",
    format: Format = None,
    overwrite: Overwrite = False,
    processes: Processes = None,
    as_json: AsJson = False,
) -> None:
    """Write conversations with tools, one row per rollout or per step, for supervised training."""
    from gymrail.data.export import Sft

    _export(Sft(per=per, tokens=tokens), locals())  # pyright: ignore[reportArgumentType]


@app.command("dpo", short_help="Write pairs of a better and a worse rollout.")
def dpo(
    runs: Runs,
    output: Output,
    rule: Annotated[
        str,
        typer.Option(
            "--rule", metavar="RULE", help="Which rollouts of a task make pairs: best-worst, all, threshold or step."
        ),
    ] = "best-worst",
    margin: Annotated[
        float,
        typer.Option("--margin", metavar="REWARD", help="How much more the chosen rollout earns, at least.", min=0),
    ] = 0.0,
    threshold: Threshold = 0.5,
    ties: Annotated[
        str,
        typer.Option("--ties", metavar="HOW", help="Where all earned the same: drop the task, or prefer the shorter."),
    ] = "drop",
    max_length_ratio: Annotated[
        float | None, typer.Option("--max-length-ratio", metavar="RATIO", help="How many times longer one side may be.")
    ] = None,
    max_pairs: Annotated[
        int | None, typer.Option("--max-pairs", metavar="N", help="At most N pairs of each task.")
    ] = None,
    completion: Annotated[
        str,
        typer.Option(
            "--completion", metavar="WHAT", help="turn: the answers in which the two part. rest: all from there."
        ),
    ] = "turn",
    with_margin: Annotated[bool, typer.Option("--with-margin", help="Add the column margin.")] = False,
    keep_malformed_calls: Annotated[
        bool,
        typer.Option("--keep-malformed-calls", help="Keep rollouts with tool calls whose arguments are not JSON."),
    ] = False,
    drop_reasoning: DropReasoning = False,
    env: Env = None,
    outcome: OutcomeOption = None,
    min_reward: MinReward = None,
    max_reward: MaxReward = None,
    no_tool_errors: NoToolErrors = False,
    min_steps: MinSteps = None,
    max_steps: MaxSteps = None,
    max_messages: MaxMessages = None,
    max_tokens: MaxTokens = None,
    dedup: Dedup = None,
    near_threshold: NearThreshold = 0.8,
    against: Against = None,
    validation: Validation = None,
    destination: For = "trl",
    format: Format = None,
    overwrite: Overwrite = False,
    processes: Processes = None,
    as_json: AsJson = False,
) -> None:
    """Write preference pairs: a better and a worse rollout of one task. Needs runs with --repeats 2 or more."""
    from gymrail.data.export import Dpo

    names = ("rule", "margin", "threshold", "ties", "max_length_ratio", "max_pairs", "completion", "with_margin")
    given = locals()
    malformed = "keep" if keep_malformed_calls else "drop"
    _export(Dpo(malformed_calls=malformed, **{name: given[name] for name in names}), given)


@app.command("kto", short_help="Write single answers with a label.")
def kto(
    runs: Runs,
    output: Output,
    threshold: Threshold = 0.5,
    completion: Annotated[
        str,
        typer.Option("--completion", metavar="WHAT", help="turn: the last answer. rest: all after the task's prompt."),
    ] = "turn",
    drop_reasoning: DropReasoning = False,
    env: Env = None,
    outcome: OutcomeOption = None,
    min_reward: MinReward = None,
    max_reward: MaxReward = None,
    no_tool_errors: NoToolErrors = False,
    min_steps: MinSteps = None,
    max_steps: MaxSteps = None,
    max_messages: MaxMessages = None,
    max_tokens: MaxTokens = None,
    dedup: Dedup = None,
    near_threshold: NearThreshold = 0.8,
    best_of: BestOf = None,
    top_share: TopShare = None,
    max_per_task: MaxPerTask = None,
    balance: Balance = None,
    seed: Seed = 0,
    against: Against = None,
    validation: Validation = None,
    destination: For = "trl",
    format: Format = None,
    overwrite: Overwrite = False,
    processes: Processes = None,
    as_json: AsJson = False,
) -> None:
    """Write answers labelled good or bad, and the weights with which both sides count for the same."""
    from gymrail.data.export import Kto

    _export(Kto(threshold=threshold, completion=completion), locals())  # pyright: ignore[reportArgumentType]


@app.command("prm", short_help="Write steps with labels.")
def prm(
    runs: Runs,
    output: Output,
    labels: Annotated[
        str,
        typer.Option(
            "--labels",
            metavar="FROM",
            help="siblings: whether a rollout that is equal so far succeeded. rewards: step rewards.",
        ),
    ] = "siblings",
    threshold: Threshold = 0.5,
    min_siblings: Annotated[
        int, typer.Option("--min-siblings", metavar="N", help="Rollouts that must share a step for its label to count.")
    ] = 1,
    drop_reasoning: DropReasoning = False,
    env: Env = None,
    outcome: OutcomeOption = None,
    min_steps: MinSteps = None,
    max_steps: MaxSteps = None,
    against: Against = None,
    validation: Validation = None,
    destination: For = "trl",
    format: Format = None,
    overwrite: Overwrite = False,
    processes: Processes = None,
    as_json: AsJson = False,
) -> None:
    """Write each rollout's steps with labels, for a process reward model."""
    from gymrail.data.export import Prm

    kind = Prm(labels=labels, threshold=threshold, min_siblings=min_siblings)  # pyright: ignore[reportArgumentType]
    _export(kind, locals())


@app.command("rft", short_help="Write the tasks that are neither always solved nor never.")
def rft(
    runs: Runs,
    output: Output,
    threshold: Threshold = 1.0,
    min_pass_rate: Annotated[
        float, typer.Option("--min-pass-rate", metavar="RATE", help="Tasks pass more often than this.")
    ] = 0.0,
    max_pass_rate: Annotated[
        float, typer.Option("--max-pass-rate", metavar="RATE", help="Tasks pass less often than this.")
    ] = 1.0,
    min_rollouts: Annotated[int, typer.Option("--min-rollouts", metavar="N", help="Rollouts that a task needs.")] = 2,
    env: Env = None,
    against: Against = None,
    validation: Validation = None,
    destination: For = "trl",
    format: Format = None,
    overwrite: Overwrite = False,
    processes: Processes = None,
    as_json: AsJson = False,
) -> None:
    """Write task rows again, with their pass rates, for reinforcement training."""
    from gymrail.data.export import Rft

    kind = Rft(threshold=threshold, min_pass_rate=min_pass_rate, max_pass_rate=max_pass_rate, min_rollouts=min_rollouts)
    _export(kind, locals())


def _export(kind: Kind, given: dict[str, Any]) -> None:
    from dataclasses import fields

    from gymrail.cli.output import print_json
    from gymrail.data.export import Selection, export

    chosen = {option.name: given[option.name] for option in fields(Selection) if option.name in given}
    chosen["environments"] = tuple(given["env"] or ())
    chosen["benchmarks"] = tuple(map(str, given["against"] or ()))
    if given.get("outcome"):
        chosen["outcomes"] = tuple(given["outcome"])
    summary = export(
        given["runs"],
        given["output"],
        kind,
        selection=Selection(**chosen),
        destination=given["destination"],
        format=given["format"],
        keep_reasoning=not given.get("drop_reasoning", False),
        overwrite=given["overwrite"],
        processes=given["processes"] or _processes_for(given["runs"]),
        validation=given["validation"],
    )
    if given["as_json"]:
        print_json(summary)
        return
    typer.echo(f"Wrote {summary['rows']} rows to {summary['output']}")
    if len(summary["splits"]) > 1:
        typer.echo("  " + ", ".join(f"{split}: {rows}" for split, rows in summary["splits"].items()))
    for what, count in summary["removed"].items():
        typer.echo(f"  left out, {what}: {count}")
    if "weights" in summary:
        typer.echo("  weights: " + ", ".join(f"{name}={value:.4g}" for name, value in summary["weights"].items()))


def _processes_for(runs: list[Path]) -> int:
    import os

    files = [file for run in runs for file in ([run] if run.is_file() else run.glob("rollouts.jsonl*"))]
    return min(8, os.cpu_count() or 1) if sum(file.stat().st_size for file in files) > _PARALLEL_BYTES else 1
