"""Which member each group of a static mixture belongs to."""

from __future__ import annotations

import math
from array import array
from collections.abc import Sequence
from fractions import Fraction
from random import Random


class Quota:
    """Which member each group belongs to: the quota method of Balinski and Young, within 1 of the exact shares always.

    Of the members that are not ahead of their share, the one whose next group is due first gets it; the seed settles
    ties. Weights are taken as exact decimals, so the pattern repeats after a whole number of groups; it is worked out
    once, as far as it is asked for.
    """

    def __init__(self, weights: Sequence[float], seed: int) -> None:
        fractions = [Fraction(str(weight)) for weight in weights]
        scale = math.lcm(*(fraction.denominator for fraction in fractions))
        whole = [int(fraction * scale) for fraction in fractions]
        divisor = math.gcd(*whole)
        self._weights = [weight // divisor for weight in whole]
        self._period = sum(self._weights)
        self._ties = list(range(len(whole)))
        Random(f"{seed}:mixture").shuffle(self._ties)
        self._given = [0] * len(whole)
        self._members = array("H")
        self._places = array("Q")
        """For each group so far: its member, and which of that member's groups it is."""

    def at(self, index: int) -> tuple[int, int]:
        """Return the member of a group, and which of the member's groups it is."""
        cycles, offset = divmod(index, self._period)
        while len(self._members) <= offset:
            self._extend()
        member = self._members[offset]
        return member, cycles * self._weights[member] + self._places[offset]

    def counts(self, groups: int) -> list[int]:
        """Return how many of the first `groups` groups each member has."""
        cycles, rest = divmod(groups, self._period)
        counts = [cycles * weight for weight in self._weights]
        for index in range(rest):
            counts[self.at(index)[0]] += 1
        return counts

    def _extend(self) -> None:
        given, weights, period = self._given, self._weights, self._period
        after = len(self._members) + 1
        chosen = -1
        for member in self._ties:
            if given[member] * period >= after * weights[member]:
                continue
            # (given + 1) / weight is when the member's next group is due; compared without rounding.
            if chosen < 0 or (given[member] + 1) * weights[chosen] < (given[chosen] + 1) * weights[member]:
                chosen = member
        self._members.append(chosen)
        self._places.append(given[chosen])
        given[chosen] += 1
