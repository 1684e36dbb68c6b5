"""MCP with the SDK's own client, in both protocol eras, over a real port."""

import asyncio
import base64
import json
from typing import Any

import httpx2 as httpx
import mcp_types as types
import pytest
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.shared.exceptions import MCPError

from gymrail import Environment, Rollout, tool
from gymrail.registry import find
from gymrail.spec import EnvironmentSpec
from gymrail.tools import File
from tests.core.serving.office import ANSWER, KEY, OFFICE, PIXEL, Served, row, run, said

ERAS = ["2026-07-28", "legacy"]
BOTH = pytest.mark.parametrize("era", ERAS)
MODERN = {
    "content-type": "application/json", "accept": "application/json, text/event-stream",
    "mcp-protocol-version": "2026-07-28",
}  # fmt: skip
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
}


class Filing(Environment):
    """Hand out files."""

    @tool
    def files(self) -> list[File]:
        """Return a sound, a table and an archive."""
        return [File(b"RIFF", "a.wav", "audio/wav"), File(b"1,2", "a b.csv", "text/csv"), File(b"\x00\xff", "x")]

    def verify(self, rollout: Rollout) -> float:
        return 0.0


FILING = EnvironmentSpec("filing", Filing)


def client(server: Served, url: str, era: Any) -> Client:
    return Client(streamable_http_client(url, http_client=server.agent), mode=era)


def text(result: types.CallToolResult) -> str:
    (block,) = result.content
    assert isinstance(block, types.TextContent)
    return block.text


async def post(server: Served, url: str, name: str, arguments: Any = None, **headers: str) -> httpx.Response:
    """A tool call without a client, in the newer era."""
    params = {"name": name, "arguments": arguments or {}, "_meta": META}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return await server.agent.post(
        url, json=body, headers={**MODERN, "mcp-method": "tools/call", "mcp-name": name, **headers}
    )


@BOTH
def test_an_agent_lists_the_tools_calls_them_and_gets_its_own_episodes_state(era: str) -> None:
    async def test(server: Served) -> None:
        first, second = await server.seed(), await server.seed()
        async with client(server, first["mcp"]["url"], era) as one, client(server, second["mcp"]["url"], era) as two:
            listed = await one.list_tools()
            assert [entry.name for entry in listed.tools] == list(OFFICE.tools)
            assert text(await one.call_tool("send", {"to": "Ana"})) == "sent to Ana"
            assert (await one.call_tool("outbox", {})).structured_content == {
                "letters": [{"to": "Ana", "text": ""}], "count": 1,
            }  # fmt: skip
            assert (await two.call_tool("outbox", {})).structured_content == {"letters": [], "count": 0}
        rewards = [(await server.verify(one, response=said("x"))).json()["reward"] for one in (first, second)]
        assert rewards == [1.0, 0.0]

    run(test)


@BOTH
def test_tools_say_what_a_client_needs_to_run_unattended(era: str) -> None:
    async def test(server: Served) -> None:
        async with client(server, (await server.seed())["mcp"]["url"], era) as agent:
            tools = {entry.name: entry for entry in (await agent.list_tools()).tools}
        assert all(entry.meta == {"anthropic/alwaysLoad": True} for entry in tools.values())
        hints = {
            name: (hint.read_only_hint, hint.destructive_hint, hint.idempotent_hint, hint.open_world_hint)
            for name in ("send", "outbox", "shred")
            if (hint := tools[name].annotations)
        }
        assert hints == {
            "send": (False, False, False, False),
            "outbox": (True, False, True, False),
            "shred": (False, True, True, False),
        }
        assert tools["send"].input_schema["properties"]["to"] == {"type": "string"}
        assert tools["send"].output_schema is None
        output = tools["outbox"].output_schema
        assert output is not None
        assert output["properties"]["count"] == {"type": "integer"}

    run(test)


@BOTH
def test_what_the_model_did_wrong_is_a_tool_error_that_it_can_read(era: str) -> None:
    async def test(server: Served) -> None:
        seeded = await server.seed()
        async with client(server, seeded["mcp"]["url"], era) as agent:
            refused = await agent.call_tool("send", {"to": ""})
            unknown = await agent.call_tool("sned", {})
            wrong = await agent.call_tool("count", {"to": "many"})
        assert (refused.is_error, text(refused)) == (True, "Say to whom.")
        assert (unknown.is_error, text(unknown)) == (True, "Unknown tool 'sned'. Did you mean 'send'?")
        assert wrong.is_error
        assert "Expected: to (integer)" in text(wrong)
        assert (await server.verify(seeded, response=said("x"))).json()["reward"] == 0.0

    run(test)


@BOTH
def test_a_tool_that_breaks_is_a_protocol_error_without_its_words_and_fails_the_episode(era: str) -> None:
    async def test(server: Served) -> None:
        seeded = await server.seed()
        async with client(server, seeded["mcp"]["url"], era) as agent:
            for name in ("crash", "outbox"):
                with pytest.raises(MCPError) as caught:
                    await agent.call_tool(name, {})
                assert "the episode has failed" in str(caught.value)
                assert ANSWER not in str(caught.value)
                assert ".py" not in str(caught.value)
        assert (await server.verify(seeded, response=said("x"))).status_code == 500

    run(test)


