"""Environments of the package `verifiers` (`load_environment`, releases before 0.4) as Gymrail environments.

    gymrail rollout verifiers:my_module?difficulty=hard --model ...

One row: {"task_idx": 3, "responses_create_params": {"input": []}}, a number of the environment's data set ("dataset":
"eval" for its evaluation set). Prompt, tools, user turns, stop conditions and state are the environment's own; its
rubric scores the finished rollout, and each reward function is a metric.

Covers: single-turn, multi-turn and tool environments; calls that the model makes together are one turn.
Does not cover: rubrics that score a group at once; environments that ask the policy's endpoint themselves; token ids.
A reward function that raises makes the rollout `failed`, where the package itself would count 0.
"""

from __future__ import annotations

import asyncio
import functools
import json
import signal
import threading
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import Field

from gymrail import environment as authoring
from gymrail.bridges.blocking import LoopThread
from gymrail.bridges.foreign import NumberedSpec, numbered_datasets, split_numbers, tool_row
from gymrail.bridges.naming import UNBOUNDED, file_name, required, split_options, take_settings
from gymrail.bridges.verifiers_rubric import check_rubric, score
from gymrail.environment import Environment, Reply
from gymrail.errors import InputError, Stage, ToolError, guard
from gymrail.rollout import Rollout, Verdict, text_of
from gymrail.spec import EnvironmentSpec, Manifest
from gymrail.task import Item, Task

_MAX_STEPS = 32


class VerifiersTask(Task):
    """One row of the environment's data set."""

    task_idx: int = 0
    dataset: Literal["train", "eval"] = "train"


class VerifiersConfig(authoring.Config):
    """Which environment."""

    id: str = ""
    """What `verifiers.load_environment` takes: a module that has `load_environment`."""
    arguments: dict[str, Any] = Field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Loaded:
    """What all episodes share."""

    package: Any
    environment: Any
    thread: LoopThread


