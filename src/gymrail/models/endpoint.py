"""An OpenAI-compatible server at a base URL: its retries, its limits, its errors, whatever is asked of it.

What stands in a request and what an answer means is the caller's: `OpenAIModel` asks for messages,
`CompletionsSampler` for tokens.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

import orjson

from gymrail.errors import ContextOverflow, InputError, ModelError, did_you_mean
from gymrail.models.http import HttpClient, Reply, TryAgain, Unreachable
from gymrail.models.refusals import Place, raise_refusal
from gymrail.models.wire import EndpointSettings

T = TypeVar("T")

_log = logging.getLogger("gymrail.models")
_CHECK_SECONDS = 30.0
_UNUSABLE = (AttributeError, IndexError, KeyError, TypeError, ValueError)
"""What reading an answer of the wrong shape raises."""


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
        self.calls = 0
        """Calls that were answered."""
        self.retries = 0
        """Attempts after a call's first."""

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
    ) -> T:
        """Post a request and return its parsed answer.

        Args:
            parse: raises `TryAgain` where the answer is none; so counts whatever reading a wrong shape raises.
            timeout_seconds: for all attempts together.
            max_output_tokens: what the request asks for, to tell an overflow from a limit that fits no prompt.

        Raises:
            ModelError: refused, or no usable answer after the retries or within `timeout_seconds`.
            ContextOverflow: the prompt is too long.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        place = Place(self.shown_url, path, self.model, self.settings.api_key_name)
        attempt = 0
        while True:
            try:
                answer = await self._attempt(place, body, parse, deadline, max_output_tokens)
            except TryAgain as error:
                wait = self._wait_before_retry(error, attempt, deadline)
            except (ModelError, ContextOverflow, Unreachable) as error:
                kind = ContextOverflow if isinstance(error, ContextOverflow) else ModelError
                raise kind(self._redact(str(error))) from None
            else:
                self.calls += 1
                return answer
            attempt += 1
            self.retries += 1
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
    ) -> T:
        limit = self.settings.timeout_seconds
        if deadline is not None:
            limit = max(0.001, min(limit, deadline - time.monotonic()))
        reply = await self._http.post_json(place.path, body, limit)
        if reply.status != 200:
            raise_refusal(reply, place, max_output_tokens)
        payload = self._payload(reply)
        if payload.get("error") and not payload.get("choices") and "output" not in payload:
            # Some proxies say 200 and mean what stands inside.
            code = payload["error"].get("code") if isinstance(payload["error"], dict) else None
            status = code if isinstance(code, int) else 502
            raise_refusal(Reply(status, reply.headers, reply.body), place, max_output_tokens)
        try:
            return parse(payload)
        except _UNUSABLE as error:
            raise TryAgain(f"{self.shown_url} answered in a shape that is no {place.path} answer ({error!r})") from None

    def _payload(self, reply: Reply) -> dict[str, Any]:
        try:
            payload = orjson.loads(reply.body)
        except orjson.JSONDecodeError:
            payload = None
        if not isinstance(payload, dict):
            raise TryAgain(f"{self.shown_url} answered what is no JSON object: {reply.body[:200]!r}")
        return payload

    def _wait_before_retry(self, error: TryAgain, attempt: int, deadline: float | None) -> float:
        """Return the seconds to wait, or give up."""
        settings = self.settings
        text = self._redact(str(error))
        if attempt >= settings.max_retries:
            raise ModelError(f"{text} (after {attempt + 1} attempts)", error.status) from None
        if error.after_seconds is None or (error.after_seconds == 0 and attempt > 0):
            wait = min(settings.first_wait_seconds * 2**attempt, settings.max_wait_seconds) * random.uniform(0.5, 1.0)
        else:
            # Never sooner than asked; the jitter keeps those who were refused together from coming back together.
            wait = min(error.after_seconds * random.uniform(1.0, 1.1), settings.max_wait_seconds)
        if deadline is not None and time.monotonic() + wait >= deadline:
            said = f"{text} (after {attempt + 1} attempts; no time is left for another)"
            raise ModelError(said, error.status) from None
        _log.warning(
            "model %s: retry %d of %d in %.2f s: %s", self.model, attempt + 1, settings.max_retries, wait, text
        )
        return wait

    def _redact(self, text: str) -> str:
        """Endpoints quote keys in their messages."""
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        return text
