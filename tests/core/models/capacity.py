"""A real chat endpoint on a loopback port with a capacity: it answers so many requests at once, and as slowly as the
test says."""

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any, Self

from aiohttp import web

from gymrail import Environment, Rollout, Task
from gymrail.collect.runner import Job, Summary, collect
from gymrail.models.model import Model
from gymrail.spec import EnvironmentSpec
from tests.core.models.endpoint import chat
from tests.serving import stop_serving


class Capacity:
    """Serves while it is entered; `stop` and `start` take it away and bring it back at the same port."""

    def __init__(
        self,
        seconds_of: Callable[[int], float] = lambda together: 0.005,
        most: int | None = None,
        refusal_headers: Mapping[str, str] | None = None,
        model: str = "m",
    ) -> None:
        self.seconds_of = seconds_of
        self.most = most
        self.refusal_headers = refusal_headers or {}
        self.model = model
        self.together = 0
        self.seen: list[int] = []
        """Requests at once, with itself, as each one arrived."""
        self.answered = self.refused = 0
        self.by_first_message: list[str] = []
        """The first message of each request that was answered."""
        self.broken_with: int | None = None
        """A status to answer everything but the health check with."""
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self) -> None:
        application = web.Application()
        application.router.add_get("/v1/models", self._models)
        application.router.add_post("/v1/chat/completions", self._complete)
        self._runner = web.AppRunner(application, shutdown_timeout=0)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self.port, backlog=1024, reuse_address=True).start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        runner, self._runner = self._runner, None
        if runner is not None:
            await stop_serving(runner)

    async def _models(self, request: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": self.model}]})

    async def _complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        if self.broken_with is not None:
            return web.json_response({"error": {"message": "broken"}}, status=self.broken_with)
        self.seen.append(self.together + 1)
        if self.most is not None and self.together >= self.most:
            self.refused += 1
            return web.json_response({"error": {"message": "busy"}}, status=429, headers=self.refusal_headers)
        self.together += 1
        try:
            await asyncio.sleep(self.seconds_of(self.together))
        finally:
            self.together -= 1
        self.answered += 1
        self.by_first_message.append(body["messages"][0]["content"])
        return web.Response(text=json.dumps(chat("ok").body), content_type="application/json")


class Chatter(Environment[Task]):
    """Three turns of the model, with a user in between."""

    def reply(self, rollout: Rollout) -> str | None:
        return "go on" if len(rollout.answers) < 3 else None

    def verify(self, rollout: Rollout) -> float:
        return float(rollout.final_text == "ok")


SPEC = EnvironmentSpec("chatter", Chatter)


async def play_many(model: Model, episodes: int, concurrency: int, **options: Any) -> tuple[Summary, list[Rollout]]:
    """Play episodes without second attempts; each begins with its own number as its first message."""
    rollouts: list[Rollout] = []
    jobs = [Job(SPEC, Task.ask(f"{number}"), number) for number in range(episodes)]
    async with asyncio.timeout(300):
        summary = await collect(jobs, model, concurrency=concurrency, retries=0, on_rollout=rollouts.append, **options)
    return summary, rollouts
