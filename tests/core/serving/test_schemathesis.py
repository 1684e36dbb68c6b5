"""Requests that schemathesis makes up from the OpenAPI schema, right and wrong ones: none is answered with a 5xx, and
none with a status or a body that the schema does not have. `make fuzz` sends 10,000."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2 as httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gymrail import Environment, Rollout, Task, Verdict, tool
from gymrail.environment import Reply
from gymrail.serving.http import create_app
from gymrail.serving.loopback import serve_on_loopback
from gymrail.serving.settings import Settings
from gymrail.spec import EnvironmentSpec
from tests.core.serving.office import KEY

REQUESTS = int(os.environ.get("GYMRAIL_FUZZ_REQUESTS", "250"))
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
ROW = {"responses_create_params": {"input": "x"}}
TEXT = {"type": "string"}
ITEM = {
    "type": "object",
    "properties": {
        "type": {"enum": ["message", "function_call", "function_call_output", "reasoning"]},
        "role": {"enum": ["user", "assistant", "system"]},
        "content": {"anyOf": [TEXT, {"type": "array", "items": {"type": "object", "properties": {"text": TEXT}}}]},
        "call_id": TEXT, "name": {"anyOf": [{"enum": ["add", "find"]}, TEXT]}, "output": TEXT,
        "arguments": {"anyOf": [{"enum": ['{"text": "x"}', "{", "[]"]}, TEXT]},
    },
}  # fmt: skip


class Notes(Environment[Task]):
    """Takes whatever it is given, and breaks over nothing."""

    def seed(self) -> None:
        self.notes: list[str] = []

    @tool
    def add(
        self, text: str, times: int = 1, tags: list[str] | None = None, about: dict[str, float] | None = None
    ) -> str:
        """Write a note."""
        self.notes.append(text)
        return f"{text} {times} {tags} {about}"

    @tool(read_only=True)
    def find(self, text: str) -> list[str]:
        """Find notes."""
        return [note for note in self.notes if text in note]

    def verify(self, rollout: Rollout) -> Verdict:
        return Verdict(float(bool(self.notes)), metrics={"words": len(rollout.final_text.split())})


class Talk(Notes):
    """The same, with user turns."""

    reward_range = (0.0, 1.0)

    def reply(self, rollout: Rollout) -> Reply | None:
        return Reply("go on", 0.0) if rollout.steps < 3 else None


class Quiz(Environment[Task]):
    """No tools, so that a stored answer can be judged without an episode."""

    def verify(self, rollout: Rollout) -> float:
        return float("x" in rollout.final_text)


SPECS = [EnvironmentSpec("notes", Notes), EnvironmentSpec("talk", Talk), EnvironmentSpec("quiz", Quiz)]


class Target:
    """A running server, and what a client knows of it."""

    def __init__(self, url: str, schema: dict[str, Any]) -> None:
        self.url = url
        self.schema = schema
        self.made = 0
        headers = {"authorization": f"Bearer {KEY}"}
        self.http = httpx.Client(base_url=url, headers=headers, timeout=120, trust_env=False, verify=False)

    def open(self, environment: str, route: str = "seed_session") -> dict[str, Any]:
        answer = self.http.post(f"/{environment}/{route}", json=ROW)
        self.http.cookies.clear()
        assert answer.status_code == 200, answer.text
        return answer.json()["info"] if route == "reset" else answer.json()


@pytest.fixture(scope="module")
def target() -> Iterator[Target]:
    with _running() as found:
        yield found


@pytest.mark.timeout(600 + REQUESTS // 4)
def test_no_made_up_request_breaks_the_server(target: Target, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    schema = schemathesis.openapi.from_dict(_with_agents_routes(target))
    operations = [found.ok() for found in schema.get_all_operations()]
    paths = {operation.path for operation in operations}
    assert {"/notes/seed_session", "/talk/step", "/quiz/verify", "/episodes", "/e/{token}/mcp"} <= paths
    turn = 0
    while target.made < REQUESTS:
        for operation in operations:
            modes = list(GenerationMode) if operation.body else [GenerationMode.POSITIVE]
            for mode in modes:
                _fuzz(target, operation, mode, turn)
        turn += 1
    assert target.http.get("/health").status_code == 200
    assert [record.getMessage() for record in caplog.records] == []


def test_the_schema_has_every_control_route_of_every_environment(target: Target) -> None:
    routes = {"seed_session", "verify", "close", "aggregate_metrics", "tools", "reverify_mode", "episodes"}
    expected = {f"/{spec.name}/{route}" for spec in SPECS for route in routes} | {"/talk/reset", "/talk/step"}
    assert expected | {"/", "/health", "/metrics", "/episodes"} == set(target.schema["paths"])


def _fuzz(target: Target, operation: Any, mode: GenerationMode, turn: int) -> None:
    examples = 8 if operation.body else 1
    name = operation.path.rpartition("/")[2]
    environment = operation.path.split("/")[1]

    @seed(turn)
    @settings(
        max_examples=examples, database=None, deadline=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(
        case=operation.as_strategy(generation_mode=mode),
        key=st.sampled_from([KEY, KEY, KEY, "wrong", None]),
        has_episode=st.booleans(),
    )
    def send(case: Any, key: str | None, has_episode: bool) -> None:
        headers = {} if key is None else {"authorization": f"Bearer {key}"}
        if has_episode and name in ("verify", "close", "step"):
            opened = target.open(environment, "reset" if name == "step" else "seed_session")
            headers["x-gymrail-episode-id"] = opened["episode_id"]
        response = case.call(base_url=target.url, headers=headers)
        target.made += 1
        case.validate_response(response, checks=CHECKS)

    send()


def _with_agents_routes(target: Target) -> dict[str, Any]:
    """The schema with what an agent may call, on a live episode and on none, and with items that are worth reading."""
    tokens = [target.open("notes")["url"].rpartition("/")[2], "no-such-token"]
    for methods in target.schema["paths"].values():
        for route in methods.values():
            _refine(route.get("requestBody", {}))
    call = {
        "type": "object",
        "required": ["jsonrpc", "id", "method"],
        "properties": {
            "jsonrpc": {"const": "2.0"},
            "id": {"anyOf": [{"type": "integer"}, TEXT]},
            "method": {"enum": ["tools/call", "tools/list", "initialize", "ping", "server/discover", "prompts/list"]},
            "params": {
                "type": "object",
                "properties": {
                    "name": {"anyOf": [{"enum": ["add", "find"]}, TEXT]},
                    "arguments": {"type": "object", "properties": {"text": TEXT}},
                    "_meta": {"type": "object"},
                },
            },
        },
    }
    token = {"name": "token", "in": "path", "required": True, "schema": {"enum": tokens}}
    tool_name = {"name": "tool", "in": "path", "required": True, "schema": {"enum": ["add", "find", "wrong"]}}
    version = {
        "name": "mcp-protocol-version", "in": "header", "schema": {"enum": ["2025-06-18", "2025-11-25", "2026-07-28"]}
    }  # fmt: skip
    accept = {"name": "accept", "in": "header", "schema": {"const": "application/json, text/event-stream"}}
    arguments = {
        "type": "object",
        "properties": {"text": TEXT, "times": {"type": "integer"}, "tags": {"type": "array"}},
    }
    paths = {
        "/e/{token}/{tool}": _route([token, tool_name], arguments),
        "/e/{token}/mcp": _route([token, version, accept], call),
    }
    return {**target.schema, "paths": {**target.schema["paths"], **paths}}


def _refine(node: Any) -> None:
    if isinstance(node, dict):
        if node.get("type") == "array":
            node["items"] = {"anyOf": [ITEM, node["items"]]}
            return
        for value in node.values():
            _refine(value)
    elif isinstance(node, list):
        for value in node:
            _refine(value)


def _route(parameters: list[dict[str, Any]], body: dict[str, Any]) -> dict[str, Any]:
    answers = {str(status): {"description": "An answer."} for status in (200, 202, 400, 404, 406, 413, 422)}
    content = {"application/json": {"schema": body}}
    return {"post": {"parameters": parameters, "requestBody": {"content": content}, "responses": answers}}


@contextmanager
def _running() -> Iterator[Target]:
    """Serve in a thread: schemathesis' client blocks."""
    found: list[Target] = []
    started, over = threading.Event(), threading.Event()
    app = create_app(SPECS, Settings.for_address("127.0.0.1", key=KEY, max_episodes=1_000_000))

    async def serve() -> None:
        async with serve_on_loopback(app) as url:
            found.append(Target(url, app.openapi()))
            started.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()), daemon=True)
    thread.start()
    assert started.wait(120)
    try:
        yield found[0]
    finally:
        found[0].http.close()
        over.set()
        thread.join(120)
