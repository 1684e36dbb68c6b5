"""A model of tokens in and tokens out: a chat template in front of anything that samples.

`TokenModel` answers Responses requests like every model, and puts `prompt_token_ids`, `generation_token_ids` and
`generation_log_probs` on the last item of each answer. The sampler behind it is a Transformers model, a trainer's live
policy or a server that takes token ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

from gymrail.errors import ContextOverflow, InputError
from gymrail.models.chat_template import ChatTemplate
from gymrail.models.model import ModelRequest, ModelResponse
from gymrail.rollout import Usage
from gymrail.tokens import finish_of

_IGNORED = frozenset(
    {"include", "instructions", "max_output_tokens", "metadata", "model", "parallel_tool_calls", "prompt_cache_key"}
    | {"reasoning", "safety_identifier", "service_tier", "store", "stream", "temperature", "tool_choice", "top_p"}
    | {"truncation", "user"}
)
"""Parameters that are used below, or that change nothing for a model that is not a service."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How to sample. Equal settings can share a batch."""

    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    """Below 1, log-probs are still those of the whole distribution at this temperature."""
    max_output_tokens: int = 512
    """Per model call."""


DEFAULT_SAMPLING = Sampling()


class Sample(NamedTuple):
    """A sampled turn."""

    token_ids: list[int]
    """With the end-of-turn token, when it was sampled."""
    log_probs: list[float]
    """At the sampling temperature; for greedy sampling at temperature 1."""


class Sampler(Protocol):
    """Samples one turn; many at once."""

    async def sample(self, prompt_ids: list[int], sampling: Sampling) -> Sample: ...


@dataclass(slots=True)
class TokenModel:
    """Answers requests by sampling tokens. Token ids and log-probs are exactly the sampled ones."""

    template: ChatTemplate
    sampler: Sampler
    sampling: Sampling = DEFAULT_SAMPLING
    """Where a task says nothing."""
    context_length: int | None = None
    """Prompt and answer together; past it the rollout is truncated."""
    name: str = "policy"

    async def respond(self, request: ModelRequest) -> ModelResponse:
        parameters = request.parameters
        sampling = self._sampling(parameters)
        prompt = self.template.prompt(request.input, request.tools, parameters.get("instructions"))
        if self.context_length is not None:
            room = self.context_length - len(prompt)
            if room < 1:
                raise ContextOverflow(
                    f"The conversation has {len(prompt)} tokens; the model takes {self.context_length}."
                )
            if room < sampling.max_output_tokens:
                sampling = replace(sampling, max_output_tokens=room)
        sample = await self.sampler.sample(prompt, sampling)
        ids = sample.token_ids
        items = self.template.parse(ids, request.tools)
        items[-1]["prompt_token_ids"] = prompt
        items[-1]["generation_token_ids"] = ids
        items[-1]["generation_log_probs"] = sample.log_probs
        return ModelResponse(
            items, finish_of(ids, self.template.eos_token_ids), Usage(len(prompt), len(ids)), self.name
        )

    def _sampling(self, parameters: Mapping[str, Any]) -> Sampling:
        unknown = parameters.keys() - _IGNORED
        if unknown:
            raise InputError(
                f"A local model cannot honour {sorted(unknown)}; remove it from the task's responses_create_params."
            )
        default = self.sampling
        asked = {name: parameters[name] for name in ("temperature", "top_p") if parameters.get(name) is not None}
        limit = parameters.get("max_output_tokens") or default.max_output_tokens
        if not asked and limit == default.max_output_tokens:
            return default
        return Sampling(
            temperature=float(asked.get("temperature", default.temperature)),
            top_p=float(asked.get("top_p", default.top_p)),
            max_output_tokens=min(limit, default.max_output_tokens),
        )
