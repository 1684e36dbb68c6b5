"""Where rollouts are played: `--workers`, `--executor` and what belongs to them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

import typer

if TYPE_CHECKING:
    from gymrail.agents.tool_loop import Agent
    from gymrail.cli.playing import Playing
    from gymrail.collect.executors.launcher import Launcher
    from gymrail.collect.executors.setup import Setup
    from gymrail.models.model import EpisodePolicy, Model

WorkerCount = Annotated[
    int,
    typer.Option(
        "--workers", "-w", metavar="N", min=0,
        help="Processes that play; 0 plays in this one. With --executor ray, actors; 0 is one per CPU.",
    ),
]  # fmt: skip
ExecutorName = Annotated[
    Literal["local", "ray"], typer.Option("--executor", help="Where workers run: on this machine, or on a Ray cluster.")
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray-address", metavar="ADDRESS",
        help="The cluster of --executor ray; RAY_ADDRESS, or the one on this machine, or a new one by default.",
    ),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Crew:
    """Workers that are about to be started, and what they play with."""

    count: int
    launcher: Launcher
    setup: Setup


@dataclass(frozen=True, slots=True)
class Execution:
    """What the command line says about where rollouts are played."""

    workers: int = 0
    executor: Literal["local", "ray"] = "local"
    ray_address: str | None = None

    def __post_init__(self) -> None:
        from gymrail.errors import InputError

        if self.ray_address is not None and self.executor != "ray":
            raise InputError(f"--ray-address {self.ray_address!r} goes with --executor ray.")

    @property
    def is_in_process(self) -> bool:
        return self.executor == "local" and self.workers == 0

    def crew(
        self,
        playing: Playing,
        names: Sequence[str],
        model: Callable[[], Model | EpisodePolicy],
        agent: Callable[[], Agent],
        variables: Iterable[str] = (),
        traced_as: str | None = None,
    ) -> Crew | None:
        """Prepare the workers that play as `playing` would; None where this process plays itself.

        Args:
            names: of its environments, as the command line has them.
            variables: environment variables that workers on other machines get too.
            traced_as: the run's name in the traces that the workers send; None sends none.

        Raises:
            InputError: Ray is missing or cannot be reached; or no other process can build these.
        """
        if self.is_in_process:
            return None
        from gymrail.collect.executors.setup import Setup, source_of
        from gymrail.models.scripted import ScriptedModel

        sources = [source_of(spec, name) for spec, name in zip(playing.specs, names, strict=True)]
        if isinstance(playing.model, ScriptedModel):  # its file is on this machine
            model = partial(ScriptedModel, playing.model.script)
        if self.executor == "local":
            from gymrail.collect.executors.processes import Processes

            setup = Setup(sources, model, agent, playing.limits, playing.retries, traced_as=traced_as)
            return Crew(self.workers, Processes(), setup)
        from gymrail.collect.executors.ray import RayCluster

        values = {name: os.environ[name] for name in ("GYMRAIL_KEY", *variables) if name in os.environ}
        if traced_as is not None:
            values |= {name: value for name, value in os.environ.items() if name.startswith("OTEL_")}
        cluster = RayCluster.connect(self.ray_address or os.environ.get("RAY_ADDRESS"), sources)
        setup = Setup(
            cluster.sources, model, agent, playing.limits, playing.retries, variables=values, traced_as=traced_as
        )
        return Crew(self.workers or cluster.cpus, cluster, setup)
