"""A plain tool call is answered as the SDK answers it, and what is not plain is left to the SDK."""

import json
from typing import Any

import pytest

from gymrail.serving.plain_call import PlainCall, read_plain_call
from tests.core.serving.office import KEY, Served, row, run
from tests.core.serving.test_mcp import META

VERSIONS = ["2025-06-18", "2025-11-25", "2026-07-28"]
EACH = pytest.mark.parametrize("version", VERSIONS)
PLAIN = "application/json, text/event-stream"
FOR_THE_SDK = "application/json, text/event-stream;q=0.9"
"""Means the same, and is not read by the short way."""


def message(version: str, name: str, arguments: Any = None, id: Any = 1, **meta: Any) -> dict[str, Any]:
    params: dict[str, Any] = {"name": name, "arguments": arguments or {}}
    if version == "2026-07-28":
        params["_meta"] = {**META, "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"}}
    if meta:
        params["_meta"] = {**params.get("_meta", {}), **meta}
    return {"jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params}


def headers(version: str, name: str, accept: str = PLAIN) -> dict[str, str]:
    found = {"content-type": "application/json", "accept": accept, "mcp-protocol-version": version}
    return found | ({"mcp-method": "tools/call", "mcp-name": name} if version == "2026-07-28" else {})


def read(version: str, body: Any, change: dict[str, str] | None = None) -> PlainCall | None:
    given = {**headers(version, "send"), **(change or {})}
    raw = [(name.encode(), value.encode()) for name, value in given.items()]
    return read_plain_call(raw, body if isinstance(body, bytes) else json.dumps(body).encode(), {"send"})


@EACH
def test_both_ways_answer_alike_whatever_becomes_of_the_call(version: str) -> None:
    many = 2**70
    calls: list[tuple[str, Any, Any, dict[str, Any]]] = [
        ("send", {"to": "Ana", "text": "Größe"}, 1, {}),
        ("send", {"to": ""}, "a text", {}),
        ("send", {"to": many}, many, {}),
        ("send", {"wrong": 1}, 0, {"note": [1]}),
        ("outbox", None, 1, {}),
        ("picture", {}, 1, {}),
        ("sned", {}, 1, {}),
        ("send", {"to": "Bob"}, 1, {"gymrail/callId": "call_1"}),
        ("send", {"to": "Eve"}, 1, {"gymrail/callId": "call_1"}),
        ("leave", {}, 1, {}),
        ("crash", {}, 1, {}),
        ("send", {"to": "Ana"}, 1, {}),
    ]

    async def test(server: Served) -> None:
        answers = []
        for accept in (PLAIN, FOR_THE_SDK):
            url = (await server.seed())["mcp"]["url"]
            said = []
            for name, arguments, id, meta in calls:
                body = message(version, name, arguments, id, **meta)
                answer = await server.agent.post(url, json=body, headers=headers(version, name, accept))
                said.append((answer.status_code, answer.headers["content-type"], answer.json()))
            answers.append(said)
        short, long = answers
        for call, one, other in zip(calls, short, long, strict=True):
            assert one == other, call
        assert [status for status, _, _ in short] == [200] * 8 + [400 if version == "2026-07-28" else 200] + [200] * 3
        assert short[4][2]["result"]["structuredContent"]["count"] == 1

    run(test)


@EACH
def test_a_call_to_an_episode_that_was_judged_is_answered_alike(version: str) -> None:
    async def test(server: Served) -> None:
        answers = []
        for accept in (PLAIN, FOR_THE_SDK):
            seeded = await server.seed()
            await server.verify(seeded, path="/verify?close=false", response={"output": []})
            answer = await server.agent.post(
                seeded["mcp"]["url"], json=message(version, "outbox"), headers=headers(version, "outbox", accept)
            )
            answers.append((answer.status_code, answer.json()))
        assert answers[0] == answers[1]
        assert "is gone" in answers[0][1]["error"]["message"]

    run(test)


@EACH
def test_an_ordinary_call_takes_the_short_way(version: str) -> None:
    expected = PlainCall(7, version, "send", {"to": "Ana", "count": 2**70}, "call_9")
    assert read(version, message(version, "send", expected.arguments, 7, **{"gymrail/callId": "call_9"})) == expected
    assert read(version, message(version, "send", expected.arguments, 7), {"x-call-id": " call_9 "}) == expected
    assert read(version, message(version, "send"), {"content-type": "application/json; charset=utf-8"}) is not None


@pytest.mark.parametrize(
    "change",
    [
        {"accept": "text/event-stream"},
        {"accept": FOR_THE_SDK},
        {"content-type": "text/plain"},
        {"mcp-protocol-version": "2025-03-26"},
        {"mcp-protocol-version": "2099-01-01"},
        {"mcp-session-id": "1"},
        {"mcp-param-to": "Ana"},
    ],
)
@EACH
def test_headers_that_need_a_look_are_left_to_the_sdk(version: str, change: dict[str, str]) -> None:
    assert read(version, message(version, "send"), change) is None


@EACH
def test_a_header_that_comes_twice_is_left_to_the_sdk(version: str) -> None:
    raw = [(name.encode(), value.encode()) for name, value in headers(version, "send").items()]
    body = json.dumps(message(version, "send")).encode()
    assert read_plain_call(raw, body, {"send"}) is not None
    assert read_plain_call([*raw, (b"mcp-protocol-version", version.encode())], body, {"send"}) is None


@pytest.mark.parametrize(
    "change", [{"mcp-method": "tools/list"}, {"mcp-name": "shred"}, {"mcp-name": "=?base64?c2VuZA==?="}]
)
def test_a_header_that_does_not_say_what_the_body_says_is_left_to_the_sdk(change: dict[str, str]) -> None:
    assert read("2026-07-28", message("2026-07-28", "send"), change) is None


@EACH
def test_a_body_that_is_no_plain_call_is_left_to_the_sdk(version: str) -> None:
    good = message(version, "send", {"to": "Ana"})
    assert read(version, good) is not None
    bodies: list[Any] = [
        b"", b"{", b"\xff", [good], [], 3, {**good, "id": None}, {**good, "id": True}, {**good, "id": 1.5},
        {**good, "jsonrpc": "1.0"}, {**good, "method": "tools/list"}, {**good, "params": None}, {**good, "more": 1},
        {**good, "params": []}, {key: value for key, value in good.items() if key != "id"},
        {**good, "params": {**good["params"], "name": "no_such_tool"}},
        {**good, "params": {**good["params"], "name": None}},
        {**good, "params": {**good["params"], "arguments": [1]}},
        {**good, "params": {**good["params"], "_meta": 3}},
    ]  # fmt: skip
    for body in bodies:
        assert read(version, body) is None, body


def test_a_request_without_the_newest_revisions_envelope_is_left_to_the_sdk() -> None:
    for key in META:
        body = message("2026-07-28", "send")
        del body["params"]["_meta"][key]
        assert read("2026-07-28", body) is None
    for capabilities in (3, None, {"experimental": 3}):
        wrong = message("2026-07-28", "send", **{"io.modelcontextprotocol/clientCapabilities": capabilities})
        assert read("2026-07-28", wrong) is None


def test_the_server_key_is_no_credential_of_a_plain_call() -> None:
    async def test(server: Served) -> None:
        await server.seed()
        answer = await server.control.post(
            "/mcp", json=message("2025-11-25", "send"), headers=headers("2025-11-25", "")
        )
        assert answer.status_code == 404
        assert row()["secret"] not in answer.text
        assert KEY not in answer.text

    run(test)
