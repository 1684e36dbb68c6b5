"""Environments of OpenEnv (`openenv-core`) behind their server's address, as Gymrail environments.

    gymrail rollout openenv:http://localhost:8000 --model ...
    gymrail rollout "openenv:http://localhost:8000?act_by=answer&field=message" --model ...

One row: {"seed": 7, "responses_create_params": {"input": []}}. What `reset(seed=7)` shows is the prompt. How the agent
acts: by one tool `step`, whose arguments are the environment's action; where the environment has MCP tools, by those;
with `act_by=answer`, by texts, which become the action's `field`, and each observation is the next user turn. The
reward is the sum of the steps' rewards; with `reward=last`, what the last step paid.

An episode is one WebSocket session of the package's own client. What the environment raises is its failure; a lost or
full server is infrastructure; an action that it does not take goes back to the model.
"""

from __future__ import annotations

import asyncio
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Literal
from urllib.parse import urlsplit

import orjson

from gymrail import environment as authoring
from gymrail.bridges.foreign import check_arguments, tool_row
from gymrail.bridges.naming import UNBOUNDED, file_name, required, split_options, take_settings
from gymrail.bridges.spaces import as_text
from gymrail.environment import Environment, Reply
from gymrail.errors import EpisodeFailed, Failure, InfrastructureError, InputError, Stage, ToolError, did_you_mean
from gymrail.rollout import Rollout, Verdict
from gymrail.spec import EnvironmentSpec, Manifest, make_config
from gymrail.task import Task

_SECONDS = 10.0
_MAX_STEPS = 32
_CODE = re.compile(r"\(code: (\w+)\)$")
_REFUSED = frozenset({"VALIDATION_ERROR", "INVALID_JSON"})
_SERVERS = frozenset({"CAPACITY_REACHED", "SESSION_ERROR", "FACTORY_ERROR"})
_OURS = ("act_by", "field", "instructions", "reward", "timeout_seconds")


class OpenEnvTask(Task):
    """A seeded episode."""

    seed: int = 0


class OpenEnvConfig(authoring.Config):
    """Where the environment is, and how it is played."""

    url: str = ""
    act_by: Literal["step", "mcp", "answer"] = "step"
    field: str = ""
    """The field of the action that an answer becomes."""
    instructions: str = ""
    """What the prompt says before the first observation; by default what the server says of itself."""
    reward: Literal["sum", "last"] = "sum"
    action: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it
    """JSON Schema of an action."""
    timeout_seconds: float = 120.0
    """The longest single answer."""


class OpenEnvEnvironment(Environment[OpenEnvTask]):
    """A session on an OpenEnv server."""

    Config = OpenEnvConfig
    reward_range = UNBOUNDED
    config: OpenEnvConfig
    client: Any = None

    @classmethod
    def generate(cls, rng: Random) -> Task:
        return cls.task_type.from_row({"responses_create_params": {"input": []}, "seed": rng.getrandbits(31)})

    async def seed(self) -> None:
        config = self.config
        self.rewards: list[float] = []
        self.schemas: dict[str, dict[str, Any]] = {}
        # Two steps at once have no order, and their answers would be mixed up.
        self.stepping = asyncio.Lock()
        core = required("openenv.core", extra="openenv", package="openenv-core")
        self.client = core.GenericEnvClient(config.url, message_timeout_s=config.timeout_seconds)
        first = await self._ask("seed", lambda: self.client.reset(seed=self.task.seed))
        rows = await self._tools()
        self.schemas = {row["name"]: row["parameters"] for row in rows}
        shown = as_text(_shown(first.observation))
        self.task = self.task.opened("\n\n".join(part for part in (config.instructions, shown) if part), tools=rows)

    async def call_tool(self, tool: str, arguments: dict[str, Any]) -> str:
        check_arguments(tool, self.schemas.get(tool, {}), arguments)
        if self.config.act_by == "step":
            return as_text(_shown(await self._step("tool", arguments)))
        return _mcp_output(await self._step("tool", {"type": "call_tool", "tool_name": tool, "arguments": arguments}))

    async def reply(self, rollout: Rollout) -> Reply | None:
        if self.config.act_by != "answer":
            return None
        try:
            observation = await self._step("reply", {self.config.field: rollout.final_text})
        except ToolError as error:
            return Reply(str(error), 0.0)
        if self.done:
            rollout.step_rewards.append(self.rewards[-1])
            return None
        return Reply(as_text(_shown(observation)), self.rewards[-1])

    def verify(self, rollout: Rollout) -> Verdict:
        paid = self.rewards[-1:] if self.config.reward == "last" else self.rewards
        return Verdict(float(sum(paid)), metrics={"env_steps": len(self.rewards), "finished": self.done})

    async def close(self) -> None:
        if self.client is not None:
            await self.client.close()

    async def _tools(self) -> list[dict[str, Any]]:
        if self.config.act_by == "answer":
            return []
        if self.config.act_by == "step":
            return [tool_row("step", "Do one step in the environment and see what comes of it.", self.config.action)]
        listed = await self._ask("seed", lambda: self.client.step({"type": "list_tools"}))
        tools = listed.observation.get("tools") or []
        return [
            tool_row(tool["name"], tool.get("description") or "", tool.get("input_schema") or tool.get("inputSchema"))
            for tool in tools
        ]

    async def _step(self, stage: Stage, action: dict[str, Any]) -> dict[str, Any]:
        async with self.stepping:
            if self.done:
                raise ToolError("The episode is over.")
            result = await self._ask(stage, lambda: self.client.step(action))
        self.rewards.append(float(result.reward or 0.0))
        self.done = bool(result.done)
        return result.observation

    async def _ask(self, stage: Stage, request: Callable[[], Any]) -> Any:
        closed = required("websockets", extra="openenv").exceptions.WebSocketException
        try:
            return await request()
        except (OSError, closed) as error:  # a timeout of the client's is an OSError too
            raise InfrastructureError(f"{self.config.url} is lost: {type(error).__name__}: {error}") from error
        except RuntimeError as error:
            code = found[1] if (found := _CODE.search(str(error))) else ""
            if code in _SERVERS:
                raise InfrastructureError(f"{self.config.url}: {error}") from error
            if code in _REFUSED and stage != "seed":
                raise ToolError(f"That action does not fit: {orjson.dumps(self.config.action).decode()}") from None
            raise EpisodeFailed(Failure("environment", stage, str(error))) from error


