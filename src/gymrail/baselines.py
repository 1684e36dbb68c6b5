"""Baselines: what policies without a model earn in an environment, and whether its README states that.

    measured = await measure_baselines(find("mcqa"), tasks=500)
    print(baseline_table(measured))

The oracle plays `solve`, a noisy one spoils a share of its turns by `sabotage`; `random` makes up to three valid calls
of offered tools with random arguments, then answers (each user turn anew) with one of the task's options, a word or a
number, in the form that the prompt asks for; `empty` answers nothing.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from gymrail.contract_policies import random_value
from gymrail.contract_report import Check, check_of, place_of
from gymrail.environment import Call, Turn
from gymrail.errors import GymrailError
from gymrail.models.model import EpisodePolicy, Model, ModelRequest
from gymrail.models.scripted import Oracle, ScriptedModel, turns_spoken
from gymrail.play import play
from gymrail.rollout import Rollout, text_of
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task

ORACLE, RANDOM, EMPTY = "oracle", "random", "empty"
TASKS = 200
TOLERANCE = 0.005
"""READMEs give two digits."""

_CLOSE = 1e-9
_AT_ONCE = 8
_CALLS = 3
_LARGEST = 20
"""Of made-up numbers; numbers of the prompt are taken too."""
_FORMS = (("\\boxed", "\\boxed{%s}"), ("<answer>", "<answer>%s</answer>"), ("Answer:", "Answer: %s"))
"""What a prompt says, and the form of answer that it asks for by that."""
_COUNT = re.compile(r"Mean reward on ([\d,]+) validation tasks")
_ROW = re.compile(r"^\|\s*(?P<policy>[^|]+?)\s*\|\s*(?P<mean>-?\d+(?:\.\d+)?)\s*\|", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Baseline:
    """What one policy earned, task by task."""

    label: str
    """As the README's table names the policy."""
    rewards: tuple[float, ...]

    @property
    def mean(self) -> float:
        return sum(self.rewards) / len(self.rewards)


@dataclass(frozen=True, slots=True)
class Stated:
    """What a README's table says."""

    tasks: int | None
    means: Mapping[str, float]
    """By the policy's short name, as in `POLICIES`."""


MakeBaseline = Callable[[EnvironmentSpec, Task, Random], Model | EpisodePolicy]


def _empty(spec: EnvironmentSpec, task: Task, rng: Random) -> Model:
    return ScriptedModel(lambda request: "")


def _random(spec: EnvironmentSpec, task: Task, rng: Random) -> Model:
    offered = [(name, tool.parameters) for name, tool in spec.offered(task).items()]
    calls = rng.randint(1, _CALLS) if offered else 0

    def turn(request: ModelRequest) -> Turn:
        words = _words(request)
        if turns_spoken(request.input) < calls:
            name, parameters = rng.choice(offered)
            return Call(name, random_value(parameters, parameters.get("$defs", {}), words, rng))
        return _answer(task, request, words, rng)

    return ScriptedModel(turn)


POLICIES: dict[str, tuple[str, MakeBaseline]] = {
    ORACLE: ("`Oracle()`, the gold policy", lambda spec, task, rng: Oracle()),
    "noise=0.4": ("`Oracle(noise=0.4)`", lambda spec, task, rng: Oracle(noise=0.4)),
    "noise=0.5": ("`Oracle(noise=0.5)`", lambda spec, task, rng: Oracle(noise=0.5)),
    RANDOM: ("random calls and answers", _random),
    EMPTY: ("empty answers", _empty),
}
"""Short name -> the README's label, and what makes the policy of an episode."""


async def measure_baselines(
    spec: EnvironmentSpec, tasks: int = TASKS, *, seed: int = 0, policies: Sequence[str] = tuple(POLICIES)
) -> dict[str, Baseline]:
    """Play each policy on the first tasks of the validation split. Equal arguments give equal rewards.

    Raises:
        GymrailError: an episode failed, or the split has no task.
    """
    sample = list(spec.tasks("validation", limit=tasks, seed=seed))
    if not sample:
        raise GymrailError(f"{spec.name} has no tasks in split 'validation'; add rows, or define generate(cls, rng).")
    found = {}
    try:
        for policy in policies:
            label, make = POLICIES[policy]
            rollouts = await _play_all(spec, sample, policy, make, seed)
            found[policy] = Baseline(label, tuple(_reward_of(spec, rollout, policy) for rollout in rollouts))
    finally:
        await spec.teardown()
    return found


def baseline_table(baselines: Mapping[str, Baseline]) -> str:
    """Write the table of an environment's README."""
    tasks = len(next(iter(baselines.values())).rewards)
    rows = [f"| {baseline.label} | {baseline.mean:.2f} |" for baseline in baselines.values()]
    head = f"Mean reward on {tasks} validation tasks."
    return "\n".join([head, "", "| Policy | Reward |", "|---|---|", *rows])


