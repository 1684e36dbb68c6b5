"""`gymrail rollout`: play environments with a model and keep every rollout."""

from __future__ import annotations

import contextlib
import os
import shlex
import sys
import time
from dataclasses import dataclass, field
from functools import partial
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

if TYPE_CHECKING:
    from gymrail.cli.playing import Playing
    from gymrail.cli.progress import Progress
    from gymrail.collect.plan import JobPlan
    from gymrail.collect.run_directory import RunDirectory
    from gymrail.spec import EnvironmentSpec

DEFAULT_KEY = "OPENAI_API_KEY"


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
KeyVariable = Annotated[
    str, typer.Option("--api-key-env", metavar="NAME", help="Environment variable that holds the endpoint's key.")
]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is played, and how."""

    specs: list[EnvironmentSpec]
    splits: list[str]
    """Of each environment."""
    model: str
    tasks: int
    repeats: int
    seed: int
    max_steps: int | None
    temperature: float | None
    agent: AgentChoice = field(default_factory=AgentChoice)
    limits: LimitOptions = field(default_factory=LimitOptions)

    def config(self) -> dict[str, Any]:
        """What the run directory remembers, as JSON."""
        from gymrail.cli.runs import environments_entry

        environments = {
            spec.name: environments_entry(spec, split) for spec, split in zip(self.specs, self.splits, strict=True)
        }
        names = ("model", "tasks", "repeats", "seed", "max_steps", "temperature")
        agent = {} if self.agent.name == TOOL_LOOP else {"agent": self.agent.command or self.agent.name}
        settings = {name: getattr(self, name) for name in names}
        return {"environments": environments, **agent, **settings, **self.limits.config()}


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
    from gymrail.cli.interrupts import interruptible
    from gymrail.cli.limits import say_used_up, spending_of
    from gymrail.cli.observation import observing
    from gymrail.cli.output import console, show_warnings
    from gymrail.cli.playing import Playing
    from gymrail.cli.progress import Progress
    from gymrail.collect.event_loop import run_async
    from gymrail.collect.run_directory import RunDirectory
    from gymrail.errors import InputError
    from gymrail.registry import find

    if resume and run is None:
        raise InputError("--resume needs the run to go on with: --run DIR.")
    choice = AgentChoice(agent, command, program, tuple(pass_env or ()))
    options = LimitOptions(
        token_limit, output_token_limit, tool_call_limit, time_limit, cost_limit, price,
        budget_tokens, budget_tool_calls, budget_cost, budget_time, deadline,
    )  # fmt: skip
    limits, budget = options.limits(), options.budget()
    names = list(dict.fromkeys(environments))
    specs = configured([find(name) for name in names], config)
    _refuse_equal_names(specs)
    splits = [_choose_split(spec, split) for spec in specs]
    plan = Plan(specs, splits, model_name or model, tasks, repeats, seed, max_steps, temperature, choice, options)
    concurrency = choice.concurrency(concurrency)
    execution = Execution(workers, executor, ray_address)
    make_model = partial(
        choice.model, model, model_name=model_name, api_key=_api_key(api_key_env, model), api_key_name=api_key_env,
        seed=seed,
    )  # fmt: skip
    make_agent = partial(choice.build, max_steps, () if temperature is None else (("temperature", temperature),))
    playing = Playing(specs, make_model(), make_agent(), concurrency, retries, limits)
    playing.spending = spending_of(budget, playing.drain, limits.prices)
    path = run or _default_run(specs)
    jobs = plan_jobs(plan)
    jobs.check(path if resume else None)
    show_warnings()
    run_async(playing.check())
    playing.crew = execution.crew(
        playing, names, make_model, make_agent, choice.pass_variables, traced_as=str(path) if otel else None
    )
    progress = Progress(
        jobs.asked,
        console(stderr=True),
        summary=playing.summary,
        loads=playing.loads,
        concurrency=concurrency,
    )
    with (
        observing(progress.counts, path, otel=otel, metrics_port=metrics_port),
        RunDirectory.create(
            path,
            plan.config(),
            environments=specs,
            datasets=jobs.datasets,
            resume=resume,
            compress=compress is not None,
        ) as folder,
    ):
        if run_async(interruptible(_collect(jobs, playing, folder, progress), playing)):
            typer.echo(
                f"Interrupted: {progress.share} are in {folder.path}. Go on with:",
                err=True,
            )
            typer.echo(f"  {_resume_command(folder.path)}", err=True)
            raise typer.Exit(130) from None
        is_unfinished = playing.spending is not None and say_used_up(
            playing.spending, progress, folder.path, _resume_command(folder.path)
        )
        _report(folder, specs, progress, as_json)
        if is_unfinished:
            raise typer.Exit(UNFINISHED)


def plan_jobs(plan: Plan) -> JobPlan:
    """Return every rollout to play, by turns from each environment, as a stream.

    Raises:
        InputError: a whole split is asked for where tasks are generated without end.
    """
    from gymrail.collect.plan import JobPlan, Source

    sources = [
        Source(spec, split, plan.tasks or None, plan.seed) for spec, split in zip(plan.specs, plan.splits, strict=True)
    ]
    return JobPlan(sources, plan.repeats)


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
        if progress.effort is not None:
            out.print(f"\n{progress.effort}", markup=False, soft_wrap=True)
        out.print(
            f"\nThe rollouts are in {folder.path}. More numbers: gymrail metrics {folder.path}",
            markup=False,
            soft_wrap=True,
        )
    if metrics["overall"]["reward"]["mean"] is None:
        raise typer.Exit(1)


def _refuse_equal_names(specs: list[EnvironmentSpec]) -> None:
    from gymrail.errors import InputError

    known: dict[str, EnvironmentSpec] = {}
    for spec in specs:
        if spec.name in known:
            both = f"'{known[spec.name].path}' and '{spec.path}'"
            raise InputError(f"Two environments are named {spec.name!r}: {both}; rename one, or play them apart.")
        known[spec.name] = spec


def _choose_split(spec: EnvironmentSpec, split: str | None) -> str:
    from gymrail.catalogue import splits_of
    from gymrail.errors import InputError, did_you_mean

    known = splits_of(spec)
    if split is None and known:
        return known[0]
    if split not in known:
        raise InputError(f"{spec.name} has no split {split!r}. {did_you_mean(split or '', known)}")
    return split


def _api_key(variable: str, model: str) -> str | None:
    from gymrail.errors import InputError

    key = os.environ.get(variable)
    needed = model.startswith("openai:") or (variable != DEFAULT_KEY and model.startswith("http"))
    if not key and needed:
        raise InputError(
            f"Model {model!r} needs a key, and the environment variable {variable!r} is not set: export {variable}=..."
        )
    return key or None


def _default_run(specs: list[EnvironmentSpec]) -> Path:
    names = "+".join(spec.name for spec in specs) if len(specs) <= 3 else f"{len(specs)}-environments"
    return Path("runs") / f"{names}-{time.strftime('%Y%m%d-%H%M%S')}"


def _resume_command(path: Path) -> str:
    words = ["gymrail", *sys.argv[1:]]
    if "--run" not in words and not any(word.startswith("--run=") for word in words):
        words += ["--run", str(path)]
    return shlex.join(words if "--resume" in words else [*words, "--resume"])
