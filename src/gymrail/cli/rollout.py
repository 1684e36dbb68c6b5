"""`gymrail rollout`: play environments with a model and keep every rollout."""

from __future__ import annotations

import contextlib
import shlex
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from gymrail.cli.agents import (
    DEFAULT_CONCURRENCY,
    TOOL_LOOP,
    AgentChoice,
    AgentName,
    CommandText,
    PassedVariables,
    ProgramPath,
)
from gymrail.cli.execution import Execution, ExecutorName, RayAddress, WorkerCount
from gymrail.cli.limits import (
    UNFINISHED,
    BudgetCost,
    BudgetTime,
    BudgetTokens,
    BudgetToolCalls,
    CostLimit,
    Deadline,
    LimitOptions,
    OutputTokenLimit,
    Price,
    TimeLimit,
    TokenLimit,
    ToolCallLimit,
)
from gymrail.cli.observation import MetricsPort, Otel
from gymrail.cli.options import AsJson, Configured
from gymrail.cli.planned import DEFAULT_KEY, Plan, choose_split, refuse_equal_names

if TYPE_CHECKING:
    from gymrail.cli.playing import Playing
    from gymrail.cli.progress import Progress
    from gymrail.collect.plan import JobPlan
    from gymrail.collect.run_directory import RunDirectory
    from gymrail.spec import EnvironmentSpec

