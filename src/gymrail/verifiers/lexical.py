"""A reward model that is learned in a moment: logistic regression on pairs of replies, a better and a worse one each.

It is a Bradley-Terry model, as large reward models are: the weights are trained so that sigmoid(score(better) -
score(worse)) is near 1. Its features are words and a few counts, so it can be fooled as easily; its use is to train
against without a download, and to see what a policy makes of it.

    model = LexicalModel.learn([("Say hello.", "Hello!", "Go away.")], seed=0)
    verdict = await RewardModel(model, "clip", model.low, model.high)("Hello there!", question="Say hello.")
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Self

from gymrail.errors import InputError
from gymrail.verifiers.reward_model import Chat

_EPOCHS = 8
_RATE = 0.5
_SHRINK = 1e-4


@dataclass(frozen=True)
class LexicalModel:
    """Scores a reply by its words; a `Scorer`."""

    weights: dict[str, float]
    low: float
    """The median score of the worse replies."""
    high: float
    """The score that nine of ten better replies exceed."""

    @classmethod
    def learn(cls, pairs: Iterable[tuple[str, str, str]], seed: int = 0) -> Self:
        """Learn from (prompt, better reply, worse reply).

        Raises:
            InputError: there are no pairs.
        """
        seen = [(features(prompt, better), features(prompt, worse)) for prompt, better, worse in pairs]
        if not seen:
            raise InputError("There are no pairs to learn a reward model from.")
        weights: dict[str, float] = {}
        order = list(seen)
        for epoch in range(_EPOCHS):
            Random(f"{seed}:epoch:{epoch}").shuffle(order)
            for better, worse in order:
                difference = Counter(better)
                difference.subtract(worse)
                step = _RATE / (1 + math.exp(min(50.0, _score(weights, difference))))
                for name, value in difference.items():
                    weights[name] = weights.get(name, 0.0) * (1 - _SHRINK) + step * value
        good = sorted(_score(weights, better) for better, _ in seen)
        poor = sorted(_score(weights, worse) for _, worse in seen)
        return cls(weights, poor[len(poor) // 2], good[len(good) // 10])

    async def score(self, chat: Chat) -> float:
        return self.score_reply(chat[-2]["content"] if len(chat) > 1 else "", chat[-1]["content"])

    async def aclose(self) -> None:
        """It holds nothing."""

    def score_reply(self, prompt: str, reply: str) -> float:
        """Return the score of a reply to a prompt."""
        return _score(self.weights, features(prompt, reply))


def features(prompt: str, reply: str) -> dict[str, float]:
    """What the model sees: which words are there, how many of the prompt's, and how long and repetitive the reply
    is."""
    words = re.findall(r"[a-z']+", reply.lower())
    asked = {word for word in re.findall(r"[a-z']+", prompt.lower()) if len(word) > 4}
    count, distinct = len(words), set(words)
    found = {f"word {word}": 1 / math.sqrt(len(distinct)) for word in sorted(distinct)}
    found["short"] = max(0.0, 1 - count / 15)
    found["long"] = min(2.0, max(0.0, count / 60 - 1))
    found["repeats"] = 1 - len(distinct) / count if count else 0.0
    found["about it"] = min(1.0, 4 * len(asked & distinct) / len(asked)) if asked else 0.0
    return found


def _score(weights: Mapping[str, float], seen: Mapping[str, float]) -> float:
    return sum(value * weights.get(name, 0.0) for name, value in seen.items())
