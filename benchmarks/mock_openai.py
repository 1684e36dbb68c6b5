"""An OpenAI-compatible endpoint that costs almost nothing, so that a benchmark measures its caller.

Run as its own process; the first line on stdout is the port:

    python benchmarks/mock_openai.py --port 0 --latency-ms 0 --workload W2

Covers: `POST /v1/chat/completions`, `POST /v1/responses`, `GET /v1/models`, `GET /health`, keep-alive, any number of
connections. Does not cover: pipelining, TLS, authentication; streaming and chunked request bodies are refused.

The answers are fixed bytes. Which one is due follows from the number of tool outputs in the request, so the server
keeps no state and a caller that does not send its whole conversation never gets past the first tool call.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import NamedTuple, cast


class ToolCall(NamedTuple):
    """One tool call that the mocked model makes."""

    name: str
    arguments: dict[str, int | str]


class Workload(NamedTuple):
    """What the mocked model does: one tool call in each of its turns, then the answer."""

    tool_calls: tuple[ToolCall, ...]
    answer: str


_FIVE_CITIES = ("Amsterdam", "Berlin", "Cairo", "Delhi", "Edmonton")
_FIVE_TOOL_CALLS = Workload(
    tool_calls=tuple(ToolCall("get_weather", {"city": city}) for city in _FIVE_CITIES),
    answer="It is cold in five cities.",
)

WORKLOADS: dict[str, Workload] = {
    "W1": Workload((), "The answer is 42."),
    "W2": _FIVE_TOOL_CALLS,
    "W3": Workload(
        (
            ToolCall("increment_counter", {"count": 2}),
            ToolCall("increment_counter", {"count": 3}),
            ToolCall("get_counter_value", {}),
        ),
        "The counter is set.",
    ),
    "W4": _FIVE_TOOL_CALLS,
}
"""W1: an answer. W2: five stateless tool calls. W3: 5 added to a seeded counter, then read. W4: W2 with latency."""


@contextmanager
def serving(workload: str, latency_ms: float = 0) -> Iterator[str]:
    """Run the mock in its own process; yields its base URL, such as `http://127.0.0.1:40123/v1`."""
    options = ["--workload", workload, "--latency-ms", str(latency_ms), "--until-stdin-closes"]
    command = [sys.executable, __file__, *options]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        try:
            port = process.stdout.readline().strip()
            if not port:
                raise RuntimeError(f"The mock endpoint ended before it listened; run {' '.join(command)} to see why.")
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.stdin.close()
            process.terminate()


async def serve(workload: Workload, port: int, latency_seconds: float, until_stdin_closes: bool) -> None:
    """Answer requests until cancelled or, if so asked, until stdin closes; prints the port once it listens."""
    replies = Replies.of(workload)
    loop = asyncio.get_running_loop()
    # asyncio's default backlog of 100 drops SYNs when 1,000 episodes connect at once, and each drop costs a second.
    server = await loop.create_server(lambda: _Connection(replies, latency_seconds), "127.0.0.1", port, backlog=4096)
    print(server.sockets[0].getsockname()[1], flush=True)
    if until_stdin_closes:  # so that a benchmark that is killed leaves no process behind
        await loop.run_in_executor(None, sys.stdin.read)
    else:
        await server.serve_forever()


class Replies(NamedTuple):
    """A workload's HTTP responses, head included, in the order of the model's turns."""

    chat: tuple[bytes, ...]
    responses: tuple[bytes, ...]

    @classmethod
    def of(cls, workload: Workload) -> Replies:
        """Build every response once."""
        turns: list[ToolCall | str] = [*workload.tool_calls, workload.answer]
        chat = tuple(_http(200, _chat_completion(turn, index)) for index, turn in enumerate(turns))
        responses = tuple(_http(200, _response(turn, index)) for index, turn in enumerate(turns))
        return cls(chat, responses)

    def to(self, method_and_path: bytes, body: bytes) -> bytes:
        """The response to one request."""
        # Inside a JSON string these quotes would be escaped, so searching the bytes finds real fields only.
        if b'"stream":true' in body or b'"stream": true' in body:
            return _NO_STREAM
        if method_and_path == b"POST /v1/chat/completions":
            return self._at(self.chat, body.count(b'"role":"tool"') + body.count(b'"role": "tool"'))
        if method_and_path == b"POST /v1/responses":
            return self._at(self.responses, body.count(b'"function_call_output"'))
        return _FIXED.get(method_and_path, _NOT_FOUND)

    @staticmethod
    def _at(replies: tuple[bytes, ...], tool_outputs: int) -> bytes:
        return replies[tool_outputs] if tool_outputs < len(replies) else _TOO_MANY_TOOL_OUTPUTS


class _Connection(asyncio.Protocol):
    """One keep-alive connection: splits the bytes into requests and writes a prebuilt response to each."""

    def __init__(self, replies: Replies, latency_seconds: float) -> None:
        self._replies = replies
        self._latency_seconds = latency_seconds
        self._received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._loop = asyncio.get_running_loop()
        # uvloop's transports do not inherit from asyncio.Transport, so this cannot be checked.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        received = self._received + data if self._received else data
        while (head_end := received.find(b"\r\n\r\n")) >= 0:
            body_start = head_end + 4
            head = received[:head_end]
            if (content_length := _content_length(head)) is None:
                self._transport.write(_NO_LENGTH)
                self._transport.close()
                return
            body_end = body_start + content_length
            if len(received) < body_end:
                break
            method_and_path = head[: head.index(b" HTTP/")] if b" HTTP/" in head else head
            self._answer(self._replies.to(method_and_path, received[body_start:body_end]))
            received = received[body_end:]
        self._received = received

    def _answer(self, reply: bytes) -> None:
        if self._latency_seconds:
            self._loop.call_later(self._latency_seconds, self._transport.write, reply)
        else:
            self._transport.write(reply)


def _content_length(head: bytes) -> int | None:
    """The length of the request's body; None for a chunked one, whose end this server cannot find."""
    head = head.lower()
    start = head.find(b"\r\ncontent-length:")
    if start < 0:
        return None if b"\r\ntransfer-encoding:" in head else 0
    start += len(b"\r\ncontent-length:")
    end = head.find(b"\r\n", start)
    return int(head[start:] if end < 0 else head[start:end])


