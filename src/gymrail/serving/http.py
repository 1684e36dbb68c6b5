"""The app: environments over HTTP and MCP, one process, one port.

    app = create_app([find("session_counter")], Settings.for_address("127.0.0.1"))

Control plane, with the server's key: /<env>/seed_session, verify, close, aggregate_metrics, reset, step, and at the
root when one environment is served. Agent plane, with an episode's credential: /e/<token>/mcp and /e/<token>/<tool>, or
the credential as a header or a bearer token at /<env>/mcp and /<env>/<tool>.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import BaseRoute

from gymrail import __version__
from gymrail.errors import GymrailError
from gymrail.serving import control, gymnasium
from gymrail.serving.agent_plane import AgentPlane
from gymrail.serving.auth import Gate
from gymrail.serving.mcp import McpEndpoint
from gymrail.serving.refusal import json_response, on_crash, on_error
from gymrail.serving.schemas import CONTROL_ROUTES, REFUSALS
from gymrail.serving.service import CONTROL_NAMES, Service, is_gymnasium
from gymrail.serving.settings import Settings
from gymrail.spec import EnvironmentSpec

Handler = Callable[[Service, Request, str | None], Awaitable[Response]]

_HANDLERS: dict[str, Handler] = {
    "seed_session": control.seed_session,
    "verify": control.verify,
    "close": control.close,
    "aggregate_metrics": control.aggregate,
    "tools": control.list_tools,
    "reverify_mode": control.reverify_mode,
    "episodes": control.list_episodes,
    "reset": gymnasium.reset,
    "step": gymnasium.step,
}


def create_app(
    specs: Sequence[EnvironmentSpec], settings: Settings | None = None, *, extra_routes: Sequence[BaseRoute] = ()
) -> FastAPI:
    """Build the app that serves environments.

    Args:
        specs: what to serve; wrap a tool server with `gymrail.serving.alone.alone`.
        settings: without them, a random key and no check of the Host header.
        extra_routes: come first; the agent server's and the model server's, for example. `app.state.service` is there
            when they run.

    Raises:
        InputError: two environments or a tool and a route have one name.
    """
    settings = settings or Settings.for_address("0.0.0.0")
    service = Service(specs, settings, (*CONTROL_NAMES, *_first_segments(extra_routes)))
    endpoints = {spec.name: McpEndpoint(service, spec) for spec in specs}

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for spec in specs:
                stack.push_async_callback(spec.teardown)
            for endpoint in endpoints.values():
                await stack.enter_async_context(endpoint.running())
            service.table.start()
            stack.push_async_callback(service.table.stop)
            yield

    app = FastAPI(title="Gymrail", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.router.redirect_slashes = False
    app.state.service = service
    app.add_middleware(Gate, settings=settings, agents=AgentPlane(service, endpoints))  # pyright: ignore[reportArgumentType]
    app.add_exception_handler(GymrailError, on_error)
    app.add_exception_handler(Exception, on_crash)
    app.router.routes.extend(extra_routes)
    _add_routes(app, service)
    return app


def _add_routes(app: FastAPI, service: Service) -> None:
    _add_server_routes(app, service)
    if service.is_single:
        _add_control_routes(app, service, "", next(iter(service.specs.values())))
    for spec in service.specs.values():
        _add_control_routes(app, service, f"/{spec.name}", spec)


def _add_server_routes(app: FastAPI, service: Service) -> None:
    async def ok(request: Request) -> Response:
        return json_response({"status": "ok"})

    async def health(request: Request) -> Response:
        return json_response({"status": "ok", "version": __version__, "environments": list(service.specs)})

    async def metrics(request: Request) -> Response:
        service.require_control(request)
        return service.telemetry.page()

    app.add_api_route("/", ok, summary="Whether the server is up", tags=["server"])
    app.add_api_route("/health", health, summary="Whether the server is up, and what it serves", tags=["server"])
    app.add_api_route(
        "/metrics",
        metrics,
        summary="Numbers for Prometheus",
        tags=["server"],
        response_class=PlainTextResponse,
        responses=REFUSALS,  # pyright: ignore[reportArgumentType]
    )
    if not service.is_single:
        _add(app, service, "", "episodes", "server", None)


def _add_control_routes(app: FastAPI, service: Service, prefix: str, spec: EnvironmentSpec) -> None:
    for name in _HANDLERS:
        if name in ("reset", "step") and not is_gymnasium(spec):
            continue
        _add(app, service, prefix, name, prefix.strip("/") or spec.name, spec.name)


def _add(app: FastAPI, service: Service, prefix: str, name: str, tag: str, environment: str | None) -> None:
    handler = _HANDLERS[name]

    async def endpoint(request: Request) -> Response:
        return await handler(service, request, environment)

    about = CONTROL_ROUTES[name]
    app.add_api_route(
        f"{prefix}/{name}",
        endpoint,
        methods=[about.method],
        summary=about.summary,
        tags=[tag],
        operation_id=f"{tag}_{name}" if prefix else name,
        responses=about.responses,  # pyright: ignore[reportArgumentType]
        openapi_extra=about.body,
    )


def _first_segments(routes: Sequence[BaseRoute]) -> list[str]:
    paths = [getattr(route, "path", "") for route in routes]
    return [path.strip("/").split("/")[0] for path in paths if path.strip("/")]
