"""How many requests an endpoint bears at once, learnt from its refusals and its response times. Arithmetic alone: no
clock, no lock, no waiting; `Pace` has those.

Refusals (429, 503, 529). The limit falls to a share of what was accepted, the less the more is being refused, as DCTCP
does it (RFC 8257): a burst costs half, a single refusal next to nothing. Requests that were sent before a fall and are
refused after it belong to the same burst: they only correct the count of what was accepted. The limit rises again with
every round of answers, quickly to the number that was accepted, stays there, then goes on, faster with each step, as
CUBIC does (RFC 9438).

Response times. One that is far above the least seen says that requests queue inside the endpoint (TCP Vegas, Brakmo and
Peterson 1995; the gradient rule of Netflix's concurrency-limits). That alone is no reason to send fewer: a server that
batches answers each request more slowly and all of them together faster. So a fall is a trial. It stays where the rate
of answers, by Little's law requests at once divided by response time, does not suffer, and is undone where it does.
Answers that come at once are no queue, and their times say more about this process: they start no trial.
"""

from __future__ import annotations

from math import hypot, inf, sqrt
from typing import NamedTuple

UNLIMITED = 65_536
"""More than there are ports: what an endpoint bears before it has shown otherwise."""

_GAIN = 1 / 16
"""The weight of one answer in the share of requests that are being refused."""
_FEW = 0.1
"""A share of refusals that costs no more than the refused requests: at its limit an endpoint refuses some."""
_CONFIRMED_SHARE = 0.9
_PLATEAU_ROUNDS = 8
"""At the accepted number, before more is tried. A round is as many answers as may be in flight."""
AT_ONCE_SECONDS = 0.25
"""A mean response time below it starts no trial."""
_SLOW = 2.0
"""How many times the least response time asks for a trial."""
_TRIAL_SHARES = (0.5, 0.9)
"""A trial falls to one of these or between, further where answers are slower."""
_EXPLORING_SHARE = 0.8
_MARGIN = 0.03
"""By which a rate must differ, beyond its standard error, to be worse or better."""
_FEWEST, _MOST_ANSWERS = 16, 1200
"""Answers in a window: as many as it takes to know their mean to `_MARGIN`, within these."""
_REST_WINDOWS, _MAX_REST_WINDOWS = 8, 256
"""After a trial that was undone; doubled each time."""
_FIRST_EXPLORE_WINDOWS, _EXPLORE_WINDOWS = 16, 32
"""Without a slow answer there is a trial too, this seldom: an endpoint that was full from the start showed no other
response time."""
_FORGET = 1.005
"""By which the least response time and the best rate fade per window, since prompts grow and endpoints change."""


class _Point(NamedTuple):
    level: float
    """Requests at once."""
    rate: float
    """Work per second."""
    error: float
    """The rate's standard error, as a share of it."""

    def is_above(self, other: _Point, factor: float) -> bool:
        return self.rate > (factor + hypot(self.error, other.error)) * other.rate