class VerifiersEnvironment(Environment[VerifiersTask]):
    """An episode of a verifiers environment: it drives the environment as the package's own `rollout` does."""

    Config = VerifiersConfig
    reward_range = UNBOUNDED
    shared: Loaded
    config: VerifiersConfig

    @classmethod
    def setup(cls, config: VerifiersConfig) -> Loaded:
        package, environment = load_environment(config)
        return Loaded(package, environment, LoopThread(config.id))

    @classmethod
    def teardown(cls, shared: Loaded) -> None:
        shared.thread.close()

    async def seed(self) -> None:
        self.is_over = self.is_scored = False
        self.turns = 0
        self.heard: str | None = None
        self.pending: list[tuple[str, dict[str, Any], asyncio.Future[str]]] = []
        self._flushing: asyncio.Task[None] | None = None
        await self._ask("seed", self._begin)
        rows = [tool_row(tool.name, tool.description, tool.parameters) for tool in self._state["tool_defs"]]
        self.task = self.task.opened([_item(message) for message in self._prompt], tools=rows)

    async def call_tool(self, tool: str, arguments: dict[str, Any]) -> str:
        """Calls that come together are one turn of the model."""
        if self.is_over:
            raise ToolError("The episode is over.")
        waiter: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.pending.append((tool, arguments, waiter))
        if self._flushing is None or self._flushing.done():
            self._flushing = asyncio.ensure_future(self._flush())
        flushing = self._flushing
        try:
            await asyncio.shield(flushing)
        except asyncio.CancelledError:
            flushing.cancel()
            raise
        return waiter.result()

    async def reply(self, rollout: Rollout) -> Reply | None:
        messages = await self._say("reply", rollout.final_text)
        return None if self.is_over or messages is None else Reply(_text(messages))

    async def verify(self, rollout: Rollout) -> Verdict:
        text = rollout.final_text
        if not self.is_over and rollout.items and rollout.items[-1].get("role") == "assistant" and self.heard != text:
            await self._say("verify", text)  # an agent that asks for no user turn leaves its last words to us
        reward, metrics = await self._ask("verify", self._score, [text_of(item) for item in _turns(rollout.items)])
        stop = self._state.get("stop_condition")
        return Verdict(
            reward, metrics={**metrics, "stop_condition": stop}, reason=f"stopped by {stop}" if stop else None
        )

    async def close(self) -> None:
        if "_state" in vars(self) and not self.is_scored:
            await self.shared.thread.run(self.shared.environment.cleanup, self._state)

    async def _ask(self, stage: Stage, function: Any, *arguments: Any) -> Any:
        kind = "verifier" if stage == "verify" else "environment"
        return await guard(stage, self.shared.thread.run, function, *arguments, kind=kind)

    async def _begin(self) -> None:
        vf, environment = self.shared.package, self.shared.environment
        row = _row(environment, self.task)
        state = await environment.init_state(row, _no_client(vf), "gymrail", {})
        self._state = await environment.setup_state(state) or state
        if await environment.is_completed(self._state):
            raise RuntimeError(f"over before it began: {self._state.get('error') or self._state.get('stop_condition')}")
        self._prompt = _normal(vf, await environment.get_prompt_messages(self._state))

    async def _say(self, stage: Stage, text: str) -> Sequence[Any] | None:
        self.heard = text
        return await self._ask(stage, self._turn, text, ())

    async def _flush(self) -> None:
        await asyncio.sleep(0)  # the calls of one turn are begun one right after the other
        waiting, self.pending = self.pending, []
        calls = [(f"call_{uuid.uuid4().hex[:12]}", tool, arguments) for tool, arguments, _ in waiting]
        messages = await self._ask("tool", self._turn, "", calls) or []
        self.done = self.is_over
        by_id = {getattr(message, "tool_call_id", None): message for message in messages}
        more = [message for message in messages if getattr(message, "tool_call_id", None) is None]
        for number, ((id, *_), (*_, waiter)) in enumerate(zip(calls, waiting, strict=True)):
            said = [by_id[id]] if id in by_id else []
            said += more if number == len(calls) - 1 else []
            waiter.set_result(_text(said) or ("The episode is over." if self.is_over else ""))

    async def _turn(self, text: str, calls: Sequence[tuple[str, str, dict[str, Any]]]) -> Sequence[Any] | None:
        """Tell the environment what the model said, and return what it answers; None when it is over."""
        vf, environment, state = self.shared.package, self.shared.environment, self._state
        self.turns += 1
        asked = [vf.ToolCall(id=id, name=name, arguments=json.dumps(arguments)) for id, name, arguments in calls]
        await environment.add_model_response(state, self._prompt, _response(vf, self.turns, text, asked))
        if await environment.is_completed(state):
            self.is_over = True
            return None
        prompt = _normal(vf, await environment.get_prompt_messages(state))
        if state.get("final_env_response") is not None:
            await environment.is_completed(state)
            self.is_over = True
            return _normal(vf, state["final_env_response"])
        step = state["trajectory"][-1]
        new = prompt[len(step["prompt"]) + len(step["completion"]) :]
        self._prompt = prompt
        return new

    async def _score(self, texts: Sequence[str]) -> tuple[float, dict[str, float]]:
        """Score the state as the package does. Texts that the model wrote beside its calls come in only now."""
        environment, state = self.shared.environment, self._state
        self.is_scored = True
        await environment.cleanup(state)
        spoken = [message for message in state["completion"] or () if message.role == "assistant"]
        if len(spoken) == len(texts):
            for message, text in zip(spoken, texts, strict=True):
                message.content = text
        return await score(environment, state)


def find(name: str) -> EnvironmentSpec:
    """Load `ID[?KEY=VALUE&...]`: `max_steps` and `reward_range` are ours, every other key is an argument of the
    module's `load_environment`.

    Raises:
        InputError: the package or the module is not there, or the environment cannot be bridged.
    """
    id, options = split_options(name)
    settings = take_settings(options)
    config = VerifiersConfig(id=id, arguments=options)
    _, environment = load_environment(config)
    settings.setdefault("agent", {"max_steps": _steps(environment)})
    numbers = split_numbers(len(environment.get_dataset()))
    if getattr(environment, "eval_dataset_source", None) is not None:
        everything = numbers["benchmark"]
        numbers = {"train": everything, "validation": range(len(environment.get_eval_dataset()))}
    fields = {"validation": {"dataset": "eval"}} if "benchmark" not in numbers else {}
    manifest = Manifest.model_validate(
        {
            "description": f"The verifiers environment {id}",
            "properties": {"rollout_structure": "multi-step" if environment.tool_defs else "multi-turn"},
            "extra": "verifiers",
            "datasets": numbered_datasets(numbers),
            **settings,
        }
    )
    return NumberedSpec(file_name(id), VerifiersEnvironment, manifest, config, numbers=numbers, fields=fields)


def load_environment(config: VerifiersConfig) -> tuple[Any, Any]:
    """Return the package and the environment; made once per process.

    Raises:
        InputError: the package or the module is not there, or the environment cannot be bridged.
    """
    return _load(config.id, json.dumps(config.arguments, sort_keys=True))


