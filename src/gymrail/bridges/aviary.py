"""Any environment of Aviary (`fhaviary`) as a Gymrail environment.

    gymrail rollout aviary:gsm8k?split=train --model ...       a data set that Aviary knows by name
    gymrail rollout aviary:my_module:MyDataset                  a TaskDataset, or an Environment, of one's own

One row: {"task_idx": 3, "responses_create_params": {"input": []}}. `reset` gives the prompt and the tools. Each tool
call is one `step`, in the order in which the model wrote them. A text without a call is a step too, and what the
environment answers is the next user turn. The reward is the sum of the steps' rewards.

Covers: environments that block (each runs in a thread with an event loop of its own), pictures in observations.
Does not cover: several calls in one step; environments that share a client bound to one event loop between episodes.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import functools
import importlib
import inspect
import json
import uuid
from collections.abc import Sequence
from random import Random
from typing import Any

from pydantic import Field

from gymrail import environment as authoring
from gymrail.bridges.blocking import OwnThread
from gymrail.bridges.foreign import NumberedSpec, ask, check_arguments, numbered_datasets, split_numbers, tool_row
from gymrail.bridges.naming import UNBOUNDED, file_name, required, split_options, take_settings
from gymrail.environment import Environment, Reply
from gymrail.errors import EpisodeFailed, Failure, InputError, Stage, ToolError, did_you_mean, guard
from gymrail.rollout import Rollout, Verdict
from gymrail.spec import EnvironmentSpec, Manifest
from gymrail.task import Item, Task
from gymrail.tools import Image

_OPENED_STEPS = 32


class AviaryTask(Task):
    """One task of the data set."""

    task_idx: int = 0


class AviaryConfig(authoring.Config):
    """Which data set."""

    dataset: str = ""
    """A name of Aviary's registry, or `module:Class` of a TaskDataset or an Environment."""
    arguments: dict[str, Any] = Field(default_factory=dict)
    """What it is made with."""
    in_thread: bool = True
    """Whether each episode runs in a thread of its own; false for environments that are known never to block."""


class AviaryEnvironment(Environment[AviaryTask]):
    """An episode of an Aviary environment."""

    Config = AviaryConfig
    reward_range = UNBOUNDED
    config: AviaryConfig
    thread: OwnThread | None = None
    foreign: Any = None
    """The Aviary environment."""

    @classmethod
    def generate(cls, rng: Random, config: AviaryConfig = AviaryConfig()) -> Task:  # noqa: B008 - it is frozen
        size = size_of(load_dataset(config))
        number = rng.getrandbits(31) if size is None else rng.randrange(size)
        return cls.task_type.from_row({"responses_create_params": {"input": []}, "task_idx": number})

    @classmethod
    async def setup(cls, config: AviaryConfig) -> Any:
        thread = OwnThread(config.dataset)
        try:
            return await thread.run(load_dataset, config)
        finally:
            thread.close()

    async def seed(self) -> None:
        self.total, self.truncated = 0.0, False
        self.thread = OwnThread(self.config.dataset) if self.config.in_thread else None
        # Two steps at once have no order.
        self.stepping = asyncio.Lock()
        messages, tools = await self._ask("seed", self._reset)
        self.schemas = {tool.info.name: _parameters(tool) for tool in tools}
        rows = [tool_row(tool.info.name, tool.info.description, self.schemas[tool.info.name]) for tool in tools]
        self.task = self.task.opened([_item(message) for message in messages], tools=rows)

    async def call_tool(self, tool: str, arguments: dict[str, Any]) -> Any:
        """Do one step with one call; what the environment says besides the tool's answer comes after it."""
        if self.done:
            raise ToolError("The episode is over.")
        check_arguments(tool, self.schemas.get(tool, {}), arguments)
        package = required("aviary.core", extra="aviary", package="fhaviary")
        call = package.ToolCall(
            id=f"call_{uuid.uuid4().hex[:12]}",
            function=package.ToolCallFunction(name=tool, arguments=arguments),
        )
        action = package.ToolRequestMessage(content=None, tool_calls=[call])
        messages, _ = await self._step("tool", action)
        return _output(messages)

    async def reply(self, rollout: Rollout) -> Reply | None:
        package = required("aviary.core", extra="aviary", package="fhaviary")
        kind = package.ToolRequestMessage if _wants_calls(self.foreign) else package.Message
        messages, reward = await self._step("reply", kind(role="assistant", content=rollout.final_text))
        if self.done:
            rollout.step_rewards.append(reward)
            return None
        content = _output(messages)
        return Reply(content if isinstance(content, str) else [_part(part) for part in content], reward)

    def verify(self, rollout: Rollout) -> Verdict:
        return Verdict(self.total, metrics={"finished": self.done, "env_truncated": self.truncated})

    async def close(self) -> None:
        if self.thread is not None:
            self.thread.close(getattr(self.foreign, "close", None))
        elif self.foreign is not None:
            await self.foreign.close()

    async def _reset(self) -> tuple[Sequence[Any], Sequence[Any]]:
        self.foreign = new_environment(self.shared, self.task.task_idx)
        return await self.foreign.reset()

    async def _step(self, stage: Stage, action: Any) -> tuple[Sequence[Any], float]:
        async with self.stepping:
            if self.done:
                raise ToolError("The episode is over.")
            messages, reward, done, truncated = await self._ask(stage, self.foreign.step, action)
            self.done = bool(done or truncated)
        if not isinstance(reward, int | float):
            message = f"{self.config.dataset}: step gave the reward {reward!r}; it must be a number"
            raise EpisodeFailed(Failure("environment", stage, message))
        self.total += float(reward)
        self.truncated = bool(truncated)
        return messages, float(reward)

    async def _ask(self, stage: Stage, function: Any, *arguments: Any) -> Any:
        if self.thread is None:
            return await guard(stage, function, *arguments, kind="environment")
        return await ask(stage, self.thread, function, *arguments)


