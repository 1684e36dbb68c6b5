"""A sampler behind a URL: `/v1/completions` with token ids in the prompt, as `vllm serve` answers it.

Nothing is tokenised on the way: ids go in, ids and log-probs come out. Chat endpoints cannot promise that. Start vLLM
with `--logprobs-mode processed_logprobs`, or its log-probs are those of temperature 1 whatever was sampled with.
"""

from __future__ import annotations

import random
from typing import Any, Self

from gymrail.errors import ModelError
from gymrail.models.fleet import open_endpoint
from gymrail.models.http import TryAgain
from gymrail.models.pace import Load, total_load
from gymrail.models.token_model import Sample, Sampling
from gymrail.models.wire import EndpointSettings, to_json
from gymrail.tokens import token_problem

_FIXED = {
    "n": 1,
    "logprobs": 0,
    "return_token_ids": True,
    "skip_special_tokens": False,
    "add_special_tokens": False,
}


class CompletionsSampler:
    """Samples one turn per request; the server batches. Retries, limits and errors are those of `OpenAIModel`."""

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        api_key: str | None = None,
        settings: EndpointSettings | None = None,
    ) -> None:
        """
        Args:
            base_url: the endpoint with its version, such as "http://127.0.0.1:8000/v1"; commas separate several.
            model: the served model's name.
            api_key: sent as a bearer token; never logged or shown.

        Raises:
            InputError: the address or a setting is no good.
        """
        self.model = model
        self.settings = settings or EndpointSettings()
        self._endpoint = open_endpoint(base_url, model, self.settings, api_key)

    @property
    def retries(self) -> int:
        """Attempts after a call's first."""
        return self._endpoint.retries

    @property
    def loads(self) -> dict[str, Load]:
        """How many requests each address is sent at once, answers now, and keeps waiting."""
        return self._endpoint.loads

    @property
    def load(self) -> Load:
        """The same, of all addresses together."""
        return total_load(self._endpoint.loads.values())

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        await self._endpoint.close()

    async def check(self) -> None:
        """Find out before a run whether the endpoint can be reached and serves the model; see `OpenAIModel.check`."""
        await self._endpoint.check()

    async def sample(self, prompt_ids: list[int], sampling: Sampling) -> Sample:
        """Sample one turn.

        Raises:
            ModelError: refused, no usable answer after the retries, or a server that gives no token ids.
            ContextOverflow: the prompt is too long.
        """
        body = {
            "model": self.model,
            "prompt": prompt_ids,
            "max_tokens": sampling.max_output_tokens,
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            # vLLM's data-parallel engines would otherwise draw the same numbers for equal prompts.
            "seed": random.getrandbits(31),
            **_FIXED,
            **self.settings.extra_body,
        }
        return await self._endpoint.post(
            "completions",
            to_json(body),
            lambda payload: _read(payload, prompt_ids),
            max_output_tokens=sampling.max_output_tokens,
        )


def _read(payload: dict[str, Any], prompt_ids: list[int]) -> Sample:
    choices = payload.get("choices")
    if not choices:
        raise TryAgain("the answer has no choices")
    choice = choices[0]
    if choice.get("finish_reason") in ("error", "abort"):
        raise TryAgain(f"the model stopped with finish_reason {choice['finish_reason']!r}")
    ids = choice.get("token_ids")
    if ids is None:
        raise ModelError(
            "The server's completions hold no token ids, and without them nothing can be trained on; "
            "use a server that knows return_token_ids, such as vLLM 0.10.2 or newer."
        )
    log_probs = (choice.get("logprobs") or {}).get("token_logprobs")
    problem = token_problem(prompt_ids, ids, log_probs)
    if problem is not None:
        raise TryAgain(f"the answer's token ids cannot be used: {problem}")
    seen = choice.get("prompt_token_ids")
    if seen is not None and seen != prompt_ids:
        raise ModelError(
            f"The server put {len(seen)} tokens before the model and not the {len(prompt_ids)} that it was sent; "
            "switch off what changes prompts there."
        )
    return Sample(ids, [float(value) for value in log_probs or ()])
