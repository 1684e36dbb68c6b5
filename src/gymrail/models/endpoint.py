"""An OpenAI-compatible server at a base URL: its pace, its retries, its errors, whatever is asked of it.

What stands in a request and what an answer means is the caller's: `OpenAIModel` asks for messages,
`CompletionsSampler` for tokens.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import orjson

from gymrail.errors import ContextOverflow, InputError, ModelError, did_you_mean
from gymrail.models.http import HttpClient, Reply, TryAgain, Unreachable
from gymrail.models.pace import Load, Pace
from gymrail.models.refusals import Place, raise_refusal
from gymrail.models.wire import EndpointSettings

T = TypeVar("T")

_log = logging.getLogger("gymrail.models")
_CHECK_SECONDS = 30.0
_BUSY_STATUS = frozenset({429, 503, 529})
_UNUSABLE = (AttributeError, IndexError, KeyError, TypeError, ValueError)
"""What reading an answer of the wrong shape raises."""


class EndpointDown(ModelError):
    """The retries or the time are used up, and another endpoint may do better."""


class Endpoint:
    """Posts requests for one model. One instance serves many episodes, event loops and threads at once."""

    def __init__(self, base_url: str, model: str, settings: EndpointSettings, api_key: str | None = None) -> None:
        """Talk to nothing yet.

        Raises:
            InputError: the address or a header is no good.
        """
        bearer = {"Authorization": f"Bearer {api_key}"} if api_key else {}
        self.model = model
        self.settings = settings
        self._http = HttpClient(base_url, {**bearer, **settings.headers}, settings.timeout_seconds)
        self._secrets = [secret for secret in (api_key, *settings.headers.values()) if secret and len(secret) >= 6]
        self.host = self._http.host
        self.shown_url = self._http.shown_url
        """For people: without a query, which may hold a key."""
        self.pace = Pace(
            self.shown_url, settings.max_concurrency, settings.first_wait_seconds, settings.max_wait_seconds
        )
        self.calls = 0
        """Calls that were answered."""
        self.retries = 0
        """Attempts after a call's first."""

    @property
    def loads(self) -> dict[str, Load]:
        """How busy it is, by address."""
        return {self.shown_url: self.pace.load}

    async def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        await self._http.close()

    async def post(
        self,
        path: str,
        body: bytes,
        parse: Callable[[dict[str, Any]], T],
        *,
        timeout_seconds: float | None = None,
        max_output_tokens: int | None = None,
        episode_id: str = "",
        retries: int | None = None,
    ) -> T:
        """Post a request and return its parsed answer.

        Args:
            parse: raises `TryAgain` where the answer is none; so counts whatever reading a wrong shape raises.
            timeout_seconds: for all attempts together.
            max_output_tokens: what the request asks for, to tell an overflow from a limit that fits no prompt.
            episode_id: of no meaning to a single endpoint.
            retries: instead of the settings', and none where there is no connection.

        Raises:
            EndpointDown: no usable answer after the retries.
            ModelError: refused, or no answer or no slot within `timeout_seconds`.
            ContextOverflow: the prompt is too long.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        place = Place(self.shown_url, path, self.model, self.settings.api_key_name)
        tries: _Tries | None = None
        while True:
            try:
                answer = await self._attempt(place, body, parse, deadline, max_output_tokens, tries is not None)
            except TryAgain as error:
                if tries is None:
                    tries = _Tries(self.settings.max_retries if retries is None else retries, retries is not None)
                wait = self._wait_before_retry(error, tries, deadline)
            except (ModelError, ContextOverflow, Unreachable) as error:
                kind = ContextOverflow if isinstance(error, ContextOverflow) else ModelError
                raise kind(self._redact(str(error))) from None
            else:
                self.calls += 1
                return answer
            self.retries += 1
            if wait > 0:
                await asyncio.sleep(wait)

    async def check(self) -> None:
        """Find out whether the endpoint can be reached, takes the key and serves the model.

        An endpoint that lists no models is taken at its word.

        Raises:
            ModelError: it cannot be reached, or refuses the key.
            InputError: it serves other models; the text names the nearest.
        """
        served = await self.list_models()
        if served and self.model not in served:
            raise InputError(f"{self.shown_url} serves no model {self.model!r}. {did_you_mean(self.model, served)}")

    async def list_models(self) -> list[str]:
        """Return the names of the models that the endpoint serves; none where it has no list, or takes any name.

        Raises:
            ModelError: it cannot be reached, or refuses the key.
        """
        try:
            reply = await self._http.get("models", _CHECK_SECONDS)
            if reply.status in (404, 405, 501):
                return []
            if reply.status != 200:
                raise_refusal(reply, Place(self.shown_url, "models", self.model, self.settings.api_key_name))
            entries = self._payload(reply).get("data") or ()
            # llama.cpp serves one model under every name.
            return [entry["id"] for entry in entries if entry.get("owned_by") != "llamacpp"]
        except TryAgain as error:
            text = f"No answer from the endpoint: {error}. Is it running, and is base_url {self.shown_url} right?"
            raise ModelError(self._redact(text)) from None
        except (ModelError, Unreachable) as error:
            raise ModelError(self._redact(str(error))) from None
        except _UNUSABLE:
            return []

    async def _attempt(
        self,
        place: Place,
        body: bytes,
        parse: Callable[[dict[str, Any]], T],
        deadline: float | None,
        max_output_tokens: int | None,
        is_again: bool,
    ) -> T:
        pace = self.pace
        started = pace.try_enter()
        if started is None:
            patience = max(self.settings.busy_seconds, self.settings.max_wait_seconds)  # a pause is no refusal
            started = await pace.enter(deadline, patience, is_again)
        work, refusal = 0, None
        try:
            limit = self.settings.timeout_seconds
            if deadline is not None:
                limit = max(0.001, min(limit, deadline - time.monotonic()))
            reply = await self._http.post_json(place.path, body, limit)
            payload = self._read(reply, place, max_output_tokens)
            try:
                answer = parse(payload)
            except _UNUSABLE as error:
                text = f"{self.shown_url} answered in a shape that is no {place.path} answer ({error!r})"
                raise TryAgain(text) from None
            work = _tokens_of(payload)
            return answer
        except TryAgain as error:
            if error.status in _BUSY_STATUS:
                refusal = error
            elif error.trouble == "timeout":
                work = 1  # slow is what it was
            raise
        finally:
            if work:
                pace.leave(started, work)
            elif refusal is not None:
                pace.refuse(started, refusal.after_seconds)
            else:
                pace.give_back()

    def _read(self, reply: Reply, place: Place, max_output_tokens: int | None) -> dict[str, Any]:
        """Return the answer's object; raise what a refusal means."""
        if reply.status != 200:
            raise_refusal(reply, place, max_output_tokens)
        payload = self._payload(reply)
        if payload.get("error") and not payload.get("choices") and "output" not in payload:
            # Some proxies say 200 and mean what stands inside.
            code = payload["error"].get("code") if isinstance(payload["error"], dict) else None
            status = code if isinstance(code, int) else 502
            raise_refusal(Reply(status, reply.headers, reply.body), place, max_output_tokens)
        return payload

    def _payload(self, reply: Reply) -> dict[str, Any]:
        try:
            payload = orjson.loads(reply.body)
        except orjson.JSONDecodeError:
            payload = None
        if not isinstance(payload, dict):
            raise TryAgain(f"{self.shown_url} answered what is no JSON object: {reply.body[:200]!r}")
        return payload

    def _wait_before_retry(self, error: TryAgain, tries: _Tries, deadline: float | None) -> float:
        """Return the seconds to wait, or give up."""
        settings = self.settings
        text = self._redact(str(error))
        tries.total += 1
        if error.status == 429 and settings.busy_seconds > 0:
            return self._wait_while_busy(text, tries)
        attempt = tries.failed
        tries.failed += 1
        is_gone = tries.is_quick and error.trouble == "connection" and (attempt > 0 or error.after_seconds != 0)
        if attempt >= tries.most or is_gone:
            raise EndpointDown(f"{text} (after {tries.total} attempts)", error.status) from None
        if error.after_seconds is None or (error.after_seconds == 0 and attempt > 0):
            wait = min(settings.first_wait_seconds * 2**attempt, settings.max_wait_seconds) * random.uniform(0.5, 1.0)
        else:
            # Never sooner than asked; the jitter keeps those who were refused together from coming back together.
            wait = min(error.after_seconds * random.uniform(1.0, 1.1), settings.max_wait_seconds)
        if deadline is not None and time.monotonic() + wait >= deadline:
            said = f"{text} (after {tries.total} attempts; no time is left for another)"
            raise (ModelError if error.trouble == "answer" else EndpointDown)(said, error.status) from None
        _log.warning("model %s: retry %d of %d in %.2f s: %s", self.model, attempt + 1, tries.most, wait, text)
        return wait

    def _wait_while_busy(self, text: str, tries: _Tries) -> float:
        """Stand in line again: the pace says when it is this request's turn."""
        now = time.monotonic()
        tries.busy_since = tries.busy_since or now
        seconds = now - tries.busy_since
        if seconds > self.settings.busy_seconds:
            raise EndpointDown(f"{text} (for {seconds:.0f} seconds, {tries.total} attempts)", 429) from None
        _log.debug("model %s: refused for now, attempt %d: %s", self.model, tries.total, text)
        return 0.0

    def _redact(self, text: str) -> str:
        """Endpoints quote keys in their messages."""
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        return text


@dataclass(slots=True)
class _Tries:
    """What became of a call so far."""

    most: int
    """Retries."""
    is_quick: bool
    """There are other endpoints: one without a connection is not waited for."""
    total: int = 0
    failed: int = 0
    """Attempts, without those that were refused as one too many."""
    busy_since: float = 0.0


def _tokens_of(payload: dict[str, Any]) -> int:
    """The generated tokens, in the words of either format; 1 where they are not told."""
    usage = payload.get("usage") or {}
    tokens = usage.get("completion_tokens") or usage.get("output_tokens")
    return tokens if isinstance(tokens, int) and tokens > 0 else 1
