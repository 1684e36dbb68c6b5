"""A collector of traces and a model's endpoint, for tests of programs that send to them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from aiohttp import web
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.serving import stop_serving


class Stand:
    """A trace collector and a model endpoint on loopback, in a thread."""

    def __init__(self) -> None:
        self.requests: list[ExportTraceServiceRequest] = []
        self.trace_parents: list[str] = []
        self.url = ""

    @property
    def spans(self) -> list[Span]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    @property
    def resources(self) -> list[dict]:
        found = [resource.resource.attributes for request in self.requests for resource in request.resource_spans]
        return [{entry.key: entry.value.string_value for entry in attributes} for attributes in found]

    async def collect(self, request: web.Request) -> web.Response:
        assert request.content_type == "application/x-protobuf"
        self.requests.append(ExportTraceServiceRequest.FromString(await request.read()))
        body = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=body, content_type="application/x-protobuf")

    async def models(self, _: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "parrot"}]})

    async def answer(self, request: web.Request) -> web.Response:
        self.trace_parents.append(request.headers.get("traceparent", ""))
        text = (await request.json())["messages"][-1]["content"].split()[-1]
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        usage = {"prompt_tokens": 11, "completion_tokens": 3}
        return web.json_response({"id": "1", "model": "parrot-0125", "choices": [choice], "usage": usage})

    @contextmanager
    def serving(self) -> Iterator[None]:
        ready, loop = threading.Event(), asyncio.new_event_loop()
        stop = asyncio.Event()

        async def serve() -> None:
            app = web.Application(client_max_size=2**28)
            app.router.add_post("/v1/traces", self.collect)
            app.router.add_get("/v1/models", self.models)
            app.router.add_post("/v1/chat/completions", self.answer)
            runner = web.AppRunner(app)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            ready.set()
            await stop.wait()
            await stop_serving(runner)

        def run() -> None:
            with asyncio.Runner(loop_factory=lambda: loop) as runner:
                runner.run(serve())

        thread = threading.Thread(target=run)
        thread.start()
        assert ready.wait(120)
        try:
            yield
        finally:
            loop.call_soon_threadsafe(stop.set)
            thread.join(120)


def said(span: Span) -> dict:
    values = {entry.key: entry.value for entry in span.attributes}
    return {name: getattr(value, value.WhichOneof("value") or "string_value") for name, value in values.items()}
