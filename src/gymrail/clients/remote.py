"""An environment behind a URL: one that `gymrail serve` serves, or a resources server of NeMo Gym.

    spec = remote_spec("http://localhost:8000/counter", key="...", tasks="tasks.jsonl")
    spec = remote_spec(["http://one:8000", "http://two:8000"], tasks="tasks.jsonl")     # each episode stays on one
    rollout = await play(spec, task, model)

Covers: seed, tools, verify of both protocols (user turns and step rewards: `stepped.py`); sticky episodes, retries of
what is safe to repeat. What the server breaks is `failed`, never a reward.
A first observation, and tools, that the server tells when it seeds go into a task that has no prompt of its own.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import orjson
from pydantic import SecretStr

from gymrail import environment as authoring
from gymrail.clients.fleet import Fleet, Server, Session, error_in, excerpt
from gymrail.clients.foreign_tool import ForeignTool, foreign_tool
from gymrail.environment import Environment
from gymrail.errors import GymrailError, InfrastructureError, InputError, ToolError, VerifierError, did_you_mean
from gymrail.models.http import Reply as HttpReply
from gymrail.rollout import Rollout, Verdict
from gymrail.spec import EnvironmentSpec, make_config
from gymrail.task import Item, Task
from gymrail.tools import File, Image, ToolSpec, dump_json

_DONE_HEADER = "x-gymrail-done"
_ERROR_HEADER = "x-gymrail-tool-error"
_GONE = frozenset({401, 403, 404, 410})
"""The episode, or the server as it was, is no longer there; a new attempt seeds a new one."""
Protocol = Literal["gymrail", "nemo_gym"]
_NOT_METRICS = frozenset({"reward", "reward_components", "response", "gymrail", "mask_sample"})


class RemoteRefusal(GymrailError):
    """A server does not take a request, and will not take it again: the row does not fit its environment."""


class RemoteConfig(authoring.Config):
    """Where the environment is."""

    urls: tuple[str, ...]
    protocol: Protocol = "gymrail"
    key: SecretStr | None = None
    """The server's key; it never stands in a record."""
    timeout_seconds: float = 300.0
    """The longest single answer."""
    retries: int = 3
    """More attempts at a request that is safe to repeat."""


class RemoteEnvironment(Environment[Task]):
    """An episode on a server."""

    Config = RemoteConfig
    opening: ClassVar[str] = "seed_session"
    """The route that seeds."""
    shared: Fleet
    server: Server | None = None
    is_judged: bool = False
    """The server has judged the episode, and closed it."""
    session: Session
    """What control requests send along."""
    credential: Mapping[str, str]
    """What tool calls send along, to one of our servers."""
    row: bytes

    @classmethod
    def setup(cls, config: RemoteConfig) -> Fleet:
        key = config.key.get_secret_value() if config.key else None
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        return Fleet(config.urls, headers, timeout_seconds=config.timeout_seconds, retries=config.retries)

    @classmethod
    async def teardown(cls, shared: Fleet) -> None:
        await shared.close()

    async def seed(self) -> None:
        fleet = self.shared
        self.row = orjson.dumps(self.task.row)
        # Made here, so that a seeding whose answer was lost can be repeated and seeds no second episode.
        own_id = {"X-Gymrail-Episode-Id": uuid.uuid4().hex} if self.config.protocol == "gymrail" else {}
        attempt = 0
        while True:
            self.session = Session(dict(own_id))
            server = self.server = fleet.choose()
            server.episodes += 1
            try:
                reply = await fleet.post_once(server, self.opening, self.row, self.session)
                break
            except InfrastructureError as error:
                self._leave()
                if attempt >= fleet.retries:
                    raise
                # Another server is tried at once, the same one after a pause.
                if fleet.choose() is server:
                    await fleet.pause(server, self.opening, attempt, error)
                attempt += 1
        self.check_status(self.opening, reply)
        answer = object_in(reply)
        self._open_with(answer)
        if self.config.protocol == "gymrail":
            # The episode's own credential opens its tools; everything else is for the key and the id.
            self.credential = (answer.get("mcp") or {}).get("headers") or {}

    def _open_with(self, answer: Mapping[str, Any]) -> None:
        """Take over what the server tells only now: the first observation, the episode's tools."""
        about = answer.get("info") if self.opening == "reset" else answer
        about = about if isinstance(about, dict) else {}
        told = about.get("input") or answer.get("observation")
        if told:
            self.task = self.task.opened(told, tools=about.get("tools"))

    async def call_tool(self, tool: str, arguments: dict[str, Any]) -> Any:
        """Run a tool on the server; its answer's body is the output."""
        body = orjson.dumps(arguments)
        if self.config.protocol == "nemo_gym":
            # Without call ids a repeated call could do its deed twice.
            reply = await self.post(tool, body, self.session, repeat=False)
            if reply.status >= 400:
                raise ToolError(reply.body.decode("utf-8", "replace"))
            return reply.body.decode("utf-8", "replace")
        session = Session({**self.credential, "X-Call-Id": uuid.uuid4().hex})
        reply = await self.post(tool, body, session, repeat=True)
        if _DONE_HEADER in reply.headers:
            self.done = True
        if _ERROR_HEADER in reply.headers:
            raise ToolError(reply.body.decode("utf-8", "replace"))
        self.check_status(tool, reply)
        return _read_output(reply)

    async def verify(self, rollout: Rollout) -> Verdict:
        response = rollout.response | {"output": [wire_item(item, index) for index, item in enumerate(rollout.items)]}
        body = self.row[:-1] + b',"response":' + dump_json(response).encode() + b"}"
        reply = await self.post("verify", body, self.session, repeat=True)
        self.check_status("verify", reply)
        self.is_judged = True
        return read_verdict(object_in(reply), self.task.row)

    async def close(self) -> None:
        try:
            # A verdict closes the episode there too; NeMo Gym's servers have nothing to close.
            if self.server is not None and self.config.protocol == "gymrail" and not self.is_judged:
                await self.shared.post_once(self.server, "close", b"{}", self.session)
        finally:
            self._leave()

    def _leave(self) -> None:
        if self.server is not None:
            self.server.episodes -= 1
            self.server = None

    async def post(self, path: str, body: bytes, session: Session, *, repeat: bool) -> HttpReply:
        if self.server is None:
            raise InfrastructureError("This remote episode was never seeded.")
        return await self.shared.post(self.server, path, body, session, repeat=repeat)

    def check_status(self, path: str, reply: HttpReply) -> None:
        if reply.status < 400:
            return
        said = error_in(reply).get("message") or excerpt(reply)
        url = self.server.url if self.server else ""
        if reply.status in _GONE:
            raise InfrastructureError(f"{url}/{path} answered {reply.status}: {said}")
        raise RemoteRefusal(f"{url}/{path} refused the request ({reply.status}): {said}")


