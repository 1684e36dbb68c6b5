"""What an agent may try with its credential. Nothing reaches control, another episode or the answer.

Every answer of every attack is searched for the planted answer, the server's key, the other episode's state, a path of
a file and a traceback.
"""

import asyncio
import base64
import itertools
import json
import re
from typing import Any

import pytest
from starlette.routing import Route

from gymrail.serving.http import create_app
from gymrail.serving.settings import Settings
from tests.core.serving.office import ANSWER, KEY, OFFICE, ROW, Served, row, run, said, served

OTHERS_STATE = "a-letter-of-the-other-episode"
FORBIDDEN = re.compile(rf"{ANSWER}|{KEY}|{OTHERS_STATE}|Traceback|\.py\b|/src/|site-packages")
CONTROL = ("seed_session", "verify", "close", "aggregate_metrics", "reset", "step")
SPELLINGS = (
    "{}", "{}/", "{}?close=false", "./{}", "../{}", "..%2f{}", "%2e%2e/{}", "%2e%2e%2f{}", "..%252f{}", "..\\{}",
    "..;/{}", "%2f{}", "//{}", "{}%00", "{}%20", "%20{}", "{};x", "{}#", "office/{}", "../office/{}", "mcp/../{}",
    "mcp/{}", "send/../../../{}", "{}.json",
)  # fmt: skip


class Attack:
    """An agent with its own episode, beside another one."""

    def __init__(self, server: Served, own: dict[str, Any], other: dict[str, Any], cookie: str) -> None:
        self.server, self.own, self.other, self.cookie = server, own, other, cookie
        self.token = own["url"].rpartition("/")[2]
        self.path = f"/e/{self.token}"
        self.carriers = [
            {"authorization": f"Bearer {self.token}"}, {"x-gymrail-episode": self.token},
            {"x-nemo-gym-session-token": self.token}, {"cookie": f"gymrail_session={cookie}"}, {},
        ]  # fmt: skip

    async def send(self, method: str, target: str, body: Any = b"", headers: Any = None) -> tuple[int, str]:
        """Send a request whose path is written as it stands here, and search the answer."""
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = {"content-type": "application/json", **(headers or {})}
        sent = {name: value.encode("utf-8") for name, value in sent.items()}
        exactly = {"target": target.encode("latin-1")}
        answer = await self.server.agent.request(method, "/", content=content, headers=sent, extensions=exactly)
        self.server.agent.cookies.clear()
        everything = answer.text + str(answer.headers)
        found = FORBIDDEN.findall(everything)
        assert not found, (method, target, headers, found, answer.text[:500])
        return answer.status_code, answer.text

    async def check_unharmed(self) -> None:
        """Both episodes are open, neither was judged, and the other one is as it was."""
        table = self.server.service.table
        for seeded in (self.own, self.other):
            held = table.by_id(seeded["episode_id"])
            assert held is not None
            assert held.judging is None
            assert held.episode.failure is None
        assert len(table) == 2
        assert [letter.text for letter in self.server.environment(self.other).letters] == [OTHERS_STATE]
        assert self.server.environment(self.own).letters == []


def attack(test: Any, settings: Settings | None = None) -> None:
    async def inside(server: Served) -> None:
        answer = await server.control.post("/seed_session", json=ROW)
        cookie = answer.cookies["gymrail_session"]
        server.control.cookies.clear()
        other = await server.seed()
        await server.agent.post(f"{other['url']}/send", json={"to": "Ana", "text": OTHERS_STATE})
        one = Attack(server, answer.json(), other, cookie)
        await test(one)
        await one.check_unharmed()

    run(inside, settings=settings)


def test_no_spelling_of_a_control_route_is_reached_with_an_agents_credential() -> None:
    async def test(one: Attack) -> None:
        body = row(response=said("done"), episode_id=one.own["episode_id"])
        for name, spelling in itertools.product(CONTROL, SPELLINGS):
            target = f"{one.path}/{spelling.format(name)}"
            status, text = await one.send("POST", target, body)
            assert status in (400, 404, 405), (target, status, text)
        for name, prefix, carrier in itertools.product(CONTROL, ("/", "/office/"), one.carriers):
            status, text = await one.send("POST", prefix + name, body, carrier)
            assert status in (401, 404), (prefix + name, carrier, status, text)

    attack(test)


