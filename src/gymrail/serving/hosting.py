"""Episodes on loopback for programs on this machine: an MCP address with the episode's tools, a model address that
records.

One server per environment and event loop, started with its first episode, serves any number of episodes at once.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from starlette.types import ASGIApp, Receive, Scope, Send

from gymrail.agents.command import Stage, StageReport
from gymrail.episode import Episode
from gymrail.models.model import Model
from gymrail.rollout import Reason, ToolCall, Usage
from gymrail.serving.http import create_app
from gymrail.serving.loopback import serve_on_loopback
from gymrail.serving.model import ModelSettings, create_model_app
from gymrail.serving.recording import Record, Records, recorded_rollout
from gymrail.serving.scripted import EpisodeScript
from gymrail.serving.sessions import EpisodeTable
from gymrail.serving.settings import LOOPBACK_HOSTS, Settings
from gymrail.spec import EnvironmentSpec
from gymrail.task import Item


class _Server(NamedTuple):
    table: EpisodeTable
    records: Records
    url: str


@dataclass(slots=True)
class _HostedStage:
    """An episode that a program can reach."""

    mcp_url: str
    model_url: str | None
    episode: Episode
    record: Record | None

    @property
    def exhausted_by(self) -> Reason | None:
        return None if self.record is None else self.record.exhausted_by

    def finish(self) -> StageReport:
        rollout, record = self.episode.rollout, self.record
        if record is None:
            return StageReport(0)
        recorded_rollout(rollout, record, self.episode.table)
        _add_missing_outputs(rollout.conversation, rollout.calls)
        last = record.calls[-1].response.finish_reason if record.calls else "stop"
        return StageReport(len(record.calls), record.failure, record.overflowed, record.exhausted_by, last)


class LoopbackHost:
    """Makes episodes reachable for programs. Use it on one event loop; `close` stops its servers."""

    def __init__(self) -> None:
        self._servers: dict[int, _Server] = {}
        self._stack = contextlib.AsyncExitStack()
        self._starting = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def stage(
        self, episode: Episode, model: Model | None, parameters: dict[str, Any], max_steps: int | None
    ) -> AsyncIterator[Stage]:
        """Serve an episode's tools, and its model where it has one, until the block ends."""
        server = await self._server(episode.spec)
        held = server.table.adopt(episode)
        record = None if model is None else server.records.add(_record_for(episode, model, parameters, max_steps))
        try:
            model_url = f"{server.url}/r/{record.name}" if record else None
            yield _HostedStage(f"{server.url}/e/{held.token}/mcp", model_url, episode, record)
        finally:
            if record is not None:
                server.records.remove(record.name)
            await server.table.release(held)

    async def close(self) -> None:
        """Stop the servers."""
        self._servers.clear()
        await self._stack.aclose()

    async def _server(self, spec: EnvironmentSpec) -> _Server:
        async with self._starting:
            server = self._servers.get(id(spec))
            if server is None:
                server = self._servers[id(spec)] = await self._start(spec)
            return server

    async def _start(self, spec: EnvironmentSpec) -> _Server:
        settings = Settings.for_address("127.0.0.1", max_episodes=1_000_000)
        app = create_app([spec], replace(settings, key=secrets.token_urlsafe(32)))
        records = Records(1_000_000, opens_on_demand=False)
        model_app = create_model_app(None, ModelSettings(allowed_hosts=LOOPBACK_HOSTS), records)
        url = await self._stack.enter_async_context(serve_on_loopback(_side_by_side(app, model_app)))
        return _Server(app.state.service.table, records, url)


def _side_by_side(app: ASGIApp, model_app: ASGIApp) -> ASGIApp:
    async def choose(scope: Scope, receive: Receive, send: Send) -> None:
        is_model = scope["type"] == "http" and scope["path"].startswith("/r/")
        await (model_app if is_model else app)(scope, receive, send)

    return choose


def _record_for(episode: Episode, model: Model, parameters: dict[str, Any], max_steps: int | None) -> Record:
    if getattr(model, "is_scripted", False):
        model = EpisodeScript(model, episode)
    deadline = time.monotonic() + episode.remaining_seconds

    def limit_of(usage: Usage) -> Reason | None:
        return episode.limits.reached(usage, episode.seconds)

    return Record(
        secrets.token_urlsafe(24), model, parameters, deadline, max_steps,
        limit_of if episode.limits.end_between_steps else None, lambda: episode.is_done, is_private=True,
    )  # fmt: skip


def _add_missing_outputs(items: list[Item], journal: list[ToolCall]) -> None:
    """A program that is stopped when the episode is done never sends its last outputs back; the journal has them."""
    answered = {item["call_id"] for item in items if item.get("type") == "function_call_output"}
    calls = [item for item in items if item.get("type") == "function_call"]
    rest = list(journal)
    for item in calls:
        wanted = ToolCall("", item["name"], item.get("arguments") or "{}").parsed
        known = next((call for call in rest if call.name == item["name"] and call.parsed == wanted), None)
        if known is None:
            continue
        rest.remove(known)
        if item["call_id"] not in answered:
            items.append({"type": "function_call_output", "call_id": item["call_id"], "output": known.output})