def find(name: str) -> EnvironmentSpec:
    """Load `DATASET[?KEY=VALUE&...]`: `max_steps` and `reward_range` are ours, every other key is an argument of the
    data set.

    Raises:
        InputError: the package or the data set is not there.
    """
    dataset, options = split_options(name)
    settings = take_settings(options)
    settings.setdefault("agent", {"max_steps": _OPENED_STEPS})
    config = AviaryConfig(dataset=dataset, arguments=options)
    size = size_of(load_dataset(config))
    fields = {
        "description": f"Aviary's {dataset}",
        "properties": {"rollout_structure": "multi-step", "verification": "code"},
        "extra": "aviary",
        **settings,
    }
    called = file_name(dataset.rpartition(":")[2])
    if size is None:
        endless = Manifest.model_validate({**fields, "reproducible": False})
        return EnvironmentSpec(called, AviaryEnvironment, endless, config)
    numbers = split_numbers(size)
    manifest = Manifest.model_validate({**fields, "datasets": numbered_datasets(numbers)})
    return NumberedSpec(called, AviaryEnvironment, manifest, config, numbers=numbers)


def load_dataset(config: AviaryConfig) -> Any:
    """Return the data set, or the Environment class, that a configuration names; made once per process.

    Raises:
        InputError: the package or the data set is not there, or does not take these arguments.
    """
    return _load(config.dataset, json.dumps(config.arguments, sort_keys=True))


def size_of(dataset: Any) -> int | None:
    """Return how many tasks a data set has; None where it makes them without end."""
    if isinstance(dataset, functools.partial):
        return 1
    has_length = type(dataset).__len__ is not required("aviary.core", extra="aviary").TaskDataset.__len__
    return len(dataset) if has_length else None


def new_environment(dataset: Any, number: int) -> Any:
    """Make the environment of a task.

    Raises:
        InputError: the data set has no such task.
    """
    if isinstance(dataset, functools.partial):
        return dataset()
    size = size_of(dataset)
    if size is None:
        return dataset.get_new_env()
    if not 0 <= number < size:
        raise InputError(f"task_idx is {number!r}; {type(dataset).__name__} has the tasks 0 to {size - 1}.")
    return dataset.get_new_env_by_idx(number)


@functools.cache
def _load(name: str, arguments: str) -> Any:
    core = required("aviary.core", extra="aviary", package="fhaviary")
    found = _class_of(name, core)
    values = json.loads(arguments)
    if issubclass(found, core.Environment):
        return functools.partial(found, **values)
    try:
        return found(**values)
    except (TypeError, ValueError) as error:
        raise InputError(f"{name} cannot be made with {arguments}: {error}") from None


def _class_of(name: str, core: Any) -> Any:
    module, colon, attribute = name.partition(":")
    if not colon:
        registry = {**required("aviary.env", extra="aviary").ENV_REGISTRY, **core.TASK_DATASET_REGISTRY}
        if name not in registry:
            raise InputError(
                f"Aviary knows no environment {name!r}. {did_you_mean(name, registry)} One of your own: "
                "aviary:MODULE:CLASS."
            )
        module, attribute = registry[name]
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ModuleNotFoundError as error:
        package = "" if colon else f" Install the package that has it, such as 'aviary.{name}'."
        raise InputError(f"The environment {name!r} needs a module that is not there: {error}.{package}") from None
    if not (inspect.isclass(found) and issubclass(found, core.TaskDataset | core.Environment)):
        raise InputError(f"{name!r} is no TaskDataset and no Environment of Aviary.")
    return found


def _parameters(tool: Any) -> dict[str, Any]:
    parameters = tool.info.parameters
    return {"type": "object", "properties": {}} if parameters is None else parameters.model_dump(exclude_none=True)


def _wants_calls(environment: Any) -> bool:
    """Whether `step` is declared to take tool requests alone, as it was before Aviary let texts through."""
    parameters = inspect.signature(environment.step).parameters.values()
    return any("ToolRequestMessage" in str(parameter.annotation) for parameter in parameters)


def _item(message: Any) -> Item:
    role = message.role if message.role in ("system", "assistant") else "user"
    content = _content(message)
    return {"role": role, "content": content if isinstance(content, str) else [_part(part) for part in content]}


def _output(messages: Sequence[Any]) -> str | list[str | Image]:
    contents = [_content(message) for message in messages]
    if all(isinstance(content, str) for content in contents):
        return "\n\n".join(content for content in contents if isinstance(content, str))
    return [part for content in contents for part in ([content] if isinstance(content, str) else content)]


def _content(message: Any) -> str | list[str | Image]:
    if not message.is_multimodal:
        return message.content or ""
    return [_read(part) for part in message.deserialized_content]


def _read(part: Any) -> str | Image:
    if part.get("type") != "image_url":
        return str(part.get("text", part))
    url = part["image_url"]["url"] if isinstance(part["image_url"], dict) else str(part["image_url"])
    kind, _, data = url.removeprefix("data:").partition(";base64,")
    try:
        return Image(base64.b64decode(data, validate=True), kind)
    except binascii.Error:
        return f"[picture: {url[:200]}]"


def _part(part: str | Image) -> dict[str, Any]:
    if isinstance(part, str):
        return {"type": "input_text", "text": part}
    url = f"data:{part.mime_type};base64,{base64.b64encode(part.data).decode('ascii')}"
    return {"type": "input_image", "detail": "auto", "image_url": url}