def find(name: str) -> EnvironmentSpec:
    """Load `URL[?KEY=VALUE&...]`: `act_by`, `field`, `instructions`, `reward`, `max_steps`, `reward_range`,
    `timeout_seconds`.

    Raises:
        InputError: the package is not there, nothing answers, or a setting is wrong.
    """
    required("openenv.core", extra="openenv", package="openenv-core")
    url, options = split_options(name)
    if not url.startswith(("http://", "https://")):
        raise InputError(f"{url!r} is no address; write openenv:http://HOST:PORT, where the environment is served.")
    for key in options:
        allowed = (*_OURS, "max_steps", "reward_range")
        if key not in allowed:
            raise InputError(f"openenv: has no option {key!r}. {did_you_mean(key, allowed)}")
    settings = take_settings(options)
    settings.setdefault("agent", {"max_steps": _MAX_STEPS})
    schema, about = _ask_server(url.rstrip("/"))
    action = _action_of(schema)
    is_mcp = schema["action"].get("title") in ("CallToolAction", "ListToolsAction", "Action")
    options = {"act_by": "mcp" if is_mcp else "step", "instructions": about.get("description") or "", **options}
    if options["act_by"] == "answer":
        _check_field(options, action)
    config = make_config(OpenEnvEnvironment, {"url": url.rstrip("/"), "action": action, **options}, f"openenv:{url}")
    structure = "multi-turn" if config.act_by == "answer" else "multi-step"
    manifest = Manifest.model_validate(
        {
            "description": str(about.get("description") or f"The OpenEnv environment at {url}"),
            "properties": {"rollout_structure": structure, "task_type": "synthetic"},
            "extra": "openenv",
            **settings,
        }
    )
    return EnvironmentSpec(file_name(str(about.get("name") or url)), OpenEnvEnvironment, manifest, config)


def _ask_server(url: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the server says of its actions, and of itself."""
    schema, about = _get(f"{url}/schema"), _get(f"{url}/metadata")
    if not isinstance(schema, dict) or not isinstance(schema.get("action"), dict):
        raise InputError(f"{url} is no OpenEnv environment: it answers no GET /schema.")
    return schema, about if isinstance(about, dict) else {}


def _get(url: str) -> Any:
    """The JSON behind a URL; None where there is none. A wait at loading time, not in an episode."""
    is_local = urlsplit(url).hostname in ("localhost", "127.0.0.1", "::1")
    opener = urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if is_local else []))
    try:
        with opener.open(url, timeout=_SECONDS) as answer:
            return orjson.loads(answer.read())
    except (urllib.error.HTTPError, orjson.JSONDecodeError):
        return None
    except OSError as error:
        raise InputError(f"No OpenEnv environment answers at {url}: {error}") from None


def _action_of(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The action's schema as the model sees it: without what the protocol adds."""
    action = schema["action"]
    properties = {key: value for key, value in (action.get("properties") or {}).items() if key != "metadata"}
    kept = {"type": "object", "properties": properties, "required": action.get("required") or []}
    return {**kept, "$defs": action["$defs"]} if "$defs" in action else kept


def _check_field(options: dict[str, Any], action: Mapping[str, Any]) -> None:
    texts = [key for key, value in action["properties"].items() if value.get("type") == "string"]
    if not options.get("field") and len(texts) == 1:
        options["field"] = texts[0]
    if options.get("field") not in action["properties"]:
        raise InputError(
            f"act_by=answer needs the action's field that a text becomes: field is {options.get('field')!r}. "
            f"{did_you_mean(str(options.get('field')), action['properties'])}"
        )


def _shown(observation: Any) -> Any:
    """An observation without the fields that say nothing."""
    if not isinstance(observation, Mapping):
        return observation or ""
    said = {key: value for key, value in observation.items() if value not in (None, "", [], {})}
    if not said:
        return ""
    return next(iter(said.values())) if len(said) == 1 else said


def _mcp_output(observation: Mapping[str, Any]) -> str:
    error = observation.get("error")
    if error:
        raise ToolError(str(error.get("message", error)) if isinstance(error, Mapping) else str(error))
    result = observation.get("result")
    content = result.get("content") if isinstance(result, Mapping) else None
    if isinstance(content, list):
        return "\n".join(str(part.get("text", part)) for part in content if isinstance(part, Mapping))
    return as_text(result)
