"""The control plane: seeding, verifying, closing and listing episodes, for whoever holds the server's key."""

from __future__ import annotations

import hashlib
import re
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gymrail.serving.aggregate import metrics_of
from gymrail.serving.auth import COOKIE, Credentials, parse_object, read_body
from gymrail.serving.judge import answer, judge, take_options
from gymrail.serving.refusal import Refusal, bad_request, gone, json_response, keep_cookie
from gymrail.serving.response_items import checked_items, items_of, outcome_of, take_response
from gymrail.serving.service import Service, has_verifier
from gymrail.serving.sessions import Held, Opener
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task

_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_OF_A_ROLLOUT = ("responses_create_params", "response", "reward", "reward_components", "gymrail")


async def read_object(service: Service, request: Request) -> dict[str, Any]:
    """Read a request's JSON object within the limits."""
    return parse_object(await read_body(request.scope, request.receive, service.settings))


async def seed_session(service: Service, request: Request, environment: str | None) -> Response:
    """Open an episode for a task row; the answer has the agent's URL and credential."""
    held = await open_episode(service, request, environment, "seed_session")
    return _with_cookie(service, held, json_response(description(service, request, held)))


async def open_episode(service: Service, request: Request, environment: str | None, opened_by: Opener) -> Held:
    """Seed an episode from the request's row.

    Raises:
        Refusal, InputError, EpisodeFailed
    """
    given = service.require_control(request)
    spec = service.spec(environment)
    # NeMo Gym's agents post any name that a model calls: a call of `seed_session` must not swap the episode.
    if service.table.by_id(service.cookie_episode(given) or ""):
        raise Refusal(409, "conflict", "This session has an open episode; seed without its cookie, or close it.")
    body = await read_body(request.scope, request.receive, service.settings)
    row = parse_object(body)
    options = take_options(row)
    id = service.named_episode(given, options.get("episode_id"))
    if id is not None and not _ID.fullmatch(id):
        raise bad_request("An episode id has 1 to 128 of the characters A-Z, a-z, 0-9, _, -, . and :.", 422)
    return await _open(service, spec, row, opened_by, id, hashlib.blake2b(body, digest_size=16).digest())


def description(service: Service, request: Request, held: Held) -> dict[str, Any]:
    """What a seeding answers: how to reach the episode; and its prompt, where seeding told it."""
    task = held.episode.task
    url = f"{service.base_url(request)}/e/{held.token}"
    return {
        "episode_id": held.id,
        "environment": held.environment,
        "url": url,
        "mcp": {
            "server_name": held.environment,
            "url_path": "/mcp",
            "transport": "http",
            "url": f"{url}/mcp",
            "headers": {"X-NeMo-Gym-Session-Token": held.token},
        },
        "tools": held.episode.tool_schemas,
        **({"input": task.input_items} if task.is_opened else {}),
        "idle_seconds": held.episode.limits.idle_seconds,
    }


async def verify(service: Service, request: Request, environment: str | None) -> Response:
    """Judge an episode with the agent's answer, and close it unless `?close=false`."""
    given = service.require_control(request)
    spec = service.spec(environment)
    body = await read_object(service, request)
    options = take_options(body)
    items_of(body.get("response"))
    if not has_verifier(spec):
        raise Refusal(501, "no_verifier", f"{spec.name} is a tool server alone; there is nothing to judge.")
    id, is_by_cookie = _named(service, given, body, options)
    if id is None:
        return await _verify_without_episode(service, spec, given, body)
    held = service.table.by_id(id)
    if held is None:
        past = service.table.gone(id)
        if past is None or past.judgement is None or past.environment != spec.name:
            raise gone()
        response = answer(past.judgement, id, body)
        keep_cookie(request, response)
        return response
    _check_right(held, spec, body, is_by_cookie)
    if held.judging is None:
        take_response(held.episode.rollout, body.get("response"))
    judgement = await judge(service, held, outcome_of(body.get("response")))
    row = {**held.episode.task.row, **body}
    if options.get("close") is not False and request.query_params.get("close") != "false":
        await service.table.close(held, "judged", judgement)
    response = answer(judgement, id, row)
    keep_cookie(request, response)
    return response


async def close(service: Service, request: Request, environment: str | None) -> Response:
    """Close an episode without judging it; closing it again is fine."""
    given = service.require_control(request)
    spec = service.spec(environment)
    body = await read_object(service, request)
    id = service.named_episode(given, take_options(body).get("episode_id") or body.get("episode_id"))
    is_by_cookie = id is None
    id = id or service.cookie_episode(given)
    held = service.table.by_id(id) if id else None
    if held is None:
        past = service.table.gone(id) if id else None
        if past is None or past.environment != spec.name:
            raise gone()
    elif held.environment != spec.name or (is_by_cookie and held.opened_by != "reset"):
        # With the cookie alone, a model's call of `close` would get rid of an episode that goes badly.
        raise gone()
    else:
        await service.table.close(held, "closed")
    return json_response({"closed": True, "episode_id": id})


