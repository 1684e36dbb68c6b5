"""Many episodes at once: does the environment hold up the event loop, keep memory, or slow down?

The gold policy plays, with a model's pauses between its turns, spread so that about a thousand turns begin per second
whatever the number of episodes; what then holds the loop up is the environment's own code. Memory is what Python
allocates and what episodes leave behind when they are closed; what a C library keeps for itself is not seen.
"""

from __future__ import annotations

import asyncio
import gc
import time
import tracemalloc
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from random import Random

from gymrail.contract_policies import BAD_POLICIES
from gymrail.contract_report import Check, check_of, place_of
from gymrail.contract_tasks import sample_of
from gymrail.environment import Environment
from gymrail.episode import Episode
from gymrail.models.model import EpisodePolicy, Model, ModelRequest, ModelResponse
from gymrail.models.scripted import Oracle
from gymrail.play import play
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task

MAX_LAG_P99_SECONDS = 0.1
MAX_LAG_SECONDS = 1.0
MAX_KEPT_BYTES = 4096.0
"""Per episode: a million of them would keep 4 GB."""
MAX_EPISODE_P99_SECONDS = 30.0
"""Of an episode's own time, without the model's."""

_TURNS_PER_SECOND = 1000.0
_MIN_PAUSE_SECONDS = 0.05
_TICK_SECONDS = 0.005
_MEMORY_EPISODES = 100
_FEWEST_MEMORY_EPISODES = 16
_MEMORY_ROUND_SECONDS = 2.0
"""A round ends after so many seconds too: where an episode starts a process, a hundred would take minutes."""
_AT_ONCE = 8
_TASKS = 64


@dataclass(frozen=True, slots=True)
class Load:
    """What was measured."""

    episodes: int
    failed: int
    seconds: float
    lag_p99_seconds: float
    """How late the event loop came to a timer."""
    lag_max_seconds: float
    kept_bytes: float
    """Memory that one more episode leaves behind, once closed."""
    episode_p99_seconds: float
    first_failure: str = ""

    def check(self) -> Check:
        """Hold the figures against the limits."""
        problems = []
        if self.failed:
            problems.append(f"{self.failed} of {self.episodes} episodes failed: {self.first_failure}")
        for what, value, limit, unit in (
            ("event-loop lag, p99", self.lag_p99_seconds * 1e3, MAX_LAG_P99_SECONDS * 1e3, "ms"),
            ("event-loop lag, max", self.lag_max_seconds * 1e3, MAX_LAG_SECONDS * 1e3, "ms"),
            ("memory kept per episode", self.kept_bytes, MAX_KEPT_BYTES, "bytes"),
            ("episode time without the model, p99", self.episode_p99_seconds, MAX_EPISODE_P99_SECONDS, "s"),
        ):
            if value > limit:
                problems.append(f"{what}: {value:.3g} {unit} (at most {limit:g})")
        return check_of("load", problems, self.figures)

    @property
    def figures(self) -> str:
        lag_p99, lag_max = self.lag_p99_seconds * 1e3, self.lag_max_seconds * 1e3
        return (
            f"{self.episodes} episodes in {self.seconds:.1f} s; event-loop lag p99 {lag_p99:.1f} ms, "
            f"max {lag_max:.1f} ms; {self.kept_bytes:.0f} bytes kept per episode; "
            f"episode time p99 {self.episode_p99_seconds * 1e3:.1f} ms"
        )

    def row(self) -> dict[str, float | int | str]:
        """The figures as JSON."""
        return asdict(self)


async def measure_load(spec: EnvironmentSpec, episodes: int, *, seed: int = 0) -> Load:
    """Play so many episodes at once, and some more for the memory. What `setup` loaded is given back."""
    try:
        return await _measure(spec, episodes, seed)
    finally:
        await spec.teardown()


