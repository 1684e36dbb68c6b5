"""The HTTP client under a model endpoint: JSON goes out, bytes come back. Only this file asks over the client
library, for TLS and proxies; a plain http address that no proxy stands before is asked over sockets of our own
(`plain_http.py`).

Covers: one pool of any number of connections for all event loops and threads, TLS verification, time limits, proxies
from the environment (HTTP, HTTPS and SOCKS).
Does not cover: redirects (an answer like any other here), cookies, streaming, compressed answers, HTTP/2 (its limit on
streams per connection would queue what an endpoint could batch), TLS or a proxy after a fork.
"""

from __future__ import annotations

import os
import re
import threading
import urllib.parse
import urllib.request
from collections.abc import Callable, Coroutine, Mapping
from datetime import timedelta
from typing import Any, Literal, NamedTuple

from pyreqwest import exceptions
from pyreqwest.client import Client, ClientBuilder
from pyreqwest.http import Url
from pyreqwest.request import RequestBuilder

from gymrail.errors import GymrailError, InputError
from gymrail.models.http_connection import ExchangeError
from gymrail.models.plain_http import PlainClient

_CONNECT_SECONDS = 30.0
_MAX_URLS = 256
_PROXY_SCHEMES = frozenset({"http", "https", "socks4", "socks4a", "socks5", "socks5h"})

_context_headers: Callable[[], Mapping[str, str]] | None = None


def set_context_headers(headers: Callable[[], Mapping[str, str]] | None) -> None:
    """Send with every posted request of this process what `headers` returns where it is made, as tracing does."""
    global _context_headers
    _context_headers = headers


class TryAgain(GymrailError):
    """An attempt failed in a way that another one may not."""

    def __init__(
        self,
        message: str,
        after_seconds: float | None = None,
        status: int | None = None,
        trouble: Literal["answer", "connection", "timeout"] = "answer",
    ) -> None:
        super().__init__(message)
        self.trouble = trouble
        """What was wrong: the answer, the way there and back, or that there was none in time."""
        self.after_seconds = after_seconds
        """How long to wait: what the endpoint asks for, or 0 where it closed a connection that had been idle."""
        self.status = status
        """Of the endpoint's answer, where there was one."""


class Unreachable(GymrailError):
    """The endpoint cannot be talked to, and trying again will not help."""


class Reply(NamedTuple):
    """An HTTP response, its body read."""

    status: int
    headers: Mapping[str, str]
    """Names are compared without regard to case."""
    body: bytes


