"""The model of the chaos test: an OpenAI-compatible endpoint that knows the right answer and often does not give it.

    python -m tests.chaos.model --port 0 --rate 0.05 --seed 1 --counts FILE

The first line on stdout is the port. Which requests go wrong, and how, is drawn from the seed; how often each fault was
dealt out stands in the counts file, which survives a kill -9. The right answer follows from the conversation alone
(`environment.next_turn`), so no restart and no other model behind the same port can change it.
"""

from __future__ import annotations

import argparse
import asyncio
import mmap
import re
import struct
from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

import orjson
from aiohttp import web

from gymrail.environment import Call
from tests.chaos.environment import next_turn, number_of

FAULTS: dict[str, float] = {
    "429": 3,
    "429 with Retry-After": 2,
    "500": 3,
    "503": 1,
    "connection reset": 2,
    "half an answer": 2,
    "no JSON": 2,
    "wrong shape": 2,
    "error inside 200": 1,
    "slow": 3,
    "never": 0.5,
}
"""How often each goes wrong, beside the others."""
NAME = "chaos-model"
_STEPS = re.compile(r"mix (\d+) times")
_COUNTS = struct.Struct(f"{len(FAULTS) + 1}Q")
Handler = Callable[[web.Request], Coroutine[Any, Any, web.StreamResponse]]


class Counts:
    """How often each fault was dealt out, and how often the answer was right, in a file that several lives share."""

    names = ("right", *FAULTS)

    def __init__(self, path: Path) -> None:
        if not path.exists():
            path.write_bytes(bytes(_COUNTS.size))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), _COUNTS.size)

    def add(self, name: str) -> None:
        values = list(_COUNTS.unpack(self._map))
        values[self.names.index(name)] += 1
        _COUNTS.pack_into(self._map, 0, *values)

    @classmethod
    def read(cls, path: Path) -> dict[str, int]:
        """Return the counts by name; none where no model has written."""
        if not path.exists():
            return {}
        return dict(zip(cls.names, _COUNTS.unpack(path.read_bytes()), strict=True))


class ChaosModel:
    """Answers requests, or deals out a fault."""

    def __init__(self, rate: float, seed: str, counts: Counts) -> None:
        self._rate = rate
        self._rng = Random(seed)
        self._counts = counts

    async def models(self, request: web.Request) -> web.Response:
        """`GET /v1/models`."""
        return _json(200, {"object": "list", "data": [{"id": NAME, "object": "model"}]})

    async def complete(self, request: web.Request) -> web.StreamResponse:
        """`POST /v1/chat/completions`."""
        answer = _completion(orjson.loads(await request.read()))
        fault = self._rng.choices(list(FAULTS), list(FAULTS.values()))[0] if self._rng.random() < self._rate else None
        self._counts.add(fault or "right")
        return _json(200, answer) if fault is None else await self._go_wrong(fault, request, answer)

    async def _go_wrong(self, fault: str, request: web.Request, answer: dict[str, Any]) -> web.StreamResponse:
        if fault == "429":
            return _error(429, "Rate limit reached.")
        if fault == "429 with Retry-After":
            return _error(429, "Rate limit reached.", {"Retry-After": self._rng.choice(("0", "0.2", "1"))})
        if fault in ("500", "503"):
            return _error(int(fault), "The server had an error.")
        if fault == "connection reset":
            return _cut(request)
        if fault == "half an answer":
            return await _half(request, orjson.dumps(answer))
        if fault == "no JSON":
            text = self._rng.choice(("<html>Bad gateway</html>", "", '{"choices": [', "null", '"text"'))
            return web.Response(text=text, content_type="application/json")
        if fault == "wrong shape":
            choices = self._rng.choice(([], [{}], [{"message": None}], [{"message": "text"}], "text", None))
            return _json(200, {**answer, "choices": choices})
        if fault == "error inside 200":
            return _json(200, {"error": {"message": "Upstream failed.", "code": 502}})
        await asyncio.sleep(self._rng.uniform(0.3, 1.5) if fault == "slow" else 3600)
        return _json(200, answer)


def _completion(body: dict[str, Any]) -> dict[str, Any]:
    messages = body["messages"]
    said: list[object] = []
    for entry in messages:
        said += [entry["role"], entry.get("content") or ""]
        for call in entry.get("tool_calls") or ():
            said += [call["function"]["name"], call["function"]["arguments"]]
    steps = _STEPS.search(messages[0]["content"])
    assert steps is not None, f"the first message is no task of this environment: {messages[0]!r}"
    mixed = sum(call["function"]["name"] == "mix" for entry in messages for call in entry.get("tool_calls") or ())
    turn = next_turn(said, mixed, int(steps[1]))
    is_answer = isinstance(turn, str)
    message: dict[str, Any] = {"role": "assistant", "content": turn if is_answer else None}
    if not is_answer:
        message["tool_calls"] = [_tool_call(call, number_of(*said, place)) for place, call in enumerate(turn)]
    tokens = 20 * len(messages)
    return {
        "id": f"chatcmpl-{number_of(*said):x}",
        "object": "chat.completion",
        "created": 1750000000,
        "model": NAME,
        "choices": [{"index": 0, "message": message, "finish_reason": "stop" if is_answer else "tool_calls"}],
        "usage": {"prompt_tokens": tokens, "completion_tokens": 10, "total_tokens": tokens + 10},
    }


def _tool_call(call: Call, number: int) -> dict[str, Any]:
    function = {"name": call.name, "arguments": orjson.dumps(call.arguments).decode()}
    return {"id": f"call_{number:x}", "type": "function", "function": function}


def _json(status: int, payload: dict[str, Any], headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(
        status=status, body=orjson.dumps(payload), content_type="application/json", headers=headers or {}
    )


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    return _json(status, {"error": {"message": message, "type": "server_error", "code": None}}, headers)


def _cut(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def _half(request: web.Request, body: bytes) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": str(len(body)), "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(body[: len(body) // 2])
    _cut(request)
    return response


async def _serve(model: ChaosModel, port: int) -> None:
    app = web.Application()
    app.router.add_get("/v1/models", model.models)
    app.router.add_post("/v1/chat/completions", model.complete)
    runner = web.AppRunner(app, access_log=None, handle_signals=False)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, backlog=4096, reuse_address=True)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """Serve until killed."""
    parser = argparse.ArgumentParser(description="A model endpoint that often goes wrong.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one; the port is printed either way")
    parser.add_argument("--rate", type=float, default=0.0, help="share of requests that go wrong")
    parser.add_argument("--seed", default="0", help="of the faults")
    parser.add_argument("--counts", type=Path, required=True, help="where the faults are counted")
    arguments = parser.parse_args()
    model = ChaosModel(arguments.rate, arguments.seed, Counts(arguments.counts))
    asyncio.run(_serve(model, arguments.port))


if __name__ == "__main__":
    main()
