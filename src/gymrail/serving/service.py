"""What all routes of a server share: its environments, its episodes, who is asking, and how a tool is called."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any, Literal

from starlette.requests import Request
from starlette.types import Scope

from gymrail.environment import Environment
from gymrail.errors import EpisodeFailed, InputError
from gymrail.rollout import ToolCall
from gymrail.serving.auth import CookieSigner, Credentials, credentials_of, is_equal
from gymrail.serving.refusal import Refusal, gone, log_failure, not_found
from gymrail.serving.sessions import EpisodeTable, Held
from gymrail.serving.settings import Settings
from gymrail.serving.telemetry import Telemetry
from gymrail.spec import EnvironmentSpec

CONTROL_NAMES = (
    "seed_session", "verify", "close", "aggregate_metrics", "reset", "step", "tools", "reverify_mode", "episodes",
    "mcp", "e", "health", "metrics", "openapi.json",
)  # fmt: skip
"""Paths of ours; neither a tool nor an environment may have such a name."""


class Service:
    """A server's state."""

    def __init__(
        self, specs: Sequence[EnvironmentSpec], settings: Settings, reserved: Collection[str] = CONTROL_NAMES
    ) -> None:
        _check_names(specs, reserved)
        self.settings = settings
        self.specs = {spec.name: spec for spec in specs}
        self.table = EpisodeTable(settings.limits, max_episodes=settings.max_episodes)
        self.telemetry = Telemetry(self.table)
        self.signer = CookieSigner()
        self.reserved = frozenset(reserved)

    @property
    def is_single(self) -> bool:
        """Whether the one environment is served at the root too."""
        return len(self.specs) == 1

    def spec(self, name: str | None) -> EnvironmentSpec:
        """Return an environment by the name in the path; without one, the only one.

        Raises:
            Refusal: there is none of that name.
        """
        if name is None:
            (spec,) = self.specs.values()
            return spec
        spec = self.specs.get(name)
        if spec is None:
            raise not_found()
        return spec

    def credentials(self, request: Request) -> Credentials:
        return credentials_of(request.scope)

    def require_control(self, request: Request) -> Credentials:
        """Let the server's key pass; an episode's credential is told that there is nothing here.

        Raises:
            Refusal: 404 for an episode's credential, 401 for no key or a wrong one.
        """
        given = credentials_of(request.scope)
        if self.settings.key is not None and is_equal(given.bearer, self.settings.key):
            return given
        if self.table.knows_token(given.bearer) or given.token is not None:
            raise not_found()
        if self.settings.key is None:
            return given
        raise Refusal(
            401, "key", "This needs the server's key: send the header 'Authorization: Bearer KEY' (GYMRAIL_KEY)."
        )

    def agent_episode(self, scope: Scope, environment: str | None, given: Credentials) -> Held:
        """Find the episode whose credential a request carries; the capability URL's token comes first.

        Raises:
            Refusal: 404, whatever is wrong.
        """
        held = self._held(scope, given)
        if held is None or (environment is not None and held.environment != environment):
            raise gone()
        return held

    def named_episode(self, given: Credentials, body_id: Any = None) -> str | None:
        """Return the id of the episode that a control request names, or None where it names none by id.

        Raises:
            Refusal: the id is no text.
        """
        if given.episode_id:
            return given.episode_id
        if body_id is not None and not isinstance(body_id, str):
            raise Refusal(422, "input", "'episode_id' is a text.")
        return body_id or None

    def cookie_episode(self, given: Credentials) -> str | None:
        """Return the episode id in the caller's cookie; "" where the cookie is not ours or not of this run."""
        if given.cookie is None:
            return None
        return self.signer.read(given.cookie) or ""

    async def call(
        self,
        held: Held,
        name: str,
        arguments: str | bytes | dict[str, Any],
        call_id: str | None,
        protocol: Literal["http", "mcp"],
    ) -> ToolCall:
        """Run a tool call. The task that runs it must not be cancelled when the client leaves.

        Raises:
            EpisodeFailed: the tool broke; the author's log has the reason.
        """
        telemetry = self.telemetry
        environment = held.environment
        was_failed = held.episode.failure is not None
        task = asyncio.current_task()
        assert task is not None
        held.tasks.add(task)
        try:
            call = await held.episode.call(name, arguments, call_id)
        except EpisodeFailed as error:
            if not was_failed:
                self.note_failure(held, error)
            telemetry.count_call(environment, protocol, "failed")
            raise
        finally:
            held.tasks.discard(task)
        telemetry.count_call(environment, protocol, "refused" if call.is_error else "ok", call.seconds)
        return call

    def note_failure(self, held: Held, error: EpisodeFailed) -> None:
        """Log and count a failure."""
        failure = error.failure
        log_failure(failure, held.environment, held.id)
        self.telemetry.failures.labels(held.environment, failure.kind, failure.stage).inc()

    def base_url(self, request: Request) -> str:
        """The address that clients reach this server by."""
        return self.settings.public_url or str(request.base_url).rstrip("/")

    def _held(self, scope: Scope, given: Credentials) -> Held | None:
        token = scope["path_params"].get("token")
        if token is not None:
            return self.table.by_token(token)
        if given.token is not None:
            return self.table.by_token(given.token)
        if given.bearer is not None:
            if self.settings.key is not None and is_equal(given.bearer, self.settings.key):
                return self.table.by_id(given.episode_id) if given.episode_id else None
            return self.table.by_token(given.bearer)
        id = self.cookie_episode(given)
        return self.table.by_id(id) if id else None


def is_gymnasium(spec: EnvironmentSpec) -> bool:
    """Whether an environment answers with user turns or step rewards, so that it has `/reset` and `/step`."""
    return spec.cls.reply is not Environment.reply


def has_verifier(spec: EnvironmentSpec) -> bool:
    return spec.cls.verify is not Environment.verify


def _check_names(specs: Sequence[EnvironmentSpec], reserved: Collection[str]) -> None:
    if not specs:
        raise InputError("There is nothing to serve; name an environment or a tool server.")
    seen: set[str] = set()
    for spec in specs:
        if spec.name in seen:
            raise InputError(f"Two environments are named {spec.name!r}; rename one.")
        seen.add(spec.name)
        if spec.name in reserved:
            raise InputError(f"An environment cannot be served as {spec.name!r}, which is a path of the server's.")
        for name in spec.tools:
            if name in reserved:
                raise InputError(
                    f"The tool {name!r} of {spec.name} has the name of a route; rename it with @tool(name=...). "
                    f"Taken: {', '.join(sorted(reserved))}."
                )
