"""The seam between an agent and whatever answers it: a `Model` takes a Responses request and returns items."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from gymrail.rollout import Usage
from gymrail.task import Item

if TYPE_CHECKING:
    from gymrail.episode import Episode

FinishReason = Literal["stop", "max_output_tokens", "content_filter"]


@dataclass(frozen=True, slots=True)
class ModelRequest:
    """One model call. Nothing here comes from the verifier's side of the task."""

    input: Sequence[Item]
    """The whole conversation so far, the agent's live list: read it, never change it."""
    tools: Sequence[Mapping[str, Any]] = ()
    """Responses function tools."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    """The task's other Responses parameters (`temperature`, `instructions`, ...)."""
    episode_id: str = ""
    """For routing and logs; the same for all calls of one episode."""
    timeout_seconds: float | None = None
    """What is left of the episode's time."""


@dataclass(slots=True)
class ModelResponse:
    """What the model said: reasoning, message and function_call items; token fields stand on the last, where known."""

    items: list[Item]
    finish_reason: FinishReason = "stop"
    usage: Usage = field(default_factory=Usage)
    model: str = ""


class Model(Protocol):
    """Answers requests; many at once.

    Raises:
        ModelError: the call failed for good (its own retries included).
        ContextOverflow: the conversation is too long for the model.
    """

    async def respond(self, request: ModelRequest) -> ModelResponse: ...


@runtime_checkable
class EpisodePolicy(Protocol):
    """A policy that is given the episode and may know the answer: oracles, teachers, scripts. Never a trained model."""

    def bind(self, episode: Episode) -> Model: ...


def message(text: str) -> Item:
    """Build an assistant message item."""
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "role": "assistant", "status": "completed", "content": content}


def function_call(name: str, arguments: str, call_id: str) -> Item:
    """Build a function_call item; `arguments` is JSON text."""
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": arguments, "status": "completed"}
