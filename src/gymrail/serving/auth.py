"""Who may do what: the server's key, the episodes' credentials, the session cookie, and what a request must look like.

Two planes. The key opens the control plane: seed, verify, close, list. An episode's credential opens that episode's
tools and nothing else; with it, the control plane does not exist (404).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from typing import Any, NamedTuple, Protocol

import orjson
from starlette.requests import cookie_parser
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gymrail.errors import GymrailError
from gymrail.serving.refusal import Refusal, bad_request, refuse
from gymrail.serving.settings import Settings

COOKIE = "gymrail_session"
EPISODE_HEADERS = (b"x-gymrail-episode", b"x-nemo-gym-session-token")
"""Carry an episode's credential; the second is NeMo Gym's name for it."""
EPISODE_ID_HEADER = b"x-gymrail-episode-id"
CALL_ID_HEADER = b"x-call-id"
_TEXT = re.compile(rb'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))


class Credentials(NamedTuple):
    """What a request brought along."""

    token: str | None = None
    """From an episode header."""
    bearer: str | None = None
    """The server's key, or an episode's credential."""
    cookie: str | None = None
    episode_id: str | None = None
    call_id: str | None = None


def credentials_of(scope: Scope) -> Credentials:
    """Read a request's credentials in one pass over its headers."""
    token = bearer = cookie = episode_id = call_id = None
    for name, value in scope["headers"]:
        if name in EPISODE_HEADERS:
            token = value.decode("latin-1").strip()
        elif name == b"authorization":
            kind, _, rest = value.decode("latin-1").partition(" ")
            bearer = rest.strip() if kind.lower() == "bearer" else None
        elif name == b"cookie":
            cookie = cookie_parser(value.decode("latin-1")).get(COOKIE)
        elif name == EPISODE_ID_HEADER:
            episode_id = value.decode("latin-1").strip()
        elif name == CALL_ID_HEADER:
            call_id = value.decode("latin-1").strip()
    return Credentials(token, bearer, cookie, episode_id, call_id)


def is_equal(given: str | None, secret: str | None) -> bool:
    """Compare with a secret in constant time."""
    if given is None or secret is None:
        return False
    return hmac.compare_digest(given.encode("utf-8", "replace"), secret.encode())


class CookieSigner:
    """Signs NeMo Gym's session cookie. The secret is random, so a restart makes old cookies unknown, and none can be
    forged."""

    def __init__(self) -> None:
        self._secret = secrets.token_bytes(32)

    def sign(self, session_id: str) -> str:
        # Without padding, which would make cookie parsers quote the value.
        payload = base64.urlsafe_b64encode(orjson.dumps({"session_id": session_id})).decode().rstrip("=")
        return f"{payload}.{self._signature(payload)}"

    def read(self, cookie: str) -> str | None:
        """Return the session id of a cookie that we signed."""
        payload, _, signature = cookie.partition(".")
        if not is_equal(signature, self._signature(payload)):
            return None
        try:
            return str(orjson.loads(base64.urlsafe_b64decode(payload + "=="))["session_id"])
        except (binascii.Error, ValueError, KeyError, TypeError):
            return None

    def _signature(self, payload: str) -> str:
        return hmac.new(self._secret, payload.encode("utf-8", "replace"), hashlib.sha256).hexdigest()


class AgentRoutes(Protocol):
    """The agent plane: what is called most, so it is found without the layers of the control plane."""

    def find(self, path: str) -> tuple[ASGIApp, dict[str, str]] | None:
        """Return the route of a path and the path's parameters, or None where the path is not the agents'."""
        ...


