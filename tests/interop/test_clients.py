"""MCP clients nobody here wrote, each with an episode of its own: TypeScript SDKs, MCP Inspector's command line, the
OpenAI Agents SDK, LangChain's adapters. Run by `make interop`; the Python SDK is in tests/core/serving."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

from gymrail.serving.settings import Settings
from tests.core.serving.office import KEY, Served, served
from tests.core.serving.workplace import WORKPLACE, expected_of, workplace_row
from tests.interop.node import ROOT, install, node, variables
from tests.interop.python import virtual_environment

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

HERE = Path(__file__).parent / "clients"
HOME = ROOT / ".interop" / "clients"
CLIENT_SECONDS = 60
AT_ONCE = 4

Play = Callable[[str], Awaitable[dict[str, Any]]]
"""Plays the episode at a URL and returns what it saw."""


async def typescript_sdk(url: str) -> dict[str, Any]:
    return orjson.loads(await output_of(node(), node_program("typescript_sdk.mjs"), url))


async def typescript_client(url: str) -> dict[str, Any]:
    return orjson.loads(await output_of(node(), node_program("typescript_client.mjs"), url))


async def openai_agents(url: str) -> dict[str, Any]:
    return orjson.loads(await output_of(virtual_environment("openai-agents"), HERE / "openai_agents.py", url))


async def langchain_adapters(url: str) -> dict[str, Any]:
    return orjson.loads(await output_of(virtual_environment("langgraph"), HERE / "langchain_adapters.py", url))


async def inspector(url: str) -> dict[str, Any]:
    modules = install(HERE / "package.json", HOME)
    program = modules / "@modelcontextprotocol" / "inspector" / "clients" / "launcher" / "build" / "index.js"

    async def ask(method: str, *options: str) -> dict[str, Any]:
        words = ("--cli", url, "--transport", "http", "--method", method, *options)
        return orjson.loads(await output_of(node(), program, *words))

    async def call(name: str, **arguments: str) -> Any:
        given = [word for key, value in arguments.items() for word in ("--tool-arg", f"{key}={value}")]
        return await ask("tools/call", "--tool-name", name, *given)

    tools = [tool["name"] for tool in (await ask("tools/list"))["tools"]]
    inbox = (await call("read_inbox"))["structuredContent"]
    for email in inbox["emails"]:
        answer = await call("send_email", to=email["sender"], subject=f"Re: {email['subject']}")
        assert not answer.get("isError"), answer
    return {"tools": tools, "inbox": inbox, "sent": (await call("list_sent"))["structuredContent"]}


CLIENTS: list[Play] = [typescript_sdk, typescript_client, inspector, openai_agents, langchain_adapters]


@pytest.fixture(scope="module", autouse=True)
def _installed() -> None:
    """Before any client's time is taken."""
    install(HERE / "package.json", HOME)
    virtual_environment("openai-agents")
    virtual_environment("langgraph")


@pytest.mark.parametrize("play", CLIENTS, ids=lambda play: play.__name__)
def test_a_client_lists_the_tools_calls_them_and_gets_its_own_episodes_state(
    play: Play, record_property: Callable[[str, object], None]
) -> None:
    rows = [workplace_row() for _ in range(AT_ONCE)]
    started = time.monotonic()
    seen, rewards = asyncio.run(played(rows, [play] * AT_ONCE))
    seconds = time.monotonic() - started
    record_property("seconds", round(seconds, 2))
    print(f"{play.__name__}: {AT_ONCE} episodes at once in {seconds:.2f} s")
    assert seen == [expected_of(row) for row in rows]
    assert rewards == [1.0] * AT_ONCE


def test_all_clients_at_once_do_not_mix_their_episodes() -> None:
    rows = [workplace_row() for _ in CLIENTS]
    seen, rewards = asyncio.run(played(rows, CLIENTS))
    assert seen == [expected_of(row) for row in rows]
    assert rewards == [1.0] * len(CLIENTS)


async def played(rows: list[dict[str, Any]], plays: list[Play]) -> tuple[list[dict[str, Any]], list[float]]:
    """Seed an episode for each row, let the clients play them at once, and judge them."""
    async with served(WORKPLACE, settings=Settings.for_address("127.0.0.1", key=KEY)) as server:
        seeded = [await server.seed(**row) for row in rows]
        addresses = [one["mcp"]["url"] for one in seeded]
        seen = await asyncio.gather(*(play(url) for play, url in zip(plays, addresses, strict=True)))
        return list(seen), [await reward(server, one, row) for one, row in zip(seeded, rows, strict=True)]


async def reward(server: Served, seeded: dict[str, Any], row: dict[str, Any]) -> float:
    answer = await server.verify(seeded, **row, response={"output": []})
    assert answer.status_code == 200, answer.text
    return answer.json()["reward"]


def node_program(name: str) -> Path:
    """Node looks for packages beside the program."""
    return Path(shutil.copy(HERE / name, HOME))


async def output_of(*command: object) -> bytes:
    """Run a client, with no proxy before loopback, and return what it wrote."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        env=variables() | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(CLIENT_SECONDS):
            out, err = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, f"{command}\n{out.decode()}\n{err.decode()}"
    return out
