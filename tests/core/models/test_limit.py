"""The control law against modelled endpoints, in virtual time: what it finds, and what it leaves alone."""

import heapq
from collections import deque
from collections.abc import Callable
from random import Random

import pytest

from gymrail.models.limit import UNLIMITED, Limit

SecondsOf = Callable[[int, Random], float]
"""How long a request takes that finds so many others with it."""


class Fixed(Limit):
    """Never moves."""

    def succeed(self, *_: object) -> None: ...

    def refuse(self, *_: object) -> None: ...


class World:
    """Clients that ask again as soon as they are answered."""

    def __init__(self, limit: Limit, seconds_of: SecondsOf, clients: int = 64, capacity: int | None = None) -> None:
        self.limit = limit
        self.seconds_of = seconds_of
        self.capacity = capacity
        self.ready = deque(range(clients))
        self.rng = Random(7)
        self.now = 0.0
        self.in_flight = self.served = self.answered = self.refused = self.number = 0
        self.events: list[tuple[float, int, bool, int, float]] = []

    def run(self, seconds: float) -> float:
        """Return answers per second."""
        until, before = self.now + seconds, self.answered
        self._send()
        while self.now < until:
            self.now, _, is_served, client, started = heapq.heappop(self.events)
            if is_served:
                self.limit.succeed(started, self.now, 1, self.in_flight)
                self.answered += 1
                self.served -= 1
                self.ready.append(client)
            else:
                self.limit.refuse(started, self.now, self.in_flight)
                self.refused += 1
                self.ready.appendleft(client)
            self.in_flight -= 1
            self._send()
        return (self.answered - before) / seconds

    def _send(self) -> None:
        while self.ready and self.in_flight < self.limit.value:
            self.in_flight += 1
            self.number += 1
            self.limit.peak = max(self.limit.peak, self.in_flight)
            is_served = self.capacity is None or self.served < self.capacity
            self.served += is_served
            seconds = self.seconds_of(self.served, self.rng) if is_served else 0.001
            heapq.heappush(self.events, (self.now + seconds, self.number, is_served, self.ready.popleft(), self.now))


def jitter(rng: Random) -> float:
    return rng.uniform(0.09, 0.11)


def exponential(rng: Random) -> float:
    return rng.expovariate(10)


@pytest.mark.parametrize("noise", [jitter, exponential])
@pytest.mark.parametrize("capacity", [1, 8, 30])
def test_refusals_find_the_capacity_and_stay_few(capacity: int, noise: Callable[[Random], float]) -> None:
    world = World(Limit(), lambda _, rng: noise(rng), capacity=capacity)
    rate = world.run(200)
    assert rate > 0.93 * capacity * 10
    assert capacity - 2 <= world.limit.value <= capacity + 2
    assert world.refused < 0.04 * world.answered + 64 if capacity > 1 else world.refused < 0.2 * world.answered


def test_a_capacity_that_changes_is_found_again() -> None:
    world = World(Limit(), lambda _, rng: jitter(rng), capacity=30)
    world.run(60)
    world.capacity = 6
    world.run(10)
    assert world.run(30) > 0.9 * 60
    world.capacity = 60
    world.run(30)
    assert world.run(30) > 0.9 * 600


def test_an_endpoint_that_thrashes_is_sent_what_it_bears_best() -> None:
    def thrashing(together: int, rng: Random) -> float:
        return jitter(rng) * max(1.0, (together / 16) ** 2)

    best = max(World(Fixed(most), thrashing).run(60) for most in (8, 12, 16, 20, 24, 32, 64))
    limit = Limit(at_once_seconds=0)
    rate = World(limit, thrashing).run(120)
    assert rate > 0.9 * best
    assert 13 <= limit.value <= 19
    assert World(Fixed(64), thrashing).run(60) < 0.3 * best  # it is worth something


@pytest.mark.parametrize("noise", [jitter, exponential])
@pytest.mark.parametrize(
    "slowdown",
    [
        lambda together: 1.0,
        lambda together: 1 + together / 100,
        lambda together: 1 + together / 20,
        lambda together: max(1.0, together / 16),
    ],
    ids=["none", "light batching", "heavy batching", "queueing"],
)
def test_a_server_that_only_batches_or_queues_loses_nothing(
    slowdown: Callable[[int], float], noise: Callable[[Random], float]
) -> None:
    best = World(Fixed(64), lambda together, rng: noise(rng) * slowdown(together)).run(200)
    rate = World(Limit(), lambda together, rng: noise(rng) * slowdown(together)).run(200)
    assert rate > 0.95 * best


def test_a_burst_of_refusals_counts_once_and_tells_what_was_accepted() -> None:
    limit = Limit()
    limit.peak = 64
    told = [limit.refuse(0.0, 1.0 + number / 1000, 64 - number) for number in range(56)]
    assert told == [63, *[None] * 55]
    assert 4 <= limit.value <= 8
    assert limit.refuse(2.0, 2.1, 5) == 4


def test_the_limit_keeps_within_its_bounds() -> None:
    limit = Limit(4)
    for number in range(50):
        limit.refuse(float(number), number + 0.5, 1)
    assert limit.value == 1
    for number in range(100, 5000):
        limit.peak = max(limit.peak, limit.value)
        limit.succeed(float(number), number + 0.5, 1, limit.value)
    assert limit.value == 4
    assert Limit().value == UNLIMITED
