"""Which refusals mean that the conversation no longer fits, in the words of each server."""

import asyncio
from typing import Any

import pytest

from gymrail.errors import ContextOverflow, ModelError
from gymrail.models.model import ModelRequest
from gymrail.models.openai import EndpointSettings, OpenAIModel
from tests.core.models.endpoint import Answer, Endpoint, error


def ask(answer: Answer, parameters: dict[str, Any] | None = None) -> None:
    """Send one request that is answered so."""

    async def run() -> None:
        settings = EndpointSettings(max_retries=0)
        async with Endpoint([answer]) as endpoint, OpenAIModel("m", endpoint.url, settings=settings) as model:
            await model.respond(ModelRequest([{"role": "user", "content": "Hi"}], parameters=parameters or {}))

    asyncio.run(run())


OVERFLOWS = {
    "openai": error(
        400, "This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens."
    ),
    "openai-code": error(400, "Too much.", "context_length_exceeded"),
    "openai-responses": error(
        400, "Your input exceeds the context window of this model. Please adjust your input and try again."
    ),
    "openai-limit": error(
        400, "Input tokens exceed the configured limit of 272000 tokens. Your messages resulted in 300000."
    ),
    "vllm": Answer(
        {
            "object": "error",
            "message": "This model's maximum context length is 4096 tokens. However, you requested 5000 tokens "
            "(4900 in the messages, 100 in the completion). Please reduce the length of the messages or completion.",
            "type": "BadRequestError",
            "param": None,
            "code": 400,
        },
        400,
    ),
    "vllm-prompt": error(400, "The decoder prompt (length 5000) is longer than the maximum model length of 4096.", 400),
    "vllm-new": error(
        400,
        "You passed 4090 input tokens and requested 10 output tokens. "
        "However, the model's context length is only 4096 tokens.",
    ),
    "sglang": Answer(
        {
            "object": "error",
            "message": "The input (5000 tokens) is longer than the model's context length (4096 tokens).",
            "code": 400,
        },
        400,
    ),
    "sglang-total": error(
        400, "Requested token count exceeds the model's maximum context length of 4096 tokens. You requested 5000."
    ),
    "sglang-length": error(400, "Input length (5000 tokens) exceeds the maximum allowed length (4090 tokens)."),
    "llamacpp": Answer(
        {
            "error": {
                "code": 400,
                "message": "request (5000 tokens) exceeds the available context size (4096 tokens), try increasing it",
                "type": "exceed_context_size_error",
                "n_prompt_tokens": 5000,
                "n_ctx": 4096,
            }
        },
        400,
    ),
    "tgi": Answer(
        {
            "error": "Input validation error: `inputs` tokens + `max_new_tokens` must be <= 4096. "
            "Given: 5000 `inputs` tokens and 100 `max_new_tokens`",
            "error_type": "validation",
        },
        422,
    ),
    "tgi-inputs": Answer(
        {"error": "Input validation error: `inputs` must have less than 1024 tokens. Given: 5000"}, 422
    ),
    "anthropic": error(400, "prompt is too long: 200001 tokens > 200000 maximum"),
}


@pytest.mark.parametrize("answer", OVERFLOWS.values(), ids=OVERFLOWS.keys())
def test_a_conversation_that_is_too_long_is_context_overflow_in_every_servers_words(answer: Answer) -> None:
    with pytest.raises(ContextOverflow):
        ask(answer)


@pytest.mark.parametrize(
    "message",
    [
        "max_tokens is too large: 100000. This model supports at most 16384 completion tokens.",
        "Invalid schema for function 'context': context is not an object.",
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    ],
)
def test_other_complaints_about_lengths_are_no_context_overflow(message: str) -> None:
    with pytest.raises(ModelError):
        ask(error(400, message))


def test_an_answer_length_that_no_prompt_leaves_room_for_is_a_mistake_and_no_overflow() -> None:
    with pytest.raises(ModelError, match=r"max_output_tokens is 8192: no prompt .* make it smaller than 8192"):
        ask(OVERFLOWS["openai"], {"max_output_tokens": 8192})
    with pytest.raises(ContextOverflow):
        ask(OVERFLOWS["openai"], {"max_output_tokens": 8191})
