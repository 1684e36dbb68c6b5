"""Orchestration of rollouts: they run at once, a broken one is no reward, a slow one holds up no other, and a run that
stopped goes on with the next batch.

Who waits for whom is decided by events, so that the speed of the machine changes nothing; the limits only end what
would wait for ever.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol

from gymrail.collect.event_loop import run_async
from gymrail.data.mixture_stream import Measured, MixtureStream
from gymrail.episode import Episode
from gymrail.errors import ModelError
from gymrail.limits import Limits
from gymrail.models.model import Model, ModelRequest, ModelResponse
from gymrail.rollout import Rollout
from gymrail.tokens import training_row
from gymrail.validation.plan import Gold, Plan, next_groups, play_plan
from gymrail.validation.report import Line, Points

POINTS = Points("orchestration")
GROUPS, REPEATS = 4, 2
_WAIT_SECONDS = 60.0
"""For what never happens in a trainer that works."""
_HUNG_SECONDS = 0.5
"""The time limit that the hanging episode is given."""


def check_orchestration(plan: Plan) -> Iterator[Line]:
    """Play small batches of the recipe's mixture with policies that wait, break and hang."""
    yield _parallel(plan)
    yield _broken(plan)
    yield _slow(plan)
    yield _next_batch(plan)


def _parallel(plan: Plan) -> Line:
    limits = [entry.concurrency for entry in plan.recipe.mixture if entry.concurrency is not None]
    together = min([plan.recipe.agent.concurrency, GROUPS * REPEATS, *limits])
    if together < 2:
        return POINTS.skipped("parallel", "the recipe plays one episode at a time", "Raise agent.concurrency.")
    gate = _Gate(together)
    rollouts = _play(plan, gate)
    detail = f"{together} episodes were at their first model call at once"
    broken = [rollout.failure.message for rollout in rollouts if rollout.failure is not None]
    problems = [] if gate.is_open else [f"only {gate.most} of {together} episodes were under way at once: {broken[0]}"]
    return POINTS.judged("parallel", problems, detail, "Raise agent.concurrency; report it if that is high enough.")


def _broken(plan: Plan) -> Line:
    rollouts = _play(plan, _Breaking())
    hit = [rollout for rollout in rollouts if _is_first(rollout)]
    others = [rollout for rollout in rollouts if not _is_first(rollout)]
    problems = [problem for rollout in hit for problem in _masking_problems(rollout)]
    problems += [
        f"{rollout.environment}, task {rollout.task_index} failed too: {rollout.failure.message}"
        for rollout in others
        if rollout.failure is not None
    ]
    detail = f"1 of {len(rollouts)} broke: failed (model), masked, no reward; the {len(others)} others have theirs"
    return POINTS.judged("a failed episode", problems, detail, "Report this: a crash must never be a reward.")


def _slow(plan: Plan) -> Line:
    held = _Held(GROUPS * REPEATS - 1)
    _play(plan, held, on_rollout=held.note)
    problems = held.problems[:1]
    hanging = _play(plan, _Hanging(), limits=Limits(episode_seconds=_HUNG_SECONDS))
    cut = [rollout for rollout in hanging if _is_first(rollout)]
    kinds = [rollout.failure.kind for rollout in cut if rollout.failure is not None]
    problems += [problem for rollout in cut for problem in _masking_problems(rollout)]
    if kinds != ["timeout"]:
        problems.append(f"an episode that hangs ended as {kinds or cut}, not as a timeout")
    recipe = plan.recipe
    ends = f"agent.episode_seconds ({recipe.agent.episode_seconds:g})"
    if recipe.mixing.late is not None:
        ends = f"mixing.late, or {ends}"
    if any(entry.deadline_seconds is not None for entry in recipe.mixture):
        ends = f"its deadline_seconds, or {ends}"
    detail = f"{held.others} others ended while one was held; one that hangs is cut as a timeout, here by {ends}"
    return POINTS.judged("a slow episode", problems, detail, "Report this: episodes wait for each other.")


def _next_batch(plan: Plan) -> Line:
    """Draw batches in one go, and again with everything made anew in between, as a run that stopped does."""
    groups = plan.groups(plan.mixture)
    whole = _draw(plan, MixtureStream(plan.mixture), groups, 3)
    first = MixtureStream(plan.mixture)
    begun = _draw(plan, first, groups, 2)
    state = json.loads(json.dumps(first.state()))
    later = MixtureStream(plan.mixture)
    later.restore(state)
    resumed = [*begun, *_draw(plan, later, groups, 1)]
    problems = [
        f"batch {number + 1} has other tasks: {_first_difference(one, other)}"
        for number, (one, other) in enumerate(zip(whole, resumed, strict=True))
        if one != other
    ]
    detail = f"stopped after 2 batches of {groups} groups, the third has the same tasks"
    fix = "An environment's tasks must depend on the rng it is given alone; `gymrail check` says which do not."
    return POINTS.judged("stop and go on", problems, detail, fix)


