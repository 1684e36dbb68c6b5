"""A file from an http(s) address: resumed where an attempt broke off, whole or not there.

`.NAME.partial` holds what has come so far, `.NAME.partial.json` which version of the file that is (its ETag): a file
that changed in between is fetched from its start.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import time
import urllib.parse
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple, Self

from pyreqwest import exceptions
from pyreqwest.client import SyncClient, SyncClientBuilder
from pyreqwest.response import SyncResponse

from gymrail.data.jsonl import reason_of
from gymrail.errors import GymrailError, InputError

_CONNECT_SECONDS = 30.0
_READ_SECONDS = 60.0
_ATTEMPTS = 5
"""In a row without a byte more."""
_LONGEST_PAUSE_SECONDS = 60.0
_CHUNK_BYTES = 1 << 20


class Fetched(NamedTuple):
    """A file that is there."""

    sha256: str
    size: int
    etag: str | None


@dataclass(frozen=True, slots=True)
class Expected:
    """What a file must be, where that is known before."""

    size: int | None = None
    sha256: str | None = None
    git_sha1: str | None = None
    """As git names a blob of this content."""


class _Broken(GymrailError):
    """An attempt broke off; another may go on."""

    def __init__(self, message: str, after_seconds: float | None = None) -> None:
        super().__init__(message)
        self.after_seconds = after_seconds


def fetch(
    url: str,
    path: Path,
    *,
    headers: Mapping[str, str] | None = None,
    expected: Expected = Expected(),
    on_bytes: Callable[[int, int | None], None] | None = None,
    pause_seconds: float = 1.0,
) -> Fetched:
    """Get a file and put it at `path`, which it replaces.

    Args:
        headers: sent to the address itself; a key does not follow a redirect to another host.
        on_bytes: called with the bytes that are there, and with how many there will be if that is known.
        pause_seconds: before the second attempt; it doubles from there.

    Raises:
        InputError: the address is none, or the server says that there is no such file or that it may not be had.
        GymrailError: the server cannot be reached, keeps breaking off, or the file is not what was expected.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _Partial(path, shown_url(url)) as partial, _client() as client:
            _attempt_until_whole(client, url, headers or {}, partial, expected, on_bytes, pause_seconds)
            fetched = Fetched(*digest(partial.file), partial.etag)
            _compare(fetched, expected, partial)
            partial.finish(path)
    except OSError as error:
        raise InputError(f"Cannot write '{path}': {reason_of(error)}.") from None
    return fetched


def digest(path: Path) -> tuple[str, int]:
    """Return the SHA-256 and the size of a file."""
    found, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            found.update(chunk)
            size += len(chunk)
    return found.hexdigest(), size


def git_sha1(path: Path) -> str:
    """Return the name that git gives to a file's content."""
    found = hashlib.sha1(f"blob {path.stat().st_size}\0".encode(), usedforsecurity=False)
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            found.update(chunk)
    return found.hexdigest()


