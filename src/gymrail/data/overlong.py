"""Overlong shaping: long answers earn less, so that a policy does not learn to think until it is cut off."""

from __future__ import annotations

from dataclasses import dataclass

from gymrail.tokens import TokenSequence


@dataclass(frozen=True, slots=True)
class Overlong:
    """The soft punishment of DAPO (arXiv:2503.14476, equation 13)."""

    limit: int
    """Tokens that an answer may have."""
    buffer: int
    """The last so many tokens before the limit cost something."""
    penalty: float = 1.0
    """What an answer of `limit` tokens costs."""

    def of(self, sequence: TokenSequence) -> float:
        """Return what is added to the reward, 0 or below: of the longest answer that was sampled."""
        lengths = [len(part.token_ids) for part in sequence.segments if part.role == "assistant"]
        over = max(lengths, default=0) - (self.limit - self.buffer)
        return -self.penalty * min(max(over / self.buffer, 0.0), 1.0)