@BOTH
def test_pictures_arrive_as_images(era: str) -> None:
    async def test(server: Served) -> None:
        async with client(server, (await server.seed())["mcp"]["url"], era) as agent:
            words, picture = (await agent.call_tool("picture", {})).content
        assert isinstance(words, types.TextContent)
        assert isinstance(picture, types.ImageContent)
        assert (words.text, picture.mime_type, base64.b64decode(picture.data)) == ("look:", "image/png", PIXEL)

    run(test)


@BOTH
def test_sounds_arrive_as_audio_and_other_files_as_resources(era: str) -> None:
    async def test(server: Served) -> None:
        async with client(server, (await server.seed())["mcp"]["url"], era) as agent:
            sound, table, archive = (await agent.call_tool("files", {})).content
        assert isinstance(sound, types.AudioContent)
        assert (sound.mime_type, base64.b64decode(sound.data)) == ("audio/wav", b"RIFF")
        assert isinstance(table, types.EmbeddedResource)
        assert table.resource == types.TextResourceContents(uri="file:///a%20b.csv", mime_type="text/csv", text="1,2")
        assert isinstance(archive, types.EmbeddedResource)
        assert archive.resource == types.BlobResourceContents(
            uri="file:///x", mime_type="application/octet-stream", blob="AP8="
        )

    run(test, FILING)


@BOTH
def test_progress_reaches_the_client_in_order(era: str) -> None:
    async def test(server: Served) -> None:
        heard: list[tuple[float, float | None, str | None]] = []

        async def hear(progress: float, total: float | None, message: str | None) -> None:
            heard.append((progress, total, message))

        async with client(server, (await server.seed())["mcp"]["url"], era) as agent:
            result = await agent.call_tool("count", {"to": 3}, progress_callback=hear)
        assert text(result) == "3"
        assert heard == [(1.0, 3.0, "at 1"), (2.0, 3.0, "at 2"), (3.0, 3.0, "at 3")]

    run(test)


@BOTH
def test_only_the_tasks_own_tools_are_listed_and_callable(era: str) -> None:
    tools = [{"type": "function", "name": "send", "description": "In the row's words.", "parameters": None}]

    async def test(server: Served) -> None:
        seeded = await server.seed(responses_create_params={"input": "x", "tools": tools})
        async with client(server, seeded["mcp"]["url"], era) as agent:
            (listed,) = (await agent.list_tools()).tools
            assert (listed.name, listed.description) == ("send", "In the row's words.")
            refused = await agent.call_tool("shred", {})
        assert refused.is_error
        assert text(refused) == "Unknown tool 'shred'. Did you mean 'send'?"

    run(test)


@pytest.mark.parametrize("is_closed", [True, False])
def test_an_unknown_or_closed_episode_is_a_404_for_every_method_and_never_401_or_403(is_closed: bool) -> None:
    async def test(server: Served) -> None:
        url = f"{server.url}/e/no-such-token-at-all/mcp"
        if is_closed:
            seeded = await server.seed()
            url = seeded["mcp"]["url"]
            await server.control.post("/close", json={"episode_id": seeded["episode_id"]})
        for method in ("POST", "GET", "DELETE", "PUT"):
            assert (await server.agent.request(method, url, json={})).status_code == 404
        assert (await post(server, url, "outbox")).status_code == 404
        well_known = "/.well-known/oauth-protected-resource" + url.removeprefix(server.url)
        assert (await server.agent.get(well_known)).status_code == 404

    run(test)


def test_get_and_delete_are_405_so_that_no_stream_is_held_open() -> None:
    async def test(server: Served) -> None:
        url = (await server.seed())["mcp"]["url"]
        for method in ("GET", "DELETE"):
            answer = await server.agent.request(method, url, headers={"accept": "text/event-stream"})
            assert (answer.status_code, answer.headers["allow"]) == (405, "POST")

    run(test)


@pytest.mark.parametrize("path", ["/mcp", "/office/mcp"])
@pytest.mark.parametrize("header", ["X-Gymrail-Episode", "X-NeMo-Gym-Session-Token", "Authorization"])
def test_the_endpoint_without_a_token_in_its_path_takes_the_credential_from_a_header(path: str, header: str) -> None:
    async def test(server: Served) -> None:
        seeded = await server.seed()
        token = seeded["mcp"]["headers"]["X-NeMo-Gym-Session-Token"]
        value = f"Bearer {token}" if header == "Authorization" else token
        answer = await post(server, path, "send", {"to": "Ana"}, **{header: value})
        assert answer.json()["result"]["content"][0]["text"] == "sent to Ana"
        assert (await post(server, path, "send", {"to": "Ana"})).status_code == 404

    run(test)


def test_calls_are_answered_as_plain_json_and_a_header_must_name_the_called_tool() -> None:
    async def test(server: Served) -> None:
        url = (await server.seed())["mcp"]["url"]
        answer = await post(server, url, "outbox")
        assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
        assert (await post(server, url, "outbox", **{"mcp-name": "send"})).status_code == 400

    run(test)