class Gate:
    """The outermost layer: Host and Origin are checked, bodies are bounded, and agents are led to their plane.

    Only browsers send Origin, and no other site's page has business here: one that is not allowed is refused, which
    ends DNS rebinding. On loopback the Host must be a loopback name, so there the server's own origin is allowed.
    """

    def __init__(self, app: ASGIApp, settings: Settings, agents: AgentRoutes | None = None) -> None:
        self.app = app
        self.agents = agents
        self.max_body_bytes = settings.max_body_bytes
        self.hosts = frozenset(name.lower() for name in settings.allowed_hosts)
        self.origins = frozenset(settings.allowed_origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        refusal = self._check(headers)
        if refusal is not None:
            await refuse(refusal)(scope, receive, send)
            return
        if any(name == b"transfer-encoding" for name, _ in headers):
            receive = _bounded(receive, self.max_body_bytes)
        place = None if self.agents is None else self.agents.find(scope["path"])
        if place is None:
            await self.app(scope, receive, send)
            return
        route, scope["path_params"] = place
        try:
            await route(scope, receive, send)
        except GymrailError as error:
            await refuse(error)(scope, receive, send)

    def _check(self, headers: list[tuple[bytes, bytes]]) -> Refusal | None:
        host = None
        origins: list[str] = []
        for index, (name, value) in enumerate(headers):
            if name.startswith(b"mcp-"):
                # Some parsers keep the blanks around a value, and the MCP SDK compares it as it is.
                if value != value.strip():
                    headers[index] = (name, value.strip())
            elif name == b"host":
                host = value.decode("latin-1")
            elif name == b"origin":
                origins.append(value.decode("latin-1"))
            elif name == b"content-length" and (not value.isdigit() or int(value) > self.max_body_bytes):
                return too_large(self.max_body_bytes)
        own = f"http://{host}" if self.hosts else None
        if any(origin != own and origin not in self.origins for origin in origins):
            return Refusal(403, "origin", "Requests of this origin are not allowed.")
        if self.hosts and _without_port(host or "") not in self.hosts:
            return Refusal(421, "host", "This server answers to loopback names only.")
        return None


async def read_body(scope: Scope, receive: Receive, settings: Settings) -> bytes:
    """Read a request's body.

    Raises:
        Refusal: it is too large, nests too deep, or its sender left.
    """
    message = await receive()
    body: bytes = message.get("body", b"")
    if message.get("more_body"):
        chunks = [body]
        size = len(body)
        while message.get("more_body"):
            message = await receive()
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > settings.max_body_bytes:
                raise too_large(settings.max_body_bytes)
        body = b"".join(chunks)
    if message["type"] == "http.disconnect":
        raise bad_request("The client left before its request was complete.")
    if len(body) > settings.max_body_bytes:
        raise too_large(settings.max_body_bytes)
    check_depth(body, settings.max_depth)
    return body


def check_depth(body: bytes, limit: int) -> None:
    """Refuse JSON that nests deeper than `limit`, without parsing it.

    Raises:
        Refusal: it does.
    """
    if body.count(b"[") + body.count(b"{") <= limit:
        return
    brackets = _TEXT.sub(b"", body).translate(None, _NO_BRACKETS).replace(b"[]", b"").replace(b"{}", b"")
    depth = 0
    for byte in brackets:
        depth += 1 if byte in b"[{" else -1
        # A pair that was taken out may have been one level deeper.
        if depth >= limit:
            raise bad_request(f"The body nests deeper than {limit} levels.")


def parse_object(body: bytes) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        Refusal: it is none.
    """
    try:
        value = orjson.loads(body or b"{}")
    except orjson.JSONDecodeError:
        raise bad_request("The body is no JSON; send one JSON object.") from None
    if not isinstance(value, dict):
        raise bad_request(f"The body is a JSON {type(value).__name__}; send an object.", 422)
    return value


def too_large(limit: int) -> Refusal:
    return Refusal(413, "too_large", f"The body is larger than {limit} bytes.")


def _bounded(receive: Receive, limit: int) -> Receive:
    """Count a chunked body, whose length no header tells."""
    size = 0

    async def counted() -> Message:
        nonlocal size
        message = await receive()
        size += len(message.get("body", b""))
        if size > limit:
            raise too_large(limit)
        return message

    return counted


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() and (name.endswith("]") or ":" not in name) else host).lower()