class Limit:
    """The number of requests that may be in flight. Times are seconds of one clock; not safe for several threads."""

    def __init__(self, most: int = UNLIMITED, at_once_seconds: float = AT_ONCE_SECONDS) -> None:
        self.most = most
        self._at_once_seconds = at_once_seconds
        self.value = most
        """The limit, at least 1."""
        self.peak = 0
        """The most requests that were in flight at once in this round; the caller raises it."""
        self._level = float(most)
        self._fell_at = -inf
        self._sent = self._refused = 0
        self._refused_share = 0.0
        self._accepted = inf
        """Above it, trouble is to be expected."""
        self._plateau = 0
        self._is_slow_above = False
        """Whether what is above `_accepted` is slow, which takes a window to notice, and not refused."""
        self._step = 1.0
        self._answers_in_round = 0
        self._window: _Window | None = _Window(0.0)
        self._is_first_round = True
        self._least_cost = inf
        self._best: _Point | None = None
        self._before: _Point | None = None
        """Where the trial that is under way began."""
        self._rest = 0
        self._patience = _REST_WINDOWS
        self._explore_in = _FIRST_EXPLORE_WINDOWS

    def refuse(self, started: float, now: float, in_flight: int) -> int | None:
        """A request was refused; `in_flight` counts it too.

        Returns how many others were accepted so far, or None where the refusal belongs to a burst that is known.
        """
        is_new = started >= self._fell_at
        if is_new:
            self._fell_at, self._sent, self._refused = now, in_flight, 0
        self._refused += 1
        self._refused_share += (1 - self._refused_share) * _GAIN
        accepted = max(self._sent - self._refused, 0)
        if is_new:
            # Far below what was accepted before, it depends on something else than the number: a rate, or chance.
            is_confirmed = accepted >= _CONFIRMED_SHARE * self._accepted or self._accepted == inf
            self._plateau = _PLATEAU_ROUNDS if is_confirmed else 0
        kept_share = 1 - max(0.0, self._refused_share - _FEW) / 2
        self._settle(min(self._level, kept_share * accepted), max(accepted, 1))
        self._is_slow_above = False
        self._best = self._before = None
        self._window = _Window(now)
        return accepted if is_new else None

    def succeed(self, started: float, now: float, work: int, in_flight: int) -> None:
        """A request was answered, or given up as too slow.

        Args:
            work: output tokens where they are known, always or never; else 1.
            in_flight: with it.
        """
        window = self._window
        if window is not None and now >= window.opens_at:
            answers = window.answers
            answers.append((now - started, work, in_flight))
            if len(answers) >= window.enough:
                self._judge(window, now)
        if self._refused_share > 1e-6:
            self._refused_share *= 1 - _GAIN
        self._answers_in_round += 1
        if self._answers_in_round >= self.value or self._answers_in_round >= self.peak:
            self._rise()
            if window is None:
                self._is_first_round = False
                self._window = _Window(now + 2 * (now - started))
            elif not self._is_first_round and now >= window.opens_at and not window.is_like(self.peak):
                self._window = _Window(now)
            self._answers_in_round, self.peak = 0, in_flight

    def _rise(self) -> None:
        """At the end of a round."""
        if self.peak < self.value or self._before is not None:
            return  # nobody waited, or a trial is under way
        if self._level < self._accepted:
            self._set(min(self._level + max(1.0, self._level / 4), self._accepted))
        elif self._plateau > 0:
            self._plateau -= 1
        elif not self._is_slow_above:
            self._accepted = inf
            self._set(self._level + self._step)
            self._step *= 1.5

    def _judge(self, window: _Window, now: float) -> None:
        """At the end of a window."""
        count = len(window.answers)
        if self._before is None and window.seconds < count * self._at_once_seconds:
            window.answers.clear()
            return
        here, cost, mean_seconds = window.point()
        if self._is_first_round:
            # The first answers are those of quick requests alone, unless all are alike.
            self._least_cost = cost if here.error <= _MARGIN else inf
            self._window = None
            return
        if here.error > _MARGIN and count < _MOST_ANSWERS:
            needed = 1 + int(count * (here.error / _MARGIN) ** 2)
            window.enough = min(_MOST_ANSWERS, max(2 * count, needed))
            return
        slowness = cost / min(cost, self._least_cost)
        self._least_cost = min(cost, self._least_cost * _FORGET)
        best = self._best
        if best is None or here.rate >= best.rate:
            best = here
        self._best = best._replace(rate=best.rate / _FORGET)
        self._rest -= 1
        self._explore_in -= 1
        is_changed = self._decide(here, best, slowness)
        if not is_changed and self._is_slow_above and self._rest <= 0 and self.peak >= self.value:
            self._accepted = self._level + self._step
            self._set(self._accepted)
            self._step *= 1.5
            is_changed = True
        self._window = _Window(now + 2 * mean_seconds if is_changed else now, int(here.level))

    def _decide(self, here: _Point, best: _Point, slowness: float) -> bool:
        """Begin a trial or end one; returns whether the limit changed."""
        before = self._before
        if before is not None:
            self._before = None
            if here.is_above(before, 1 + _MARGIN) or (slowness > _SLOW and here.is_above(before, 1 - _MARGIN)):
                self._patience = _REST_WINDOWS
                return self._try(here, _EXPLORING_SHARE)
            self._go_back(before.level)
            return True
        if slowness > 1 + _MARGIN and here.level > best.level and best.is_above(here, 1 + _MARGIN):
            if best.level < _EXPLORING_SHARE * here.level:  # there may be something better on the way
                return self._try(here, max(_TRIAL_SHARES[0], sqrt(best.level / here.level)))
            self._go_back(best.level)
            return True
        if slowness > _SLOW and self._rest <= 0:
            least, most = _TRIAL_SHARES
            return self._try(here, max(least, min(most, sqrt(_SLOW / slowness))))
        return self._explore_in <= 0 and self._try(here, _EXPLORING_SHARE)

    def _try(self, here: _Point, share: float) -> bool:
        self._explore_in = _EXPLORE_WINDOWS
        if here.level < 2:
            return False
        self._before = here
        # By one at least, or a small limit would never move.
        self._settle(min(here.level * share, here.level - 1), here.level)
        return True

    def _go_back(self, level: float) -> None:
        self._settle(level, level)
        self._is_slow_above = True
        self._rest = self._patience
        self._explore_in = _EXPLORE_WINDOWS + 4 * self._patience
        self._patience = min(2 * self._patience, _MAX_REST_WINDOWS)

    def _settle(self, level: float, accepted: float) -> None:
        self._set(level)
        self._accepted, self._step = accepted, 1.0

    def _set(self, level: float) -> None:
        self._level = max(1.0, min(level, self.most))
        self.value = int(self._level)


class _Window:
    """The answers of some time: what a unit of work costs in seconds of one request, and how many were in flight.

    Which requests are answered in a given time does not depend on how long they take; of those that are sent in it, the
    quick ones are answered first. So the former count, and a change of the limit is followed by a pause.
    """

    __slots__ = ("answers", "enough", "opens_at", "peak")

    def __init__(self, opens_at: float, level: int = 0) -> None:
        self.opens_at = opens_at
        self.enough = max(_FEWEST, min(level, _MOST_ANSWERS))
        self.peak = 0
        self.answers: list[tuple[float, int, int]] = []
        """Seconds, work, and how many were in flight; added up at the end, because that costs less."""

    def is_like(self, peak: int) -> bool:
        """Whether a round had about as many requests in flight as the window's first one: else they tell nothing
        together, since more or fewer episodes are being played."""
        self.peak = self.peak or peak
        return self.peak / 1.5 <= peak <= self.peak * 1.5

    @property
    def seconds(self) -> float:
        return sum(answer[0] for answer in self.answers)

    def point(self) -> tuple[_Point, float, float]:
        """Return the rate, by Little's law, with the standard error of a ratio of two means; what a unit of work
        costs; and an answer's mean seconds."""
        answers = self.answers
        seconds = max(self.seconds, 1e-9)
        cost = seconds / max(sum(answer[1] for answer in answers), 1)
        residual = sum((answer[0] - cost * answer[1]) ** 2 for answer in answers)
        level = sum(answer[2] for answer in answers) / len(answers)
        return _Point(level, level / cost, sqrt(residual) / seconds), cost, seconds / len(answers)
