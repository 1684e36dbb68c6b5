"""Replies under a learned reward model: the one that is trained on the spot, and served ones."""

import asyncio
from random import Random
from typing import Any

from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail.rollout import Rollout
from gymrail.task import Task
from gymrail.verifiers.lexical import LexicalModel
from gymrail_environments.reward_model.reviews import example_pair
from tests.core.models.endpoint import Answer, Endpoint

SPEC = find("reward_model")
ROW = {"responses_create_params": {"input": "Reply to Ana."}}


def replied(text: str, task: Task | None = None) -> Rollout:
    return asyncio.run(play(SPEC, task or SPEC.generate("train", 0), ScriptedModel([text])))


def learned(seed: int) -> LexicalModel:
    return LexicalModel.learn((example_pair(Random(f"{seed}:pair:{index}")) for index in range(500)), seed)


def test_the_offline_model_learns_to_tell_good_replies_from_poor_ones_that_it_has_not_seen() -> None:
    model = learned(0)
    assert model.low < model.high
    right = 0
    for index in range(300):
        prompt, good, poor = example_pair(Random(f"held out:{index}"))
        right += model.score_reply(prompt, good) > model.score_reply(prompt, poor)
    assert right >= 295


def test_training_is_the_same_on_every_machine_and_differs_by_seed() -> None:
    weights = [learned(seed).weights for seed in (1, 1, 2)]
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


def test_the_reward_is_the_clipped_score_and_the_score_is_reported() -> None:
    task = SPEC.generate("train", 0)
    empty, echo, middling = (replied(text, task) for text in ("", "x " * 300, "Thank you, we are sorry that it broke."))
    assert empty.reward == echo.reward == 0
    assert middling.reward is not None
    assert 0 < middling.reward < 1
    assert middling.metrics["score"] > empty.metrics["score"]


def test_a_row_without_a_review_is_scored_too() -> None:
    rollout = replied("Thank you, Ana. We are sorry.", SPEC.cls.task_type.from_row(ROW))
    assert rollout.failure is None
    assert rollout.reward is not None


async def served(answers: list[Answer], **config: Any) -> tuple[Rollout, Endpoint]:
    async with Endpoint(answers) as server:
        model = {"url": server.url, "model_name": "rm", "api": "classify", "max_retries": 1}
        spec = SPEC.with_config({"model": model, **config})
        try:
            task = SPEC.cls.task_type.from_row(ROW)
            return await play(spec, task, ScriptedModel(["Thank you."])), server
        finally:
            await spec.teardown()


def logits(value: float) -> Answer:
    return Answer({"data": [{"index": 0, "label": "LABEL_0", "probs": [value], "num_classes": 1}]})


def test_a_served_model_scores_the_talk() -> None:
    rollout, server = asyncio.run(served([logits(0.0)]))
    assert (rollout.reward, rollout.metrics["score"]) == (0.5, 0)
    assert server.bodies[0]["messages"] == [
        {"role": "user", "content": "Reply to Ana."},
        {"role": "assistant", "content": "Thank you."},
    ]
    rollout, _ = asyncio.run(served([logits(7.5)], squash="clip", low=5, high=10))
    assert rollout.reward == 0.5


def test_a_served_model_at_fault_fails_the_rollout_and_gives_no_reward() -> None:
    rollout, server = asyncio.run(served([Answer(status=503), Answer(status=503)]))
    assert rollout.reward is None
    assert rollout.failure is not None
    assert (rollout.failure.kind, rollout.failure.stage) == ("verifier", "verify")
    assert len(server.received) == 2
