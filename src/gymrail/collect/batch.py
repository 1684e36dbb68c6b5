"""One batch of a mixture, played: limits in flight, late episodes, groups without spread refilled.

    batch = await play_batch(stream, model, groups=32, repeats=8, step=step, record=run.record)
    for place in batch.groups: place.group, place.rollouts

Trainers and collection play their batches here, so that one mixture means the same to all of them. The groups are drawn
in an order that does not depend on which episode ends first: with an equal policy, two runs play equal tasks.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field

from gymrail.agents.tool_loop import Agent
from gymrail.collect.drain import Drain
from gymrail.collect.runner import Job, Player, Summary
from gymrail.data.mixing import Late
from gymrail.data.mixture import Group
from gymrail.data.mixture_stream import Measured, MixtureStream
from gymrail.episode import DEFAULT_LIMITS, Limits
from gymrail.errors import EpisodeFailed, Failure, InputError
from gymrail.models.model import EpisodePolicy, Model
from gymrail.play import DEFAULT_AGENT, failed_before_opening
from gymrail.rollout import Outcome, Rollout
from gymrail.spec import EnvironmentSpec

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class PlayedGroup:
    """A group, and its rollouts by repeat; those that were not played are absent: a probe had no spread."""

    group: Group
    rollouts: dict[int, Rollout] = field(default_factory=dict)

    @property
    def rewards(self) -> list[float]:
        """What the rollouts that can be trained on earned."""
        return [
            rollout.reward for rollout in self.rollouts.values() if rollout.is_trainable and rollout.reward is not None
        ]

    @property
    def has_spread(self) -> bool:
        """Whether two rollouts earned differently: only then there are advantages."""
        return len(set(self.rewards)) > 1

    @property
    def tokens(self) -> int:
        """Sampled tokens, those of attempts that were repeated included."""
        usages = (usage for rollout in self.rollouts.values() for usage in (rollout.usage, rollout.earlier_usage))
        return sum(usage.output_tokens for usage in usages)


@dataclass(slots=True)
class PlayedBatch:
    """What a batch came to."""

    groups: list[PlayedGroup]
    """By place; fewer than asked once the mixture's epochs are over."""
    given_up: list[PlayedGroup] = field(default_factory=list)
    """Groups without spread that others took the places of."""
    late: Counter[str] = field(default_factory=Counter)
    """Episodes by environment that were not waited for; each is a failed rollout as well."""

    @property
    def rollouts(self) -> list[Rollout]:
        """All that were played, those of groups that were given up too."""
        return [rollout for played in (*self.groups, *self.given_up) for rollout in played.rollouts.values()]

    def metrics(self) -> dict[str, float]:
        """Return by environment: the share of the places, of the sampled tokens, episodes that were late, groups that
        were given up, and the share of groups that have spread."""
        tokens: Counter[str] = Counter()
        for played in (*self.groups, *self.given_up):
            tokens[played.group.spec.name] += played.tokens
        total = max(1, sum(tokens.values()))
        given_up = Counter(played.group.spec.name for played in self.given_up)
        mine: dict[str, list[PlayedGroup]] = defaultdict(list)
        for played in self.groups:
            mine[played.group.spec.name].append(played)
        metrics: dict[str, float] = {}
        for name, groups in sorted(mine.items()):
            metrics |= {
                f"env/{name}/share": len(groups) / len(self.groups),
                f"env/{name}/token_share": tokens[name] / total,
                f"env/{name}/late": float(self.late[name]),
                f"env/{name}/given_up": float(given_up[name]),
                f"env/{name}/with_spread": sum(played.has_spread for played in groups) / len(groups),
            }
        return metrics


