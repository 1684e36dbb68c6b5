"""What the three model APIs share: a request read into the core's words, and an answer ready to be written back."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, Protocol

import orjson

from gymrail.models.model import FinishReason
from gymrail.rollout import Usage
from gymrail.task import Item

logger = logging.getLogger(__name__)

ErrorKind = Literal["invalid", "overflow", "key", "missing", "too_large", "busy", "model", "timeout"]


class ToolShape(NamedTuple):
    """How a client wrote a tool that is no plain function."""

    kind: Literal["namespaced", "custom"]
    name: str
    namespace: str | None = None


@dataclass(slots=True)
class Asked:
    """A client's request."""

    items: list[Item]
    tools: list[dict[str, Any]]
    """Responses function tools."""
    parameters: dict[str, Any]
    """Responses parameters: only those that every model may be given."""
    stream: bool
    body: Mapping[str, Any]
    """As it came."""
    shapes: dict[str, ToolShape] = field(default_factory=dict)
    """By the name under which the model knows the tool."""


@dataclass(slots=True)
class Answer:
    """What the model said, with what the wire formats want around it."""

    items: list[Item]
    finish_reason: FinishReason
    usage: Usage
    model: str
    has_tokens: bool
    """Whether token fields are written too, where the format has a place for them."""
    id: str = field(default_factory=lambda: uuid.uuid4().hex[:24])
    created: float = field(default_factory=time.time)

    @property
    def calls(self) -> list[Item]:
        return [item for item in self.items if item.get("type") == "function_call"]


class Api(Protocol):
    """One wire format."""

    ping: bytes
    """An event that keeps a silent stream open and means nothing."""

    def read(self, body: Mapping[str, Any]) -> Asked:
        """Raises InputError where the request asks for what cannot be done."""
        ...

    def write(self, answer: Answer, asked: Asked) -> dict[str, Any]: ...

    def events(self, answer: Answer, asked: Asked) -> Iterator[bytes]:
        """The same answer as server-sent events, in the order that the API's own clients expect."""
        ...

    def error(self, kind: ErrorKind, message: str) -> dict[str, Any]: ...

    def error_event(self, kind: ErrorKind, message: str) -> bytes:
        """A failure after the stream has begun."""
        ...


STATUS: dict[ErrorKind, int] = {
    "invalid": 400, "overflow": 400, "key": 401, "missing": 404, "too_large": 413, "busy": 429, "model": 500,
    "timeout": 504,
}  # fmt: skip


def event(payload: Mapping[str, Any], name: str | None = None) -> bytes:
    """Write one server-sent event."""
    head = b"event: %b\n" % name.encode() if name else b""
    return b"%bdata: %b\n\n" % (head, orjson.dumps(payload))


def new_id(prefix: str) -> str:
    return f"{prefix}_{uuid.uuid4().hex[:24]}"


def leave_out(what: str, names: set[str]) -> None:
    """Log what a client sent and no model here is given."""
    if names:
        logger.info("left out %s: %s", what, ", ".join(sorted(names)))
