"""`gymrail rollout`: play environments with a model and keep every rollout."""

from __future__ import annotations

import asyncio
import os
import shlex
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from gymrail.cli.options import AsJson

if TYPE_CHECKING:
    from gymrail.agents.tool_loop import Agent
    from gymrail.cli.progress import Progress
    from gymrail.collect.run_directory import RunDirectory
    from gymrail.collect.runner import Job
    from gymrail.models.model import EpisodePolicy, Model
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

    def config(self) -> dict[str, Any]:
        """What the run directory remembers, as JSON."""
        from gymrail.cli.runs import environments_entry

        environments = {
            spec.name: environments_entry(spec, split) for spec, split in zip(self.specs, self.splits, strict=True)
        }
        names = ("model", "tasks", "repeats", "seed", "max_steps", "temperature")
        agent = {} if self.agent.name == TOOL_LOOP else {"agent": self.agent.command or self.agent.name}
        return {"environments": environments, **agent, **{name: getattr(self, name) for name in names}}


def rollout(
    environments: Environments,
    model: ModelText,
    model_name: ModelName = None,
    split: SplitName = None,
    tasks: Tasks = 16,
    repeats: Repeats = 1,
    agent: AgentName = TOOL_LOOP,
    command: CommandText = None,
    program: ProgramPath = None,
    pass_env: PassedVariables = None,
    concurrency: Concurrency = DEFAULT_CONCURRENCY,
    retries: Retries = 1,
    max_steps: MaxSteps = None,
    temperature: Temperature = None,
    seed: Seed = 0,
    run: Run = None,
    resume: Resume = False,
    api_key_env: KeyVariable = DEFAULT_KEY,
    as_json: AsJson = False,
) -> None:
    """Play environments with a model and keep every rollout in a run directory.

    Exit code 1 when no rollout ended with a reward. An interrupted run (Ctrl-C) goes on with --run DIR --resume.
    """
    from gymrail.cli.output import console, show_warnings
    from gymrail.cli.progress import Progress
    from gymrail.collect.event_loop import run_async
    from gymrail.collect.run_directory import RunDirectory
    from gymrail.errors import InputError
    from gymrail.registry import find

    if resume and run is None:
        raise InputError("--resume needs the run to go on with: --run DIR.")
    choice = AgentChoice(agent, command, program, tuple(pass_env or ()))
    specs = [find(name) for name in dict.fromkeys(environments)]
    _refuse_equal_names(specs)
    splits = [_choose_split(spec, split) for spec in specs]
    plan = Plan(specs, splits, model_name or model, tasks, repeats, seed, max_steps, temperature, choice)
    concurrency = choice.concurrency(concurrency)
    player = choice.model(
        model, model_name=model_name, api_key=_api_key(api_key_env, model), api_key_name=api_key_env, seed=seed
    )
    playing = choice.build(max_steps, () if temperature is None else (("temperature", temperature),))
    jobs = plan_jobs(plan)
    show_warnings()
    run_async(_check(player))
    progress = Progress({spec.name: sum(job.spec is spec for job in jobs) for spec in specs}, console(stderr=True))
    with RunDirectory.create(run or _default_run(specs), plan.config(), environments=specs, resume=resume) as folder:
        try:
            run_async(_collect(jobs, plan, player, playing, folder, progress, concurrency=concurrency, retries=retries))
        except KeyboardInterrupt:
            typer.echo(
                f"Interrupted: {progress.ended} of {progress.asked} rollouts are in {folder.path}. Go on with:",
                err=True,
            )
            typer.echo(f"  {_resume_command(folder.path)}", err=True)
            raise typer.Exit(130) from None
        _report(folder, specs, as_json)


def plan_jobs(plan: Plan) -> list[Job]:
    """Return every rollout to play, by turns from each environment, so that means are about all of them from the start.

    Raises:
        InputError: a split is missing or empty, or a whole split is asked for where tasks are generated without end.
    """
    from gymrail.collect.runner import Job
    from gymrail.errors import InputError

    jobs: list[tuple[int, int, Job]] = []
    for order, (spec, split) in enumerate(zip(plan.specs, plan.splits, strict=True)):
        entry = next((entry for entry in spec.manifest.datasets if entry.split == split), None)
        if plan.tasks == 0 and (entry is None or (entry.source == "generator" and entry.size is None)):
            raise InputError(f"{spec.name} generates as many {split} tasks as asked for; say how many: --tasks N.")
        before = len(jobs)
        for index, task in enumerate(spec.tasks(split, limit=plan.tasks or None, seed=plan.seed)):
            jobs += [(index, order, Job(spec, task, index, repeat)) for repeat in range(plan.repeats)]
        if len(jobs) == before:
            raise InputError(f"The split {split!r} of {spec.name} has no tasks.")
    return [job for _, _, job in sorted(jobs, key=lambda entry: entry[:2])]


async def _collect(
    jobs: list[Job],
    plan: Plan,
    model: Model | EpisodePolicy,
    agent: Agent,
    folder: RunDirectory,
    progress: Progress,
    *,
    concurrency: int,
    retries: int,
) -> None:
    from gymrail.collect.journal import key_of
    from gymrail.collect.runner import collect
    from gymrail.episode import DEFAULT_LIMITS

    try:
        asked = {job.key for job in jobs}
        progress.resume(
            rollout for rollout in folder.rollouts() if rollout.failure is None and key_of(rollout) in asked
        )
        async with progress:
            await collect(
                folder.remaining(jobs),
                model,
                agent=agent,
                limits=DEFAULT_LIMITS,
                concurrency=concurrency,
                retries=retries,
                record=folder.record,
                on_rollout=progress.add,
            )
    finally:
        await _call_if_present(agent, "close")
        await _call_if_present(model, "close")
        for spec in plan.specs:
            await spec.teardown()


async def _check(model: Model | EpisodePolicy) -> None:
    """Find a wrong address or key before the run, as one message and not as a failure per rollout."""
    try:
        await _call_if_present(model, "check")
    finally:
        await _call_if_present(model, "close")


async def _call_if_present(model: Any, name: str) -> None:
    method: Callable[[], Any] | None = getattr(model, name, None)
    if method is not None:
        result = method()
        if asyncio.iscoroutine(result):
            await result


def _report(folder: RunDirectory, specs: list[EnvironmentSpec], as_json: bool) -> None:
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
    from gymrail.cli.list import splits_of
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