def shown_url(url: str) -> str:
    """Return an address without what may be secret: user, password and query."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment="").geturl()


class _Partial:
    """What has come so far; one process writes it."""

    def __init__(self, path: Path, url: str) -> None:
        self.file = path.with_name(f".{path.name}.partial")
        self.url = url
        self.etag: str | None = None
        self._note = path.with_name(f".{path.name}.partial.json")

    def __enter__(self) -> Self:
        self._handle = self.file.open("ab")
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._handle.close()
            raise InputError(f"Another process is fetching {self.url} to '{self.file.parent}'; wait for it.") from None
        known = self._read_note()
        if known.get("url") == self.url and isinstance(known.get("etag"), str):
            self.etag = known["etag"]
        else:
            self.restart()
        return self

    def __exit__(self, *_: object) -> None:
        is_empty = self.size == 0
        self._handle.close()
        if is_empty:
            self.file.unlink(missing_ok=True)
            self._note.unlink(missing_ok=True)

    @property
    def size(self) -> int:
        return self._handle.tell()

    def write(self, chunk: bytes) -> None:
        self._handle.write(chunk)

    def flush(self) -> None:
        self._handle.flush()

    def restart(self) -> None:
        """Forget what has come."""
        self._handle.flush()
        self._handle.truncate(0)
        self._handle.seek(0)
        self.etag = None

    def begin(self, etag: str | None) -> None:
        """Say which version comes now."""
        self.etag = etag
        self._note.write_text(json.dumps({"url": self.url, "etag": etag}), encoding="utf-8")

    def finish(self, path: Path) -> None:
        """Put the file in its place."""
        os.replace(self.file, path)
        self._note.unlink(missing_ok=True)

    def _read_note(self) -> dict[str, Any]:
        try:
            known = json.loads(self._note.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return known if isinstance(known, dict) else {}


def _attempt_until_whole(
    client: SyncClient,
    url: str,
    headers: Mapping[str, str],
    partial: _Partial,
    expected: Expected,
    on_bytes: Callable[[int, int | None], None] | None,
    pause_seconds: float,
) -> None:
    failures, most = 0, partial.size
    while True:
        try:
            _attempt(client, url, headers, partial, expected, on_bytes)
            return
        except _Broken as error:
            failures = 1 if partial.size > most else failures + 1
            most = max(most, partial.size)
            if failures >= _ATTEMPTS:
                raise GymrailError(
                    f"{error} ({_ATTEMPTS} attempts). The same command goes on from {partial.size:,} bytes."
                ) from None
            pause = pause_seconds * 2 ** (failures - 1) if error.after_seconds is None else error.after_seconds
            time.sleep(min(pause, _LONGEST_PAUSE_SECONDS))


def _attempt(
    client: SyncClient,
    url: str,
    headers: Mapping[str, str],
    partial: _Partial,
    expected: Expected,
    on_bytes: Callable[[int, int | None], None] | None,
) -> None:
    have = partial.size
    if expected.size is not None and have == expected.size and have:
        return
    sent = dict(headers)
    if have and partial.etag:
        sent |= {"Range": f"bytes={have}-"}
        if not partial.etag.startswith("W/"):
            sent |= {"If-Range": partial.etag}
    try:
        with client.get(url).headers(sent).build_streamed() as response:
            total = _begin(response, partial, have)
            while chunk := response.body_reader.read_chunk():
                partial.write(bytes(chunk))
                if on_bytes is not None:
                    on_bytes(partial.size, total)
    except exceptions.PyreqwestError as error:
        raise _Broken(f"{partial.url} cannot be read: {_cause(error)}") from None
    finally:
        partial.flush()
    if total is not None and partial.size < total:
        raise _Broken(f"{partial.url}: the connection broke off at {partial.size:,} of {total:,} bytes")


def _begin(response: SyncResponse, partial: _Partial, have: int) -> int | None:
    """Make ready for the body of an answer; return how long the file will be."""
    status, etag = response.status, response.headers.get("etag")
    if status == 206 and have:
        place = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("content-range") or "")
        if place is None or int(place[1]) != have or (etag or partial.etag) != partial.etag:
            partial.restart()
            raise _Broken(f"{partial.url}: the file changed, or the server goes on at another place", 0.0)
        return None if place[2] == "*" else int(place[2])
    if status == 200:
        partial.restart()
        partial.begin(etag)
        length = response.headers.get("content-length")
        return int(length) if length and length.isdigit() else None
    if status == 416 and have:
        partial.restart()
        raise _Broken(f"{partial.url}: what is here of the file is not its beginning", 0.0)
    if status in (408, 429) or status >= 500:
        raise _Broken(f"{partial.url} answers {status}", _retry_after(response))
    raise InputError(_refusal(partial.url, status))


def _refusal(url: str, status: int) -> str:
    if status in (401, 403):
        return (
            f"{url} may not be had (status {status}): it needs a token, or the token may not read it. "
            "Set HF_TOKEN for the hub's files, and accept the dataset's terms on its page."
        )
    if status in (404, 410):
        return f"There is no file at {url} (status {status}); check the address."
    return f"{url} answers {status}, which is no file."


def _retry_after(response: SyncResponse) -> float | None:
    value = response.headers.get("retry-after") or ""
    return float(value) if value.isdigit() else None


def _compare(fetched: Fetched, expected: Expected, partial: _Partial) -> None:
    found, wanted = [], []
    if expected.size is not None and fetched.size != expected.size:
        found, wanted = [f"{fetched.size:,} bytes"], [f"{expected.size:,}"]
    if expected.sha256 is not None and fetched.sha256 != expected.sha256.lower():
        found, wanted = [*found, f"sha256 {fetched.sha256}"], [*wanted, expected.sha256]
    if expected.git_sha1 is not None and (named := git_sha1(partial.file)) != expected.git_sha1:
        found, wanted = [*found, f"git blob {named}"], [*wanted, expected.git_sha1]
    if found:
        partial.restart()
        raise GymrailError(
            f"{partial.url} is not what it should be: it has {', '.join(found)}, and {', '.join(wanted)} is expected. "
            "Nothing was kept; try again, or ask who publishes it."
        )


def _client() -> SyncClient:
    return (
        SyncClientBuilder()
        .connect_timeout(timedelta(seconds=_CONNECT_SECONDS))
        .read_timeout(timedelta(seconds=_READ_SECONDS))
        .user_agent("gymrail")
        .follow_redirects(True)
        .referer(False)
        .gzip(False)
        .brotli(False)
        .zstd(False)
        .deflate(False)
        .build()
    )


def _cause(error: exceptions.PyreqwestError) -> str:
    details = getattr(error, "details", None) or {}
    causes = [cause["message"] for cause in details.get("causes") or ()]
    innermost = causes[-1] if causes else type(error).__name__
    return re.sub(r" \(os error \d+\)$", "", innermost)
