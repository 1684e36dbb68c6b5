"""What the two wire formats (Chat Completions, Responses) share: settings, JSON bytes, the token fields."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import orjson

from gymrail.errors import InputError
from gymrail.messages import TOKEN_FIELDS
from gymrail.models.http import TryAgain
from gymrail.models.model import FinishReason, ModelResponse
from gymrail.task import Item
from gymrail.tokens import token_problem


@dataclass(frozen=True, slots=True)
class EndpointSettings:
    """How an endpoint is talked to, beyond its address."""

    timeout_seconds: float = 600.0
    """One attempt; a request's own limit covers all attempts together."""
    max_retries: int = 6
    """Attempts after the first. Being refused as one too many (429) is not among them: see `busy_seconds`."""
    busy_seconds: float = 1800.0
    """How long a request is sent again while the endpoint answers 429, as often as its pace allows; the request's own
    limit holds too. 0 counts a 429 as an attempt."""
    max_concurrency: int | None = None
    """Requests at once per address; without it, as many as the endpoint bears."""
    first_wait_seconds: float = 0.5
    """Before the first retry; doubled for each further one, with jitter."""
    max_wait_seconds: float = 60.0
    """The longest wait before a retry, whatever the endpoint asks for."""
    token_ids: bool | Literal["auto"] = "auto"
    """True asks for token ids and log-probs (as vLLM gives them) and fails without them; "auto" keeps what comes
    unasked; False drops it."""
    carry_token_ids: bool = False
    """Send earlier calls' token fields back, unchanged, as NeMo RL's and NeMo Gym's model servers want it."""
    reasoning_field: Literal["reasoning_content", "reasoning"] | None = "reasoning_content"
    """Where earlier reasoning is sent back in chat messages; None leaves it out."""
    max_tokens_field: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto"
    """What `max_output_tokens` is called in chat; "auto" takes the new name for OpenAI and Azure, which want it, the
    old one for others, who all know it."""
    api_key_name: str = "OPENAI_API_KEY"
    """Where the key came from, for error messages."""
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    """More HTTP headers; they may hold secrets and are never shown."""
    extra_body: Mapping[str, Any] = field(default_factory=dict)
    """More fields for every request body, such as `{"top_k": 20}`; they replace what Gymrail would send."""

    def __post_init__(self) -> None:
        owned = sorted({"messages", "input", "tools", "model", "stream", "n"} & self.extra_body.keys())
        if owned:
            raise InputError(f"extra_body sets {owned[0]!r}, which belongs to the request itself; leave it out.")
        for name in ("timeout_seconds", "first_wait_seconds", "max_wait_seconds"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} is {getattr(self, name)!r}; it must be more than 0.")
        if self.max_concurrency is not None and self.max_concurrency < 1:
            raise InputError(f"max_concurrency is {self.max_concurrency!r}; it must be 1 or more, or None.")
        if not self.busy_seconds >= 0:
            raise InputError(f"busy_seconds is {self.busy_seconds!r}; it must be 0 or more.")
        if self.max_retries < 0:
            raise InputError(f"max_retries is {self.max_retries!r}; it must be 0 or more.")


class Wire(Protocol):
    """One wire format. A body is `head + conversation + tail`, so that what stays the same is serialised once."""

    path: str
    tail: bytes

    def head(self, tools: Sequence[Mapping[str, Any]], parameters: Mapping[str, Any]) -> bytes:
        """The body up to the first item of the conversation, ready for one to follow.

        Raises:
            InputError: a parameter that this format cannot say.
        """
        ...

    def conversation(self, episode_id: str, items: Sequence[Item]) -> bytes:
        """The items as they stand in the body: JSON joined by commas."""
        ...

    def parse(self, payload: dict[str, Any]) -> ModelResponse:
        """Read an answer.

        Raises:
            TryAgain: it is no usable answer.
        """
        ...


def to_json(value: Any) -> bytes:
    """Serialise what goes out; half of a surrogate pair, which no UTF-8 can say, becomes "?"."""
    try:
        return orjson.dumps(value, default=_plain)
    except TypeError:
        pass
    try:
        return orjson.dumps(_without_surrogates(value), default=_plain)
    except TypeError as error:
        raise InputError(f"The request is no JSON: {error}.") from None


def new_call_id() -> str:
    """An id for a tool call that came without one."""
    return f"call_{uuid.uuid4().hex[:24]}"


def put_tokens(item: Item, prompt: Any, generated: Any, log_probs: Any, wanted: bool | Literal["auto"]) -> None:
    """Put the token fields on a call's last item: all three or none.

    Raises:
        TryAgain: they are asked for, and missing or broken.
    """
    problem = token_problem(prompt, generated, log_probs)
    if problem is None:
        item.update(zip(TOKEN_FIELDS, (prompt, generated, log_probs), strict=True))
    elif wanted is True:
        hint = " (vLLM gives it since 0.10.2, except in its Responses API)" if problem.endswith("empty") else ""
        raise TryAgain(f"the answer's token ids cannot be used: {problem}{hint}")


def finish_reason_of(word: str | None) -> FinishReason:
    """Read why a model stopped, in the words of either format."""
    if word in ("length", "max_output_tokens", "max_tokens"):
        return "max_output_tokens"
    return "content_filter" if word == "content_filter" else "stop"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence):
        return list(value)
    raise TypeError(f"{type(value).__name__} {value!r} cannot be written as JSON")


def _without_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode("utf-8")
    if isinstance(value, Mapping):
        return {_without_surrogates(key): _without_surrogates(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_without_surrogates(part) for part in value]
    return value