async def _measure(spec: EnvironmentSpec, episodes: int, seed: int) -> Load:
    tasks = sample_of(spec, _TASKS, seed)
    await spec.setup()
    lags: list[float] = []
    watching = asyncio.ensure_future(_watch(lags))
    pause = max(_MIN_PAUSE_SECONDS, episodes / _TURNS_PER_SECOND)
    # What earlier checks and imports left would be walked by a full collection, at this environment's cost.
    gc.collect()
    gc.freeze()
    started = time.monotonic()
    try:
        rollouts = await asyncio.gather(*(_episode(spec, tasks, index, seed, pause) for index in range(episodes)))
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        gc.unfreeze()
    failed = [rollout for rollout in rollouts if rollout.failure is not None]
    first = f"{place_of(failed[0])}: {failed[0].failure.message}" if failed and failed[0].failure else ""
    times = [max(0.0, rollout.timing.total - rollout.timing.model) for rollout in rollouts]
    seconds = time.monotonic() - started
    del rollouts
    return Load(
        episodes, len(failed), seconds, _p99(lags), max(lags, default=0.0),
        await _kept_bytes(spec, tasks, seed), _p99(times), first,
    )  # fmt: skip


async def _episode(spec: EnvironmentSpec, tasks: Sequence[Task], index: int, seed: int, pause: float) -> Rollout:
    rng = Random(f"{seed}:load:{index}")
    await asyncio.sleep(rng.uniform(0, pause))
    task = tasks[index % len(tasks)]
    return await play(spec, task, _Pausing(_policy(spec, task, rng), rng, pause), task_index=index)


def _policy(spec: EnvironmentSpec, task: Task, rng: Random) -> Model | EpisodePolicy:
    return Oracle() if spec.cls.solve is not Environment.solve else BAD_POLICIES["random calls"](spec, task, rng)


async def _watch(lags: list[float]) -> None:
    while True:
        before = time.perf_counter()
        await asyncio.sleep(_TICK_SECONDS)
        lags.append(max(0.0, time.perf_counter() - before - _TICK_SECONDS))


async def _kept_bytes(spec: EnvironmentSpec, tasks: Sequence[Task], seed: int) -> float:
    """Play the same episodes three times; what the third round adds is what episodes leave behind."""
    was_tracing = tracemalloc.is_tracing()
    if not was_tracing:
        tracemalloc.start(1)
    try:
        played = await _play_round(spec, tasks, seed, _MEMORY_EPISODES, _MEMORY_ROUND_SECONDS)
        sizes = []
        for _ in range(2):
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
            await _play_round(spec, tasks, seed, played)
        gc.collect()
        sizes.append(tracemalloc.get_traced_memory()[0])
    finally:
        if not was_tracing:
            tracemalloc.stop()
    return max(0.0, (sizes[2] - sizes[1]) / played)


async def _play_round(
    spec: EnvironmentSpec, tasks: Sequence[Task], seed: int, episodes: int, seconds: float | None = None
) -> int:
    """Play some episodes, a few at once; return how many there was time for."""
    started = time.monotonic()
    for first in range(0, episodes, _AT_ONCE):
        if seconds and first >= _FEWEST_MEMORY_EPISODES and time.monotonic() - started > seconds:
            return first
        await asyncio.gather(
            *(
                play(spec, task, _policy(spec, task, Random(f"{seed}:{index}")), task_index=index)
                for index in range(first, min(first + _AT_ONCE, episodes))
                for task in (tasks[index % len(tasks)],)
            )
        )
    return episodes


def _p99(values: Sequence[float]) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] if ordered else 0.0


class _Pausing:
    """Waits before each answer as a model does."""

    def __init__(self, policy: Model | EpisodePolicy, rng: Random, seconds: float) -> None:
        self.policy = policy
        self.rng = rng
        self.seconds = seconds

    def bind(self, episode: Episode) -> Model:
        model = self.policy.bind(episode) if isinstance(self.policy, EpisodePolicy) else self.policy
        return _PausingModel(model, self)


class _PausingModel:
    def __init__(self, model: Model, pausing: _Pausing) -> None:
        self.model = model
        self.pausing = pausing

    async def respond(self, request: ModelRequest) -> ModelResponse:
        await asyncio.sleep(self.pausing.seconds * self.pausing.rng.uniform(0.5, 1.5))
        return await self.model.respond(request)