async def aggregate(service: Service, request: Request, environment: str | None) -> Response:
    """Metrics over verify responses, as NeMo Gym has them."""
    service.require_control(request)
    spec = service.spec(environment)
    body = await read_object(service, request)
    responses = body.get("verify_responses")
    if not isinstance(responses, list) or not all(isinstance(row, dict) for row in responses):
        raise bad_request("'verify_responses' is a list of verify responses.", 422)
    return json_response(await metrics_of(responses, spec))


async def list_tools(service: Service, request: Request, environment: str | None) -> Response:
    """The tools of an environment; with an episode's credential, those that its task offers."""
    spec = service.spec(environment)
    given = service.credentials(request)
    if service.table.knows_token(given.token) or service.table.knows_token(given.bearer):
        held = service.agent_episode(request.scope, spec.name, given)
        return json_response({"tools": held.episode.tool_schemas})
    service.require_control(request)
    about = {
        "name": spec.name,
        "description": spec.description,
        "reward_range": spec.reward_range,
        "max_steps": spec.manifest.agent.max_steps,
        "reproducible": spec.manifest.reproducible,
    }
    return json_response({"tools": [tool.schema for tool in spec.tools.values()], **about})


async def reverify_mode(service: Service, request: Request, environment: str | None) -> Response:
    """Whether stored rollouts can be judged again without an episode."""
    service.require_control(request)
    return json_response(_reverify_mode(service.spec(environment)))


async def list_episodes(service: Service, request: Request, environment: str | None) -> Response:
    """The open episodes, for a person who watches the server."""
    service.require_control(request)
    name = None if environment is None else service.spec(environment).name
    rows = [
        {
            "episode_id": held.id,
            "environment": held.environment,
            "task_id": held.episode.task.id,
            "calls": len(held.episode.rollout.calls),
            "started_at": held.episode.rollout.timing.started_at,
            "has_failed": held.episode.failure is not None,
        }
        for held in service.table
        if name in (None, held.environment)
    ]
    return json_response({"episodes": rows, "limit": service.settings.max_episodes})


def _reverify_mode(spec: EnvironmentSpec) -> str:
    """Without tools nothing but the answer counts, and the row says the rest."""
    return "unsupported" if spec.tools or not has_verifier(spec) else "stateless"


async def _open(
    service: Service, spec: EnvironmentSpec, row: dict[str, Any], opened_by: Opener, id: str | None, digest: bytes
) -> Held:
    if not has_verifier(spec):
        row.setdefault("responses_create_params", {"input": ""})
    task: Task = spec.cls.task_type.from_row(row, "The row")
    checked_items(task.input_items, "responses_create_params.input")
    held = await service.table.open(
        spec,
        task,
        opened_by=opened_by,
        id=id,
        request_digest=digest,
        task_index=_index(row.get("_ng_task_index")),
        repeat=_index(row.get("_ng_rollout_index")),
    )
    service.telemetry.opened.labels(spec.name).inc()
    return held


async def _verify_without_episode(
    service: Service, spec: EnvironmentSpec, given: Credentials, body: dict[str, Any]
) -> Response:
    """Judge a stored rollout again, where the row and the answer say everything."""
    if given.cookie is not None or _reverify_mode(spec) != "stateless":
        raise gone()
    response = body.get("response")
    row = {key: value for key, value in body.items() if key not in _OF_A_ROLLOUT[1:]}
    held = await _open(service, spec, row, "seed_session", None, b"")
    take_response(held.episode.rollout, response)
    judgement = await judge(service, held, outcome_of(response))
    await service.table.close(held, "judged", judgement)
    return answer(judgement, held.id, body)


def _named(
    service: Service, given: Credentials, body: dict[str, Any], options: dict[str, Any]
) -> tuple[str | None, bool]:
    """The episode that a verify is about, and whether the cookie alone says so."""
    id = service.named_episode(given, options.get("episode_id"))
    if id is None:
        id = service.cookie_episode(given)
        if id is not None:
            return id, True
        if "responses_create_params" not in body:  # otherwise it may be a field of the row
            id = service.named_episode(given, body.pop("episode_id", None))
    return id, False


def _check_right(held: Held, spec: EnvironmentSpec, body: dict[str, Any], is_by_cookie: bool) -> None:
    """Refuse what is no verify of this episode.

    NeMo Gym's agents post any name that a model calls, with the cookie: a call of `verify` has the model's arguments
    for a body, and without the row's hidden fields it is not listened to.
    """
    if held.environment != spec.name or held.opened_by != "seed_session":
        raise gone()
    if not is_by_cookie:
        return
    row = held.episode.task.row
    hidden = [name for name in row if name not in _OF_A_ROLLOUT and not name.startswith("_")]
    names = hidden or ["responses_create_params"]
    if not all(name in body and body[name] == row[name] for name in names):
        raise gone()


def _with_cookie(service: Service, held: Held, response: Response) -> Response:
    response.set_cookie(COOKIE, service.signer.sign(held.id), httponly=True, samesite="lax")
    return response


def _index(value: Any) -> int:
    return value if isinstance(value, int) and value >= 0 else 0
