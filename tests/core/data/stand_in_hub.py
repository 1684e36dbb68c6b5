"""A hub on loopback that speaks as much of the Hugging Face API as downloading and pushing need, and errs on demand."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from tests.serving import stop_serving

COMMIT = "a" * 40
TOKEN = "hf_right"


@dataclass
class StandInHub:
    """Datasets by name, and what was asked of the server."""

    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    commit: str = COMMIT
    cut_after: list[int] = field(default_factory=list)
    """Answers with files break off after so many bytes, one answer each."""
    failures: list[int] = field(default_factory=list)
    """Status codes that the next requests for files get."""
    corrupt: bool = False
    etags: bool = True
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    pushed: dict[str, dict[str, bytes]] = field(default_factory=dict)
    url: str = ""

    def gets(self) -> list[tuple[str, str | None]]:
        """The requests for files' content: the path's end, and the range."""
        return [
            (path.rpartition("/")[2], headers.get("Range"))
            for method, path, headers in self.requests
            if method == "GET" and "/api/" not in path and "/resolve/" not in path
        ]

    async def info(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self.files:
            return self._error(404, "RepoNotFound")
        if name in self.gated and request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._error(403, "GatedRepo")
        revision = request.match_info.get("revision", "main")
        if revision not in ("main", self.commit, COMMIT):
            return self._error(404, "RevisionNotFound")
        siblings = [self._sibling(path, content) for path, content in self.files[name].items()]
        commit = self.commit if revision == "main" else revision
        return web.json_response({"id": name, "sha": commit, "private": False, "tags": [], "siblings": siblings})

    async def resolve(self, request: web.Request) -> web.StreamResponse:
        name, path = request.match_info["name"], request.match_info["path"]
        if path not in self.files.get(name, {}):
            return self._error(404, "EntryNotFound")
        raise web.HTTPFound(f"/cdn/{name}/{path}")

    async def content(self, request: web.Request) -> web.StreamResponse:
        name, _, path = request.match_info["path"].partition("/")
        dataset, _, path = path.partition("/")
        content = self.files.get(f"{name}/{dataset}", {}).get(path)
        if content is None:
            return self._error(404, "EntryNotFound")
        if self.failures:
            return self._error(self.failures.pop(0), "Busy")
        if self.corrupt:
            content = content[:-1] + b"?"
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        headers = {"ETag": etag, "Accept-Ranges": "bytes"} if self.etags else {}
        start, status = 0, 200
        asked = request.headers.get("Range", "")
        if asked and request.headers.get("If-Range", etag) == etag:
            start, status = int(asked.removeprefix("bytes=").rstrip("-")), 206
            if start >= len(content):
                return web.Response(status=416, headers={"Content-Range": f"bytes */{len(content)}"})
            headers["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
        response = web.StreamResponse(status=status, headers=headers)
        response.content_length = len(content) - start
        await response.prepare(request)
        if self.cut_after:
            await response.write(content[start : start + self.cut_after.pop(0)])
            assert request.transport is not None
            request.transport.close()
            return response
        await response.write(content[start:])
        return response

    async def create(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._error(401, "Unauthorized")
        asked = await request.json()
        name = "/".join(part for part in (asked.get("organization"), asked["name"]) if part)
        if name in self.pushed:
            return web.json_response({"error": "exists", "url": f"{self.url}/datasets/{name}"}, status=409)
        self.pushed[name] = {}
        return web.json_response({"url": f"{self.url}/datasets/{name}", "name": name})

    async def preupload(self, request: web.Request) -> web.Response:
        asked = await request.json()
        found = [{"path": entry["path"], "uploadMode": "regular", "shouldIgnore": False} for entry in asked["files"]]
        return web.json_response({"files": found})

    async def commit_files(self, request: web.Request) -> web.Response:
        if request.headers.get("Authorization") != f"Bearer {TOKEN}":
            return self._error(403, "Forbidden")
        name = request.match_info["name"]
        for line in (await request.read()).splitlines():
            entry = orjson.loads(line)
            if entry["key"] == "file":
                value = entry["value"]
                self.pushed[name][value["path"]] = base64.b64decode(value["content"])
        url = f"{self.url}/datasets/{name}/commit/{COMMIT}"
        return web.json_response({"success": True, "commitOid": COMMIT, "commitUrl": url, "hookOutput": ""})

    def app(self) -> web.Application:
        @web.middleware
        async def noted(request: web.Request, handler: Any) -> web.StreamResponse:
            self.requests.append((request.method, request.path, dict(request.headers)))
            return await handler(request)

        app = web.Application(middlewares=[noted], client_max_size=1 << 26)
        dataset = "/api/datasets/{name:[^/]+/[^/]+}"
        app.router.add_get(dataset, self.info)
        app.router.add_get(f"{dataset}/revision/{{revision}}", self.info)
        app.router.add_get("/datasets/{name:[^/]+/[^/]+}/resolve/{revision}/{path:.+}", self.resolve)
        app.router.add_get("/cdn/{path:.+}", self.content)
        app.router.add_post("/api/repos/create", self.create)
        app.router.add_post("/api/validate-yaml", self._valid)
        app.router.add_post(f"{dataset}/preupload/{{revision}}", self.preupload)
        app.router.add_post(f"{dataset}/commit/{{revision}}", self.commit_files)
        return app

    async def _valid(self, request: web.Request) -> web.Response:
        return web.json_response({"errors": [], "warnings": []})

    def _sibling(self, path: str, content: bytes) -> dict[str, Any]:
        entry: dict[str, Any] = {"rfilename": path, "size": len(content)}
        if path.endswith(".jsonl"):
            sha256 = hashlib.sha256(content).hexdigest()
            return entry | {"blobId": "b" * 40, "lfs": {"size": len(content), "sha256": sha256, "pointerSize": 134}}
        return entry | {"blobId": hashlib.sha1(f"blob {len(content)}\0".encode() + content).hexdigest()}

    def _error(self, status: int, code: str) -> web.Response:
        return web.json_response(
            {"error": code}, status=status, headers={"X-Error-Code": code, "X-Error-Message": code}
        )


@contextmanager
def serving(hub: StandInHub) -> Iterator[StandInHub]:
    """Serve it in a thread of its own while the block runs."""
    started = threading.Event()
    loop = asyncio.new_event_loop()

    async def main() -> None:
        runner = web.AppRunner(hub.app(), shutdown_timeout=1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        hub.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        stop = asyncio.Event()
        hub.stop = lambda: loop.call_soon_threadsafe(stop.set)  # type: ignore[attr-defined]
        started.set()
        await stop.wait()
        await stop_serving(runner)

    thread = threading.Thread(target=loop.run_until_complete, args=(main(),), daemon=True)
    thread.start()
    assert started.wait(120)
    try:
        yield hub
    finally:
        hub.stop()  # type: ignore[attr-defined]
        thread.join(120)
        loop.close()