def read_verdict(answer: Mapping[str, Any], row: Mapping[str, Any]) -> Verdict:
    """Return what a server's `/verify` says; the fields that it adds to the row are metrics.

    Raises:
        VerifierError: it says no reward, or that this sample is not to be trained on.
    """
    reward = answer.get("reward")
    if not isinstance(reward, int | float):
        raise VerifierError(f"The server's verify answered with the reward {reward!r}; it must be a number.")
    if answer.get("mask_sample"):
        raise VerifierError("The server's verify asks to leave this sample out (mask_sample).")
    components = answer.get("reward_components") or {}
    metrics = {
        name: value
        for name, value in answer.items()
        if name not in row and name not in _NOT_METRICS and isinstance(value, int | float | str | None)
    }
    own = answer.get("gymrail") or {}
    return Verdict(float(reward), dict(components), metrics | (own.get("metrics") or {}), own.get("verdict"))


def wire_item(item: Item, index: int) -> Item:
    """Return an item as NeMo Gym's servers take it: a message has an id and a type, an output is text."""
    kind = item.get("type") or "message"
    if kind == "message" and item.get("role") == "assistant":
        content = item.get("content", "")
        parts = [{"type": "output_text", "text": content, "annotations": []}] if isinstance(content, str) else content
        return {"id": f"msg_{index}", "status": "completed", **item, "type": kind, "content": parts}
    if kind == "function_call_output" and not isinstance(item.get("output"), str):
        return item | {"output": dump_json(item.get("output"))}
    if kind == "reasoning":
        return {"id": f"rs_{index}", "summary": [], **item}
    return item if "type" in item else item | {"type": kind}


def _read_output(reply: HttpReply) -> Any:
    """One of our servers' tool outputs: text, or content parts with pictures and files."""
    if reply.headers.get("content-type", "").startswith("text/plain"):
        return reply.body.decode("utf-8", "replace")
    parts: list[str | Image | File] = []
    for part in orjson.loads(reply.body):
        url = part.get("image_url") or part.get("file_data")
        if url:
            kind, _, data = str(url).removeprefix("data:").partition(";base64,")
            content = base64.b64decode(data)
            parts.append(File(content, part["filename"], kind) if "file_data" in part else Image(content, kind))
        else:
            parts.append(part["text"])
    return parts


def object_in(reply: HttpReply) -> dict[str, Any]:
    """An answer's JSON object; empty where it is other JSON.

    Raises:
        InfrastructureError: it is no JSON.
    """
    try:
        value = orjson.loads(reply.body or b"{}")
    except orjson.JSONDecodeError:
        raise InfrastructureError(f"The environment's server answered what is no JSON: {excerpt(reply)}") from None
    return value if isinstance(value, dict) else {}


@dataclass(slots=True)
class RemoteSpec(EnvironmentSpec):
    """The spec of a remote environment: its tools are known to its server, or to the task's row, and to no class."""

    remote_tools: dict[str, ForeignTool] | None = None
    """None where only the rows know, as with NeMo Gym."""

    @property
    def tools(self) -> dict[str, ToolSpec]:
        return dict(self.remote_tools or {})

    @property
    def settings(self) -> dict[str, Any]:
        # Whoever finds the address again has the key from the same place.
        return self.config.model_dump(mode="json", exclude={"key"})

    def offered(self, task: Task) -> dict[str, ToolSpec]:
        rows = task.offered_tools
        if rows is None:
            return self.tools
        named = [row.get("function") or row for row in rows]
        if not self.remote_tools:  # a server that lists none has those of its episodes
            return {
                row["name"]: foreign_tool(row["name"], row.get("description") or "", row.get("parameters"))
                for row in named
                if row.get("name")
            }
        return {row["name"]: self._tool(task, row.get("name", "")) for row in named}

    def tool_schemas(self, task: Task) -> list[dict[str, Any]]:
        if task.offered_tools is None:
            return [spec.schema for spec in self.tools.values()]
        return EnvironmentSpec.tool_schemas(self, task)

    def with_config(self, overrides: Mapping[str, Any]) -> RemoteSpec:
        config = make_config(self.cls, {**self.config.model_dump(exclude_unset=True), **overrides}, self.name)
        return RemoteSpec(
            self.name, self.cls, self.manifest, config, self.path, self.source, remote_tools=self.remote_tools
        )

    def _tool(self, task: Task, name: str) -> ForeignTool:
        assert self.remote_tools is not None
        if name not in self.remote_tools:
            raise InputError(
                f"Task {task.id} offers the tool {name!r}, which {self.name} does not have. "
                f"{did_you_mean(name, self.remote_tools)}"
            )
        return self.remote_tools[name]
