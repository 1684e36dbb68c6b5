"""A model behind HTTP: Responses, Chat Completions and Anthropic's Messages in front of any `Model`, every call
recorded.

    app = create_model_app(model, ModelSettings(key="..."))

    POST /v1/responses  /v1/chat/completions  /v1/messages  /v1/messages/count_tokens      GET /v1/models
    /r/<name>/v1/...                          the same, recorded under that name (so does the header X-Gymrail-Rollout)
    GET, DELETE /records/<name>               what a record tells; needs the key

Covers: streaming, bounded bodies and calls, each API's own error shape, duplicate call ids, clients that leave.
Does not cover: tokens as they are sampled: a stream begins when the whole answer is there, with signs of life until
then.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from gymrail.errors import ContextOverflow, EpisodeFailed, GymrailError, InputError, ModelError, guard
from gymrail.models.model import Model, ModelRequest, ModelResponse
from gymrail.serving.auth import Gate, is_equal, parse_object, read_body
from gymrail.serving.chat_api import ChatApi
from gymrail.serving.exchange import STATUS, Answer, Api, Asked, ErrorKind
from gymrail.serving.messages_api import MessagesApi
from gymrail.serving.recording import Record, RecordedCall, Records, trajectory_of
from gymrail.serving.refusal import Refusal
from gymrail.serving.responses_api import ResponsesApi
from gymrail.serving.settings import LOOPBACK_HOSTS, Settings, is_loopback
from gymrail.task import Item

logger = logging.getLogger(__name__)

ROLLOUT_HEADER = "x-gymrail-rollout"
_NAME = re.compile(r"[A-Za-z0-9_-]{1,128}")
_QUIET_SECONDS = 5.0
"""A stream says nothing until its answer is there or so long has passed; until then a failure still has a status of its
own."""
_KIND_OF_STATUS: dict[int, ErrorKind] = {400: "invalid", 413: "too_large", 422: "invalid"}


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """How a model is served."""

    name: str = "gymrail"
    """What `/v1/models` lists; requests may name any model."""
    key: str | None = None
    """Asked for as a bearer token or `x-api-key`; None leaves the server open to everybody who can connect."""
    request_seconds: float = 600.0
    """One model call, its retries included."""
    max_output_tokens: int | None = None
    """The most that a client is given, whatever it asks for; agents ask for more than small models can say."""
    max_calls: int = 1024
    """Model calls under way; more are answered 429."""
    max_body_bytes: int = 64 * 1024 * 1024
    allowed_hosts: tuple[str, ...] = ()

    @classmethod
    def for_address(cls, host: str, *, key: str | None = None, is_open: bool = False, **fields: Any) -> ModelSettings:
        """Return the settings for a server bound to `host`, with a random key unless one is given or `is_open`.

        Raises:
            InputError: open, and `host` is not a loopback address.
        """
        checked = Settings.for_address(host, key=key, is_open=is_open)
        return cls(key=checked.key, allowed_hosts=LOOPBACK_HOSTS if is_loopback(host) else (), **fields)


def create_model_app(
    model: Model | None, settings: ModelSettings | None = None, records: Records | None = None
) -> ASGIApp:
    """Return the ASGI app.

    Args:
        model: answers every call that no record brings a model of its own for; None where all of them do.
        settings: see `ModelSettings`.
        records: where calls are recorded; by default every name starts a record.
    """
    settings = settings or ModelSettings()
    server = _ModelServer(model, settings, Records() if records is None else records)
    gate = Settings(max_body_bytes=settings.max_body_bytes, allowed_hosts=settings.allowed_hosts)
    return Gate(Starlette(routes=server.routes(), lifespan=server.lifespan), gate)


class _Refused(GymrailError):
    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.kind: ErrorKind = kind


class _Call(NamedTuple):
    api: Api
    asked: Asked
    record: Record | None


class _ModelServer:
    def __init__(self, model: Model | None, settings: ModelSettings, records: Records) -> None:
        self.model = model
        self.settings = settings
        self.records = records
        self.gate_settings = Settings(max_body_bytes=settings.max_body_bytes)
        self.calls_under_way = 0
        self.messages = MessagesApi()

    def routes(self) -> list[Route]:
        posts = {"/v1/responses": ResponsesApi(), "/v1/chat/completions": ChatApi(), "/v1/messages": self.messages}
        routes = [Route("/", _health, methods=["GET", "HEAD"])]
        for prefix in ("", "/r/{rollout}"):
            for path, api in posts.items():
                routes.append(Route(prefix + path, self._endpoint(api), methods=["POST"]))
            routes += [
                Route(prefix + "/v1/messages/count_tokens", self._count_tokens, methods=["POST"]),
                Route(prefix + "/v1/models", self._list_models, methods=["GET"]),
                Route(prefix + "/v1/models/{name:path}", self._show_model, methods=["GET"]),
                Route(prefix or "/health", _health, methods=["GET", "HEAD"]),
            ]
        return [*routes, Route("/records/{rollout}", self._show_record, methods=["GET", "DELETE"])]

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        close = getattr(self.model, "close", None)
        if close is not None:
            result = close()
            if asyncio.iscoroutine(result):
                await result

    def _endpoint(self, api: Api) -> Any:
        async def endpoint(request: Request) -> Response:
            try:
                call = await self._read(api, request)
                return await (self._stream(call) if call.asked.stream else self._answer_whole(call))
            except _Refused as error:
                return _refuse(api, error)

        return endpoint

    async def _read(self, api: Api, request: Request) -> _Call:
        self._check_key(request)
        record = self._record_of(request)
        try:
            body = parse_object(await read_body(request.scope, request.receive, self.gate_settings))
        except Refusal as error:
            raise _Refused(_KIND_OF_STATUS.get(error.status, "invalid"), str(error)) from None
        try:
            asked = await guard("model", api.read, body)
        except EpisodeFailed as error:
            # A request of the wrong shape breaks the reader in ways that are not worth telling apart.
            reason = (
                str(error.__cause__) if isinstance(error.__cause__, InputError) else "The request has the wrong shape."
            )
            raise _Refused("invalid", reason) from None
        return _Call(api, asked, record)

    def _check_key(self, request: Request) -> None:
        key = self.settings.key
        if key is None:
            return
        bearer = request.headers.get("authorization", "").removeprefix("Bearer ").strip()
        if not is_equal(bearer, key) and not is_equal(request.headers.get("x-api-key"), key):
            raise _Refused("key", "The server's key is missing or wrong: send it as a bearer token, or as x-api-key.")

    def _record_of(self, request: Request) -> Record | None:
        name = request.path_params.get("rollout") or request.headers.get(ROLLOUT_HEADER)
        if name is None:
            if self.model is None:
                raise _Refused("missing", "There is nothing here.")
            return None
        record = self.records.find(name) if _NAME.fullmatch(name) else None
        if record is None:
            raise _Refused("missing", "There is nothing here.")
        return record

    async def _answer_whole(self, call: _Call) -> Response:
        return JSONResponse(call.api.write(await self._answer(call), call.asked))

    async def _stream(self, call: _Call) -> Response:
        answering = asyncio.create_task(self._answer(call))
        try:
            await asyncio.wait([answering], timeout=_QUIET_SECONDS)
        except asyncio.CancelledError:
            answering.cancel()
            raise
        if answering.done() and answering.exception() is not None:
            answering.result()
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(_events(call, answering), media_type="text/event-stream", headers=headers)

    async def _answer(self, call: _Call) -> Answer:
        asked, record = call.asked, call.record
        started_at, started = time.time(), time.perf_counter()
        response = await self._ask(asked, record)
        items = [dict(item) for item in response.items]
        if record is not None:
            record.failure, record.overflowed = None, False
            _make_ids_unique(items, record)
            recorded = ModelResponse(items, response.finish_reason, response.usage, response.model)
            names = tuple(tool["name"] for tool in asked.tools)
            record.calls.append(RecordedCall(asked.items, names, recorded, started_at, time.perf_counter() - started))
        # A recorded rollout keeps its tokens here: to a program they are ballast.
        return Answer(
            items, response.finish_reason, response.usage, response.model or self.settings.name, record is None
        )

    async def _ask(self, asked: Asked, record: Record | None) -> ModelResponse:
        model = (record.model if record else None) or self.model
        if model is None:
            raise _Refused("missing", "There is nothing here.")
        refusal = record.refusal(bool(asked.tools)) if record else None
        if refusal is not None:
            raise _Refused("invalid", refusal)
        if self.calls_under_way >= self.settings.max_calls:
            raise _Refused(
                "busy", f"{self.settings.max_calls} model calls are under way, which is this server's limit."
            )
        remaining = record.remaining_seconds() if record else None
        limit = self.settings.request_seconds if remaining is None else min(remaining, self.settings.request_seconds)
        request = ModelRequest(
            asked.items, asked.tools, self._parameters(asked, record), record.name if record else "", limit
        )
        self.calls_under_way += 1
        try:
            return await guard("model", model.respond, request, timeout_seconds=limit)
        except ContextOverflow as error:
            if record is not None:
                record.overflowed = True
            raise _Refused("overflow", str(error)) from None
        except EpisodeFailed as error:
            raise _failed(error, record) from None
        finally:
            self.calls_under_way -= 1

    def _parameters(self, asked: Asked, record: Record | None) -> dict[str, Any]:
        parameters = dict(asked.parameters)
        if record is not None and record.parameters is not None:
            for name in ("temperature", "top_p", "max_output_tokens", "reasoning"):
                parameters.pop(name, None)
            parameters |= record.parameters
        limit = self.settings.max_output_tokens
        if limit is not None:
            parameters["max_output_tokens"] = min(limit, parameters.get("max_output_tokens") or limit)
        return parameters

    async def _count_tokens(self, request: Request) -> Response:
        try:
            call = await self._read(self.messages, request)
        except _Refused as error:
            return _refuse(self.messages, error)
        return JSONResponse(self.messages.count_tokens(call.asked))

    async def _list_models(self, request: Request) -> Response:
        return self._models(request, [self.settings.name], True)

    async def _show_model(self, request: Request) -> Response:
        return self._models(request, [request.path_params["name"]], False)

    def _models(self, request: Request, names: list[str], is_list: bool) -> Response:
        is_anthropic = "anthropic-version" in request.headers
        try:
            self._check_key(request)
        except _Refused as error:
            return _refuse(self.messages if is_anthropic else ResponsesApi(), error)
        if is_anthropic:
            entries = [
                {"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"}
                for name in names
            ]
            whole = {"data": entries, "has_more": False, "first_id": names[0], "last_id": names[-1]}
        else:
            entries = [{"id": name, "object": "model", "created": 0, "owned_by": "gymrail"} for name in names]
            whole = {"object": "list", "data": entries}
        return JSONResponse(whole if is_list else entries[0])

    async def _show_record(self, request: Request) -> Response:
        try:
            self._check_key(request)
            name = request.path_params["rollout"]
            record = self.records.remove(name) if request.method == "DELETE" else self.records.get(name)
            if record is None:
                raise _Refused("missing", f"There is no record named {name!r}.")
        except _Refused as error:
            return _refuse(ResponsesApi(), error)
        return JSONResponse(_as_json(record))


async def _events(call: _Call, answering: asyncio.Task[Answer]) -> AsyncIterator[bytes]:
    try:
        while not answering.done():
            yield call.api.ping
            await asyncio.wait([answering], timeout=_QUIET_SECONDS)
        for event in call.api.events(answering.result(), call.asked):
            yield event
    except _Refused as error:
        yield call.api.error_event(error.kind, str(error))
    finally:
        answering.cancel()  # the client has left; to a finished answer this is nothing


async def _health(request: Request) -> Response:
    return JSONResponse({"status": "ok"})


def _failed(error: EpisodeFailed, record: Record | None) -> _Refused:
    """What a client is told of a model call that broke; who may be an agent under training is told no reasons."""
    cause, failure = error.__cause__, error.failure
    if record is not None:
        record.failure = failure
    if isinstance(cause, InputError):
        return _Refused("invalid", str(cause))
    logger.error("model call failed (%s): %s\n%s", failure.kind, failure.message, failure.trace)
    if failure.kind == "timeout":
        return _Refused("timeout", "The model took too long.")
    if isinstance(cause, ModelError) and cause.status == 429:
        return _Refused("busy", "The model's endpoint has no room; come again later.")
    is_told = isinstance(cause, ModelError) and not (record is not None and record.is_private)
    return _Refused("model", str(cause) if is_told else "The model failed; the server's log says why.")


def _refuse(api: Api, error: _Refused) -> Response:
    headers = {"retry-after": "1"} if error.kind == "busy" else {}
    if error.kind in ("model", "timeout"):
        headers["x-should-retry"] = "false"  # the model has had its retries
    return JSONResponse(api.error(error.kind, str(error)), STATUS[error.kind], headers)


def _make_ids_unique(items: list[Item], record: Record) -> None:
    """Ids tie a record's calls together, and some models number theirs from 0 in every answer."""
    known = {
        item["call_id"] for call in record.calls for item in call.response.items if item.get("type") == "function_call"
    }
    for item in items:
        if item.get("type") == "function_call":
            if not item.get("call_id") or item["call_id"] in known:
                item["call_id"] = f"call_{secrets.token_hex(12)}"
            known.add(item["call_id"])


def _as_json(record: Record) -> Mapping[str, Any]:
    trajectory = trajectory_of(record)
    return {
        "name": record.name,
        "items": trajectory.items,
        "steps": trajectory.steps,
        "side_calls": trajectory.side_calls,
        "usage": record.usage._asdict(),
        "overflowed": record.overflowed,
        "failure": None if record.failure is None else {"kind": record.failure.kind, "message": record.failure.message},
        "calls": [
            {
                "input": call.input, "tools": call.tools, "output": call.response.items, "finish_reason":
                call.response.finish_reason, "started_at": call.started_at, "seconds": call.seconds,
            }
            for call in record.calls
        ],
    }  # fmt: skip
