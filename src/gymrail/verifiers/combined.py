"""Several verifiers as one, by weights.

    Combined({"correct": (ExactAnswer("boxed"), 0.8), "short": (no_longer_than(200), 0.2)})

`reward_components` holds what each adds to the reward, so that their sum is the reward, as NeMo RL wants it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gymrail.errors import InputError
from gymrail.rollout import Verdict
from gymrail.verifiers.fields import judge_with
from gymrail.verifiers.together import all_of
from gymrail.verifiers.verifier import Verifier


@dataclass(frozen=True)
class Combined:
    """Asks all of its verifiers at once, each with the fields that it declares; where one cannot judge, none does."""

    parts: Mapping[str, tuple[Verifier, float]]
    """By name: a verifier and its weight. The reward is the weighted sum; weights that sum to 1 keep it in [0, 1]. A
    negative weight is a penalty."""

    def __post_init__(self) -> None:
        if not self.parts:
            raise InputError("A combination needs a verifier: {'correct': (ExactAnswer(), 1.0)}.")
        for name, (_, weight) in self.parts.items():
            if not math.isfinite(weight) or weight == 0:
                raise InputError(f"The weight of {name!r} is {weight!r}; it must be a number other than 0.")

    async def __call__(self, answer: str, /, **fields: Any) -> Verdict:
        """Pay the weighted sum; metrics and reasons are named by their part.

        Raises:
            VerifierError: a part could not judge.
            InputError: a field that a part needs is missing.
        """
        judged = await all_of(judge_with(part, answer, fields) for part, _ in self.parts.values())
        verdicts = dict(zip(self.parts, judged, strict=True))
        reasons = [f"{name}: {verdict.reason}" for name, verdict in verdicts.items() if verdict.reason]
        return Verdict(
            reward_components={name: self.parts[name][1] * verdict.reward for name, verdict in verdicts.items()},
            metrics={
                f"{name}/{metric}": value
                for name, verdict in verdicts.items()
                for metric, value in verdict.metrics.items()
            },
            reason="; ".join(reasons) or None,
        )

    async def aclose(self) -> None:
        """Close the parts that can be closed."""
        for part, _ in self.parts.values():
            close = getattr(part, "aclose", None)
            if close is not None:
                await close()
