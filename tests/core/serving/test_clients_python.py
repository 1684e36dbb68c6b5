"""The MCP Python SDK, as its users use it: given nothing but the episode's URL. Other clients: tests/interop."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import httpx2 as httpx
import mcp_types as types
import pytest
from mcp import Client, ClientSession, MCPError
from mcp.client.streamable_http import streamable_http_client

from tests.core.serving.office import Served, run
from tests.core.serving.workplace import WORKPLACE, expected_of, workplace_row

Mode = Literal["auto", "legacy", "2026-07-28"]
MODES: list[Mode] = ["auto", "legacy", "2026-07-28"]
REVISIONS = {"auto": "2026-07-28", "legacy": "2025-11-25", "2026-07-28": "2026-07-28"}
AT_ONCE = 8


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


async def answer_email(client: Client) -> dict[str, Any]:
    """Do the task as every client of these tests does it, and return what was seen."""
    tools = [tool.name for tool in (await client.list_tools()).tools]
    inbox = await client.call_tool("read_inbox", {})
    assert inbox.structured_content is not None
    for email in inbox.structured_content["emails"]:
        await client.call_tool("send_email", {"to": email["sender"], "subject": f"Re: {email['subject']}"})
    (block,) = (await client.call_tool("list_sent", {})).content
    assert isinstance(block, types.TextContent)
    return {"tools": tools, "inbox": inbox.structured_content, "sent": json.loads(block.text)}


async def reward(server: Served, seeded: dict[str, Any], row: dict[str, Any]) -> float:
    answer = await server.verify(seeded, **row, response={"output": []})
    assert answer.status_code == 200, answer.text
    return answer.json()["reward"]


@pytest.mark.parametrize("mode", MODES)
def test_a_client_lists_the_tools_calls_them_and_gets_its_own_episodes_state(mode: Mode) -> None:
    async def test(server: Served) -> None:
        row = workplace_row()
        seeded = await server.seed(**row)
        async with Client(seeded["mcp"]["url"], mode=mode) as client:
            assert client.protocol_version == REVISIONS[mode]
            assert await answer_email(client) == expected_of(row)
        assert await reward(server, seeded, row) == 1.0

    run(test, WORKPLACE)


def test_clients_of_both_eras_at_once_do_not_mix_their_episodes() -> None:
    async def test(server: Served) -> None:
        rows = [workplace_row() for _ in range(AT_ONCE)]
        seeded = [await server.seed(**row) for row in rows]

        async def play(index: int) -> dict[str, Any]:
            transport = streamable_http_client(seeded[index]["mcp"]["url"], http_client=server.agent)
            async with Client(transport, mode=MODES[index % len(MODES)]) as client:
                return await answer_email(client)

        seen = await asyncio.gather(*(play(index) for index in range(AT_ONCE)))
        assert seen == [expected_of(row) for row in rows]
        assert [await reward(server, one, row) for one, row in zip(seeded, rows, strict=True)] == [1.0] * AT_ONCE

    run(test, WORKPLACE)


def test_two_clients_of_one_episode_share_its_state() -> None:
    async def test(server: Served) -> None:
        row = workplace_row()
        url = (await server.seed(**row))["mcp"]["url"]
        async with Client(url, mode="legacy") as first, Client(url, mode="2026-07-28") as second:
            await first.call_tool("send_email", {"to": "ben@example.com", "subject": "Lunch"})
            sent = (await second.call_tool("list_sent", {})).structured_content
        assert sent is not None
        assert [email["to"] for email in sent["emails"]] == ["ben@example.com"]

    run(test, WORKPLACE)


def test_a_client_that_is_given_the_credential_as_a_header_gets_the_same_episode() -> None:
    async def test(server: Served) -> None:
        row = workplace_row()
        seeded = await server.seed(**row)
        headers = seeded["mcp"]["headers"]
        async with (
            httpx.AsyncClient(headers=headers, trust_env=False, verify=False) as http,
            Client(streamable_http_client(f"{server.url}/workplace/mcp", http_client=http)) as client,
        ):
            assert await answer_email(client) == expected_of(row)

    run(test, WORKPLACE)


def test_a_session_that_outlives_its_episode_is_told_that_it_is_over() -> None:
    async def test(server: Served) -> None:
        seeded = await server.seed(**workplace_row())
        async with (
            streamable_http_client(seeded["mcp"]["url"], http_client=server.agent) as (read, write),
            ClientSession(read, write) as session,
        ):
            await session.initialize()
            await session.call_tool("read_inbox", {})
            await server.control.post("/close", json={"episode_id": seeded["episode_id"]})
            with pytest.raises(MCPError) as caught:
                await session.call_tool("read_inbox", {})
        assert "ana@example.com" not in str(caught.value)

    run(test, WORKPLACE)
