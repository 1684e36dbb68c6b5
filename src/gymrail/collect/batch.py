"""One batch of a mixture, played: limits in flight, late episodes, groups without spread refilled.

    batch = await play_batch(stream, model, groups=32, repeats=8, step=step, record=run.record)
    for place in batch.groups: place.group, place.rollouts

Trainers and collection play their batches here, so that one mixture means the same to all of them. The groups are drawn
in an order that does not depend on which episode ends first: with an equal policy, two runs play equal tasks.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field

from gymrail.agents.tool_loop import Agent
from gymrail.collect.batch_round import Round
from gymrail.collect.carried import Carried
from gymrail.collect.drain import Drain
from gymrail.collect.runner import Job, Player, Summary
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
    step: int = 0
    """At which its first episode could begin; before that of its batch where it was late for an earlier one."""

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
    """Episodes by environment that were given up; each is a failed rollout as well."""
    beside: Counter[str] = field(default_factory=Counter)
    """Episodes by environment that are played on beside the next batch."""
    step: int = 0

    @property
    def rollouts(self) -> list[Rollout]:
        """All that were played, those of groups that were given up too."""
        return [rollout for played in (*self.groups, *self.given_up) for rollout in played.rollouts.values()]

    def metrics(self) -> dict[str, float]:
        """Return by environment: the share of the places, of the sampled tokens, episodes that were late, groups that
        were given up, and the share of groups that have spread; where late groups are played on, also episodes in
        flight, empty places, and the steps since the groups in the places were begun."""
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
            filled = [played for played in groups if played.rollouts]
            metrics |= {
                f"env/{name}/share": len(groups) / len(self.groups),
                f"env/{name}/token_share": tokens[name] / total,
                f"env/{name}/late": float(self.late[name]),
                f"env/{name}/given_up": float(given_up[name]),
                f"env/{name}/with_spread": sum(played.has_spread for played in groups) / len(groups),
                f"env/{name}/empty": float(len(groups) - len(filled)),
                f"env/{name}/steps_old": sum(self.step - played.step for played in filled) / max(1, len(filled)),
            }
        metrics |= {f"env/{name}/beside": float(count) for name, count in sorted(self.beside.items())}
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
    carried: Carried | None = None,
) -> PlayedBatch:
    """Draw so many groups, play each `repeats` times and let the mixture learn from it.

    Args:
        step: the training step, for schedules and the curriculum's refreshing.
        concurrency: episodes at once, over all environments; a member's own limit holds besides.
        record: called with every finished rollout, late ones too. What it raises ends the batch.
        carried: for a mixture with `late.carry`: what is in flight between batches, the same for all of a stream.

    Raises:
        InputError: the mixture's epochs are over, or a number is out of its range.
    """
    if groups < 1 or repeats < 1 or concurrency < 1 or retries < 0:
        raise InputError(
            f"groups is {groups!r}, repeats {repeats!r}, concurrency {concurrency!r} and retries {retries!r}; "
            "at least 1, 1, 1 and 0 are needed."
        )
    if stream.mixture.mixing.carries:
        if carried is None:
            raise InputError("This mixture has late.carry; pass carried=Carried(), the same one to all its batches.")
        model = carried.begin(model)
    player = Player(model, agent, limits, retries, 1.0, Summary(), Drain())
    batch = PlayedBatch([], step=step)
    floor = _Floor(stream, player, concurrency, record, batch, carried)
    await floor.draw(groups, repeats)
    rounds = _Rounds(stream, batch, repeats)
    while work := rounds.next():
        await floor.play(work)
        rounds.out |= floor.cut
    if carried is not None:
        await floor.leave()
    played = sorted([*batch.groups, *batch.given_up], key=lambda entry: entry.group.index)
    stream.observe([Measured(entry.group, entry.rewards, entry.tokens) for entry in played if entry.rollouts], step)
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
            # A group that was late for an earlier batch comes with its rollouts.
            return [(played, self._first(played.group)) for played in self._batch.groups if not played.rollouts]
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
        return fresh, self._first(another)

    def _first(self, group: Group) -> range:
        """The repeats to begin with. A task that is known to have spread is played whole: a probe of 4 would miss the
        spread of every eighth group at a pass rate of 0.5, and more at others, and throw its rollouts away."""
        return range(self._repeats if group.is_known else self._probe)


class _Floor:
    """Plays a batch's episodes: who may begin, and who is late."""

    def __init__(
        self,
        stream: MixtureStream,
        player: Player,
        concurrency: int,
        record: Callable[[Rollout], None] | None,
        batch: PlayedBatch,
        carried: Carried | None,
    ) -> None:
        self._stream = stream
        self._carried = carried
        self._members = {member.spec.name: member for member in stream.mixture.members}
        self._late = stream.mixture.mixing.late
        self._player = player
        self._record = record
        self._batch = batch
        self._room = asyncio.Semaphore(concurrency)
        self._rooms = carried.rooms if carried is not None else {}
        for name, member in self._members.items():
            if member.concurrency is not None and name not in self._rooms:
                self._rooms[name] = asyncio.Semaphore(member.concurrency)
        self.cut: set[str] = set()
        self._opened_at = 0.0

    async def draw(self, groups: int, repeats: int) -> None:
        """Fill the batch's places, and begin what is played beside it; from now on the members' deadlines count."""
        stream, batch, carried = self._stream, self._batch, self._carried
        beside = carried.environments if carried is not None else set()
        again, stream.unplayed = stream.unplayed, []
        if carried is not None:
            batch.groups += carried.take(groups)
            batch.groups += await self._expired(carried, groups - len(batch.groups))
            beside |= {group.spec.name for group in again}
        beside = stream.apart(beside, batch.step)
        drawn = stream.batch(groups, batch.step, filled=len(batch.groups), beside=beside)
        if not drawn and not batch.groups:
            raise InputError(f"The mixture is over: its epochs gave {stream.slots} groups, and no more are left.")
        await _set_up({group.spec.name: group.spec for group in (*again, *drawn)}.values())
        self._opened_at = asyncio.get_running_loop().time()
        for position, group in enumerate([*again, *drawn]):
            played = PlayedGroup(group, step=batch.step)
            if carried is not None and (position < len(again) or group.spec.name in beside):
                tasks = {asyncio.create_task(self._one(played, repeat, is_beside=True)) for repeat in range(repeats)}
                carried.add(played, tasks)
            else:
                batch.groups.append(played)

    async def _expired(self, carried: Carried, places: int) -> list[PlayedGroup]:
        """Those that were in flight for too long: with some rewards they still take places, the others are given up."""
        late = self._late
        assert late is not None
        useful: list[PlayedGroup] = []
        for played, repeats in await carried.expire(late.carry):
            for repeat in repeats:
                if repeat not in played.rollouts:
                    self._keep(played, self._late_rollout(played.group, repeat))
            (useful if played.rewards and len(useful) < places else self._batch.given_up).append(played)
        return useful

    async def leave(self) -> None:
        """End a batch beside which others are played on."""
        assert self._carried is not None
        await self._carried.pause()
        self._batch.beside = self._carried.episodes

    async def play(self, work: Sequence[tuple[PlayedGroup, range]]) -> None:
        """Play these repeats of these groups; every one has its rollout afterwards, or the group is played on beside
        later batches.

        Raises:
            Exception: what `record` raised, or a bug; the other episodes are closed first.
        """
        round_ = Round(self._late, cancels=self._carried is None)
        tasks: dict[int, set[asyncio.Task[None]]] = {}
        for played, repeats in work:
            tasks[played.group.index] = {asyncio.create_task(self._one(played, repeat)) for repeat in repeats}
            for task in tasks[played.group.index]:
                round_.add(task, played.group.spec.name)
        deadlines = {name: self._members[name].deadline_seconds for name in round_.names}
        at = {name: self._opened_at + seconds for name, seconds in deadlines.items() if seconds is not None}
        self.cut |= await round_.wait(at)
        for played, repeats in work:
            missing = [repeat for repeat in repeats if repeat not in played.rollouts]
            if missing and self._carried is not None:
                self._carry(played, tasks[played.group.index])
                continue
            for repeat in missing:
                self._keep(played, self._late_rollout(played.group, repeat))

    def _carry(self, played: PlayedGroup, tasks: set[asyncio.Task[None]]) -> None:
        """Play a late group on; its place goes to one that is over, or stays empty."""
        assert self._carried is not None
        over = self._carried.take(1) or [PlayedGroup(played.group, step=self._batch.step)]
        self._batch.groups = [over[0] if entry is played else entry for entry in self._batch.groups]
        self._carried.add(played, tasks)

    async def _one(self, played: PlayedGroup, repeat: int, *, is_beside: bool = False) -> None:
        group = played.group
        # What is played beside the batch takes no room from it.
        async with self._rooms.get(group.spec.name) or nullcontext(), nullcontext() if is_beside else self._room:
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
