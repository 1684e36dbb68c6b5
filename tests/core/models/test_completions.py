"""Token ids over HTTP: what is sent, what is read, what goes wrong, and an episode over a served checkpoint."""

import asyncio
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gymrail.errors import ContextOverflow, ModelError
from gymrail.models.chat_template import ChatTemplate
from gymrail.models.completions import CompletionsSampler
from gymrail.models.token_model import Sample, Sampling, TokenModel
from gymrail.models.transformers import eos_ids
from gymrail.models.wire import EndpointSettings
from gymrail.play import play
from gymrail.rollout import Rollout
from gymrail.tokens import last_sequence
from tests.adapters.trl.families import PAD, make_checkpoint
from tests.core.models.endpoint import Answer, Endpoint, Received, error

KEY = "sk-very-secret-0123456789"
QUICK = EndpointSettings(max_retries=2, first_wait_seconds=0.001, timeout_seconds=60)
SAMPLING = Sampling(temperature=0.7, top_p=0.9, max_output_tokens=8)


def completion(ids: Any, log_probs: Any, **choice: Any) -> Answer:
    """A completion as vLLM gives it."""
    logprobs = {"tokens": [], "token_logprobs": log_probs, "top_logprobs": [], "text_offset": []}
    return Answer(
        {
            "id": "cmpl-1",
            "object": "text_completion",
            "model": "m",
            "choices": [
                {"index": 0, "text": "?", "token_ids": ids, "logprobs": logprobs, "finish_reason": "stop", **choice}
            ],
            "usage": {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5},
        }
    )


def sample(*answers: Answer, settings: EndpointSettings = QUICK) -> tuple[Sample | Exception, int, Endpoint]:
    """Sample after the prompt 1, 2, 3; return what came out, the retries and the endpoint."""

    async def run() -> tuple[Sample | Exception, int, Endpoint]:
        async with (
            Endpoint(answers) as endpoint,
            CompletionsSampler(endpoint.url, "m", api_key=KEY, settings=settings) as sampler,
        ):
            try:
                async with asyncio.timeout(120):
                    return await sampler.sample([1, 2, 3], SAMPLING), sampler.retries, endpoint
            except (ModelError, ContextOverflow) as problem:
                return problem, sampler.retries, endpoint

    return asyncio.run(run())


def test_ids_go_out_as_the_prompt_and_come_back_with_their_log_probs() -> None:
    outcome, retries, endpoint = sample(completion([7, 8], [-0.5, 0]))
    assert outcome == Sample([7, 8], [-0.5, 0.0])
    assert retries == 0
    (received,) = endpoint.received
    assert received.path == "/v1/completions"
    assert received.headers["Authorization"] == f"Bearer {KEY}"
    assert isinstance(received.body.pop("seed"), int)
    assert received.body == {
        "model": "m", "prompt": [1, 2, 3], "max_tokens": 8, "temperature": 0.7, "top_p": 0.9, "n": 1, "logprobs": 0,
        "return_token_ids": True, "skip_special_tokens": False, "add_special_tokens": False,
    }  # fmt: skip


def test_two_calls_with_equal_prompts_send_different_seeds() -> None:
    async def run() -> list[int]:
        async with Endpoint(lambda _: completion([7], [-0.5])) as endpoint:
            async with CompletionsSampler(endpoint.url, "m", settings=QUICK) as sampler:
                await asyncio.gather(*(sampler.sample([1], SAMPLING) for _ in range(8)))
            return [body["seed"] for body in endpoint.bodies]

    assert len(set(asyncio.run(run()))) == 8


