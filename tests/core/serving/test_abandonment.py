"""Episodes that nobody closes: after their time to live nothing of them is left, and no memory grows."""

import asyncio
import gc
import json
import resource
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI

from gymrail.episode import Limits
from gymrail.serving.http import create_app
from gymrail.serving.service import Service
from gymrail.serving.settings import Settings
from tests.core.serving.office import KEY, OFFICE, live_episodes, row, said

COUNT = 10_000
CONTROL = {"authorization": f"Bearer {KEY}"}
MCP = {
    "content-type": "application/json", "accept": "application/json, text/event-stream",
    "mcp-protocol-version": "2025-11-25",
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is read from /proc")
def test_ten_thousand_episodes_half_abandoned_leave_nothing_behind_in_three_rounds() -> None:
    """In a process of its own, where nothing else takes or gives back memory."""
    code = "from tests.core.serving.test_abandonment import play_rounds; play_rounds()"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=Path(__file__).parents[3], capture_output=True, text=True, timeout=850,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    first, second, third = map(int, done.stdout.split())
    assert third - second < 2 * 2**20, done.stdout
    # What the allocator keeps settles after the first; 10,000 episodes that leaked would be 15 MB and more.
    assert third - first < 6 * 2**20, done.stdout


def play_rounds(count: int = COUNT, rounds: int = 3) -> None:
    """Serve rounds of episodes through the server's own routes; print the resident memory after each, in bytes."""

    async def inside() -> None:
        settings = Settings(key=KEY, limits=Limits(idle_seconds=1.0), max_episodes=count)
        app = create_app([OFFICE], settings)
        service: Service = app.state.service
        service.table.limits = Limits()  # those of the settings are for the reaper; see `_until_empty`
        async with app.router.lifespan_context(app):
            await _play(app, count)  # fills caches, and what is remembered of episodes that are gone
            await _until_empty(service)
            for _ in range(rounds):
                counted = dict(service.table.ended)
                await _play(app, count)
                await _until_empty(service)
                ended = {reason: number - counted[reason] for reason, number in service.table.ended.items()}
                assert ended == {"judged": count // 2, "idle": count // 2, "closed": 0, "shutdown": 0}
                assert live_episodes() == 0
                print(_resident_bytes(), flush=True)

    asyncio.run(inside())


async def _play(app: FastAPI, count: int) -> None:
    """Open episodes and use each; judge every second one and abandon the others."""
    call = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "send", "arguments": {"to": "Ana"}}}
    for index in range(count):
        seeded = await _post(app, "/seed_session", row(), CONTROL)
        path = f"/e/{seeded['url'].rpartition('/')[2]}"
        if index % 4 < 2:
            assert await _post(app, f"{path}/send", {"to": "Ana"}, {}) == "sent to Ana"
        else:
            accept = MCP["accept"] + (";q=0.9" if index % 40 == 2 else "")  # some by the SDK
            answer = await _post(app, f"{path}/mcp", call, {**MCP, "accept": accept})
            assert answer["result"]["content"][0]["text"] == "sent to Ana"
        if index % 2:
            judged = await _post(
                app, "/verify", row(response=said("done")), {**CONTROL, "x-gymrail-episode-id": seeded["episode_id"]}
            )
            assert judged["reward"] == 1.0


async def _post(app: FastAPI, path: str, body: Any, headers: Mapping[str, str]) -> Any:
    """Send a request without a socket between."""
    content = json.dumps(body).encode()
    given = {"host": "test", "content-length": str(len(content)), **headers}
    sent: list[Any] = []
    requests = iter([{"type": "http.request", "body": content, "more_body": False}])

    async def receive() -> Any:
        return next(requests, {"type": "http.disconnect"})

    async def send(message: Any) -> None:
        sent.append(message)

    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "POST", "scheme": "http",
        "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "", "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80), "headers": [(name.encode(), value.encode()) for name, value in given.items()],
    }  # fmt: skip
    await app(scope, receive, send)
    output = b"".join(message.get("body", b"") for message in sent)
    assert sent[0]["status"] == 200, output
    is_json = dict(sent[0]["headers"])[b"content-type"].startswith(b"application/json")
    return json.loads(output) if is_json else output.decode()


async def _until_empty(service: Service) -> None:
    """Leave what is open to the reaper, and wait for it."""
    for held in service.table:
        held.episode.limits = Limits(idle_seconds=0.0)
    deadline = time.monotonic() + 300
    while len(service.table):
        assert time.monotonic() < deadline, len(service.table)
        await asyncio.sleep(0.05)


def _resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
