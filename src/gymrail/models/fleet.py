"""One model at several URLs: an episode stays where it began, new ones go where the load is least, and a URL that is
down is done without until it is back.

    OpenAIModel("Qwen/Qwen3-8B", "http://a:8000/v1,http://b:8000/v1")

Covers: failing over within a call, health checks in the background, any number of event loops and threads.
Does not cover: URLs that join or leave while it runs, different models or keys per URL.
"""

from __future__ import annotations

import asyncio
import logging
import random
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from gymrail.errors import InputError, ModelError
from gymrail.models.endpoint import Endpoint, EndpointDown
from gymrail.models.limit import UNLIMITED
from gymrail.models.pace import Load
from gymrail.models.wire import EndpointSettings

T = TypeVar("T")

_log = logging.getLogger("gymrail.models")
_MAX_EPISODES = 65_536
_RETRIES = 1
"""On one URL, before another one is asked."""
_FIRST_CHECK_SECONDS = 0.5
_MAX_CHECK_SECONDS = 30.0
"""Between health checks: doubled from the first to the last, with jitter."""


def open_endpoint(
    base_url: str, model: str, settings: EndpointSettings, api_key: str | None = None
) -> Endpoint | Fleet:
    """Return the endpoint at a URL, or the fleet at several that are separated by commas.

    Raises:
        InputError: an address is empty, no good, or stands there twice.
    """
    urls = [url.strip() for url in base_url.split(",")]
    if len(urls) == 1:
        return Endpoint(base_url, model, settings, api_key)
    for url in urls:
        if not url or urls.count(url) > 1:
            what = "an address is empty" if not url else f"{url!r} stands there twice"
            raise InputError(f"base_url is {base_url!r}: {what}; write http://A/v1,http://B/v1.")
    return Fleet([Endpoint(url, model, settings, api_key) for url in urls])


class Fleet:
    """Several endpoints that serve one model; used as one `Endpoint` is."""

    def __init__(self, endpoints: list[Endpoint]) -> None:
        self._members = [_Member(endpoint) for endpoint in endpoints]
        self._settings = endpoints[0].settings
        self._homes: OrderedDict[str, _Member] = OrderedDict()
        """Where an episode's last call was answered or sent; the last ones used stand last."""
        self._lock = threading.Lock()
        hosts = {endpoint.host for endpoint in endpoints}
        self.host = hosts.pop() if len(hosts) == 1 else ""
        self.shown_url = ",".join(endpoint.shown_url for endpoint in endpoints)

    @property
    def calls(self) -> int:
        return sum(member.endpoint.calls for member in self._members)

    @property
    def retries(self) -> int:
        """Attempts after a call's first, whichever URL they went to."""
        return sum(member.endpoint.retries + member.handed_on for member in self._members)

    @property
    def loads(self) -> dict[str, Load]:
        """How busy each address is."""
        return {member.url: member.endpoint.pace.load for member in self._members}

    @property
    def down(self) -> dict[str, str]:
        """The addresses that are down, with their last errors."""
        return {member.url: member.error for member in self._members if member.error}

    async def close(self) -> None:
        """End the health checks and close the connections; a later call begins both again."""
        await asyncio.gather(*(member.stop_checking() for member in self._members))
        await asyncio.gather(*(member.endpoint.close() for member in self._members))

    async def post(
        self,
        path: str,
        body: bytes,
        parse: Callable[[dict[str, Any]], T],
        *,
        timeout_seconds: float | None = None,
        max_output_tokens: int | None = None,
        episode_id: str = "",
    ) -> T:
        """Post a request where its episode is at home, and elsewhere if that is down; see `Endpoint.post`.

        Raises:
            ModelError: refused, all URLs are down, or no answer within `timeout_seconds`.
            ContextOverflow: the prompt is too long.
        """
        deadline = None if timeout_seconds is None else time.monotonic() + timeout_seconds
        tried: set[str] = set()
        waits = 0
        # Bounded like a single endpoint's retries, and every URL gets its turn.
        for _ in range(self._settings.max_retries + len(self._members)):
            member = self._choose(episode_id, tried)
            if member is None:
                waits += 1
                if waits > self._settings.max_retries or not await self._wait(waits, deadline):
                    break
                tried.clear()
                continue
            began = time.monotonic()
            left = None if deadline is None else max(0.001, deadline - began)
            try:
                answer = await member.endpoint.post(
                    path, body, parse, timeout_seconds=left, max_output_tokens=max_output_tokens,
                    retries=min(_RETRIES, self._settings.max_retries),
                )  # fmt: skip
            except EndpointDown as error:
                if began > member.back_at:  # else it broke with the connections of before
                    member.mark_down(str(error))
                member.handed_on += 1
                tried.add(member.url)
                if deadline is not None and time.monotonic() >= deadline:
                    raise
            else:
                member.failures = 0
                return answer
        raise ModelError(self._nowhere())

    async def check(self) -> None:
        """Find out whether the URLs can be reached, take the key and serve the model; those that are down are warned
        about and done without.

        Raises:
            ModelError: none can be used.
            InputError: one serves other models; the text names the nearest.
        """
        results = await asyncio.gather(*(member.endpoint.check() for member in self._members), return_exceptions=True)
        for member, result in zip(self._members, results, strict=True):
            if isinstance(result, ModelError):
                member.mark_down(str(result), is_told=False)
            elif result is not None:
                raise result
        if len(self.down) == len(self._members):
            raise ModelError(self._nowhere())
        if self.down:
            lines = "; ".join(f"{url}: {error}" for url, error in self.down.items())
            _log.warning("%d of %d model URLs are down: %s", len(self.down), len(self._members), lines)

    async def list_models(self) -> list[str]:
        """Return the names of the models that every URL that answers serves; none where none has a list.

        Raises:
            ModelError: none can be reached.
        """
        results = await asyncio.gather(
            *(member.endpoint.list_models() for member in self._members), return_exceptions=True
        )
        lists = []
        for member, result in zip(self._members, results, strict=True):
            if isinstance(result, list):
                lists += [result] if result else []
            elif isinstance(result, ModelError):
                member.mark_down(str(result))
            else:
                raise result
        if len(self.down) == len(self._members):
            raise ModelError(self._nowhere())
        return [name for name in lists[0] if all(name in names for names in lists)] if lists else []

    def _choose(self, episode_id: str, tried: set[str]) -> _Member | None:
        """The episode's home, or the least loaded URL that is up and was not tried."""
        with self._lock:
            home = self._homes.get(episode_id)
            if home is None or home.error or home.url in tried:
                home = self._least_loaded(tried)
            if home is not None and episode_id:
                self._homes[episode_id] = home
                self._homes.move_to_end(episode_id)
                if len(self._homes) > _MAX_EPISODES:
                    self._homes.popitem(last=False)
        for member in self._members:
            if member.error:
                member.keep_checking()
        return home

    def _least_loaded(self, tried: set[str]) -> _Member | None:
        up = [member for member in self._members if not member.error and member.url not in tried]
        if len(up) < 2:
            return up[0] if up else None
        loads = [member.endpoint.pace.load for member in up]
        # One without a limit is taken to bear as much as anything here did.
        most = max(load.in_flight if load.limit == UNLIMITED else load.limit for load in loads)
        busy = [
            (
                member.endpoint.pace.is_paused,
                (load.in_flight + load.waiting) / max(min(load.limit, most), 1),
                member.began,
            )
            for member, load in zip(up, loads, strict=True)
        ]
        chosen = up[busy.index(min(busy))]
        chosen.began += 1
        return chosen

    async def _wait(self, number: int, deadline: float | None) -> bool:
        """Wait for a URL to come back, as long as a single endpoint's retry would; False where no time is left."""
        settings = self._settings
        wait = min(settings.first_wait_seconds * 2 ** (number - 1), settings.max_wait_seconds) * random.uniform(
            0.5, 1.0
        )
        if deadline is not None and time.monotonic() + wait >= deadline:
            return False
        await asyncio.sleep(wait)
        return True

    def _nowhere(self) -> str:
        errors = "; ".join(f"{member.url}: {member.error or member.last_error}" for member in self._members)
        return f"None of the {len(self._members)} model URLs gave an answer. {errors}"