async def play_batch(
    stream: MixtureStream,
    model: Model | EpisodePolicy,
    *,
    groups: int,
    repeats: int,
    step: int = 0,
    agent: Agent = DEFAULT_AGENT,
    limits: Limits = DEFAULT_LIMITS,
    concurrency: int = 256,
    retries: int = 1,
    record: Callable[[Rollout], None] | None = None,
) -> PlayedBatch:
    """Draw so many groups, play each `repeats` times and let the mixture learn from it.

    Args:
        step: the training step, for schedules and the curriculum's refreshing.
        concurrency: episodes at once, over all environments; a member's own limit holds besides.
        record: called with every finished rollout, late ones too. What it raises ends the batch.

    Raises:
        InputError: the mixture's epochs are over, or a number is out of its range.
    """
    if groups < 1 or repeats < 1 or concurrency < 1 or retries < 0:
        raise InputError(
            f"groups is {groups!r}, repeats {repeats!r}, concurrency {concurrency!r} and retries {retries!r}; "
            "at least 1, 1, 1 and 0 are needed."
        )
    drawn = stream.batch(groups, step)
    if not drawn:
        raise InputError(f"The mixture is over: its epochs gave {stream.slots} groups, and no more are left.")
    batch = PlayedBatch([PlayedGroup(group) for group in drawn])
    player = Player(model, agent, limits, retries, 1.0, Summary(), Drain())
    floor = _Floor(stream, player, concurrency, record, batch)
    await _set_up({group.spec.name: group.spec for group in drawn}.values())
    floor.open()
    rounds = _Rounds(stream, batch, repeats)
    while work := rounds.next():
        await floor.play(work)
        rounds.out |= floor.cut
    played = sorted([*batch.groups, *batch.given_up], key=lambda entry: entry.group.index)
    stream.observe([Measured(entry.group, entry.rewards, entry.tokens) for entry in played], step)
    if batch.late:
        logger.warning("Late and not waited for at step %d: %s", step, dict(sorted(batch.late.items())))
    return batch


class _Rounds:
    """Which rollouts to play next. Rounds have ends, so that refills are drawn in the order of their places."""

    def __init__(self, stream: MixtureStream, batch: PlayedBatch, repeats: int) -> None:
        self._stream = stream
        self._batch = batch
        self._repeats = repeats
        dynamic = stream.mixture.mixing.dynamic_sampling
        self._probe = min(dynamic.probe or repeats, repeats) if dynamic else repeats
        self._least_spread = dynamic.least_spread if dynamic else 0.0
        self._refills = [dynamic.refills if dynamic else 0] * len(batch.groups)
        self._open = list(range(len(batch.groups)))
        self._is_first = True
        self.out: set[str] = set()
        """Environments that were late in this batch: nothing more is played of them."""

    def next(self) -> list[tuple[PlayedGroup, range]]:
        if self._is_first:
            self._is_first = False
            return [(played, range(self._probe)) for played in self._batch.groups]
        work, still = [], []
        for place in self._open:
            more = self._more(place)
            if more is not None:
                work.append(more)
                still.append(place)
        self._open = still
        return work

    def _more(self, place: int) -> tuple[PlayedGroup, range] | None:
        played = self._batch.groups[place]
        if played.group.spec.name in self.out:
            return None
        if played.has_spread:
            rest = range(len(played.rollouts), self._repeats)
            return (played, rest) if rest else None
        if self._refills[place] < 1 or self._stream.spread(played.group.spec.name) < self._least_spread:
            return None
        another = self._stream.another(played.group)
        if another is None:
            return None
        self._refills[place] -= 1
        self._batch.given_up.append(played)
        self._batch.groups[place] = fresh = PlayedGroup(another)
        return fresh, range(self._probe)