def test_nothing_that_can_be_read_is_for_agents_but_the_servers_health_and_its_schema() -> None:
    async def test(one: Attack) -> None:
        names = ("tools", "reverify_mode", "episodes", "metrics", "openapi.json", "docs", "redoc", "health", "")
        for name in names:
            status, text = await one.send("GET", f"{one.path}/{name}")
            assert status in (404, 405), (name, text)
        for name, carrier in itertools.product(("episodes", "metrics", "reverify_mode", "docs"), one.carriers):
            status, text = await one.send("GET", f"/{name}", headers=carrier)
            assert status in (401, 404), (name, carrier, text)
        for carrier in one.carriers[:3]:
            status, text = await one.send("GET", "/tools", headers=carrier)
            assert status == 200
            assert {entry["name"] for entry in json.loads(text)["tools"]} == set(OFFICE.tools)

    attack(test)


def test_every_method_on_every_route_of_the_app_is_harmless_in_an_agents_hands() -> None:
    async def test(one: Attack) -> None:
        app = create_app([OFFICE], Settings(key=KEY))
        paths = {route.path for route in app.router.routes if isinstance(route, Route)}
        assert {"/verify", "/office/verify", "/openapi.json"} <= paths
        for path in sorted({*paths, "/e/{token}/mcp", "/e/{token}/{tool}", "/mcp", "/{tool}", "/office/mcp"}):
            target = path.replace("{token}", one.token).replace("{tool}", "outbox").replace("{environment}", "office")
            for method, carrier in itertools.product(("GET", "PUT", "DELETE"), one.carriers[::2]):
                status, text = await one.send(method, target, headers=carrier)
                assert status < 500, (method, target, text)

    attack(test)


def test_another_episodes_id_is_no_credential_wherever_it_is_put() -> None:
    async def test(one: Attack) -> None:
        id = one.other["episode_id"]
        for headers in (
            {"x-gymrail-episode": id}, {"authorization": f"Bearer {id}"}, {"x-nemo-gym-session-token": id},
            {"x-gymrail-episode-id": id}, {"x-gymrail-episode-id": id, "cookie": "gymrail_session=x"},
        ):  # fmt: skip
            assert (await one.send("POST", "/outbox", {}, headers))[0] == 404
            assert (await one.send("POST", "/office/outbox", {}, headers))[0] == 404
        assert (await one.send("POST", f"/e/{id}/outbox"))[0] == 404
        assert (await one.send("POST", f"/e/{id}/mcp", {}))[0] == 404
        # Beside its own credential it changes nothing: the agent's own episode answers.
        for carrier in one.carriers[:4]:
            status, text = await one.send("POST", "/outbox", {}, {**carrier, "x-gymrail-episode-id": id})
            assert (status, json.loads(text)["count"]) == (200, 0)
            for name in ("verify", "close"):
                headers = {**carrier, "x-gymrail-episode-id": id}
                assert (await one.send("POST", f"/{name}", {"episode_id": id}, headers))[0] in (401, 404)

    attack(test)


def test_a_forged_or_altered_cookie_opens_nothing() -> None:
    async def test(one: Attack) -> None:
        payload, _, signature = one.cookie.partition(".")
        other = base64.urlsafe_b64encode(json.dumps({"session_id": one.other["episode_id"]}).encode()).decode()
        for forged in (
            one.other["episode_id"], f"{other}.{signature}", f"{other.rstrip('=')}.{signature}", f"{other}.", other,
            f"{payload}.{signature[:-1]}", f"{payload}.{signature}0", f".{signature}", "", ".", "..", "é.é",
            f"{payload}.{'0' * 64}", "A" * 5000,
        ):  # fmt: skip
            headers = {"cookie": f"gymrail_session={forged}"}
            assert (await one.send("POST", "/outbox", {}, headers))[0] == 404, forged

    attack(test)


def test_guessed_keys_are_refused_whatever_they_look_like() -> None:
    async def test(one: Attack) -> None:
        for key in ("", KEY[:-1], KEY + "x", KEY.upper(), "null", "Bearer", "é" * 20, one.token + KEY, "a b"):
            for scheme in ("Bearer ", "bearer  ", "Basic ", ""):
                headers = {"authorization": (scheme + key).strip()}
                status, _ = await one.send("POST", "/verify", row(response=said("x")), headers)
                assert status in (401, 404), headers

    attack(test)


