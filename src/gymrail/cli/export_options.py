"""Options that several kinds of `gymrail export` take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Runs = Annotated[
    list[Path],
    typer.Argument(metavar="RUN", help="Run directories, or JSONL files of rollouts.", show_default=False),
]
Output = Annotated[
    Path,
    typer.Option(
        "--output", "-o", metavar="DIR", help="Directory to write, or a .jsonl or .parquet file for the rows alone."
    ),
]
Format = Annotated[
    str | None,
    typer.Option(
        "--format", metavar="FORMAT", help="jsonl, parquet or dataset; what the destination reads by default."
    ),
]
For = Annotated[
    str, typer.Option("--for", metavar="PROGRAM", help="Who reads the rows: trl, unsloth, sharegpt, nemo-rl or verl.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an export, or a file, that is there.")]
Processes = Annotated[
    int | None,
    typer.Option(
        "--processes", metavar="N", help="Processes that work at once; one per core by default for large runs.", min=1
    ),
]
DropReasoning = Annotated[bool, typer.Option("--drop-reasoning", help="Leave the model's reasoning out.")]
Env = Annotated[list[str] | None, typer.Option("--env", metavar="NAME", help="Only this environment; may be repeated.")]
OutcomeOption = Annotated[
    list[str] | None, typer.Option("--outcome", metavar="OUTCOME", help="Only scored, or only truncated rollouts.")
]
MinReward = Annotated[
    float | None, typer.Option("--min-reward", metavar="REWARD", help="Lowest reward to keep; all by default.")
]
MaxReward = Annotated[
    float | None, typer.Option("--max-reward", metavar="REWARD", help="Highest reward to keep; all by default.")
]
NoToolErrors = Annotated[
    bool, typer.Option("--no-tool-errors", help="Leave out rollouts in which a tool call could not be done.")
]
MinSteps = Annotated[int | None, typer.Option("--min-steps", metavar="N", help="Fewest model calls to keep.")]
MaxSteps = Annotated[int | None, typer.Option("--max-steps", metavar="N", help="Most model calls to keep.")]
MaxMessages = Annotated[
    int | None, typer.Option("--max-messages", metavar="N", help="Most messages to keep, the prompt's included.")
]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", metavar="N", help="Most tokens to keep; needs rollouts with token ids.")
]
Against = Annotated[
    list[Path] | None,
    typer.Option("--against", metavar="FILE", help="Leave out tasks that share text with this benchmark; repeatable."),
]
Validation = Annotated[
    float | None,
    typer.Option("--validation", metavar="SHARE", help="Write this share of the tasks as a split of its own."),
]
Dedup = Annotated[str | None, typer.Option("--dedup", metavar="HOW", help="Leave out duplicates: exact or near ones.")]
NearThreshold = Annotated[
    float, typer.Option("--near-threshold", metavar="LIKENESS", help="How alike near duplicates are, from 0 to 1.")
]
BestOf = Annotated[int | None, typer.Option("--best-of", metavar="N", help="The best N rollouts of each task.")]
TopShare = Annotated[
    float | None,
    typer.Option("--top-share", metavar="SHARE", help="The best share of each task's rollouts, from 0 to 1."),
]
MaxPerTask = Annotated[
    int | None, typer.Option("--max-per-task", metavar="N", help="At most N rollouts of each task, drawn by chance.")
]
Balance = Annotated[
    str | None, typer.Option("--balance", metavar="BY", help="As many of each environment, or of each task.")
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="For what is drawn by chance.")]
Threshold = Annotated[float, typer.Option("--threshold", metavar="REWARD", help="Lowest reward that counts as good.")]