class HttpClient:
    """Requests to one base URL, from any event loop and thread. Close it when all of them are done."""

    def __init__(self, base_url: str, headers: Mapping[str, str], timeout_seconds: float) -> None:
        self._base = _check_url(base_url)
        self._headers = {"Content-Type": "application/json", **_check_headers(headers)}
        self._timeout_seconds = timeout_seconds
        self._urls: dict[str, Url] = {}
        self._heads: dict[tuple[str, str], bytes] = {}
        self._plain: PlainClient | None = None
        self._client: Client | None = None
        self._opening = threading.Lock()
        self._process: int | None = None
        """Which one opened the client."""

    @property
    def host(self) -> str:
        return self._base.hostname or ""

    @property
    def shown_url(self) -> str:
        """The base URL for people: without its query, which may hold a key."""
        return self._base._replace(query="", fragment="").geturl().rstrip("/")

    async def post_json(
        self, path: str, body: bytes, timeout_seconds: float, headers: Mapping[str, str] | None = None
    ) -> Reply:
        """Post JSON bytes; `headers` are this request's own.

        Raises:
            TryAgain: no connection, a connection that broke, or no whole answer in time.
            Unreachable: the certificate is not trusted, or this process was forked from one that used the client.
        """
        if _context_headers is not None:
            headers = {**_context_headers(), **(headers or {})}
        return await self._ask("POST", path, timeout_seconds, headers, body)

    async def delete(self, path: str, timeout_seconds: float, headers: Mapping[str, str] | None = None) -> Reply:
        """Delete a resource; raises what `post_json` raises."""
        return await self._ask("DELETE", path, timeout_seconds, headers)

    async def get(self, path: str, timeout_seconds: float) -> Reply:
        """Get a resource; raises what `post_json` raises."""
        return await self._ask("GET", path, timeout_seconds)

    async def close(self) -> None:
        """Close the connections; a later request opens new ones."""
        with self._opening:
            client, self._client = self._client, None
            plain, self._plain = self._plain, None
        if plain is not None:
            await plain.close()
        if client is not None and self._process == os.getpid():
            await client.close()

    def _ask(
        self,
        method: str,
        path: str,
        timeout_seconds: float,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Coroutine[Any, Any, Reply]:
        limit = min(timeout_seconds, self._timeout_seconds)
        plain = self._plain
        if plain is None and self._client is None:
            plain = self._open_plain()
        if plain is not None:
            return self._exchange(plain, self._written(method, path, headers, body), limit)
        request = self._open().request(method, self._url(path))
        if body is not None:
            request = request.body_bytes(body)
        return self._send(request.headers(headers) if headers else request, limit)

    async def _exchange(self, client: PlainClient, request: bytes, limit_seconds: float) -> Reply:
        try:
            return Reply(*await client.send(request, limit_seconds))
        except ExchangeError as error:
            raise self._named(error, limit_seconds) from None

    async def _send(self, request: RequestBuilder, limit: float) -> Reply:
        if limit < self._timeout_seconds:
            request = request.timeout(timedelta(seconds=limit))
        try:
            response = await request.build().send()
            return Reply(response.status, response.headers, bytes(await response.bytes()))
        except exceptions.PyreqwestError as error:
            raise self._sorted(error, limit) from None

    def _named(self, error: ExchangeError, limit_seconds: float) -> TryAgain:
        if error.trouble == "late":
            return self._too_late(limit_seconds)
        if error.trouble == "connect":
            return TryAgain(f"{self.shown_url}: no connection ({error})", trouble="connection")
        if error.trouble == "connect_timeout":
            return self._no_connection_in_time()
        if error.trouble == "broken":
            return self._broken(str(error))
        if error.trouble == "silent":
            return self._silent(str(error))
        if error.trouble == "closed":
            return self._closed_meanwhile()
        return TryAgain(f"{self.shown_url}: what it answered is no HTTP/1.1 ({error})")

    def _no_connection_in_time(self) -> TryAgain:
        text = f"{self.shown_url}: no connection within {_CONNECT_SECONDS:g} seconds"
        return TryAgain(text, trouble="connection")

    def _too_late(self, limit_seconds: float) -> TryAgain:
        return TryAgain(f"{self.shown_url} gave no answer within {limit_seconds:g} seconds", trouble="timeout")

    def _broken(self, why: str) -> TryAgain:
        text = f"{self.shown_url}: the connection broke in the middle of the answer ({why})"
        return TryAgain(text, trouble="connection")

    def _silent(self, why: str) -> TryAgain:
        # A kept connection that the endpoint closed at this very moment looks the same, and needs no wait.
        text = f"{self.shown_url}: the server closed the connection without an answer ({why})"
        return TryAgain(text, after_seconds=0.0, trouble="connection")

    def _closed_meanwhile(self) -> TryAgain:
        return TryAgain(f"{self.shown_url}: the client was closed during the request", after_seconds=0.0)

    def _sorted(self, error: exceptions.PyreqwestError, limit_seconds: float) -> TryAgain | Unreachable:
        """The client's class names mislead (a read that timed out is a ConnectTimeoutError): base classes and causes
        tell."""
        causes = _causes(error)
        innermost = re.sub(r" \(os error \d+\)$", "", causes[-1])  # only this one: the first one holds the whole URL
        no_connection = "client error (Connect)" in causes
        if isinstance(error, exceptions.RequestTimeoutError):
            return self._no_connection_in_time() if no_connection else self._too_late(limit_seconds)
        if innermost.startswith("invalid peer certificate"):
            return Unreachable(
                f"The TLS certificate of {self.shown_url} is not trusted ({innermost.partition(': ')[2]}); "
                "fix it, or name its authority in the environment variable SSL_CERT_FILE."
            )
        if no_connection:
            return TryAgain(f"{self.shown_url}: no connection ({innermost})", trouble="connection")
        if isinstance(error, exceptions.BodyDecodeError | exceptions.ReadError):
            return self._broken(innermost)
        if isinstance(error, exceptions.NetworkError):
            return self._silent(innermost)
        if isinstance(error, exceptions.ClientClosedError):
            return self._closed_meanwhile()
        return TryAgain(f"{self.shown_url}: {type(error).__name__}: {innermost}")

    def _open_plain(self) -> PlainClient | None:
        """Return a client for plain http; None where the client library is needed."""
        if self._base.scheme != "http" or not {"http", "all"}.isdisjoint(urllib.request.getproxies()):
            return None
        with self._opening:
            if self._plain is None:
                host = urllib.parse.urlsplit(str(self._url(""))).hostname or ""
                self._plain = PlainClient(host, self._base.port or 80, _CONNECT_SECONDS)
            return self._plain

    def _written(self, method: str, path: str, headers: Mapping[str, str] | None, body: bytes | None) -> bytes:
        """A request as it goes over the wire."""
        head = None if headers else self._heads.get((method, path))
        if head is None:
            url = urllib.parse.urlsplit(str(self._url(path)))
            target = urllib.parse.urlunsplit(("", "", url.path or "/", url.query, ""))
            fields = {"host": url.netloc, "user-agent": "gymrail", "accept": "*/*"}
            for more in (self._headers, _check_headers(headers or {})):
                fields |= {name.lower(): value for name, value in more.items()}
            lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
            head = "\r\n".join(lines).encode("ascii")
            if not headers:
                if len(self._heads) >= _MAX_URLS:
                    self._heads.clear()
                self._heads[method, path] = head
        if body is None:
            return b"%b\r\n\r\n" % head
        return b"%b\r\ncontent-length: %d\r\n\r\n%b" % (head, len(body), body)

    def _open(self) -> Client:
        client = self._client
        if client is not None:
            if self._process != os.getpid():
                raise Unreachable(_FORKED)
            return client
        _check_proxy(self._base)
        builder = (
            ClientBuilder()
            .timeout(timedelta(seconds=self._timeout_seconds))
            .connect_timeout(timedelta(seconds=_CONNECT_SECONDS))
            .default_headers(self._headers)
            .user_agent("gymrail")
            .http1_only()
            .follow_redirects(False)
            .referer(False)
            .gzip(False)
            .brotli(False)
            .zstd(False)
            .deflate(False)
        )
        with self._opening:
            if self._client is None:
                try:
                    self._client, self._process = builder.build(), os.getpid()
                except RuntimeError:
                    raise Unreachable(_FORKED) from None
            return self._client

    def _url(self, path: str) -> Url:
        url = self._urls.get(path)
        if url is None:
            # Azure wants its `?api-version=` behind every path.
            url = Url(self._base._replace(path=f"{self._base.path.rstrip('/')}/{path}", fragment="").geturl())
            if len(self._urls) >= _MAX_URLS:  # paths may hold an episode's token
                self._urls.clear()
            self._urls[path] = url
        return url


_FORKED = (
    "This process was forked from one that had talked to an endpoint, and HTTP connections do not survive a fork; "
    "start worker processes with the 'spawn' method: multiprocessing.get_context('spawn')."
)


def _check_url(base_url: str) -> urllib.parse.SplitResult:
    try:
        url = urllib.parse.urlsplit(base_url)
        if url.scheme in ("http", "https") and url.hostname:
            Url(base_url)
        else:
            url = None
    except ValueError:
        url = None
    if url is None:
        raise InputError(f"base_url is {base_url!r}; it must be an http(s) address such as 'http://localhost:8000/v1'.")
    if url.username or url.password:
        shown = url._replace(netloc=url.netloc.rpartition("@")[2], query="").geturl()
        raise InputError(
            f"base_url holds a user name or a password; give '{shown}', and the secret as api_key or in headers."
        )
    return url


def _check_headers(headers: Mapping[str, str]) -> Mapping[str, str]:
    for name, value in headers.items():
        # The value may be a secret, so the message keeps it to itself.
        if not re.fullmatch(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+", name) or not re.fullmatch(r"[\t\x20-\x7e]*", value):
            what = "the key (api_key)" if name == "Authorization" else f"the header {name!r}"
            raise InputError(f"HTTP cannot carry {what}: it holds a line break or another character outside ASCII.")
    return headers


def _check_proxy(url: urllib.parse.SplitResult) -> None:
    """Refuse a proxy that the client would pass by in silence."""
    proxies = urllib.request.getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if proxy is None or "://" not in proxy or urllib.request.proxy_bypass(f"{url.hostname}:{url.port}"):
        return
    scheme = proxy.partition("://")[0].lower()
    if scheme not in _PROXY_SCHEMES:
        raise InputError(
            f"The environment names a {scheme!r} proxy; http, https and socks5 proxies are supported. "
            f"Set NO_PROXY={url.hostname} to do without."
        )


def _causes(error: exceptions.PyreqwestError) -> list[str]:
    details = getattr(error, "details", None) or {}
    return [cause["message"] for cause in details.get("causes") or ()] or [str(error.args[0] if error.args else error)]
