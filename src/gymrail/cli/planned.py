"""What `gymrail rollout` was asked for, resolved: which tasks, played by whom, how, and where."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from gymrail.cli.agents import AgentChoice
from gymrail.cli.execution import Execution
from gymrail.cli.limits import LimitOptions, spending_of

if TYPE_CHECKING:
    from gymrail.agents.tool_loop import Agent
    from gymrail.cli.playing import Playing
    from gymrail.collect.plan import JobPlan
    from gymrail.models.model import EpisodePolicy, Model
    from gymrail.spec import EnvironmentSpec

DEFAULT_KEY = "OPENAI_API_KEY"
"""The environment variable with the endpoint's key."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What is played, and how."""

    names: list[str]
    """The environments, as the command line has them."""
    specs: list[EnvironmentSpec]
    splits: list[str]
    """Of each environment."""
    model: str
    model_name: str | None
    tasks: int
    repeats: int
    seed: int
    max_steps: int | None
    temperature: float | None
    agent: AgentChoice
    limits: LimitOptions
    execution: Execution
    concurrency: int
    retries: int
    key_variable: str = DEFAULT_KEY

    def jobs(self) -> JobPlan:
        """Return every rollout to play, by turns from each environment, as a stream.

        Raises:
            InputError: a whole split is asked for where tasks are generated without end.
        """
        from gymrail.collect.plan import JobPlan, Source

        sources = [
            Source(spec, split, self.tasks or None, self.seed)
            for spec, split in zip(self.specs, self.splits, strict=True)
        ]
        return JobPlan(sources, self.repeats)

    def playing(self) -> Playing:
        """Build what the run is played with, but for workers.

        Raises:
            InputError: the model, its key or the agent's program is not there.
        """
        from gymrail.cli.playing import Playing

        limits = self.limits.limits()
        playing = Playing(self.specs, self._make_model()(), self._make_agent()(), self._at_once, self.retries, limits)
        playing.spending = spending_of(self.limits.budget(), playing.drain, limits.prices)
        return playing

    def hire(self, playing: Playing, *, traced_as: str | None) -> None:
        """Give `playing` the workers that are asked for, if any.

        Raises:
            InputError: as `Execution.crew`.
        """
        playing.crew = self.execution.crew(
            playing, self.names, self._make_model(), self._make_agent(), self.agent.pass_variables, traced_as=traced_as
        )

    def config(self) -> dict[str, Any]:
        """What decides about the rollouts, resolved, as JSON."""
        from gymrail.cli.runs import environments_entry
        from gymrail.models.build import address_of

        environments = {
            spec.name: {
                **environments_entry(spec, split),
                "max_steps": self.max_steps or spec.manifest.agent.max_steps,
            }
            for spec, split in zip(self.specs, self.splits, strict=True)
        }
        address = address_of(self.model)
        return {
            "environments": environments,
            **self.agent.config(),
            "model": self.model_name or self.model,
            **({"endpoint": address} if address is not None else {}),
            "tasks": self.tasks,
            "repeats": self.repeats,
            "seed": self.seed,
            "temperature": self.temperature,
            "limits": self.limits.config(),
        }

    def described_execution(self) -> dict[str, Any]:
        """How and where the run is played, which no result depends on, as JSON."""
        return {
            "concurrency": self._at_once,
            "retries": self.retries,
            **asdict(self.execution),
            "budget": asdict(self.limits.budget()),
        }

    @property
    def _at_once(self) -> int:
        return self.agent.concurrency(self.concurrency)

    def _make_model(self) -> partial[Model | EpisodePolicy]:
        return partial(
            self.agent.model, self.model, model_name=self.model_name, api_key=self._api_key(),
            api_key_name=self.key_variable, seed=self.seed,
        )  # fmt: skip

    def _make_agent(self) -> partial[Agent]:
        parameters = () if self.temperature is None else (("temperature", self.temperature),)
        return partial(self.agent.build, self.max_steps, parameters)

    def _api_key(self) -> str | None:
        from gymrail.errors import InputError

        variable, model = self.key_variable, self.model
        key = os.environ.get(variable)
        needed = model.startswith("openai:") or (variable != DEFAULT_KEY and model.startswith("http"))
        if not key and needed:
            raise InputError(
                f"Model {model!r} needs a key, and the environment variable {variable!r} is not set: "
                f"export {variable}=..."
            )
        return key or None


def refuse_equal_names(specs: Sequence[EnvironmentSpec]) -> None:
    """
    Raises:
        InputError: two environments have one name, so their rollouts could not be told apart.
    """
    from gymrail.errors import InputError

    known: dict[str, EnvironmentSpec] = {}
    for spec in specs:
        if spec.name in known:
            both = f"'{known[spec.name].path}' and '{spec.path}'"
            raise InputError(f"Two environments are named {spec.name!r}: {both}; rename one, or play them apart.")
        known[spec.name] = spec


def choose_split(spec: EnvironmentSpec, split: str | None) -> str:
    """Return the split to play: the one that is named, or the first that there is.

    Raises:
        InputError: there is none of that name.
    """
    from gymrail.catalogue import splits_of
    from gymrail.errors import InputError, did_you_mean

    known = splits_of(spec)
    if split is None and known:
        return known[0]
    if split not in known:
        raise InputError(f"{spec.name} has no split {split!r}. {did_you_mean(split or '', known)}")
    return split