def _chat_completion(turn: ToolCall | str, index: int) -> dict[str, object]:
    message: dict[str, object] = {"role": "assistant", "content": None, "refusal": None, "annotations": []}
    if isinstance(turn, str):
        message["content"] = turn
    else:
        function = {"name": turn.name, "arguments": json.dumps(turn.arguments)}
        message["tool_calls"] = [{"id": _call_id(index), "type": "function", "function": function}]
    finish_reason = "stop" if isinstance(turn, str) else "tool_calls"
    return {
        "id": f"chatcmpl-{index:029d}",
        "object": "chat.completion",
        "created": 1750000000,
        "model": "mock",
        "choices": [{"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}],
        "usage": {
            "prompt_tokens": 512,
            "completion_tokens": 24,
            "total_tokens": 536,
            "prompt_tokens_details": {"cached_tokens": 384, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        "service_tier": "default",
        "system_fingerprint": "fp_0000000000",
    }


def _response(turn: ToolCall | str, index: int) -> dict[str, object]:
    item: dict[str, object]
    if isinstance(turn, str):
        content = [{"type": "output_text", "text": turn, "annotations": [], "logprobs": []}]
        item = {
            "id": f"msg_{index:032d}",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": content,
        }
    else:
        item = {"id": f"fc_{index:032d}", "type": "function_call", "status": "completed", "call_id": _call_id(index)}
        item |= {"name": turn.name, "arguments": json.dumps(turn.arguments)}
    return {
        "id": f"resp_{index:032d}",
        "object": "response",
        "created_at": 1750000000,
        "status": "completed",
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "max_output_tokens": None,
        "model": "mock",
        "output": [item],
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": None, "summary": None},
        "store": False,
        "temperature": 1.0,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": 1.0,
        "truncation": "disabled",
        "usage": {
            "input_tokens": 512,
            "input_tokens_details": {"cached_tokens": 384},
            "output_tokens": 24,
            "output_tokens_details": {"reasoning_tokens": 0},
            "total_tokens": 536,
        },
        "user": None,
        "metadata": {},
    }


def _call_id(index: int) -> str:
    return f"call_{index:024d}"


def _http(status: int, payload: dict[str, object]) -> bytes:
    body = json.dumps(payload, separators=(",", ":")).encode()
    status_line = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"
    return f"{status_line}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


def _error(status: int, message: str) -> bytes:
    return _http(status, {"error": {"message": message, "type": "invalid_request_error", "param": None, "code": None}})


_NOT_FOUND = _error(404, "No such route; there are /v1/chat/completions, /v1/responses, /v1/models and /health.")
_NO_LENGTH = _error(411, "This server needs a Content-Length.")
_NO_STREAM = _error(400, "This server does not stream; leave `stream` out.")
_TOO_MANY_TOOL_OUTPUTS = _error(400, "More tool outputs than this workload has tool calls.")
_FIXED = {
    b"GET /health": _http(200, {"status": "ok"}),
    b"GET /v1/models": _http(200, {"object": "list", "data": [{"id": "mock", "object": "model"}]}),
}


def main() -> None:
    """Serve one workload."""
    parser = argparse.ArgumentParser(description="An OpenAI-compatible endpoint with fixed answers, for benchmarks.")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one; the port is printed either way")
    parser.add_argument("--latency-ms", type=float, default=0, help="how long each answer takes")
    parser.add_argument("--workload", choices=sorted(WORKLOADS), default="W2", help="what the model answers")
    parser.add_argument("--until-stdin-closes", action="store_true", help="end when whoever started this ends")
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with asyncio.Runner(loop_factory=_fastest_loop) as runner:
        workload, latency_seconds = WORKLOADS[arguments.workload], arguments.latency_ms / 1000
        runner.run(serve(workload, arguments.port, latency_seconds, arguments.until_stdin_closes))


def _fastest_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    return uvloop.new_event_loop()


if __name__ == "__main__":
    main()