class _Floor:
    """Plays a batch's episodes: who may begin, and who is late."""

    def __init__(
        self,
        stream: MixtureStream,
        player: Player,
        concurrency: int,
        record: Callable[[Rollout], None] | None,
        batch: PlayedBatch,
    ) -> None:
        self._members = {member.spec.name: member for member in stream.mixture.members}
        self._late = stream.mixture.mixing.late
        self._player = player
        self._record = record
        self._batch = batch
        self._room = asyncio.Semaphore(concurrency)
        self._rooms = {
            name: asyncio.Semaphore(member.concurrency)
            for name, member in self._members.items()
            if member.concurrency is not None
        }
        self.cut: set[str] = set()
        self._opened_at = 0.0

    def open(self) -> None:
        """From now on the members' deadlines count."""
        self._opened_at = asyncio.get_running_loop().time()

    async def play(self, work: Sequence[tuple[PlayedGroup, range]]) -> None:
        """Play these repeats of these groups; every one has its rollout afterwards.

        Raises:
            Exception: what `record` raised, or a bug; the other episodes are closed first.
        """
        round_ = _Round(self._late)
        for played, repeats in work:
            for repeat in repeats:
                task = asyncio.create_task(self._one(played, repeat))
                round_.add(task, played.group.spec.name)
        deadlines = {name: self._members[name].deadline_seconds for name in round_.names}
        at = {name: self._opened_at + seconds for name, seconds in deadlines.items() if seconds is not None}
        self.cut |= await round_.wait(at)
        for played, repeats in work:
            for repeat in repeats:
                if repeat not in played.rollouts:
                    self._keep(played, self._late_rollout(played.group, repeat))

    async def _one(self, played: PlayedGroup, repeat: int) -> None:
        group = played.group
        async with self._rooms.get(group.spec.name) or nullcontext(), self._room:
            rollout = await self._player.play(Job(group.spec, group.task, group.index, repeat))
        self._keep(played, rollout)

    def _keep(self, played: PlayedGroup, rollout: Rollout) -> None:
        played.rollouts[rollout.repeat] = rollout
        if self._record is not None:
            self._record(rollout)

    def _late_rollout(self, group: Group, repeat: int) -> Rollout:
        self._batch.late[group.spec.name] += 1
        seconds = asyncio.get_running_loop().time() - self._opened_at
        message = f"this episode was not over {seconds:.1f} s after its batch began, and was not waited for"
        error = EpisodeFailed(Failure("timeout", "close", message))
        return failed_before_opening(group.spec, group.task, error, task_index=group.index, repeat=repeat)


class _Round:
    """Episodes that are waited for together, and the moment from which they are not."""

    def __init__(self, late: Late | None) -> None:
        self._late = late
        self._tasks: dict[asyncio.Task[None], str] = {}
        self._timers: list[asyncio.TimerHandle] = []
        self._cut_tasks: set[asyncio.Task[None]] = set()
        self._over = 0
        self._started_at = asyncio.get_running_loop().time()

    @property
    def names(self) -> set[str]:
        return set(self._tasks.values())

    def add(self, task: asyncio.Task[None], name: str) -> None:
        self._tasks[task] = name
        task.add_done_callback(self._count)

    async def wait(self, deadlines: dict[str, float]) -> set[str]:
        """Wait for all but the late ones, and return the environments of those."""
        loop = asyncio.get_running_loop()
        self._timers += [loop.call_at(at, self._cut, name) for name, at in deadlines.items()]
        try:
            outcomes = await asyncio.gather(*self._tasks, return_exceptions=True)
        finally:
            for timer in self._timers:
                timer.cancel()
            for task in self._tasks:
                task.cancel()
        errors = [
            outcome
            for task, outcome in zip(self._tasks, outcomes, strict=True)
            if isinstance(outcome, BaseException) and not (task in self._cut_tasks and task.cancelled())
        ]
        if errors:
            # A failing task cancelled the others: its own error says more than theirs.
            raise next((error for error in errors if not isinstance(error, asyncio.CancelledError)), errors[0])
        return {self._tasks[task] for task in self._cut_tasks if task.cancelled()}

    def _count(self, task: asyncio.Task[None]) -> None:
        if task in self._cut_tasks:
            return
        if task.cancelled() or task.exception() is not None:
            for other in self._tasks:
                other.cancel()
            return
        self._over += 1
        late = self._late
        if late is not None and self._over == math.ceil(late.quorum * len(self._tasks)):
            loop = asyncio.get_running_loop()
            seconds = (loop.time() - self._started_at) * late.patience
            self._timers.append(loop.call_at(self._started_at + seconds, self._cut, None))

    def _cut(self, name: str | None) -> None:
        late = {task for task, owner in self._tasks.items() if not task.done() and name in (None, owner)}
        self._cut_tasks |= late
        for task in late:
            task.cancel()


async def _set_up(specs: Iterable[EnvironmentSpec]) -> None:
    """Load what episodes share before any begins, so that the first ones do not wait for it."""
    for spec in specs:
        with suppress(EpisodeFailed):  # it becomes every episode's own failure
            await spec.setup()


def placeholder(group: Group, repeat: int) -> Rollout:
    """A rollout that was not played, for trainers that want a row for every place: `cancelled`, without a reward."""
    prompt = group.task.input_items
    rollout = Rollout(group.spec.name, group.task, "not_played", group.index, repeat, conversation=prompt)
    rollout.prompt_length, rollout.outcome = len(prompt), Outcome("cancelled")
    return rollout
