"""Who may send a request to an endpoint now: as many at once as it bears, first come first served.

Covers: any number of event loops and threads, cancelled waits (a slot is never lost), `Retry-After` and backoff as a
pause for everybody. What an endpoint bears is learnt by `Limit`.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Iterable
from typing import NamedTuple

from gymrail.errors import ModelError
from gymrail.models.limit import AT_ONCE_SECONDS, UNLIMITED, Limit

_log = logging.getLogger("gymrail.models")
_TOLD_FACTOR = 1.5
_TOLD_SECONDS = 1.0
"""A change of the limit by this factor is logged, and so is a pause this long; the former no more often than this."""


class Load(NamedTuple):
    """How busy an endpoint is, or several together."""

    limit: int
    """Requests that it is sent at once; `limit.UNLIMITED` while it bears all."""
    waiting: int
    """Requests that wait for their turn."""
    in_flight: int
    """Requests that it answers now."""


def total_load(loads: Iterable[Load]) -> Load:
    """Add up what several endpoints bear, and do."""
    limits, waiting, in_flight = zip(*loads, strict=True)
    return Load(min(sum(limits), UNLIMITED), sum(waiting), sum(in_flight))


class Pace:
    """The slots of one endpoint. Everything that enters must leave: `leave`, `refuse` or `give_back`."""

    def __init__(
        self, name: str, most: int | None = None, first_wait_seconds: float = 0.5, max_wait_seconds: float = 60.0
    ) -> None:
        """
        Args:
            name: the endpoint, for messages.
            most: requests at once, whatever it bears.
            first_wait_seconds: the pause after it refused everything; doubled while it goes on.
            max_wait_seconds: the longest pause, whatever it asks for.
        """
        self.name = name
        self._limit = Limit(most or UNLIMITED, AT_ONCE_SECONDS)
        self._first_wait_seconds = first_wait_seconds
        self._max_wait_seconds = max_wait_seconds
        self._lock = threading.Lock()
        self._in_flight = 0
        self._waiters: deque[_Waiter] = deque()
        self._waiting = 0
        """Without those in the queue that were cancelled."""
        self._opens_at = 0.0
        self._timers: set[asyncio.AbstractEventLoop] = set()
        """Loops with a timer that ends the pause."""
        self._barren = 0
        """Bursts of refusals without an answer in between."""
        self._fell_at = 0.0
        self._was_refused = False
        """Since the limit was last told."""
        self._answered_at = time.monotonic()
        self._told_limit = self._limit.value
        self._told_at = 0.0

    @property
    def load(self) -> Load:
        return Load(self._limit.value, self._waiting, self._in_flight)

    @property
    def is_paused(self) -> bool:
        """Whether the endpoint asked for a pause that is not over."""
        return time.monotonic() < self._opens_at

    def try_enter(self) -> float | None:
        """Take a slot if one is free and nobody waits; returns the time, to leave with."""
        now = time.monotonic()
        with self._lock:
            if self._waiting or self._in_flight >= self._limit.value or now < self._opens_at:
                return None
            self._take()
        return now

    async def enter(self, deadline: float | None, patience_seconds: float, is_again: bool = False) -> float:
        """Wait for a slot; returns the time, to leave with.

        Args:
            deadline: of `time.monotonic`.
            patience_seconds: how long to wait without a deadline while the endpoint answers nothing.
            is_again: was refused, so it waits before those that were not sent yet.

        Raises:
            ModelError: there was no slot in time.
        """
        waiter = _Waiter(asyncio.get_running_loop())
        began = time.monotonic()
        with self._lock:
            self._waiting += 1
            (self._waiters.appendleft if is_again else self._waiters.append)(waiter)
            self._admit(began)
            self._time_pause(waiter.loop, began)
        try:
            while not waiter.is_admitted:
                until = time.monotonic() + patience_seconds if deadline is None else deadline
                try:
                    async with asyncio.timeout(max(0.0, until - time.monotonic())):
                        await waiter.future
                except TimeoutError:
                    if not waiter.is_admitted and (
                        deadline is not None or self._answered_at < until - patience_seconds
                    ):
                        raise ModelError(self._saturated(time.monotonic() - began), 429) from None
                    waiter.future = waiter.loop.create_future()  # the timeout cancelled the other
            waiter.is_inside = True
        finally:
            if not waiter.is_inside:
                self._withdraw(waiter)
        return time.monotonic()

    def leave(self, started: float, work: int) -> None:
        """The request was answered, or given up as too slow; `work` is as of `Limit.succeed`."""
        now = time.monotonic()
        with self._lock:
            self._limit.succeed(started, now, work, self._in_flight)
            self._in_flight -= 1
            self._answered_at = now
            if self._barren and started >= self._fell_at:
                self._barren = 0
            if self._waiting:
                self._admit(now)
            if self._limit.value != self._told_limit:
                self._tell(now)

    def refuse(self, started: float, after_seconds: float | None) -> None:
        """The request was refused as one too many, and the endpoint may have asked for a pause."""
        now = time.monotonic()
        with self._lock:
            accepted = self._limit.refuse(started, now, self._in_flight)
            self._in_flight -= 1
            pause = 0.0
            if accepted is not None:
                self._fell_at, self._was_refused = now, True
                self._barren += 1
                if accepted == 0 or self._barren > 1:
                    doubled = self._first_wait_seconds * 2 ** min(self._barren - 1, 30)
                    pause = min(doubled, self._max_wait_seconds) * random.uniform(0.5, 1.0)
            if after_seconds:
                # Never sooner than asked; the jitter keeps several processes from coming back together.
                pause = min(after_seconds * random.uniform(1.0, 1.1), self._max_wait_seconds)
            self._pause(now, pause)
            self._admit(now)

    def give_back(self) -> None:
        """The request says nothing about what the endpoint bears: it was cancelled, or broke."""
        with self._lock:
            self._in_flight -= 1
            if self._waiting:
                self._admit(time.monotonic())

    def _take(self) -> None:
        self._in_flight += 1
        if self._in_flight > self._limit.peak:
            self._limit.peak = self._in_flight

    def _admit(self, now: float) -> None:
        """Give free slots to those who wait. Holds the lock, as all that follows."""
        while self._waiting and self._in_flight < self._limit.value and now >= self._opens_at:
            waiter = self._waiters.popleft()
            if waiter.is_gone:
                continue
            self._waiting -= 1
            if waiter.wake():
                self._take()

    def _withdraw(self, waiter: _Waiter) -> None:
        with self._lock:
            if waiter.is_admitted:
                self._in_flight -= 1
            elif not waiter.is_gone:
                waiter.is_gone = True
                self._waiting -= 1
            self._admit(time.monotonic())

    def _pause(self, now: float, seconds: float) -> None:
        if now + seconds <= self._opens_at or seconds <= 0:
            return
        if seconds >= _TOLD_SECONDS and now >= self._opens_at:
            _log.warning(
                "%s is busy and is sent nothing for %.1f s; %d requests wait", self.name, seconds, self._waiting
            )
        self._opens_at = now + seconds
        for loop in {waiter.loop for waiter in self._waiters if not waiter.is_gone}:
            self._time_pause(loop, now)

    def _time_pause(self, loop: asyncio.AbstractEventLoop, now: float) -> None:
        """Have the loop end the pause, if there is one."""
        if now >= self._opens_at or loop in self._timers:
            return
        delay = self._opens_at - now
        try:
            if _is_running(loop):
                loop.call_later(delay, self._end_pause, loop)
            else:
                loop.call_soon_threadsafe(loop.call_later, delay, self._end_pause, loop)
        except RuntimeError:  # closed, and its waiters with it
            return
        self._timers.add(loop)

    def _end_pause(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            now = time.monotonic()
            self._timers.discard(loop)
            if now < self._opens_at and self._waiting:  # it was made longer
                self._time_pause(loop, now)
            self._admit(now)

    def _tell(self, now: float) -> None:
        before, value = self._told_limit, self._limit.value
        is_same = before / _TOLD_FACTOR < value < before * _TOLD_FACTOR
        if is_same or now - self._told_at < _TOLD_SECONDS or (value < before and not self._waiting):
            return  # a limit that nobody meets is no news
        self._told_limit, self._told_at = value, now
        # One that is only being tried concerns nobody.
        level = logging.WARNING if value < before and self._was_refused else logging.INFO
        self._was_refused = False
        was = "no limit" if before == UNLIMITED else str(before)
        _log.log(level, "%s is sent %d requests at once from now on (before: %s)", self.name, value, was)

    def _saturated(self, seconds: float) -> str:
        limit, waiting, in_flight = self.load
        paused = ", and asks for a pause" if self.is_paused else ""
        return (
            f"{self.name} is saturated: no request could be sent within {seconds:.3g} seconds; it bears {limit} at "
            f"once, answers {in_flight}, {waiting} wait{paused}. Play fewer episodes at once, or give them more time."
        )


class _Waiter:
    __slots__ = ("future", "is_admitted", "is_gone", "is_inside", "loop")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.future = loop.create_future()
        self.is_admitted = False
        """Has a slot."""
        self.is_inside = False
        """Knows it."""
        self.is_gone = False

    def wake(self) -> bool:
        """Give it a slot; False where its event loop is closed."""
        try:
            if _is_running(self.loop):
                self._resolve()
            else:
                self.loop.call_soon_threadsafe(self._resolve)
        except RuntimeError:
            self.is_gone = True
            return False
        self.is_admitted = True
        return True

    def _resolve(self) -> None:
        if not self.future.done():
            self.future.set_result(None)


def _is_running(loop: asyncio.AbstractEventLoop) -> bool:
    """Whether this code runs on that loop."""
    try:
        return asyncio.get_running_loop() is loop
    except RuntimeError:
        return False