def test_a_call_named_like_a_control_route_is_an_unknown_tool_over_mcp_too() -> None:
    async def test(one: Attack) -> None:
        names = [*CONTROL, "../verify", "..%2fverify", "__init__", "seed", "verify\x00", "", "close", "a" * 300, "é"]
        for name in names:
            params = {"name": name, "arguments": {"episode_id": one.other["episode_id"], **ROW}}
            body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {**params, "_meta": {}}}
            headers = {"accept": "application/json, text/event-stream"}
            status, text = await one.send("POST", f"{one.path}/mcp", _without_answer(body), headers)
            assert status == 200
            assert json.loads(text)["result"]["isError"], text

    attack(test)


def test_no_method_of_mcp_shows_more_than_tools() -> None:
    async def test(one: Attack) -> None:
        methods = (
            "resources/list", "resources/read", "prompts/list", "prompts/get", "completion/complete",
            "logging/setLevel", "sampling/createMessage", "roots/list", "tasks/list", "tasks/get",
            "verify", "seed_session", "../verify", "server/discover", "subscriptions/listen",
        )  # fmt: skip
        for method, version in itertools.product(methods, ("2025-06-18", "2026-07-28", "1999-01-01")):
            params = {
                "uri": "file:///etc/passwd", "name": "verify",
                "_meta": {
                    "io.modelcontextprotocol/protocolVersion": version,
                    "io.modelcontextprotocol/clientCapabilities": {},
                },
            }  # fmt: skip
            body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            headers = {"mcp-protocol-version": version, "mcp-method": method, "mcp-name": "verify"}
            if method == "subscriptions/listen":
                continue
            headers["accept"] = "application/json, text/event-stream"
            status, text = await one.send("POST", f"{one.path}/mcp", body, headers)
            assert status < 500
            assert "root:" not in text
            assert '"error"' in text or method == "server/discover", text

    attack(test)


def test_bodies_that_are_too_large_or_nest_too_deep_are_refused_before_they_are_read() -> None:
    async def test(one: Attack) -> None:
        large = b'{"to": "' + b"x" * 70_000 + b'"}'
        deep = b'{"to": ' + b"[" * 5000 + b"]" * 5000 + b"}"
        mixed = b'{"a":' * 101 + b"1" + b"}" * 101
        for target in (f"{one.path}/send", f"{one.path}/mcp", "/verify", "/seed_session"):
            for carrier in ({}, {"authorization": f"Bearer {one.token}"}):
                assert (await one.send("POST", target, large, carrier))[0] in (413, 404, 401)
                assert (await one.send("POST", target, deep, carrier))[0] in (400, 404, 401)
        for target in (f"{one.path}/send", f"{one.path}/mcp"):
            assert (await one.send("POST", target, large))[0] == 413
            assert (await one.send("POST", target, deep))[0] == 400
            assert (await one.send("POST", target, mixed))[0] == 400

    attack(test, Settings(key=KEY, max_body_bytes=65_536))


def test_a_body_without_a_length_is_bounded_too() -> None:
    async def test(one: Attack) -> None:
        async def chunks() -> Any:
            for _ in range(100):
                yield b"x" * 1000

        for target in (f"{one.path}/send", f"{one.path}/mcp"):
            answer = await one.server.agent.post(target, content=chunks())
            assert answer.status_code == 413

    attack(test, Settings(key=KEY, max_body_bytes=65_536))


def test_brackets_inside_texts_are_no_depth_and_an_allowed_depth_passes() -> None:
    async def inside(server: Served) -> None:
        seeded = await server.seed()
        for text in ("[" * 500, '\\"[' * 500, "{" * 50 + '"' + "{" * 80):
            sent = await server.agent.post(f"{seeded['url']}/send", json={"to": text})
            assert sent.text == f"sent to {text}"
        nested = json.loads("[" * 99 + "]" * 99)
        assert (await server.agent.post(f"{seeded['url']}/send", json={"to": nested})).status_code == 200
        assert (await server.agent.post(f"{seeded['url']}/send", json={"to": [nested]})).status_code == 400

    run(inside)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "0.0.0.0", "[::2]", ""])
