"""What a server answers when it does not do what was asked: a refusal (4xx) or a failure of ours (5xx), as JSON.

    {"error": {"kind": "gone", "stage": null, "message": "..."}}

No answer shows a path, a traceback or the text of an exception: an exception's text may hold the answer. Those go to
the log.
"""

from __future__ import annotations

import logging
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from gymrail.errors import EpisodeClosed, EpisodeFailed, Failure, GymrailError, InputError

logger = logging.getLogger(__name__)

GONE = "This episode is gone (closed, judged, idle for too long, or the server was started anew), or never existed."
_STATUS_OF_KIND = {"timeout": 504, "infrastructure": 503}


class Refusal(GymrailError):
    """A request that is not served, with the status and the sentence to answer."""

    def __init__(self, status: int, kind: str, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.kind = kind
        self.headers = headers or {}


def gone() -> Refusal:
    """An episode that is not there; agents get nothing else, whatever they did wrong."""
    return Refusal(404, "gone", GONE)


def not_found() -> Refusal:
    return Refusal(404, "not_found", "There is nothing here.")


def bad_request(message: str, status: int = 400) -> Refusal:
    return Refusal(status, "input", message)


def json_response(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """Write JSON as orjson does; numbers beyond 64 bits and NaN come out as the JSON module writes them."""
    from gymrail.tools import dump_json

    return Response(dump_json(value), status, headers, "application/json")


def refuse(error: GymrailError) -> Response:
    """Answer what was raised on purpose."""
    if isinstance(error, Refusal):
        return _answer(error.status, error.kind, None, str(error), error.headers)
    if isinstance(error, EpisodeFailed):
        return fail(error.failure)
    if isinstance(error, EpisodeClosed):
        return _answer(404, "gone", None, str(error))
    if isinstance(error, InputError):
        return _answer(422, "input", None, str(error))
    raise error


def fail(failure: Failure, episode_id: str | None = None) -> Response:
    """Answer a failure of ours, without what only its author may read."""
    return _answer(
        _STATUS_OF_KIND.get(failure.kind, 500), failure.kind, failure.stage, public_message(failure, episode_id)
    )


def public_message(failure: Failure, episode_id: str | None = None) -> str:
    """Say what broke without the exception's own words."""
    if failure.kind == "timeout":
        return f"Stage {failure.stage!r} took too long; the episode has failed."
    where = f" under episode {episode_id}" if episode_id else ""
    return (
        f"The environment broke at stage {failure.stage!r}; the episode has failed. The server's log says why{where}."
    )


def log_failure(failure: Failure, environment: str, episode_id: str) -> None:
    """Write down for the author what no answer shows."""
    logger.error(
        "episode %s of %s: %s failure at stage %s: %s\n%s",
        episode_id, environment, failure.kind, failure.stage, failure.message, failure.trace,
    )  # fmt: skip


async def on_error(request: Request, error: Exception) -> Response:
    """Exception handler of the app for what is raised on purpose."""
    assert isinstance(error, GymrailError)
    response = refuse(error)
    keep_cookie(request, response)
    return response


async def on_crash(request: Request, error: Exception) -> Response:
    """Exception handler of the app for a bug of ours; the server logs it."""
    return _answer(500, "infrastructure", None, "The server broke; its log says why.")


def keep_cookie(request: Request, response: Response) -> None:
    """Set the caller's session cookie again: NeMo Gym's agents keep the newest jar alone."""
    from gymrail.serving.auth import COOKIE

    value = request.cookies.get(COOKIE)
    if value is not None:
        response.set_cookie(COOKIE, value, httponly=True, samesite="lax")


def _answer(status: int, kind: str, stage: str | None, message: str, headers: dict[str, str] | None = None) -> Response:
    body = orjson.dumps({"error": {"kind": kind, "stage": stage, "message": message}})
    return Response(body, status, headers, "application/json")
