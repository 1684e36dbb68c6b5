"""What is repeated and what is not, against a server that is busy now and then; it speaks NeMo Gym's protocol."""

import asyncio
from collections import Counter
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gymrail import Rollout, Task
from gymrail.clients.discover import remote_spec
from gymrail.clients.fleet import Session
from gymrail.environment import call
from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.serving.loopback import serve_on_loopback

ADD = {"type": "function", "name": "add", "description": "Add.", "parameters": {"type": "object", "properties": {}}}


class BusyServer:
    """Answers 503 to the first `busy[path]` requests of a path, and counts cookies like a session does."""

    def __init__(self, **busy: int) -> None:
        self.busy = busy
        self.seen: Counter[str] = Counter()
        self.cookies: list[str | None] = []
        self.verdict: dict[str, Any] = {"reward": 1.0, "accuracy": True}

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/", lambda request: JSONResponse({"status": "ok"})),
                Route("/{path}", self.answer, methods=["POST"]),
            ]
        )

    async def answer(self, request: Request) -> Response:
        path = request.path_params["path"]
        if path not in ("seed_session", "add", "verify"):
            return JSONResponse({"detail": "Not Found"}, 404)
        self.seen[path] += 1
        if self.seen[path] <= self.busy.get(path, 0):
            return JSONResponse({"detail": "busy"}, 503, {"retry-after": "0"})
        self.cookies.append(request.cookies.get("session"))
        body = (await request.json()) | self.verdict if path == "verify" else {}
        response = JSONResponse(body)
        response.set_cookie("session", str(len(self.cookies)))
        return response


def played(server: BusyServer) -> Rollout:
    async def main() -> Rollout:
        async with serve_on_loopback(server.app()) as url:
            spec = await asyncio.to_thread(remote_spec, url, reward_range=(0.0, 1.0))
            task = Task.ask("Add.", parameters={"tools": [ADD]}, expected=3)
            try:
                return await play(spec, task, ScriptedModel([call("add"), "Done."]))
            finally:
                await spec.teardown()

    return asyncio.run(main())


def test_each_request_carries_the_newest_cookie() -> None:
    server = BusyServer()
    rollout = played(server)
    assert (rollout.reward, rollout.metrics) == (1.0, {"accuracy": True})
    assert server.cookies == [None, "1", "2"]


def test_seeding_and_verifying_are_repeated_while_the_server_is_busy() -> None:
    server = BusyServer(seed_session=2, verify=3)
    assert played(server).reward == 1.0
    assert server.seen == {"seed_session": 3, "add": 1, "verify": 4}


def test_a_call_without_an_id_is_not_repeated_because_its_deed_may_be_done() -> None:
    server = BusyServer(add=1)
    rollout = played(server)
    assert rollout.failure is not None
    assert (rollout.failure.kind, rollout.failure.stage, rollout.reward) == ("infrastructure", "tool", None)
    assert server.seen == {"seed_session": 1, "add": 1}


def test_retries_end_and_then_the_rollout_is_a_failure() -> None:
    server = BusyServer(verify=100)
    rollout = played(server)
    assert rollout.failure is not None
    assert (rollout.failure.kind, rollout.failure.stage, rollout.reward) == ("infrastructure", "verify", None)
    assert server.seen["verify"] == 4


@pytest.mark.parametrize(
    ("verdict", "kind"),
    [
        ({"reward": None}, "verifier"),
        ({"reward": "1"}, "verifier"),
        ({"reward": 1.0, "mask_sample": True}, "verifier"),
        ({"reward": 7.0}, "reward"),
    ],
)
def test_a_verdict_that_is_none_is_a_failure_and_no_reward(verdict: dict[str, Any], kind: str) -> None:
    server = BusyServer()
    server.verdict = verdict
    rollout = played(server)
    assert rollout.failure is not None
    assert (rollout.failure.kind, rollout.reward) == (kind, None)


def test_a_cookie_that_is_taken_back_is_sent_no_more() -> None:
    from pyreqwest.http import HeaderMap

    session = Session({"X": "1"}, {"old": "1", "kept": "2"})
    session.keep_cookies(HeaderMap([("set-cookie", "old=; Max-Age=0"), ("set-cookie", "new=a=b; Path=/; HttpOnly")]))
    assert session.all_headers() == {"X": "1", "Cookie": "kept=2; new=a=b"}