def test_blanks_around_mcp_headers_are_no_mismatch() -> None:
    """HTTP clients may send them, and the parser keeps those at the end."""

    async def test(server: Served) -> None:
        url = (await server.seed())["mcp"]["url"]
        params = {"name": "outbox", "arguments": {}, "_meta": META}
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
        headers = {**MODERN, "mcp-method": " tools/call  ", "mcp-name": "  outbox\t", "connection": "close"}
        reader, writer = await send(server, url, headers, body)
        assert (await asyncio.wait_for(reader.read(), 120)).startswith(b"HTTP/1.1 200")
        writer.close()

    run(test)


def test_a_call_id_makes_a_call_safe_to_repeat_and_request_ids_do_not() -> None:
    """Every new client counts its requests from the start, so equal ids are no retry."""

    async def test(server: Served) -> None:
        seeded = await server.seed()
        url = seeded["mcp"]["url"]
        for _ in range(3):
            await post(server, url, "send", {"to": "Ana"}, **{"x-call-id": "call_1"})
        assert len(server.environment(seeded).letters) == 1
        for _ in range(2):
            await post(server, url, "send", {"to": "Ana"})
        assert len(server.environment(seeded).letters) == 3

    run(test)


def test_a_done_episode_says_so_in_the_results_metadata() -> None:
    async def test(server: Served) -> None:
        answer = await post(server, (await server.seed())["mcp"]["url"], "leave")
        assert answer.json()["result"]["_meta"]["gymrail/done"] is True

    run(test)


@pytest.mark.parametrize("has_progress", [True, False])
@BOTH
def test_a_tool_runs_to_its_end_when_the_client_leaves(era: str, has_progress: bool) -> None:
    async def test(server: Served) -> None:
        seeded = await server.seed()
        environment = server.environment(seeded)
        params: dict[str, Any] = {"name": "file", "arguments": {}, "_meta": {}}
        headers = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
        if era != "legacy":
            params["_meta"] |= META
            headers |= {**MODERN, "mcp-method": "tools/call", "mcp-name": "file"}
        if has_progress:
            params["_meta"]["progressToken"] = 7
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}).encode()
        await leave_after(server, seeded["mcp"]["url"], headers, body, environment.entered)
        environment.gate.set()
        held = server.service.table.by_id(seeded["episode_id"])
        assert held is not None
        await asyncio.wait(held.tasks or {asyncio.create_task(asyncio.sleep(0))}, timeout=120)
        assert environment.steps == ["first", "second"]
        assert held.episode.failure is None
        assert [call.output for call in held.episode.rollout.calls] == ["filed"]

    run(test)


def test_a_plain_tool_call_runs_to_its_end_when_the_client_leaves() -> None:
    async def test(server: Served) -> None:
        seeded = await server.seed()
        environment = server.environment(seeded)
        await leave_after(server, f"{seeded['url']}/file", {}, b"{}", environment.entered)
        environment.gate.set()
        judged = (await server.verify(seeded, response=said("x"))).json()
        assert judged["reward"] == 0.0
        assert environment.steps == ["first", "second"]

    run(test)


async def leave_after(server: Served, url: str, headers: dict[str, str], body: bytes, entered: asyncio.Event) -> None:
    """Send a request and break the connection once its tool is under way; wait until the server has noticed."""
    _, writer = await send(server, url, headers, body)
    await asyncio.wait_for(entered.wait(), 120)
    writer.transport.abort()
    # What the server does about it takes it a few turns of this loop; another request's answer comes after them.
    for _ in range(3):
        await server.agent.get("/health")


async def send(
    server: Served, url: str, headers: dict[str, str], body: bytes
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Send a request as it is written here."""
    host, _, port = server.url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    head = {"host": f"{host}:{port}", "content-length": str(len(body)), **headers}
    lines = [f"POST {url.removeprefix(server.url)} HTTP/1.1", *(f"{name}: {value}" for name, value in head.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    return reader, writer


def test_several_environments_answer_under_their_own_names() -> None:
    counter = find("session_counter")

    async def test(server: Served) -> None:
        office = await server.seed("/office/seed_session")
        task = counter.generate("train", 0).row
        other = (await server.control.post("/session_counter/seed_session", json=task)).json()
        async with client(server, other["mcp"]["url"], "legacy") as agent:
            assert agent.server_info.name == "session_counter"
            assert text(await agent.call_tool("get_counter_value", {})) == str(task["initial_count"])
        token = office["mcp"]["headers"]["X-NeMo-Gym-Session-Token"]
        answer = await post(server, "/session_counter/mcp", "outbox", **{"x-gymrail-episode": token})
        assert answer.status_code == 404

    run(test, OFFICE, counter)


def test_a_row_with_the_servers_key_in_it_gives_the_agent_nothing() -> None:
    async def test(server: Served) -> None:
        seeded = await server.seed(note=KEY)
        async with client(server, seeded["mcp"]["url"], "legacy") as agent:
            assert KEY not in str(await agent.list_tools())
        assert row()["secret"] not in str(seeded)

    run(test)
