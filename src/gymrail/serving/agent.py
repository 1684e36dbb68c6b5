"""The agent server of NeMo Gym's protocol: a task row in, a verify response out; the environments run in this process.

    app = create_agent_app([find("session_counter")], model, ToolLoop(), Settings.for_address("127.0.0.1"))

    POST /run                a row -> the row with `response`, `reward` and what the verifier added; a failure is a 5xx,
                             or, `for_training`, an answer that is masked
    POST /v1/responses       a Responses request -> one response with every item of the episode; nothing is judged
    POST /aggregate_metrics  verify responses -> their metrics

With several environments a row names its own by `agent_ref.name`; each has its routes under /<environment> too.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from gymrail.agents.tool_loop import Agent
from gymrail.episode import Episode
from gymrail.errors import ContextOverflow, EpisodeFailed, GymrailError, InputError, did_you_mean, guard
from gymrail.models.model import EpisodePolicy, Model
from gymrail.play import play
from gymrail.rollout import Outcome, Rollout
from gymrail.serving.aggregate import metrics_of
from gymrail.serving.auth import Gate, credentials_of, is_equal, parse_object, read_body
from gymrail.serving.refusal import (
    Refusal,
    bad_request,
    fail,
    json_response,
    log_failure,
    not_found,
    on_crash,
    on_error,
)
from gymrail.serving.response_items import checked_items
from gymrail.serving.settings import Settings
from gymrail.serving.trained import trained_row
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task
from gymrail.tokens import TokenError

_SUFFIXES = ("", "_agent", "_simple_agent")
"""NeMo Gym names an environment's agent after it."""


def create_agent_app(
    specs: Sequence[EnvironmentSpec],
    model: Model | EpisodePolicy,
    agent: Agent,
    settings: Settings | None = None,
    *,
    for_training: bool = False,
    train_truncated: bool = True,
    record: Callable[[Rollout], None] | None = None,
) -> ASGIApp:
    """Return the ASGI app. It closes the model, the agent and the environments when it stops.

    Args:
        for_training: answer `/run` as NeMo RL trains on it: a failure is an answer that is masked, see `trained`.
        train_truncated: with `for_training`: False masks rollouts that ran out of a budget, too.
        record: called with every rollout of `/run`, such as `RunDirectory.record`.

    Raises:
        InputError: two environments have one name.
    """
    settings = settings or Settings.for_address("0.0.0.0")
    server = _AgentServer(specs, model, agent, settings)
    server.for_training, server.train_truncated, server.record = for_training, train_truncated, record
    app = Starlette(
        routes=server.routes(),
        lifespan=server.lifespan,
        exception_handlers={GymrailError: on_error, Exception: on_crash},
    )
    return Gate(app, settings)


