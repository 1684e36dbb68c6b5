"""The contract that every environment passes, checked without a model.

Gold answers earn the maximum; empty, wrong and format-only answers, random and malformed calls earn little; equal
seeds give equal tasks; train and what is held out are apart; no task stands twice; a replay gives the same reward;
seeded, replayed and judged twice an episode comes out the same; interleaved episodes do not mix; a cancelled one closes
and has no reward; tools have valid schemas and descriptions; the rollout's row reads back; the answer stands neither in
the prompt nor in the tools, and nothing gives it away.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from random import Random

import orjson

from gymrail.collect.replay import replay
from gymrail.contract_policies import BAD_POLICIES, Interleaved
from gymrail.contract_repeat import check_cancellation, check_determinism
from gymrail.contract_report import Check, Report, check_of, place_of
from gymrail.contract_tasks import check_duplicates, check_leaks, check_same_tasks, check_splits, sample_of
from gymrail.environment import Environment
from gymrail.errors import EpisodeFailed, InputError, guard
from gymrail.extras import missing_packages
from gymrail.models.model import EpisodePolicy, Model
from gymrail.models.scripted import Oracle
from gymrail.play import play
from gymrail.properties import property_problems
from gymrail.rollout import Rollout
from gymrail.schema_check import schema_problems
from gymrail.spec import EnvironmentSpec
from gymrail.task import Item, Task

__all__ = ["Check", "Report", "check_environment"]

_ON_SELF = "keep state on self, not on the class or the module"
_CLOSE = 1e-9
NO_SOLVE = (
    "not checked: define solve(self), which yields the turns of a perfect agent, to prove that tasks can be solved"
)

NO_RANGE = "the highest and the lowest reward are not declared; say reward_range in environment.yaml or in the name"


async def check_environment(spec: EnvironmentSpec, *, tasks: int = 16, seed: int = 0) -> Report:
    """Check an environment against the contract on a sample of its tasks: half of them its example rows where it has
    any. What its `setup` loaded is given back."""
    try:
        return await _check_all(spec, tasks, seed)
    finally:
        await spec.teardown()


async def _check_all(spec: EnvironmentSpec, tasks: int, seed: int) -> Report:
    checks = [_check_properties(spec), check_tools(spec)]
    task_checks = (check_same_tasks, check_splits, check_duplicates)
    try:
        sample = await guard("seed", sample_of, spec, tasks, seed)
        checks += [await guard("seed", function, spec, tasks, seed) for function in task_checks]
    except EpisodeFailed as error:
        return Report(spec.name, (*checks, Check("tasks", False, error.failure.message)))
    gold: list[Rollout] = []
    if spec.cls.solve is Environment.solve:
        checks.append(Check("gold", None, NO_SOLVE))
    else:
        gold = await _play_all(spec, sample, Oracle())
        checks.append(check_gold(spec, gold))
    unearned: list[Rollout] = []
    for name, make in BAD_POLICIES.items():
        rollouts = [
            await play(spec, task, make(spec, task, Random(f"{seed}:{name}:{index}")), task_index=index)
            for index, task in enumerate(sample)
        ]
        checks.append(_check_low(spec, name, rollouts))
        unearned += rollouts
    played = [*gold, *unearned]
    replayed = await _check_replay(spec, [rollout for rollout in played if rollout.is_trainable])
    checks.append(replayed)
    checks.append(await check_determinism(spec, played, is_replayed=replayed.passed))
    # Outputs that differ by themselves are replay's finding; here they would hide whether episodes mix.
    checks.append(await _check_interleaving(spec, sample, gold, seed, compares_outputs=replayed.passed is True))
    checks.append(await check_cancellation(spec, sample, seed))
    checks.append(_check_rows(spec, played))
    checks.append(check_leaks(spec, sample, unearned))
    return Report(spec.name, tuple(checks))


def _check_properties(spec: EnvironmentSpec) -> Check:
    """An unknown property may be meant so: it is a warning. An extra that does not exist helps nobody."""
    try:
        if spec.manifest.extra:
            missing_packages(spec.manifest.extra)
    except InputError as error:
        return Check("properties", False, str(error))
    problems = property_problems(spec.manifest.properties.model_dump())
    return Check("properties", None, "; ".join(problems)) if problems else Check("properties", True)


def check_tools(spec: EnvironmentSpec) -> Check:
    problems = []
    for name, tool in spec.tools.items():
        if not tool.description.strip():
            problems.append(f"tool {name!r} has no description; write a docstring for the model")
        problems += [f"tool {name!r}: {problem}" for problem in schema_problems(tool.parameters)]
    return check_of("tools", problems, f"{len(spec.tools)} tools")


async def _play_all(spec: EnvironmentSpec, sample: Sequence[Task], policy: Model | EpisodePolicy) -> list[Rollout]:
    return [await play(spec, task, policy, task_index=index) for index, task in enumerate(sample)]


def check_gold(spec: EnvironmentSpec, rollouts: Sequence[Rollout]) -> Check:
    maximum = spec.reward_range[1]
    problems = []
    if not math.isfinite(maximum):
        return Check("gold", None, f"not checked: {NO_RANGE}")
    for rollout in rollouts:
        if rollout.failure is not None:
            problems.append(f"{place_of(rollout)} failed: {rollout.failure.message}")
        elif rollout.outcome is not None and rollout.outcome.status != "scored":
            problems.append(f"{place_of(rollout)} was truncated ({rollout.outcome.reason}); raise max_steps")
        elif rollout.reward is None or abs(rollout.reward - maximum) > _CLOSE:
            reason = f" ({rollout.verdict_reason})" if rollout.verdict_reason else ""
            problems.append(f"{place_of(rollout)} earned {rollout.reward}, not {maximum:g}{reason}")
    return check_of("gold", problems, f"{maximum:g} on {len(rollouts)} tasks")


def _check_low(spec: EnvironmentSpec, name: str, rollouts: Sequence[Rollout]) -> Check:
    failed = [rollout for rollout in rollouts if rollout.reward is None]
    if failed:
        message = failed[0].failure.message if failed[0].failure else "no reward"
        return Check(
            name, False, f"{place_of(failed[0])} failed: {message}; what a model says must never break the environment"
        )
    low, high = spec.reward_range
    rewards = [rollout.reward for rollout in rollouts if rollout.reward is not None]
    mean, middle = sum(rewards) / len(rewards), (low + high) / 2
    if not math.isfinite(high - low):
        return Check(name, None, f"mean reward {mean:g}, not held against a range: {NO_RANGE}")
    return Check(name, mean <= middle, f"mean reward {mean:g} (at most {middle:g} is allowed)")


async def _check_replay(spec: EnvironmentSpec, rollouts: Sequence[Rollout]) -> Check:
    if not spec.manifest.reproducible:
        return Check("replay", None, "not checked: environment.yaml says `reproducible: false`")
    problems = []
    for rollout in rollouts:
        problems += [f"{place_of(rollout)}: {difference}" for difference in (await replay(spec, rollout)).differences]
    return check_of("replay", problems, f"{len(rollouts)} rollouts")


async def _check_interleaving(
    spec: EnvironmentSpec, sample: Sequence[Task], gold: Sequence[Rollout], seed: int, *, compares_outputs: bool
) -> Check:
    """Play all tasks at once, one step each in turn, and compare with what each gave alone."""

    def policy(index: int) -> Model | EpisodePolicy:
        return Oracle() if gold else BAD_POLICIES["random calls"](spec, sample[index], Random(f"{seed}:{index}"))

    alone = gold or [await play(spec, task, policy(index), task_index=index) for index, task in enumerate(sample)]
    together = await asyncio.gather(
        *(play(spec, task, Interleaved(policy(index)), task_index=index) for index, task in enumerate(sample))
    )
    problems = []
    for one, two in zip(alone, together, strict=True):
        if one.reward is None or two.reward is None:
            broken = two if two.failure is not None else one
            message = broken.failure.message if broken.failure else "no reward"
            where = "beside others" if broken is two else "alone"
            problems.append(f"{place_of(one)} failed {where} ({message}), so there is nothing to compare")
        elif one.reward != two.reward:
            problems.append(f"{place_of(one)} earned {one.reward} alone and {two.reward} beside others; {_ON_SELF}")
        elif compares_outputs and _said(one) != _said(two):
            problems.append(f"{place_of(one)} heard other tool outputs beside other episodes; {_ON_SELF}")
    return check_of("interleaving", problems, f"{len(sample)} episodes at once")


def _check_rows(spec: EnvironmentSpec, rollouts: Sequence[Rollout]) -> Check:
    problems = []
    for rollout in rollouts:
        row = orjson.loads(orjson.dumps(rollout.to_row()))
        again = Rollout.from_row(row, spec.cls.task_type)
        if orjson.loads(orjson.dumps(again.to_row())) != row:
            problems.append(f"{place_of(rollout)} does not read back from its row as it was written")
    return check_of("row", problems)


def _said(rollout: Rollout) -> list[Item]:
    return [{key: value for key, value in item.items() if key != "id"} for item in rollout.items]
