"""The episodes that a server holds: by credential and by id, with a limit, a time to live, and a memory of those that
are gone.

What a client must not cut off by leaving (a seeding, a closing) runs in a task of its own here.
"""

from __future__ import annotations

import asyncio
import secrets
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from gymrail.episode import Episode, Limits
from gymrail.errors import EpisodeFailed, Failure, InputError
from gymrail.serving.refusal import Refusal, log_failure
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task

Opener = Literal["seed_session", "reset"]
EndReason = Literal["closed", "judged", "idle", "shutdown"]

_MAX_GONE = 10_000
_CLOSES_AT_ONCE = 64
_RETRY_AFTER_SECONDS = 5
_SHUTDOWN_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Judgement:
    """What a verify ended with; kept after the episode is gone, so that verify is safe to retry."""

    reward: float | None = None
    reward_components: dict[str, float] = field(default_factory=dict)
    record: dict[str, Any] = field(default_factory=dict)
    """The rollout's own fields, but for its journal."""
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """What is remembered of an episode that is no more."""

    id: str
    environment: str
    reason: EndReason
    judgement: Judgement | None = None


@dataclass(slots=True, eq=False)
class Held:
    """An open episode, its credential, and what runs in it."""

    episode: Episode
    token: str
    opened_by: Opener
    request_digest: bytes
    """Of the body that seeded it: a retry brings the same."""
    tasks: set[asyncio.Task[Any]] = field(default_factory=set)
    """Those that are in a tool call."""
    judging: asyncio.Task[Judgement] | None = None
    emitted_reward: float = 0.0
    """Sum of the step rewards that a Gymnasium-style client was given."""
    stepping: asyncio.Task[Any] | None = None
    """The last step of a Gymnasium-style client."""
    step_key: str | None = None
    """The last step's call id: a retry brings the same."""

    @property
    def id(self) -> str:
        return self.episode.rollout.id

    @property
    def environment(self) -> str:
        return self.episode.spec.name

    @property
    def is_busy(self) -> bool:
        """Whether a call, a step or the verifier is under way."""
        return bool(self.tasks) or any(task is not None and not task.done() for task in (self.judging, self.stepping))


