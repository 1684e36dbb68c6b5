"""The control plane's routes as OpenAPI describes them. Handlers read bodies themselves: rows are free-form, and
large."""

from __future__ import annotations

from typing import Any, NamedTuple


class RouteDescription(NamedTuple):
    """What is written down about a route."""

    method: str
    summary: str
    body: dict[str, Any] | None
    responses: dict[int | str, dict[str, Any]]


_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["kind", "stage", "message"],
            "properties": {
                "kind": {"type": "string"},
                "stage": {"type": ["string", "null"]},
                "message": {"type": "string"},
            },
        }
    },
}
_ANY_OBJECT: dict[str, Any] = {"type": "object", "additionalProperties": True}
_PARAMETERS = {
    "type": "object",
    "description": "OpenAI Responses parameters; only these reach the agent.",
    "properties": {"input": {"anyOf": [{"type": "string"}, {"type": "array", "items": _ANY_OBJECT}]}},
}
_ROW = {
    "type": "object",
    "description": "The task row; what is not `responses_create_params` is for the environment alone.",
    "required": ["responses_create_params"],
    "properties": {"responses_create_params": _PARAMETERS},
}
_RESPONSE = {"type": "object", "properties": {"output": {"type": "array", "items": _ANY_OBJECT}}}
_ANSWERED = {
    "type": "object",
    "description": "The row and the agent's `response`.",
    "properties": {"responses_create_params": _PARAMETERS, "response": _RESPONSE},
}


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"requestBody": {"required": True, "content": {"application/json": {"schema": schema}}}}


def _responses(*statuses: int) -> dict[int | str, dict[str, Any]]:
    texts = {
        400: "The body is no JSON, or nests too deep.",
        401: "The server's key is missing or wrong.",
        404: "The episode is gone or never existed, or there is nothing here.",
        409: "The request does not fit what is there.",
        413: "The body is too large.",
        422: "The row or the response is wrong; the message names the field.",
        429: "Too many episodes are open; see Retry-After.",
        500: "The environment broke: no reward, and the episode has failed.",
        501: "There is no verifier.",
        503: "Something under the environment was lost, or the server stops.",
        504: "The environment took too long.",
    }
    content = {"application/json": {"schema": _ERROR}}
    return {
        status: {"description": texts[status], "content": content} for status in (400, 401, 404, 413, 422, *statuses)
    }


REFUSALS = _responses()
"""What every route of the control plane may answer."""

CONTROL_ROUTES = {
    "seed_session": RouteDescription(
        "POST", "Open an episode for a task row", _json(_ROW), _responses(409, 429, 500, 503, 504)
    ),
    "verify": RouteDescription(
        "POST", "Judge an episode, and close it", _json(_ANSWERED), _responses(429, 500, 501, 503, 504)
    ),
    "close": RouteDescription(
        "POST",
        "Close an episode without judging it",
        _json({"type": "object", "properties": {"episode_id": {"type": "string"}}}),
        _responses(),
    ),
    "aggregate_metrics": RouteDescription(
        "POST",
        "Metrics over verify responses",
        _json(
            {
                "type": "object",
                "required": ["verify_responses"],
                "properties": {"verify_responses": {"type": "array", "items": _ANY_OBJECT}},
            }
        ),
        _responses(),
    ),
    "tools": RouteDescription("GET", "The tools, as Responses function tools", None, _responses()),
    "reverify_mode": RouteDescription(
        "GET", "Whether stored rollouts can be judged again without an episode", None, _responses()
    ),
    "episodes": RouteDescription("GET", "The open episodes", None, _responses()),
    "reset": RouteDescription(
        "POST", "Open an episode, Gymnasium style", _json(_ROW), _responses(409, 429, 500, 503, 504)
    ),
    "step": RouteDescription(
        "POST", "Take one answer of the model, Gymnasium style", _json(_ANSWERED), _responses(409, 500, 503, 504)
    ),
}