def stated_baselines(readme: str) -> Stated:
    """Read the table under "Baselines" of an environment's README."""
    sections = re.split(r"^## ", readme, flags=re.MULTILINE)
    section = next((section for section in sections[1:] if section.startswith("Baselines\n")), "")
    count = _COUNT.search(section)
    means = {}
    for row in _ROW.finditer(section):
        means.setdefault(_short_name(row["policy"]), float(row["mean"]))
    return Stated(int(count[1].replace(",", "")) if count else None, means)


def stated_in(spec: EnvironmentSpec) -> Stated:
    """Read the table of an environment's own README; an empty one where there is none."""
    readme = spec.path / "README.md" if spec.path is not None and spec.path.is_dir() else None
    if readme is None or not readme.is_file():
        return Stated(None, {})
    return stated_baselines(readme.read_text(encoding="utf-8"))


async def check_stated_baselines(spec: EnvironmentSpec) -> list[Check]:
    """Play the oracle on 200 validation tasks or more, random and empty answers on as many as the README states, and
    check what they earn.

    Raises:
        GymrailError: an episode failed, or there are no validation tasks.
    """
    stated = stated_in(spec)
    tasks = stated.tasks or TASKS
    if tasks >= TASKS:  # tasks can cost more to generate than to play, so they are drawn once
        measured = await measure_baselines(spec, tasks, policies=[ORACLE, RANDOM, EMPTY])
    else:
        measured = await measure_baselines(spec, TASKS, policies=[ORACLE])
        measured |= await measure_baselines(spec, tasks, policies=[RANDOM, EMPTY])
    return check_baselines(spec, measured, stated)


def check_baselines(spec: EnvironmentSpec, measured: Mapping[str, Baseline], stated: Stated) -> list[Check]:
    """Check that the oracle earned the maximum on each task, and random and empty answers no more than is stated."""
    checks = []
    maximum = spec.reward_range[1]
    if ORACLE in measured:
        rewards = measured[ORACLE].rewards
        below = [index for index, reward in enumerate(rewards) if abs(reward - maximum) > _CLOSE]
        problems = [f"validation task {index} earned {rewards[index]:g}, not {maximum:g}" for index in below]
        checks.append(check_of("oracle", problems, f"{maximum:g} on {len(rewards)} validation tasks"))
    for policy in (RANDOM, EMPTY):
        if policy in measured:
            checks.append(_check_stated(measured[policy], policy, stated))
    return checks


def _check_stated(measured: Baseline, policy: str, stated: Stated) -> Check:
    name, count = f"{policy} baseline", len(measured.rewards)
    if policy not in stated.means:
        command = f"`gymrail check ENVIRONMENT --baselines {stated.tasks or TASKS}` prints the table"
        return Check(name, None, f"mean reward {measured.mean:.3f}; the README states none; {command}")
    if stated.tasks != count:
        return Check(
            name, None, f"mean reward {measured.mean:.3f} on {count} tasks; the README's is of {stated.tasks} tasks"
        )
    limit = stated.means[policy]
    text = f"mean reward {measured.mean:.3f} on {count} tasks; the README states {limit:.2f}"
    return Check(name, measured.mean <= limit + TOLERANCE, text)


def _short_name(label: str) -> str:
    if "noise" in label:
        return "noise=" + label.partition("noise=")[2].partition(")")[0]
    return ORACLE if "oracle" in label.lower() else label.lower().split()[0]


async def _play_all(
    spec: EnvironmentSpec, sample: Sequence[Task], policy: str, make: MakeBaseline, seed: int
) -> list[Rollout]:
    gate = asyncio.Semaphore(_AT_ONCE)

    async def one(index: int, task: Task) -> Rollout:
        async with gate:
            return await play(spec, task, make(spec, task, Random(f"{seed}:{policy}:{index}")), task_index=index)

    return await asyncio.gather(*(one(index, task) for index, task in enumerate(sample)))


def _reward_of(spec: EnvironmentSpec, rollout: Rollout, policy: str) -> float:
    if rollout.reward is None:
        message = rollout.failure.message if rollout.failure else "no reward"
        raise GymrailError(f"{spec.name}, {policy} policy: {place_of(rollout)} failed: {message}")
    return rollout.reward


def _words(request: ModelRequest) -> list[str]:
    """Words and numbers of the last thing that somebody else said, in order."""
    said = next((text for item in reversed(request.input) if (text := text_of(item)).strip()), "")
    return list(dict.fromkeys(re.findall(r"[A-Za-z]{2,}|\d+", said))) or ["none"]


def _answer(task: Task, request: ModelRequest, words: Sequence[str], rng: Random) -> str:
    options = [letter for option in task.row.get("options") or () if isinstance(option, dict) for letter in option]
    answer = rng.choice(options or (rng.choice(words), str(rng.randint(0, _LARGEST))))
    prompt = "\n".join(text_of(item) for item in task.input_items)
    form = next((form for mark, form in _FORMS if mark in prompt), "%s")
    return form % answer
