"""An environment over MCP: both protocol eras that the SDK serves, stateless, the episode resolved on every request.

Answers are plain JSON. A request that carries a progress token may be answered as a stream, so that progress reaches
the client; the tool runs to its end in either case, whoever leaves.
"""

from __future__ import annotations

import asyncio
import base64
import re
from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import quote

import mcp_types as types
import orjson
from mcp.server import Server
from mcp.server.context import ServerRequestContext
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.shared.exceptions import MCPError
from starlette.responses import Response
from starlette.types import Message, Receive, Scope, Send

from gymrail import __version__
from gymrail.errors import EpisodeClosed, EpisodeFailed, InputError
from gymrail.progress import Progress, listening
from gymrail.rollout import ToolCall
from gymrail.serving.auth import credentials_of, read_body
from gymrail.serving.plain_call import CALL_ID_KEY, PlainCall, answer_plain_call, read_plain_call
from gymrail.serving.refusal import GONE, public_message
from gymrail.serving.service import Service
from gymrail.serving.sessions import Held
from gymrail.spec import EnvironmentSpec
from gymrail.tools import ToolSpec, dump_json

_HELD = "gymrail.episode"
_STREAMS = "gymrail.progress"
_MARK = "x-mcp-header"
_DATA_URL = re.compile(r"data:([\w.+/-]+);base64,(.*)", re.DOTALL)

Context = ServerRequestContext[Any, Any]


