"""What an endpoint means when it does not answer 200: try again, context overflow, or an error for people to fix."""

from __future__ import annotations

import email.utils
import re
import time
from collections.abc import Mapping
from typing import Any

import orjson

from gymrail.errors import ContextOverflow, ModelError
from gymrail.models.http import Reply, TryAgain

_RETRYABLE_STATUS = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 521, 522, 523, 524, 529})
_OVERFLOW_CODES = frozenset({"context_length_exceeded", "exceed_context_size_error", "context_window_exceeded"})
_NO_MORE_CODES = frozenset({"insufficient_quota", "billing_hard_limit_reached", "account_deactivated"})

_OVERFLOW = re.compile(
    "|".join(
        (
            r"maximum context length",  # OpenAI, vLLM, SGLang
            r"exceeds? (the|this model's|your) context (window|length)",  # OpenAI's Responses
            r"(longer|larger|greater) than the (maximum )?model",  # vLLM, SGLang
            r"model's context length is only",  # vLLM
            r"exceeds? (the )?(available|maximum) context",  # llama.cpp
            r"context size (has been )?exceeded",  # llama.cpp, LM Studio
            r"exceeds? the (maximum allowed length|configured limit|maximum number of tokens)",  # SGLang, OpenAI
            r"exceeds? (the )?max(imum)?[_ ](model|input)[_ ]len",  # vLLM
            r"inputs`? (tokens \+|must have less than \d+ tokens)",  # TGI
            r"prompt is too long|too large for model with",  # Anthropic, Mistral
        )
    ),
    re.IGNORECASE,
)
_LIMIT = re.compile(r"context (?:length|size|window)\D{0,20}?(\d+) ?\w*", re.IGNORECASE)


class Complaint:
    """The endpoint's own words, from any of the shapes in which servers wrap them."""

    __slots__ = ("code", "message")

    def __init__(self, body: bytes) -> None:
        self.code = ""
        self.message = ""
        try:
            payload = orjson.loads(body)
        except orjson.JSONDecodeError:
            self.message = body[:300].decode("utf-8", "replace").strip()
            return
        self._read(payload)
        if not self.message:
            self.message = body[:300].decode("utf-8", "replace")

    def _read(self, payload: Any) -> None:
        if isinstance(payload, list) and payload:  # Gemini wraps its error in a list
            payload = payload[0]
        if not isinstance(payload, Mapping):
            return
        error = payload.get("error")
        source = error if isinstance(error, Mapping) else payload
        codes = (source.get("code"), source.get("type"), payload.get("error_type"))
        self.code = next((code for code in codes if isinstance(code, str)), "")
        message = source.get("message") or (error if isinstance(error, str) else None) or payload.get("detail")
        if message is not None:
            self.message = (message if isinstance(message, str) else orjson.dumps(message).decode())[:2000]

    @property
    def is_overflow(self) -> bool:
        return self.code in _OVERFLOW_CODES or _OVERFLOW.search(self.message) is not None


class Place:
    """What error messages must name for somebody to be able to fix it."""

    __slots__ = ("key_name", "model", "path", "url")

    def __init__(self, url: str, path: str, model: str, key_name: str) -> None:
        self.url = url
        self.path = path
        self.model = model
        self.key_name = key_name


def raise_refusal(reply: Reply, place: Place, max_output_tokens: int | None = None) -> None:
    """Raise what an answer with another status than 200 means; always raises.

    Raises:
        TryAgain: busy, overloaded or broken for the moment.
        ContextOverflow: the conversation does not fit.
        ModelError: everything else, with the endpoint's message.
    """
    status = reply.status
    complaint = Complaint(reply.body)
    said = f"{place.url} answered {status}: {complaint.message or 'nothing more'}"
    if status in (400, 413, 422, 500) and complaint.is_overflow:
        _raise_overflow(complaint.message, said, max_output_tokens)
    if complaint.code in _NO_MORE_CODES:
        raise ModelError(f"{said} (the account's quota is used up; waiting does not help)")
    if status in _RETRYABLE_STATUS:
        raise TryAgain(said, retry_after_seconds(reply.headers), status)
    raise ModelError(said + _advice(status, reply, place))


def retry_after_seconds(headers: Mapping[str, str]) -> float | None:
    """How long the endpoint asks to wait: `Retry-After-Ms`, or `Retry-After` as seconds or as a date."""
    milliseconds = headers.get("Retry-After-Ms")
    if milliseconds is not None:
        return _number(milliseconds, 0.001)
    value = headers.get("Retry-After")
    if value is None:
        return None
    seconds = _number(value, 1.0)
    if seconds is not None:
        return seconds
    try:
        return max(0.0, email.utils.parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None


def _number(text: str, unit: float) -> float | None:
    try:
        value = float(text) * unit
    except ValueError:
        return None
    return value if 0 <= value < float("inf") else None


def _raise_overflow(message: str, said: str, max_output_tokens: int | None) -> None:
    limit = _LIMIT.search(message)
    if max_output_tokens is not None and limit is not None and max_output_tokens >= int(limit[1]):
        raise ModelError(
            f"{said} (max_output_tokens is {max_output_tokens}: no prompt at all leaves room for that; "
            f"make it smaller than {limit[1]})"
        )
    raise ContextOverflow(said)


def _advice(status: int, reply: Reply, place: Place) -> str:
    if status in (401, 403):
        return f" (the key was not accepted: pass api_key, or set {place.key_name}; the model is {place.model!r})"
    if status in (404, 405):
        return (
            f" (either base_url {place.url} has no /{place.path}, and most endpoints' base_url ends in /v1, "
            f"or the endpoint has no model {place.model!r})"
        )
    if 300 <= status < 400:
        return f" (it redirects to {reply.headers.get('Location', 'somewhere else')!r}: use that as base_url)"
    return ""
