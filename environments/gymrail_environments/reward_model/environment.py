"""Replies that a learned reward model scores: a checkpoint, a served model or, offline, one that is learned on the
spot.

One row:

    {"responses_create_params": {"input": "Ana writes a review: 'I bought your kettle. It smells of plastic. ...'"},
     "review": {"name": "Ana", "product": "kettle", "what": "smells of plastic", "is_complaint": true}}
"""

from __future__ import annotations

from collections.abc import Generator
from random import Random
from typing import Literal

from pydantic import model_validator

from gymrail import Config, Environment, Rollout, Task, Verdict
from gymrail.environment import Turn
from gymrail.errors import InputError
from gymrail.verifiers.lexical import LexicalModel
from gymrail.verifiers.reward_model import RewardModel, RewardModelSettings
from gymrail_environments.reward_model.reviews import Review, example_pair, good_reply, make_review, poor_reply


class RewardModelConfig(Config):
    model: RewardModelSettings | None = None
    """The reward model. Without one a small model of words is trained in `setup`, offline and in a second."""
    squash: Literal["sigmoid", "clip"] = "sigmoid"
    """How a score becomes a reward from 0 to 1; the offline model is always clipped to what its own replies score."""
    low: float = 0.0
    """With "clip": the score that earns 0."""
    high: float = 1.0
    """With "clip": the score that earns 1."""
    seed: int = 0
    """Of the offline model's training."""

    @model_validator(mode="after")
    def _bounds_have_an_order(self) -> RewardModelConfig:
        if not self.low < self.high:
            raise ValueError(f"low is {self.low!r} and high is {self.high!r}; low must be the smaller one")
        return self


class ReplyTask(Task):
    review: Review | None = None
    """What the oracle's replies are made from; other rows need none."""


class RewardModelEnvironment(Environment[ReplyTask]):
    """The reward is the reward model's score of the talk, squashed to 0..1; the metric `score` is the score itself."""

    Config = RewardModelConfig
    config: RewardModelConfig
    shared: RewardModel

    @classmethod
    def setup(cls, config: RewardModelConfig) -> RewardModel:
        if config.model is None:
            pairs = (example_pair(Random(f"{config.seed}:pair:{index}")) for index in range(500))
            model = LexicalModel.learn(pairs, config.seed)
            return RewardModel(model, "clip", model.low, model.high)
        return RewardModel(config.model.build(), config.squash, config.low, config.high)

    @classmethod
    async def teardown(cls, shared: RewardModel) -> None:
        await shared.aclose()

    @classmethod
    def generate(cls, rng: Random) -> ReplyTask:
        review = make_review(rng)
        return ReplyTask.ask(review.prompt, review=review)

    async def verify(self, rollout: Rollout) -> Verdict:
        last = rollout.conversation[-1] if rollout.items else {}
        asked = rollout.conversation[:-1] if last.get("role") == "assistant" else rollout.conversation
        return await self.shared(rollout.final_text, conversation=asked)

    def solve(self) -> Generator[Turn, str, None]:
        """The best of 8 good replies by the offline model; the first one where another model judges."""
        review, rng, scorer = self._review(), Random(self.task.id), self.shared.scorer
        replies = [good_reply(review, rng) for _ in range(8)]
        if isinstance(scorer, LexicalModel):
            replies.sort(key=lambda reply: -scorer.score_reply(review.prompt, reply))
        yield replies[0]

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Reply poorly."""
        return poor_reply(self._review(), rng)

    def _review(self) -> Review:
        if self.task.review is None:
            raise InputError(f"Task {self.task.id} has no 'review' to make a gold reply from.")
        return self.task.review