@pytest.mark.parametrize(
    "trouble",
    [
        error(503, "loading"),
        Answer(trouble="disconnect"),
        Answer({"choices": []}, trouble="cut"),
        Answer(b"<html>"),
        Answer({"choices": []}),
        Answer({"choices": ["x"]}),
        completion([7, 8], [-0.5]),
        completion([7, 8], [-0.5, None]),
        completion([], []),
        completion([7], None),
        completion([7], [-0.5], logprobs=None),
        completion([7], [-0.5], finish_reason="abort"),
    ],
    ids=lambda answer: f"{answer.status}-{answer.trouble or str(answer.body)[-90:]}",
)
def test_a_passing_trouble_is_retried(trouble: Answer) -> None:
    outcome, retries, _ = sample(trouble, trouble, completion([7], [-0.5]))
    assert outcome == Sample([7], [-0.5])
    assert retries == 2


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (completion([7, 8], [-0.5]), "2 generation_token_ids stand against 1 generation_log_probs (after 3 attempts)"),
        (error(500, f"the key {KEY} is overloaded"), "the key [secret] is overloaded (after 3 attempts)"),
    ],
)
def test_retries_are_bounded_and_the_error_says_why(answer: Answer, expected: str) -> None:
    outcome, retries, _ = sample(*[answer] * 3)
    assert isinstance(outcome, ModelError)
    assert expected in str(outcome)
    assert KEY not in str(outcome)
    assert retries == 2


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer({"choices": [{"text": "hello", "logprobs": None}]}), "hold no token ids"),
        (completion([7], [-0.5], prompt_token_ids=[0, 1, 2, 3]), "put 4 tokens before the model and not the 3"),
        (error(401, "bad key"), "the key was not accepted"),
        (error(404, "no such route"), "has no /completions"),
    ],
)
def test_what_waiting_cannot_cure_is_not_retried(answer: Answer, expected: str) -> None:
    outcome, retries, _ = sample(answer)
    assert type(outcome) is ModelError
    assert expected in str(outcome)
    assert retries == 0


def test_a_prompt_that_is_too_long_is_a_context_overflow() -> None:
    outcome, _, _ = sample(error(400, "This model's maximum context length is 16 tokens. You requested 19 tokens."))
    assert isinstance(outcome, ContextOverflow)


def serve_greedily(model: Any, eos_token_ids: set[int]) -> Callable[[Received], Answer]:
    """Answer completions with a real model's greedy tokens and their log-probs."""
    import torch

    def answer(received: Received) -> Answer:
        prompt = received.body["prompt"]
        ids, log_probs = list(prompt), []
        with torch.no_grad():
            for _ in range(received.body["max_tokens"]):
                distribution = model(input_ids=torch.tensor([ids])).logits[0, -1].float().log_softmax(-1)
                token = int(distribution.argmax())
                ids.append(token)
                log_probs.append(float(distribution[token]))
                if token in eos_token_ids:
                    break
        return completion(ids[len(prompt) :], log_probs, prompt_token_ids=prompt)

    return answer


def test_a_multi_turn_episode_over_a_served_checkpoint_keeps_every_token_and_log_prob(tmp_path: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    torch.set_num_threads(1)
    make_checkpoint("tiny", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    model = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32).eval()
    ends = set(eos_ids(model, tokenizer))

    async def run() -> tuple[list[Rollout], Endpoint]:
        async with (
            asyncio.timeout(300),
            Endpoint(serve_greedily(model, ends)) as endpoint,
            CompletionsSampler(endpoint.url, "m", settings=QUICK) as sampler,
        ):
            template = ChatTemplate(tokenizer, eos_token_ids=sorted(ends))
            policy = TokenModel(template, sampler, Sampling(temperature=0, max_output_tokens=48), 2048)
            tasks = enumerate(PAD.tasks(limit=4))
            return await asyncio.gather(*(play(PAD, task, policy, task_index=i) for i, task in tasks)), endpoint

    rollouts, endpoint = asyncio.run(run())
    assert [rollout.outcome.status for rollout in rollouts if rollout.outcome] == ["scored"] * 4
    assert len(endpoint.received) == sum(rollout.steps for rollout in rollouts)
    longest = max(rollouts, key=lambda rollout: rollout.steps)
    assert longest.steps == 4
    assert len(longest.calls) == 2
    for rollout in rollouts:
        sequence, left_out = last_sequence(rollout)
        assert left_out == 0
        whole = torch.tensor([sequence.prompt_ids + sequence.completion_ids])
        with torch.no_grad():
            forward = model(input_ids=whole).logits[0, :-1].float().log_softmax(-1)
        start = len(sequence.prompt_ids) - 1
        rows = zip(sequence.completion_ids, sequence.mask, sequence.log_probs, strict=True)
        for offset, (token, mask, log_prob) in enumerate(rows):
            if mask:
                assert math.isclose(forward[start + offset, token].item(), log_prob, abs_tol=1e-4)