def test_a_server_on_loopback_answers_to_loopback_names_alone(host: str) -> None:
    async def test(one: Attack) -> None:
        for target in ("/health", f"{one.path}/outbox", f"{one.path}/mcp", "/verify"):
            assert (await one.send("POST", target, {}, {"host": host}))[0] in (400, 421)
        for good in ("localhost", "localhost:1", "127.0.0.1:99", "LOCALHOST", "[::1]:80"):
            assert (await one.send("GET", "/health", headers={"host": good}))[0] == 200

    attack(test)


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1", "http://localhost:3000", ""])
def test_no_browser_gets_through_unless_its_origin_is_allowed(origin: str) -> None:
    async def test(one: Attack) -> None:
        for target in ("/health", f"{one.path}/outbox", f"{one.path}/mcp", "/seed_session"):
            assert (await one.send("POST", target, {}, {"origin": origin}))[0] == 403
            assert (await one.send("OPTIONS", target, headers={"origin": origin}))[0] == 403
        allowed = {"origin": "https://tools.example"}
        assert (await one.send("GET", "/health", headers=allowed))[0] == 200

    attack(test, Settings.for_address("127.0.0.1", key=KEY, allowed_origins=("https://tools.example",)))


def test_a_browser_that_shows_a_page_of_the_server_itself_gets_through_on_loopback_only() -> None:
    async def own(one: Attack) -> int:
        host = one.server.url.removeprefix("http://")
        assert (await one.send("GET", "/health", headers={"host": host, "origin": f"https://{host}"}))[0] == 403
        rebound = {"host": "evil.example", "origin": "http://evil.example"}
        assert (await one.send("GET", "/health", headers=rebound))[0] in (403, 421)
        return (await one.send("GET", "/health", headers={"host": host, "origin": f"http://{host}"}))[0]

    async def local(one: Attack) -> None:
        assert await own(one) == 200

    async def everywhere(one: Attack) -> None:
        assert await own(one) == 403

    attack(local)
    attack(everywhere, Settings.for_address("0.0.0.0", key=KEY))


def test_odd_requests_never_break_the_server() -> None:
    async def test(one: Attack) -> None:
        bodies = (
            b"", b"\x00", b"\xff\xfe", b"null", b"[]", b'"x"', b"1e999", b"{", b'{"to": 1e400}', b'{"to": "\\ud800"}',
            b'{"jsonrpc": "2.0"}', b'{"jsonrpc":"2.0","id":null,"method":3}', b"[" * 99,
            b'{"to":' + b"9" * 5000 + b"}",
        )  # fmt: skip
        for body in bodies:
            for target in (f"{one.path}/shred", f"{one.path}/mcp", "/verify", "/shred", "/nothing/at/all"):
                for carrier in one.carriers[::2]:
                    status, text = await one.send("POST", target, body, carrier)
                    assert status < 500, (target, body[:40], text)
        for call_id in ("", "x" * 257, "é"):
            headers = {"x-call-id": call_id}
            assert (await one.send("POST", f"{one.path}/shred", b"{}", headers))[0] in (200, 400)

    attack(test)


def test_the_tools_methods_and_hooks_that_are_no_tools_cannot_be_called() -> None:
    async def test(one: Attack) -> None:
        for name in ("__init__", "__class__", "task", "_check", "solve", "letters", "reply", "after_call"):
            status, text = await one.send("POST", f"{one.path}/{name}", {"rollout": {}})
            assert (status, text.startswith("Unknown tool")) == (404, True), name

    attack(test)


def test_an_open_server_keeps_an_agents_credential_out_of_control_all_the_same() -> None:
    async def test(one: Attack) -> None:
        body = row(response=said("done"))
        for name, carrier in itertools.product(("seed_session", "verify", "close", "episodes"), one.carriers[:3]):
            assert (await one.send("POST", f"/{name}", body, carrier))[0] in (404, 405), (name, carrier)

    attack(test, Settings.for_address("127.0.0.1", is_open=True))


def test_a_closed_episodes_credential_is_still_no_key() -> None:
    async def inside() -> None:
        async with served() as server:
            seeded = await server.seed()
            await server.control.post("/close", json={"episode_id": seeded["episode_id"]})
            token = seeded["url"].rpartition("/")[2]
            answer = await server.agent.post("/seed_session", json=ROW, headers={"authorization": f"Bearer {token}"})
            assert answer.status_code == 404

    asyncio.run(inside())


def _without_answer(body: Any) -> Any:
    """The agent does not know the answer, so what it sends cannot hold it: an echo would look like a leak."""
    return json.loads(json.dumps(body).replace(ANSWER, "unknown"))