@functools.cache
def _load(id: str, arguments: str) -> tuple[Any, Any]:
    vf = required("verifiers", extra="verifiers")
    if not hasattr(vf, "load_environment"):
        raise InputError(
            f"verifiers {vf.__version__} has no load_environment any more; Gymrail plays the environments of the "
            "releases before it: pip install 'verifiers<0.4'"
        )
    # It installs handlers of its own, which would take Ctrl-C away from the command.
    is_main = threading.current_thread() is threading.main_thread()
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)} if is_main else {}
    try:
        environment = vf.load_environment(id, **json.loads(arguments))
    except (ValueError, RuntimeError, TypeError, AttributeError) as error:
        raise InputError(f"verifiers cannot load {id!r}: {error}") from error
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
    if not isinstance(environment, vf.MultiTurnEnv):
        raise InputError(
            f"{id!r} is a {type(environment).__name__}; only single-turn, multi-turn and tool environments play."
        )
    check_rubric(environment, id)
    return vf, environment


def _steps(environment: Any) -> int:
    return environment.max_turns if environment.max_turns > 0 else _MAX_STEPS


def _row(environment: Any, task: VerifiersTask) -> dict[str, Any]:
    rows = environment.get_eval_dataset() if task.dataset == "eval" else environment.get_dataset()
    if not 0 <= task.task_idx < len(rows):
        raise InputError(f"task_idx is {task.task_idx!r}; the data set has the rows 0 to {len(rows) - 1}.")
    return {"answer": "", "info": {}, "example_id": task.task_idx, **rows[task.task_idx]}


def _no_client(vf: Any) -> Any:
    """A client of the package's kind that has no model: Gymrail's agent asks the model."""

    async def refuse(self: Any, *arguments: Any, **options: Any) -> Any:
        raise RuntimeError("the environment asked the policy's endpoint itself, which the bridge does not give it")

    methods = dict.fromkeys(vf.Client.__abstractmethods__, refuse)
    return object.__new__(type("NoClient", (vf.Client,), methods))


def _response(vf: Any, number: int, text: str, calls: Sequence[Any]) -> Any:
    message = {
        "content": text,
        "tool_calls": list(calls) or None,
        "finish_reason": "tool_calls" if calls else "stop",
        "is_truncated": False,
    }
    return vf.Response(id=f"resp_{number}", created=0, model="gymrail", message=message)


def _normal(vf: Any, messages: Any) -> list[Any]:
    """Messages as the package's own classes, whatever an environment's author wrote."""
    kinds = {
        "system": vf.SystemMessage,
        "user": vf.UserMessage,
        "assistant": vf.AssistantMessage,
        "tool": vf.ToolMessage,
    }
    found = [messages] if isinstance(messages, str | Mapping) else messages
    plain = ({"role": "user", "content": message} if isinstance(message, str) else message for message in found)
    return [kinds[message["role"]](**message) if isinstance(message, Mapping) else message for message in plain]


def _item(message: Any) -> Item:
    if message.role == "tool" or getattr(message, "tool_calls", None):
        raise InputError("The environment's prompt has tool calls, which a bridged prompt cannot have.")
    return {"role": message.role, "content": _content(message)}


def _content(message: Any) -> Any:
    if isinstance(message.content, str) or message.content is None:
        return message.content or ""
    return [_part(part if isinstance(part, dict) else part.model_dump()) for part in message.content]


def _part(part: dict[str, Any]) -> dict[str, Any]:
    if part.get("type") == "image_url":
        return {"type": "input_image", "detail": "auto", "image_url": part["image_url"]["url"]}
    return {"type": "input_text", "text": str(part.get("text", part))}


def _text(messages: Sequence[Any]) -> str:
    texts = []
    for message in messages:
        content = _content(message)
        texts += [content] if isinstance(content, str) else [part.get("text", "[picture]") for part in content]
    return "\n\n".join(text for text in texts if text)


def _turns(items: Sequence[Item]) -> list[Item]:
    """The model's turns: what it said in each, calls and text together, as one message."""
    turns: list[Item] = []
    is_new = True
    for item in items:
        is_own = item.get("role") == "assistant" or item.get("type") in ("function_call", "reasoning")
        if is_own and is_new:
            turns.append({"role": "assistant", "content": ""})
        if is_own and item.get("role") == "assistant":
            turns[-1] = item
        is_new = not is_own
    return turns