def _draw(plan: Plan, stream: MixtureStream, groups: int, batches: int) -> list[list[str]]:
    drawn = []
    for _ in range(batches):
        batch = next_groups(stream.mixture, stream, groups)
        drawn.append([f"{group.spec.name}:{group.task.id}" for group in batch])
        if not stream.mixture.is_plain:
            # Every other group teaches, and each has its own length: shares and the curriculum have something to learn.
            stream.observe(
                Measured(group, [0.0, float(group.index % 2)], 40 + 7 * (group.index % 5)) for group in batch
            )
    return drawn


def _first_difference(one: list[str], other: list[str]) -> str:
    pairs = ((a, b) for a, b in zip(one, other, strict=False) if a != b)
    return next((f"{a} became {b}" for a, b in pairs), f"{len(one)} groups became {len(other)}")


def _masking_problems(rollout: Rollout) -> list[str]:
    """What is wrong with how a broken rollout would reach a trainer."""
    problems = []
    if rollout.failure is None or rollout.reward is not None:
        problems.append(f"an episode that broke counts as {rollout.outcome} with the reward {rollout.reward}")
    row = training_row(rollout, placeholder_id=0)
    if row.reward is not None or any(row.sequence.mask):
        problems.append(f"its training row has the reward {row.reward} and {sum(row.sequence.mask)} trained tokens")
    return problems


class _Policy(Protocol):
    def bind(self, episode: Episode) -> Model: ...


def _play(plan: Plan, policy: _Policy, **options: Any) -> list[Rollout]:
    return run_async(play_plan(plan, policy, groups=GROUPS, repeats=REPEATS, **options))


def _is_first(rollout: Rollout) -> bool:
    return rollout.task_index == 0 and rollout.repeat == 0


@dataclass(slots=True)
class _Before:
    """Plays as the gold policy does, after something has happened."""

    gold: Model
    before: Callable[[], Awaitable[None]]

    async def respond(self, request: ModelRequest) -> ModelResponse:
        await self.before()
        return await self.gold.respond(request)


@dataclass(slots=True)
class _Gate:
    """Answers nobody until so many episodes wait together."""

    together: int
    waiting: int = 0
    most: int = 0
    opened: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def is_open(self) -> bool:
        return self.opened.is_set()

    def bind(self, episode: Episode) -> Model:
        return _Before(Gold().bind(episode), self.wait)

    async def wait(self) -> None:
        self.waiting += 1
        self.most = max(self.most, self.waiting)
        if self.waiting >= self.together:
            self.opened.set()
        try:
            await _within(self.opened, f"{self.together} episodes never waited together")
        finally:
            self.waiting -= 1


class _Breaking:
    """Breaks in the first episode."""

    def bind(self, episode: Episode) -> Model:
        return _Before(Gold().bind(episode), _break) if _is_first(episode.rollout) else Gold().bind(episode)


async def _break() -> None:
    raise ModelError("validate-trainer broke this model call on purpose")


@dataclass(slots=True)
class _Held:
    """Answers the first episode when all others are over."""

    others: int
    ended: int = 0
    freed: asyncio.Event = field(default_factory=asyncio.Event)
    problems: list[str] = field(default_factory=list)

    def note(self, rollout: Rollout) -> None:
        self.ended += not _is_first(rollout)
        if self.ended >= self.others:
            self.freed.set()

    def bind(self, episode: Episode) -> Model:
        return _Before(Gold().bind(episode), self.wait) if _is_first(episode.rollout) else Gold().bind(episode)

    async def wait(self) -> None:
        try:
            await _within(self.freed, "the other episodes did not end")
        except ModelError:
            self.problems.append(f"{self.ended} of {self.others} episodes ended while one was held")
            raise


class _Hanging:
    """Never answers the first episode."""

    def bind(self, episode: Episode) -> Model:
        return _Before(Gold().bind(episode), _hang) if _is_first(episode.rollout) else Gold().bind(episode)


async def _hang() -> None:
    await asyncio.Event().wait()


async def _within(event: asyncio.Event, otherwise: str) -> None:
    try:
        async with asyncio.timeout(_WAIT_SECONDS):
            await event.wait()
    except TimeoutError:
        raise ModelError(otherwise) from None