class McpEndpoint:
    """MCP for one environment's episodes, over HTTP; `server` serves one episode over stdio too."""

    def __init__(self, service: Service, spec: EnvironmentSpec, *, only: Held | None = None, prompt: str | None = None):
        self.service = service
        self.spec = spec
        self.only = only
        """The one episode of a process that speaks stdio."""
        self.server: Server[Any] = Server(
            spec.name,
            version=__version__,
            instructions=prompt,
            on_list_tools=self._list_tools,
            on_call_tool=self._call_tool,
            # Without it the SDK lists the tools anew within every call.
            get_tool_input_schema=self._input_schema,
        )
        self._structured = frozenset(name for name, tool in spec.tools.items() if tool.output_schema is not None)
        self._with_headers = frozenset(name for name, tool in spec.tools.items() if _MARK in dump_json(tool.parameters))
        """Tools of which an argument belongs in a header too."""
        self._plain = frozenset(spec.tools) - self._with_headers
        # The SDK's tracing costs a tenth of a call, and nothing here exports traces.
        self.server.middleware.clear()
        limit = service.settings.max_body_bytes
        self._json = StreamableHTTPSessionManager(
            self.server, json_response=True, stateless=True, max_request_body_size=limit
        )
        self._stream = StreamableHTTPSessionManager(
            self.server, json_response=False, stateless=True, max_request_body_size=limit
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Keep the SDK's session managers running."""
        async with self._json.run(), self._stream.run():
            yield

    async def handle(self, scope: Scope, receive: Receive, send: Send, held: Held) -> None:
        """Serve one request of an episode's agent."""
        if scope["method"] != "POST":  # no stream to listen to and no session to end
            await Response(status_code=405, headers={"allow": "POST"})(scope, receive, send)
            return
        body = await read_body(scope, receive, self.service.settings)
        has_progress = b'"progressToken"' in body
        plain = None if has_progress else read_plain_call(scope["headers"], body, self._plain)
        if plain is not None:
            await answer_plain_call(plain, await self._run_plain(held, plain), self.server.server_info_stamp, send)
            return
        streams = has_progress and _takes_streams(scope)
        manager = self._stream if streams else self._json
        inner = {**scope, _HELD: held, _STREAMS: streams}
        await manager.handle_request(inner, _replayed(body, receive), send)

    async def _list_tools(self, context: Context, _: types.PaginatedRequestParams | None) -> types.ListToolsResult:
        held = self._held(context)
        table = held.episode.table
        return types.ListToolsResult(
            tools=[_tool(schema, table[schema["name"]]) for schema in held.episode.tool_schemas],
            ttl_ms=0,
            cache_scope="private",
        )

    async def _call_tool(self, context: Context, params: types.CallToolRequestParams) -> types.CallToolResult:
        held = self._held(context)
        listens = self.only is not None or (context.request is not None and context.request.scope[_STREAMS])
        work = self.service.call(held, params.name, params.arguments or {}, self._call_id(context), "mcp")
        return await self._finish(held, _reporting(context, work) if listens else work)

    async def _run_plain(self, held: Held, plain: PlainCall) -> types.CallToolResult | MCPError:
        try:
            return await self._finish(held, self.service.call(held, plain.name, plain.arguments, plain.call_id, "mcp"))
        except MCPError as error:
            return error

    async def _finish(self, held: Held, work: Awaitable[ToolCall]) -> types.CallToolResult:
        try:
            call = await work
        except EpisodeFailed as error:
            raise MCPError(types.INTERNAL_ERROR, public_message(error.failure)) from None
        except EpisodeClosed:
            raise MCPError(types.INVALID_REQUEST, GONE) from None
        except InputError as error:
            raise MCPError(types.INVALID_PARAMS, str(error)) from None
        return _result(call, held, call.name in self._structured)

    def _held(self, context: Context) -> Held:
        if self.only is not None:
            return self.only
        assert context.request is not None
        return context.request.scope[_HELD]

    def _call_id(self, context: Context) -> str | None:
        """What makes a call safe to repeat. Request ids name a call within one connection alone: over HTTP without
        sessions, every client counts from the start again."""
        if self.only is not None:
            return f"rpc_{context.request_id!r}"
        given = (context.meta or {}).get(CALL_ID_KEY)
        if isinstance(given, str) and given:
            return given
        assert context.request is not None
        return credentials_of(context.request.scope).call_id or None

    def _input_schema(self, name: str) -> Mapping[str, Any] | None:
        """Only of the tools whose calls have headers to be checked: the SDK walks through it on every call."""
        return self.spec.tools[name].parameters if name in self._with_headers else None


async def _reporting(context: Context, work: Any) -> ToolCall:
    """Run a call and send what it reports; the call goes on when the client leaves."""
    loop = asyncio.get_running_loop()
    reports: asyncio.Queue[Progress | None] = asyncio.Queue()

    def report(progress: Progress) -> None:
        loop.call_soon_threadsafe(reports.put_nowait, progress)

    with listening(report):
        task = asyncio.create_task(work)
    task.add_done_callback(lambda _: reports.put_nowait(None))
    while (progress := await reports.get()) is not None:
        await context.session.report_progress(*progress)
    return await asyncio.shield(task)


def _tool(schema: Mapping[str, Any], spec: ToolSpec) -> types.Tool:
    parameters = schema.get("parameters")
    options = spec.options
    return types.Tool(
        name=spec.name,
        description=schema.get("description") or spec.description,
        input_schema={"type": "object", **(parameters if isinstance(parameters, dict) else spec.parameters)},
        output_schema=spec.output_schema,
        # Codex refuses to run unattended what may destroy or reach out; an episode's tools do neither unless they say.
        annotations=types.ToolAnnotations(
            read_only_hint=options.read_only,
            destructive_hint=options.destructive,
            idempotent_hint=options.idempotent or options.read_only,
            open_world_hint=False,
        ),
        # Claude Code hides MCP tools behind a search otherwise.
        _meta={"anthropic/alwaysLoad": True},
    )


def _result(call: ToolCall, held: Held, is_structured: bool) -> types.CallToolResult:
    output = call.output
    content: list[types.ContentBlock] = (
        [types.TextContent(type="text", text=output)] if isinstance(output, str) else [_block(part) for part in output]
    )
    structured = None
    if is_structured and not call.is_error and isinstance(output, str):
        structured = orjson.loads(output)
    return types.CallToolResult(
        content=content,
        structured_content=structured,
        is_error=call.is_error,
        _meta={"gymrail/done": True} if held.episode.is_done else None,
    )


def _block(part: Mapping[str, Any]) -> types.ContentBlock:
    match = _DATA_URL.fullmatch(part.get("image_url") or part.get("file_data") or "")
    if match is None:
        return types.TextContent(type="text", text=str(part.get("text") or part.get("image_url") or ""))
    mime_type, data = match[1], match[2]
    if part.get("type") != "input_file":
        return types.ImageContent(type="image", mime_type=mime_type, data=data)
    if mime_type.startswith("audio/"):
        return types.AudioContent(type="audio", mime_type=mime_type, data=data)
    return types.EmbeddedResource(type="resource", resource=_resource(part.get("filename") or "file", mime_type, data))


def _resource(name: str, mime_type: str, data: str) -> types.TextResourceContents | types.BlobResourceContents:
    uri = f"file:///{quote(name)}"
    if mime_type.startswith("text/") or mime_type == "application/json":
        text = base64.b64decode(data).decode("utf-8", "replace")
        return types.TextResourceContents(uri=uri, mime_type=mime_type, text=text)
    return types.BlobResourceContents(uri=uri, mime_type=mime_type, blob=data)


def _takes_streams(scope: Scope) -> bool:
    return any(
        name == b"accept" and (b"text/event-stream" in value or b"*/*" in value) for name, value in scope["headers"]
    )


def _replayed(body: bytes, receive: Receive) -> Receive:
    """Give the body that was read already, then whatever comes: the client's leaving."""
    is_given = False

    async def replay() -> Message:
        nonlocal is_given
        if is_given:
            return await receive()
        is_given = True
        return {"type": "http.request", "body": body, "more_body": False}

    return replay