@dataclass(slots=True, eq=False)
class _Member:
    """One URL, and how it is doing."""

    endpoint: Endpoint
    error: str = ""
    """Why it is down; empty while it is up."""
    last_error: str = "no answer"
    failures: int = 0
    """How often it went down since a call was answered."""
    back_at: float = 0.0
    """When it was last found to be up again."""
    handed_on: int = 0
    """Calls that then went to another URL."""
    began: int = 0
    """Episodes."""
    _checking: asyncio.Task[None] | None = field(default=None, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def url(self) -> str:
        return self.endpoint.shown_url

    def mark_down(self, error: str, is_told: bool = True) -> None:
        if is_told and not self.error:
            _log.warning("model URL %s is down, and asked again in the background: %s", self.url, error)
        self.failures += not self.error
        self.error = self.last_error = error
        self.keep_checking()

    def keep_checking(self) -> None:
        """See to it that a health check is under way on a loop that runs."""
        with self._lock:
            task = self._checking
            if task is None or task.done() or task.get_loop().is_closed():
                self._checking = asyncio.get_running_loop().create_task(self._check(), name=f"health of {self.url}")

    async def stop_checking(self) -> None:
        with self._lock:
            task, self._checking = self._checking, None
        if task is None or task.done() or task.get_loop().is_closed():
            return
        if task.get_loop() is asyncio.get_running_loop():
            task.cancel()
            await asyncio.wait([task])
        else:
            task.get_loop().call_soon_threadsafe(task.cancel)

    async def _check(self) -> None:
        """Ask for the models until the answer is right. What fails calls and passes checks is let back more slowly."""
        number = self.failures
        while True:
            wait = min(_FIRST_CHECK_SECONDS * 2 ** min(number - 1, 10), _MAX_CHECK_SECONDS)
            await asyncio.sleep(wait * random.uniform(0.5, 1.0))
            number += 1
            try:
                await self.endpoint.check()
            except (ModelError, InputError) as error:
                self.error = self.last_error = str(error)
            else:
                self.back_at = time.monotonic()
                self.error = ""
                _log.warning("model URL %s is back", self.url)
                return
