"""The part of the contract that is worth a second before a training run: can the environments' tasks be read, solved
and judged?

A handful of tasks of the very split that is trained on: the gold policy earns the maximum, and neither silence nor
malformed calls break anything or earn the maximum every time. `gymrail check` asks far more. What an environment's own
code does without ever waiting cannot be cut short; all else ends with the time limit, and what was not reached by then
is said, not failed.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from gymrail.contract import check_gold, check_tools
from gymrail.contract_policies import BAD_POLICIES
from gymrail.contract_report import Check, Report, place_of
from gymrail.environment import Environment
from gymrail.errors import EpisodeFailed, GymrailError, InputError, guard
from gymrail.extras import install_command, missing_packages
from gymrail.models.model import EpisodePolicy, Model
from gymrail.models.scripted import Oracle
from gymrail.play import play
from gymrail.recipe import Recipe
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task

CHECK_SECONDS = 2.0
"""For all environments of a run together."""
TASKS = 4
"""Per environment."""
_BAD = ("empty answer", "malformed calls")
_CLOSE = 1e-9


@dataclass(frozen=True, slots=True)
class Checked:
    """An environment and the splits that a run reads: the first is trained on, the others are held out."""

    spec: EnvironmentSpec
    splits: tuple[str, ...]
    source: str
    """What the recipe calls it."""


def check_before_training(recipe: Recipe, specs: Sequence[EnvironmentSpec]) -> list[str]:
    """Check a recipe's environments, unless it says `check: false`, and return notes on what was not reached in time.

    Raises:
        InputError: one does not pass; the text has what is wrong and the commands that show more, or go on.
    """
    if not recipe.check:
        return []
    held_out = () if recipe.evaluation is None else (recipe.evaluation.split,)
    checked = [
        # A profile brings its own tasks.
        Checked(
            spec,
            tuple(dict.fromkeys((*((entry.split,) if entry.profile is None else ()), *held_out))),
            entry.environment,
        )
        for spec, entry in zip(specs, recipe.mixture, strict=True)
    ]
    return asyncio.run(_check_all([one for one in checked if one.splits], recipe.seed, CHECK_SECONDS))


async def check_quickly(
    checked: Checked, *, seed: int = 0, seconds: float = CHECK_SECONDS, tasks: int = TASKS
) -> tuple[Report, str | None]:
    """Check one environment. What its `setup` loaded is given back.

    Returns:
        What was found, and how far it came where the time ended first.
    """
    spec = checked.spec
    found = _check_packages(spec)
    if found is not None:
        return Report(spec.name, (found,)), None
    checks = [check_tools(spec)]
    end = time.monotonic() + seconds
    try:
        samples = [await guard("seed", _sample, spec, split, tasks, seed) for split in checked.splits]
    except EpisodeFailed as error:
        return Report(spec.name, (*checks, Check("tasks", False, error.failure.message))), None
    gold: list[Rollout] = []
    bad: list[Rollout] = []
    plays = list(_plays(spec, samples[0], seed))
    late = None
    try:
        async with asyncio.timeout(max(0.0, end - time.monotonic())):
            for index, task, name, policy in plays:
                rollout = await play(spec, task, policy, task_index=index)
                (gold if name == "gold" else bad).append(rollout)
                if rollout.failure is not None:
                    break
    except TimeoutError:
        late = f"{len(gold) + len(bad)} of {len(plays)} episodes within {seconds:.1f} s"
    finally:
        await spec.teardown()
    if gold:
        checks.append(check_gold(spec, gold))
    checks.append(_check_bad(spec, bad, len(samples[0])))
    return Report(spec.name, tuple(checks)), late


async def _check_all(checked: Sequence[Checked], seed: int, seconds: float) -> list[str]:
    notes = []
    end = time.monotonic() + seconds
    for place, one in enumerate(checked):
        share = max(0.0, end - time.monotonic()) / (len(checked) - place)
        report, late = await check_quickly(one, seed=seed, seconds=share)
        for check in report.failures:
            raise InputError(
                f"The environment {one.spec.name!r} fails its check ({check.name}): {check.detail}. "
                f"See all of it: gymrail check {one.source}. To train all the same: --no-check."
            )
        if late is not None:
            notes.append(f"{one.spec.name}: checked with {late}; `gymrail check {one.source}` checks all of it.")
    return notes


def _plays(
    spec: EnvironmentSpec, sample: Sequence[Task], seed: int
) -> Iterator[tuple[int, Task, str, Model | EpisodePolicy]]:
    """What is played, what tells most first."""
    solved = spec.cls.solve is not Environment.solve
    for index, task in enumerate(sample):
        if solved:
            yield index, task, "gold", Oracle()
        for name in _BAD:
            yield index, task, name, BAD_POLICIES[name](spec, task, Random(f"{seed}:{name}:{index}"))


def _sample(spec: EnvironmentSpec, split: str, tasks: int, seed: int) -> list[Task]:
    found = list(spec.tasks(split, limit=tasks, seed=seed))
    if not found:
        raise GymrailError(f"it has no tasks in split {split!r}")
    return found


def _check_packages(spec: EnvironmentSpec) -> Check | None:
    extra = spec.manifest.extra
    try:
        missing = missing_packages(extra) if extra else []
    except InputError as error:
        return Check("properties", False, str(error).removesuffix("."))
    if extra is None or not missing:
        return None
    return Check("packages", False, f"it needs {', '.join(missing)}, not installed here: {install_command(extra)}")


def _check_bad(spec: EnvironmentSpec, rollouts: Sequence[Rollout], tasks: int) -> Check:
    for rollout in rollouts:
        if rollout.failure is not None:
            return Check("bad answers", False, f"{place_of(rollout)} failed: {rollout.failure.message}")
    low, high = spec.reward_range
    best = [rollout for rollout in rollouts if rollout.reward is not None and rollout.reward >= high - _CLOSE]
    if tasks > 1 and low < high and math.isfinite(high) and len(best) == len(rollouts) == len(_BAD) * tasks:
        return Check(
            "bad answers", False, f"an empty answer and malformed calls earn the maximum, {high:g}, every time"
        )
    return Check("bad answers", True)