Environments = Annotated[
    list[str],
    typer.Argument(metavar="ENVIRONMENT", help="Names, folders or FILE.py[:CLASS].", show_default=False),
]
ModelText = Annotated[
    str,
    typer.Option(
        "--model", "-m", metavar="MODEL", show_default=False,
        help="oracle, oracle:NOISE, openai:MODEL, http://HOST:PORT/v1, script:FILE.json, a checkpoint's folder, "
        "or own: the model that a program brings itself.",
    ),
]  # fmt: skip
ModelName = Annotated[
    str | None,
    typer.Option("--model-name", metavar="NAME", help="The model, where --model is an address."),
]
SplitName = Annotated[
    str | None,
    typer.Option("--split", metavar="SPLIT", help="Split to play; train, or the first there is."),
]
Tasks = Annotated[
    int, typer.Option("--tasks", "-n", metavar="N", min=0, help="Tasks per environment; 0 plays the whole split.")
]
Repeats = Annotated[int, typer.Option("--repeats", "-k", metavar="N", min=1, help="Rollouts per task.")]
Concurrency = Annotated[int, typer.Option("--concurrency", "-c", metavar="N", min=1, help="Episodes at once.")]
Retries = Annotated[
    int, typer.Option("--retries", metavar="N", min=0, help="More attempts at a rollout whose failure may go away.")
]
MaxSteps = Annotated[
    int | None,
    typer.Option("--max-steps", metavar="N", min=1, help="Model calls per episode; the environment's own by default."),
]
Temperature = Annotated[
    float | None,
    typer.Option("--temperature", "-t", metavar="T", min=0, help="Sampling temperature; the task's own by default."),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Seed of generated tasks and of the oracle's mistakes.")]
Run = Annotated[
    Path | None, typer.Option("--run", metavar="DIR", help="Run directory; runs/ENVIRONMENT-TIME by default.")
]
Resume = Annotated[
    bool, typer.Option("--resume", help="Go on with the run in --run; what is done is not played again.")
]
Compress = Annotated[
    Literal["zstd"] | None,
    typer.Option("--compress", help="Write the run's files compressed; needs gymrail[zstd]."),
]
Fsync = Annotated[
    bool, typer.Option("--fsync", help="Sync the run's files every second: a power loss costs no more than that.")
]
KeyVariable = Annotated[
    str, typer.Option("--api-key-env", metavar="NAME", help="Environment variable that holds the endpoint's key.")
]


def rollout(
    environments: Environments,
    model: ModelText,
    model_name: ModelName = None,
    split: SplitName = None,
    config: Configured = None,
    tasks: Tasks = 16,
    repeats: Repeats = 1,
    agent: AgentName = TOOL_LOOP,
    command: CommandText = None,
    program: ProgramPath = None,
    pass_env: PassedVariables = None,
    concurrency: Concurrency = DEFAULT_CONCURRENCY,
    workers: WorkerCount = 0,
    executor: ExecutorName = "local",
    ray_address: RayAddress = None,
    retries: Retries = 1,
    max_steps: MaxSteps = None,
    token_limit: TokenLimit = None,
    output_token_limit: OutputTokenLimit = None,
    tool_call_limit: ToolCallLimit = None,
    time_limit: TimeLimit = None,
    deadline: Deadline = None,
    cost_limit: CostLimit = None,
    budget_tokens: BudgetTokens = None,
    budget_tool_calls: BudgetToolCalls = None,
    budget_cost: BudgetCost = None,
    budget_time: BudgetTime = None,
    price: Price = None,
    temperature: Temperature = None,
    seed: Seed = 0,
    run: Run = None,
    resume: Resume = False,
    compress: Compress = None,
    fsync: Fsync = False,
    otel: Otel = False,
    metrics_port: MetricsPort = None,
    api_key_env: KeyVariable = DEFAULT_KEY,
    as_json: AsJson = False,
) -> None:
    """Play environments with a model and keep every rollout in a run directory.

    Exit code 1 when no rollout ended with a reward. Ctrl-C finishes what is in flight, twice cancels it; the run goes
    on with --run DIR --resume. Exit code 3 when a budget ended the run before everything was played.
    """
    from gymrail.cli.configured import configured
    from gymrail.errors import InputError
    from gymrail.registry import find

    if resume and run is None:
        raise InputError("--resume needs the run to go on with: --run DIR.")
    choice = AgentChoice(agent, command, program, tuple(pass_env or ()))
    options = LimitOptions(
        token_limit, output_token_limit, tool_call_limit, time_limit, cost_limit, price,
        budget_tokens, budget_tool_calls, budget_cost, budget_time, deadline,
    )  # fmt: skip
    options.limits()  # what they cannot read is said before an environment is loaded
    options.budget()
    names = list(dict.fromkeys(environments))
    specs = configured([find(name) for name in names], config)
    refuse_equal_names(specs)
    splits = [choose_split(spec, split) for spec in specs]
    plan = Plan(
        names, specs, splits, model, model_name, tasks, repeats, seed, max_steps, temperature, choice, options,
        Execution(workers, executor, ray_address), concurrency, retries, api_key_env,
    )  # fmt: skip
    path = run or _default_run(specs)
    kept = {"resume": resume, "compress": compress is not None, "fsync": fsync}
    play_plan(plan, path, otel=otel, metrics_port=metrics_port, as_json=as_json, **kept)


def play_plan(
    plan: Plan,
    path: Path,
    *,
    resume: bool = False,
    compress: bool = False,
    fsync: bool = False,
    otel: bool = False,
    metrics_port: int | None = None,
    as_json: bool = False,
) -> None:
    """Play what is planned into the run directory `path`, and print the summary.

    Raises:
        typer.Exit: interrupted, out of budget, or without a reward.
    """
    from gymrail.cli.interrupts import interruptible
    from gymrail.cli.limits import say_used_up
    from gymrail.cli.observation import observing
    from gymrail.cli.output import console, show_warnings
    from gymrail.cli.progress import Progress
    from gymrail.cli.runs import run_metrics
    from gymrail.collect.event_loop import run_async
    from gymrail.collect.run_directory import RunDirectory

    playing, jobs = plan.playing(), plan.jobs()
    jobs.check(path if resume else None)
    show_warnings()
    run_async(playing.check())
    plan.hire(playing, traced_as=str(path) if otel else None)
    progress = Progress(
        jobs.asked, console(stderr=True), summary=playing.summary, loads=playing.loads, concurrency=playing.concurrency
    )
    with (
        observing(progress.counts, path, otel=otel, metrics_port=metrics_port),
        RunDirectory.create(
            path,
            plan.config(),
            environments=plan.specs,
            datasets=jobs.datasets,
            execution={**plan.described_execution(), "compress": "zstd" if compress else None, "fsync": fsync},
            resume=resume,
            fsync=fsync,
            compress=compress,
        ) as folder,
    ):
        if run_async(interruptible(_collect(jobs, playing, folder, progress), playing)):
            typer.echo(f"Interrupted: {progress.share} are in {folder.path}. Go on with:", err=True)
            typer.echo(f"  {_resume_command(folder.path)}", err=True)
            folder.write_metrics(run_metrics(folder, plan.specs))
            raise typer.Exit(130) from None
        is_unfinished = playing.spending is not None and say_used_up(
            playing.spending, progress, folder.path, _resume_command(folder.path)
        )
        _report(folder, plan.specs, progress, as_json)
        if is_unfinished:
            raise typer.Exit(UNFINISHED)


async def _collect(jobs: JobPlan, playing: Playing, folder: RunDirectory, progress: Progress) -> None:
    spending = playing.spending
    if spending is None:
        progress.resume(jobs.finished(folder))
    else:
        progress.resume(spending.counting(jobs.finished(folder)))
        spending.resume(folder.failed())
    async with progress:
        with contextlib.nullcontext() if spending is None else spending.clock():
            await playing.play(jobs.remaining(folder), folder, progress)


def _report(folder: RunDirectory, specs: list[EnvironmentSpec], progress: Progress, as_json: bool) -> None:
    """Print the summary; exit with 1 when nothing ended with a reward."""
    from gymrail.cli.metrics import print_summary
    from gymrail.cli.output import console, print_json
    from gymrail.cli.runs import run_metrics

    metrics = run_metrics(folder, specs)
    folder.write_metrics(metrics)
    if as_json:
        print_json({"run": str(folder.path), **metrics})
    else:
        out = console()
        print_summary(out, metrics)
        for name, row in metrics["environments"].items():
            if "computed_error" in row:
                typer.echo(f"Warning: compute_metrics of {name} broke: {row['computed_error']}", err=True)
        if progress.effort is not None:
            out.print(f"\n{progress.effort}", markup=False, soft_wrap=True)
        out.print(
            f"\nThe rollouts are in {folder.path}. More numbers: gymrail metrics {folder.path}",
            markup=False,
            soft_wrap=True,
        )
    if metrics["overall"]["reward"]["mean"] is None:
        typer.echo(_without_reward(metrics["overall"]), err=True)
        raise typer.Exit(1)


def _without_reward(overall: dict[str, Any]) -> str:
    if not overall["rollouts"]:
        return "Error: No rollout ended, so there is no reward."
    count = overall["rollouts"]
    kinds = ", ".join(f"{number} {kind}" for kind, number in overall["failures"].items())
    failed = f"all of them failed ({kinds})" if overall["outcomes"]["failed"] == count else f"{kinds} failed"
    return f"Error: None of the {count} rollouts has a reward: {failed}."


def _default_run(specs: Sequence[EnvironmentSpec]) -> Path:
    names = "+".join(spec.name for spec in specs) if len(specs) <= 3 else f"{len(specs)}-environments"
    return Path("runs") / f"{names}-{time.strftime('%Y%m%d-%H%M%S')}"


def _resume_command(path: Path) -> str:
    words = ["gymrail", *sys.argv[1:]]
    if "--run" not in words and not any(word.startswith("--run=") for word in words):
        words += ["--run", str(path)]
    return shlex.join(words if "--resume" in words else [*words, "--resume"])