class EpisodeTable:
    """All episodes of a server. Use it on one event loop, between `start` and `stop`."""

    def __init__(
        self,
        limits: Limits,
        *,
        max_episodes: int = 10_000,
        max_gone: int = _MAX_GONE,
        reap_seconds: float | None = None,
    ) -> None:
        self.limits = limits
        self.max_episodes = max_episodes
        self.max_gone = max_gone
        self.reap_seconds = reap_seconds or max(0.05, min(30.0, limits.idle_seconds / 4))
        self.ended: dict[EndReason, int] = {"closed": 0, "judged": 0, "idle": 0, "shutdown": 0}
        """How many episodes ended for each reason."""
        self._by_token: dict[str, Held] = {}
        self._by_id: dict[str, Held] = {}
        self._opening: dict[str, tuple[bytes, asyncio.Task[Held]]] = {}
        self._gone: OrderedDict[str, Gone] = OrderedDict()
        self._gone_tokens: OrderedDict[str, str] = OrderedDict()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reaper: asyncio.Task[None] | None = None
        self._is_stopping = False

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Held]:
        return iter(list(self._by_id.values()))

    def by_token(self, token: str) -> Held | None:
        """Return the open episode of a credential, and start its time to live anew."""
        return self._usable(self._by_token.get(token))

    def by_id(self, id: str) -> Held | None:
        return self._usable(self._by_id.get(id))

    def gone(self, id: str) -> Gone | None:
        """What is remembered of an episode that is no more."""
        return self._gone.get(id)

    def knows_token(self, token: str | None) -> bool:
        """Whether a credential is or was an episode's."""
        return token is not None and (token in self._by_token or token in self._gone_tokens)

    async def open(
        self,
        spec: EnvironmentSpec,
        task: Task,
        *,
        opened_by: Opener = "seed_session",
        id: str | None = None,
        request_digest: bytes = b"",
        task_index: int = 0,
        repeat: int = 0,
    ) -> Held:
        """Seed an episode. Asked again with the same id and body, the same episode.

        Raises:
            Refusal: too many episodes are open (429), the id belongs to another request (409) or to an episode that is
                gone (404).
            EpisodeFailed: seeding broke.
            InputError: the task does not fit the environment.
        """
        key = id or secrets.token_hex(16)
        known = self._by_id.get(key)
        if known is not None or key in self._opening:
            digest = known.request_digest if known else self._opening[key][0]
            if digest != request_digest:
                raise Refusal(409, "conflict", "This episode id belongs to another request; use a new one.")
            return known or await asyncio.shield(self._opening[key][1])
        if key in self._gone:
            raise Refusal(404, "gone", "The episode of this id is over; use a new id.")
        self._check_room()
        opening = asyncio.create_task(
            self._open(key, spec, task, opened_by, request_digest, {"task_index": task_index, "repeat": repeat})
        )
        self._opening[key] = request_digest, opening
        opening.add_done_callback(lambda _: self._opening.pop(key, None))
        self._keep(opening, self._tasks)
        return await asyncio.shield(opening)

    def adopt(self, episode: Episode) -> Held:
        """Hold an episode that was opened elsewhere, and will be judged and closed there; `release` gives it back.

        Raises:
            Refusal: too many episodes are open.
        """
        self._check_room()
        held = Held(episode, secrets.token_urlsafe(24), "seed_session", b"")
        self._by_id[held.id] = self._by_token[held.token] = held
        return held

    async def release(self, held: Held) -> None:
        """Take an adopted episode's credential away, and let its running calls end; the episode stays open."""
        if self._by_id.get(held.id) is not held:
            return
        self._forget(held, "closed", None)
        if held.tasks:  # each has a limit of its own
            await asyncio.wait(set(held.tasks), timeout=self.limits.call_seconds)

    async def close(self, held: Held, reason: EndReason, judgement: Judgement | None = None) -> None:
        """Take an episode out of the table, let its running calls end, and close it; safe to call again."""
        if self._by_id.get(held.id) is not held:
            return
        self._forget(held, reason, judgement)
        closing = asyncio.create_task(self._close(held))
        self._keep(closing, self._tasks)
        await asyncio.shield(closing)

    async def reap(self) -> int:
        """Close the episodes whose time ran out; return how many those were."""
        expired = [held for held in self if not held.is_busy and held.episode.is_expired]
        for start in range(0, len(expired), _CLOSES_AT_ONCE):
            await asyncio.gather(*(self.close(held, "idle") for held in expired[start : start + _CLOSES_AT_ONCE]))
        return len(expired)

    def start(self) -> None:
        """Start the reaper."""
        self._reaper = asyncio.create_task(self._reap_for_ever())

    async def stop(self) -> None:
        """Stop the reaper, let what runs end for some seconds, and close every episode."""
        self._is_stopping = True
        if self._reaper is not None:
            self._reaper.cancel()
            await asyncio.wait([self._reaper])
            self._reaper = None
        running = {task for held in self for task in held.tasks} | self._tasks
        if running:
            _, late = await asyncio.wait(running, timeout=_SHUTDOWN_SECONDS)
            for task in late:
                task.cancel()
        held = list(self)
        for start in range(0, len(held), _CLOSES_AT_ONCE):
            await asyncio.gather(*(self.close(one, "shutdown") for one in held[start : start + _CLOSES_AT_ONCE]))

    def _usable(self, held: Held | None) -> Held | None:
        if held is None:
            return None
        episode = held.episode
        if not held.is_busy and episode.is_expired:
            self._forget(held, "idle", None)
            self._keep(asyncio.create_task(self._close(held)), self._tasks)
            return None
        episode.touch()
        return held

    def _check_room(self) -> None:
        if self._is_stopping:
            raise Refusal(503, "stopping", "The server is shutting down; seed on another one.")
        if len(self._by_id) + len(self._opening) >= self.max_episodes:
            raise Refusal(
                429,
                "too_many",
                f"{self.max_episodes} episodes are open, which is this server's limit; close some, or come again.",
                {"retry-after": str(_RETRY_AFTER_SECONDS)},
            )

    async def _open(
        self, id: str, spec: EnvironmentSpec, task: Task, opened_by: Opener, digest: bytes, place: dict[str, int]
    ) -> Held:
        try:
            episode = await Episode.open(spec, task, limits=self.limits, id=id, **place)
        except EpisodeFailed as error:
            if isinstance(error.__cause__, InputError):  # the environment says what is wrong with the row
                raise error.__cause__ from None
            log_failure(error.failure, spec.name, id)
            raise
        held = Held(episode, secrets.token_urlsafe(24), opened_by, digest)
        self._by_id[id] = self._by_token[held.token] = held
        return held

    def _forget(self, held: Held, reason: EndReason, judgement: Judgement | None) -> None:
        del self._by_id[held.id]
        del self._by_token[held.token]
        self.ended[reason] += 1
        self._gone[held.id] = Gone(held.id, held.environment, reason, judgement)
        self._gone_tokens[held.token] = held.id
        while len(self._gone) > self.max_gone:
            self._gone.popitem(last=False)
        while len(self._gone_tokens) > self.max_gone:
            self._gone_tokens.popitem(last=False)

    async def _close(self, held: Held) -> None:
        if held.tasks:  # each has a limit of its own
            await asyncio.wait(set(held.tasks), timeout=self.limits.call_seconds)
        await held.episode.close()

    async def _reap_for_ever(self) -> None:
        while True:
            await asyncio.sleep(self.reap_seconds)
            await self.reap()

    def _keep(self, task: asyncio.Task[Any], tasks: set[asyncio.Task[Any]]) -> None:
        """Hold a task until it is done; what it raised when nobody waits any more is no news to anybody."""
        tasks.add(task)

        def done(_: asyncio.Task[Any]) -> None:
            tasks.discard(task)
            if not task.cancelled():
                task.exception()

        task.add_done_callback(done)