class _AgentServer:
    def __init__(
        self, specs: Sequence[EnvironmentSpec], model: Model | EpisodePolicy, agent: Agent, settings: Settings
    ) -> None:
        self.specs = {spec.name: spec for spec in specs}
        if len(self.specs) < len(specs) or not specs:
            raise InputError("An agent server needs environments of different names.")
        self.model = model
        self.agent = agent
        self.settings = settings
        self.under_way = 0
        self.for_training, self.train_truncated = False, True
        self.record: Callable[[Rollout], None] | None = None

    def routes(self) -> list[Route]:
        routes = [Route("/", _ok, methods=["GET"]), Route("/health", _ok, methods=["GET"])]
        for prefix in ("", "/{environment}"):
            routes += [
                Route(f"{prefix}/run", self.run, methods=["POST"]),
                Route(f"{prefix}/v1/responses", self.respond, methods=["POST"]),
                Route(f"{prefix}/aggregate_metrics", self.aggregate, methods=["POST"]),
            ]
        return routes

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Starlette) -> AsyncIterator[None]:
        yield
        for part in (self.agent, self.model):
            close: Any = getattr(part, "close", None)
            if close is not None:
                result = close()
                if asyncio.iscoroutine(result):
                    await result
        for spec in self.specs.values():
            await spec.teardown()

    async def run(self, request: Request) -> Response:
        row = await self._read(request)
        spec = self._spec(request, row)
        task = _task(spec, row)
        index, repeat = (_index(row.get(name)) for name in ("_ng_task_index", "_ng_rollout_index"))
        with self._counted():
            rollout = await play(
                spec, task, self.model, agent=self.agent, limits=self.settings.limits, task_index=index, repeat=repeat
            )
        if self.record is not None:
            self.record(rollout)
        if rollout.failure is not None:
            log_failure(rollout.failure, spec.name, rollout.id)
        if self.for_training:
            return json_response(_trained(rollout, self.train_truncated))
        return json_response(_as_row(rollout)) if rollout.failure is None else fail(rollout.failure, rollout.id)

    async def respond(self, request: Request) -> Response:
        body = await self._read(request)
        parameters = {name: value for name, value in body.items() if name not in ("model", "stream")}
        spec = self._spec(request, body)
        with self._counted():
            rollout = await self._play_unjudged(spec, _task(spec, {"responses_create_params": parameters}))
        return json_response(_as_row(rollout)["response"])

    async def aggregate(self, request: Request) -> Response:
        body = await self._read(request)
        responses = body.get("verify_responses")
        if not isinstance(responses, list) or not all(isinstance(row, dict) for row in responses):
            raise bad_request("'verify_responses' is a list of verify responses.", 422)
        named = "environment" in request.path_params or len(self.specs) == 1
        return json_response(await metrics_of(responses, self._spec(request, {}) if named else None))

    async def _read(self, request: Request) -> dict[str, Any]:
        key = self.settings.key
        if key is not None and not is_equal(credentials_of(request.scope).bearer, key):
            raise Refusal(
                401, "key", "This needs the server's key: send the header 'Authorization: Bearer KEY' (GYMRAIL_KEY)."
            )
        return parse_object(await read_body(request.scope, request.receive, self.settings))

    def _spec(self, request: Request, row: dict[str, Any]) -> EnvironmentSpec:
        named = request.path_params.get("environment")
        if named is not None:
            if named not in self.specs:
                raise not_found()
            return self.specs[named]
        if len(self.specs) == 1:
            return next(iter(self.specs.values()))
        reference = row.get("agent_ref")
        name = reference.get("name") if isinstance(reference, dict) else None
        for suffix in _SUFFIXES:
            spec = self.specs.get(str(name).removesuffix(suffix) if suffix else str(name))
            if spec is not None:
                return spec
        said = f"agent_ref names {name!r}, which is not served here." if name else "The row has no agent_ref.name."
        raise bad_request(f"{said} {did_you_mean(str(name or ''), self.specs)}", 422)

    @contextlib.contextmanager
    def _counted(self) -> Iterator[None]:
        if self.under_way >= self.settings.max_episodes:
            raise Refusal(
                429,
                "too_many",
                f"{self.settings.max_episodes} episodes are under way, which is this server's limit.",
                {"retry-after": "5"},
            )
        self.under_way += 1
        try:
            yield
        finally:
            self.under_way -= 1

    async def _play_unjudged(self, spec: EnvironmentSpec, task: Task) -> Rollout:
        episode = await Episode.open(spec, task, limits=self.settings.limits, id=secrets.token_hex(16))
        try:
            model: Any = self.model
            bind = getattr(model, "bind", None)
            answering = model if bind is None else await guard("model", bind, episode)
            limit = episode.remaining_seconds
            outcome = await guard("model", self.agent.run, episode, answering, timeout_seconds=limit)
        except ContextOverflow:
            outcome = Outcome("truncated", reason="context")
        finally:
            await episode.close()
        if episode.failure is not None:
            raise EpisodeFailed(episode.failure)
        episode.rollout.outcome = outcome  # not `finish`: nothing was judged
        return episode.rollout


async def _ok(request: Request) -> Response:
    return json_response({"status": "ok"})


def _task(spec: EnvironmentSpec, row: dict[str, Any]) -> Task:
    task = spec.cls.task_type.from_row(row, "The row")
    checked_items(task.input_items, "responses_create_params.input")
    return task


def _as_row(rollout: Rollout) -> dict[str, Any]:
    """The verify response: what the verifier measured stands at top level too, as NeMo Gym's servers have it."""
    row = rollout.to_row()
    assert rollout.outcome is not None
    if rollout.outcome.status == "truncated":
        row["response"]["incomplete_details"] = {"reason": rollout.outcome.reason}
    return {**{name: value for name, value in rollout.metrics.items() if name not in row}, **row}


def _trained(rollout: Rollout, train_truncated: bool) -> dict[str, Any]:
    try:
        return trained_row(rollout, _as_row(rollout), train_truncated=train_truncated)
    except TokenError as error:  # the model's server is set up wrongly, which the trainer's log should say
        raise Refusal(500, "model", str(error)) from None


def _index(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
