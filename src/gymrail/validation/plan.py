"""What is run to check a trainer: a recipe's own environments and mixture, in batches as small as will do."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from gymrail.agents.tool_loop import ToolLoop
from gymrail.collect.batch import play_batch
from gymrail.collect.runner import Job, collect
from gymrail.data.mixture import Group, Mixture
from gymrail.data.mixture_stream import MixtureStream
from gymrail.environment import Environment
from gymrail.episode import DEFAULT_LIMITS, Episode, Limits
from gymrail.models.model import EpisodePolicy, Model
from gymrail.models.scripted import Oracle, ScriptedModel
from gymrail.recipe import Recipe
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task

TINY = "tiny"
_LEAST_GROUPS, _MOST_GROUPS = 4, 16
_REPEATS = 4


@dataclass(frozen=True, slots=True)
class Plan:
    """A recipe to be checked."""

    recipe: Recipe
    """As it was given; adapters make it smaller."""
    specs: Sequence[EnvironmentSpec]
    model: str
    """`tiny`, a checkpoint folder or a hub id: what takes the place of the recipe's model."""
    steps: int
    """Optimiser steps, at least."""
    directory: Path
    """Where everything is written that is made on the way."""
    notes: list[str] = field(default_factory=list)
    """What was put in the place of something of the recipe; for the reader."""
    say: Callable[[str], None] = lambda text: None
    """Told what takes a while."""

    @property
    def mixture(self) -> Mixture:
        """The recipe's mixture, made anew each time, as another process would."""
        recipe = self.recipe
        members = [entry.member(spec) for entry, spec in zip(recipe.mixture, self.specs, strict=True)]
        return Mixture(members, recipe.seed, recipe.mixing)

    def tasks(self, limit: int) -> Iterator[tuple[EnvironmentSpec, int, Task]]:
        """Yield the first tasks that the mixture takes from each environment, with their places."""
        for entry, spec in zip(self.recipe.mixture, self.specs, strict=True):
            most = limit if entry.limit is None else min(limit, entry.limit)
            for index, task in enumerate(spec.tasks(entry.split, limit=most, seed=self.recipe.seed)):
                yield spec, index, task

    def groups(self, mixture: Mixture) -> int:
        """Return how many groups a batch needs to have one of each environment by its weight, within bounds."""
        weights = [weight for weight in mixture.weights_at(0) if weight > 0]
        needed = math.ceil(sum(weights) / min(weights)) if weights else 1
        floors = sum(member.floor for member in mixture.members)
        wanted = min(max(needed, _LEAST_GROUPS), _MOST_GROUPS)
        return max(wanted + wanted % 2, floors + floors % 2)

    @property
    def repeats(self) -> int:
        """Return how many rollouts a group has: more than a probe of the recipe's dynamic sampling."""
        dynamic = self.recipe.mixing.dynamic_sampling
        return max(_REPEATS, (dynamic.probe or 0) + 2 if dynamic else 0)


class Gold:
    """Plays an environment's gold policy; where there is none, says "Done."."""

    def bind(self, episode: Episode) -> Model:
        if episode.spec.cls.solve is Environment.solve:
            return ScriptedModel(lambda request: "Done.")
        return Oracle().bind(episode)


def next_groups(mixture: Mixture, stream: MixtureStream, groups: int) -> list[Group]:
    """Draw the next groups as trainers do: by index where the mixture is plain, else from its stream."""
    if not mixture.is_plain:
        return stream.batch(groups)
    first = stream.slots
    stream.slots += groups
    return [mixture.group(index) for index in range(first, first + groups)]


async def play_plan(
    plan: Plan,
    model: Model | EpisodePolicy,
    *,
    groups: int,
    repeats: int,
    concurrency: int | None = None,
    limits: Limits = DEFAULT_LIMITS,
    on_rollout: Callable[[Rollout], None] | None = None,
) -> list[Rollout]:
    """Play the first groups of the recipe's mixture through what trainers play them with, and return their rollouts.

    Dynamic sampling is left out: it would replace the groups in which a scripted policy always earns the same.
    """
    mixture = plan.mixture
    if mixture.mixing.dynamic_sampling is not None:
        mixing = mixture.mixing.model_copy(update={"dynamic_sampling": None})
        mixture = Mixture(mixture.members, mixture.seed, mixing)
    agent = ToolLoop(plan.recipe.agent.max_steps)
    concurrency = concurrency or plan.recipe.agent.concurrency
    rollouts: list[Rollout] = []

    def keep(rollout: Rollout) -> None:
        rollouts.append(rollout)
        if on_rollout is not None:
            on_rollout(rollout)

    if mixture.is_plain:
        drawn = [mixture.group(index) for index in range(groups)]
        jobs = [Job(group.spec, group.task, group.index, repeat) for group in drawn for repeat in range(repeats)]
        await collect(jobs, model, agent=agent, limits=limits, concurrency=concurrency, retries=0, on_rollout=keep)
        return rollouts
    await play_batch(
        MixtureStream(mixture), model, groups=groups, repeats=repeats, agent=agent, limits=limits,
        concurrency=concurrency, retries=0, record=keep,
    )  # fmt: skip
    return rollouts
