"""A model endpoint that breaks in the middle of GRPO: its rollouts fail and have no reward; training goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from families import PAD, Pad
from grpo_runs import train

from gymrail import Rollout
from gymrail.models.model import ModelRequest
from gymrail.models.openai import EndpointSettings, OpenAIModel
from gymrail.models.transformers import TransformersSampler
from gymrail.spec import EnvironmentSpec
from tests.core.models.endpoint import Answer, Endpoint, Received, chat

TROUBLES = {
    "500": Answer({"error": {"message": "overloaded"}}, 500),
    "disconnect": Answer(trouble="disconnect"),
    "garbage": Answer(b"<html>not json"),
    "timeout": Answer(trouble="hang"),
}


class JudgedPad(Pad):
    """Judged by a model behind an endpoint."""

    judge: Any = None

    async def verify(self, rollout: Rollout) -> float:
        question = [{"role": "user", "content": f"Grade: {rollout.final_text}"}]
        answer = await self.judge.respond(ModelRequest(question))
        return float(answer.items[-1]["content"][0]["text"])


@contextmanager
def served(script: Callable[[Received], Answer]) -> Iterator[str]:
    """Serve an endpoint from a thread, because training keeps the main one."""
    ready, over = threading.Event(), threading.Event()
    url: list[str] = []

    async def serve() -> None:
        async with Endpoint(script) as endpoint:
            url.append(endpoint.url)
            ready.set()
            await asyncio.to_thread(over.wait, 3600)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert ready.wait(120)
    try:
        yield url[0]
    finally:
        over.set()
        thread.join(120)


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_judge_endpoint_that_breaks_fails_its_rollouts_and_training_goes_on(
    trouble: str, checkpoint: Callable[[str], str], tmp_path: Path
) -> None:
    asked = 0

    def script(received: Received) -> Answer:
        nonlocal asked
        asked += 1
        return TROUBLES[trouble] if asked % 3 == 0 else chat("1" if asked % 2 else "0")

    recorded: list[Rollout] = []
    with served(script) as url:
        settings = EndpointSettings(max_retries=0, timeout_seconds=0.5)
        cls = type("Judged", (JudgedPad,), {"judge": OpenAIModel("judge", url, settings=settings)})
        spec = EnvironmentSpec("pad", cls)
        trainer, _ = train(checkpoint("tiny"), spec, tmp_path, steps=2, record=recorded.append, retries=0)

    failed = [rollout for rollout in recorded if rollout.failure]
    assert trainer.state.global_step == 2
    assert 0 < len(failed) < len(recorded) == 16
    for rollout in failed:
        assert rollout.failure is not None
        assert (rollout.failure.kind, rollout.failure.stage) == ("verifier", "verify")
        assert rollout.reward is None


def test_a_policy_that_cannot_sample_once_fails_that_batch_as_model_and_training_goes_on(
    checkpoint: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = TransformersSampler.generate
    batches = 0

    def generate(self: TransformersSampler, prompts: Any, sampling: Any) -> Any:
        nonlocal batches
        batches += 1
        if batches == 2:
            raise RuntimeError("out of memory")
        return original(self, prompts, sampling)

    monkeypatch.setattr(TransformersSampler, "generate", generate)
    recorded: list[Rollout] = []
    trainer, _ = train(checkpoint("tiny"), PAD, tmp_path, steps=2, record=recorded.append, retries=0)

    kinds = [rollout.failure.kind for rollout in recorded if rollout.failure]
    assert trainer.state.global_step == 2
    assert set(kinds) == {"model"}
    assert all(rollout.reward is None for rollout in recorded if rollout.failure)
    assert len(kinds) < len(recorded)


def test_a_policy_that_cannot_sample_once_is_asked_again(
    checkpoint: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = TransformersSampler.generate
    batches = 0

    def generate(self: TransformersSampler, prompts: Any, sampling: Any) -> Any:
        nonlocal batches
        batches += 1
        if batches == 2:
            raise RuntimeError("out of memory")
        return original(self, prompts, sampling)

    monkeypatch.setattr(TransformersSampler, "generate", generate)
    recorded: list[Rollout] = []
    train(checkpoint("tiny"), PAD, tmp_path, record=recorded.append, retries=1)

    assert not [rollout for rollout in recorded if rollout.failure]
    assert {rollout.attempt for rollout in recorded} == {2}
