"""The plain tool route: the body is the arguments, the answer's body is what the model reads.

Bare ASGI, because a tool call is what a server does most.
"""

from __future__ import annotations

import re

import orjson
from starlette.types import Receive, Scope, Send

from gymrail.rollout import ToolCall
from gymrail.serving.auth import COOKIE, credentials_of, read_body
from gymrail.serving.refusal import bad_request, gone, not_found
from gymrail.serving.service import Service
from gymrail.serving.sessions import Held

ERROR_HEADER = (b"x-gymrail-tool-error", b"true")
"""The model was told that its call cannot be done."""
DONE_HEADER = (b"x-gymrail-done", b"true")
"""The environment has ended the episode; the agent should stop."""
_TEXT = (b"content-type", b"text/plain; charset=utf-8")
_JSON = (b"content-type", b"application/json")
_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")


class ToolRoute:
    """`POST /<tool>`, with the episode's credential in the path, a header or the cookie."""

    def __init__(self, service: Service) -> None:
        self.service = service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service = self.service
        place = scope["path_params"]
        if scope["method"] != "POST":
            raise not_found()
        given = credentials_of(scope)
        held = service.agent_episode(scope, place.get("environment"), given)
        name: str = place["tool"]
        if _NAME.fullmatch(name) is None:
            raise gone()
        arguments = await read_body(scope, receive, service.settings)
        if given.call_id is not None and not 0 < len(given.call_id) <= 256:
            raise bad_request("The header x-call-id has 1 to 256 characters.")
        call = await service.call(held, name, arguments or b"{}", given.call_id, "http")
        await _answer(held, call, given.cookie, send)


async def _answer(held: Held, call: ToolCall, cookie: str | None, send: Send) -> None:
    output = call.output
    is_text = isinstance(output, str)
    body = output.encode("utf-8", "replace") if is_text else orjson.dumps(output)
    headers = [_TEXT if is_text else _JSON, (b"content-length", str(len(body)).encode())]
    if call.is_error:
        headers.append(ERROR_HEADER)
    if held.episode.is_done:
        headers.append(DONE_HEADER)
    if cookie is not None:  # NeMo Gym's agents keep the newest jar alone
        headers.append((b"set-cookie", f"{COOKIE}={cookie}; Path=/; HttpOnly; SameSite=lax".encode("latin-1")))
    status = 404 if call.is_error and call.name not in held.episode.table else 200
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
