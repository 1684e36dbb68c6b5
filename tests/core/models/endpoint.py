"""A real OpenAI-compatible server on a loopback port, whose answers the test decides and whose requests it can read."""

import asyncio
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self

from aiohttp import web

from tests.serving import stop_serving

Json = dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, or one way of not giving it."""

    body: Any = field(default_factory=dict)
    """JSON; bytes are sent as they are."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    trouble: Literal["disconnect", "cut", "hang"] | None = None
    """Close without an answer; close in the middle of it; never answer."""


@dataclass(frozen=True)
class Received:
    """A request as it arrived."""

    path: str
    headers: Mapping[str, str]
    body: Json


Script = Iterable[Answer] | Callable[[Received], Answer]


class Endpoint:
    """Serves while it is entered: a list of answers is given one by one, a function is asked for each."""

    def __init__(self, script: Script, models: Answer | None = None, port: int = 0) -> None:
        self.received: list[Received] = []
        self.peers: set[object] = set()
        """Where connections came from, one each."""
        self.models = models or Answer({"object": "list", "data": [{"id": "m", "object": "model"}]})
        self._answers: Iterator[Answer] | None = None if callable(script) else iter(script)
        self._function = script if callable(script) else None
        self._over = asyncio.Event()
        self._port = port

    @property
    def bodies(self) -> list[Json]:
        return [received.body for received in self.received]

    async def __aenter__(self) -> Self:
        application = web.Application(client_max_size=64 << 20)
        application.router.add_route("*", "/{tail:.*}", self._handle)
        self._runner = web.AppRunner(application, shutdown_timeout=1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", self._port, backlog=1024, reuse_address=True).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._over.set()
        await stop_serving(self._runner)

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        text = await request.text()
        received = Received(request.raw_path, request.headers.copy(), json.loads(text) if text else {})
        self.received.append(received)
        self.peers.add(request.transport and request.transport.get_extra_info("peername"))
        if request.path.endswith("/models"):
            answer = self.models
        elif self._function is not None:
            answer = self._function(received)
        else:
            assert self._answers is not None
            answer = next(self._answers, Answer({"error": {"message": "the test's script is over"}}, 418))
        return await self._give(request, answer)

    async def _give(self, request: web.Request, answer: Answer) -> web.StreamResponse:
        body = answer.body if isinstance(answer.body, bytes) else json.dumps(answer.body).encode()
        if answer.trouble == "hang":
            await self._over.wait()
        if answer.trouble == "cut":
            response = web.StreamResponse(headers={"Content-Length": str(len(body) + 10)})
            await response.prepare(request)
            await response.write(body)
        if answer.trouble is not None:
            if request.transport is not None:  # the client has not gone by itself
                request.transport.close()
            raise asyncio.CancelledError
        return web.Response(body=body, status=answer.status, headers=answer.headers, content_type="application/json")


def chat(text: str | None = None, *calls: Json, finish_reason: str | None = None, **message: Any) -> Answer:
    """A chat completion; `calls` come from `chat_call`, `message` holds more fields of the message."""
    reply: Json = {"role": "assistant", "content": text, **message}
    if calls:
        reply["tool_calls"] = list(calls)
    reason = finish_reason or ("tool_calls" if calls else "stop")
    return Answer(
        {
            "id": "chatcmpl-1",
            "model": "served",
            "choices": [{"index": 0, "message": reply, "finish_reason": reason, "logprobs": None}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 3},
        }
    )


def chat_call(id: str | None, name: str, arguments: Any) -> Json:
    """A tool call of a chat message; text arguments stay as they are."""
    written = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"id": id, "type": "function", "function": {"name": name, "arguments": written}}


def response(*output: Json, status: str = "completed", **fields: Any) -> Answer:
    """A Responses answer."""
    usage = {"input_tokens": 10, "output_tokens": 3}
    return Answer(
        {
            "id": "resp_1",
            "object": "response",
            "model": "served",
            "status": status,
            "output": output,
            "usage": usage,
            **fields,
        }
    )


def said(text: str) -> Json:
    """A message item."""
    content = [{"type": "output_text", "text": text, "annotations": []}]
    return {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}


def called(call_id: str, name: str, arguments: Any) -> Json:
    """A function_call item."""
    written = arguments if isinstance(arguments, str) else json.dumps(arguments)
    return {"type": "function_call", "id": f"fc_{call_id}", "call_id": call_id, "name": name, "arguments": written}


def error(status: int, message: str, code: Any = None, headers: Mapping[str, str] | None = None) -> Answer:
    """An error in OpenAI's shape."""
    return Answer({"error": {"message": message, "type": "x", "param": None, "code": code}}, status, headers or {})
