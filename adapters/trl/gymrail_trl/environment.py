"""GRPO through TRL's own tool loop: `environment_factory`, one class per environment.

    GRPOTrainer(model, environment_factory=environment_factory(specs), train_dataset=environment_dataset(specs, "train",
    1000), ...)

For people who want TRL to run the loop. TRL then decides when an episode ends (no `done`, no user turns) and runs
rollouts one after the other; `RolloutFunction` has neither limit. What breaks in an episode gives None as its reward,
which TRL leaves out; never 0.
"""

from __future__ import annotations

import asyncio
import atexit
import inspect
import logging
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

import orjson

from gymrail.environment import Environment
from gymrail.episode import DEFAULT_LIMITS, Episode, Limits
from gymrail.errors import EpisodeFailed, InputError
from gymrail.messages import to_messages
from gymrail.rollout import Outcome, Rollout
from gymrail.spec import EnvironmentSpec
from gymrail.tools import ToolSpec
from gymrail_trl.reward import ROW

logger = logging.getLogger("gymrail.trl")


def environment_factory(
    specs: Sequence[EnvironmentSpec],
    *,
    limits: Limits = DEFAULT_LIMITS,
    record: Callable[[Rollout], None] | None = None,
) -> dict[str, Callable[[], Any]]:
    """Return one generated class per environment, by name: TRL takes each class's name for its reward column.

    Raises:
        InputError: an environment has user turns, which TRL's loop does not have.
    """
    factories: dict[str, Callable[[], Any]] = {}
    for spec in specs:
        if spec.cls.reply is not Environment.reply:
            raise InputError(f"{spec.name} has user turns (reply); TRL's own loop has none. Use RolloutFunction.")
        tools = {name: _method(tool) for name, tool in spec.tools.items()}
        namespace: dict[str, Any] = {
            "_spec": spec,
            "_limits": limits,
            "_record": staticmethod(record) if record else None,
        }
        factories[spec.name] = type(spec.name, (_Session,), {**namespace, **tools})
    return factories


def environment_dataset(specs: Sequence[EnvironmentSpec], split: str, size: int, seed: int = 0) -> Any:
    """Return a `datasets.Dataset` with the columns that TRL's loop wants: prompt, environment, and the task's row;
    environments take turns."""
    from datasets import Dataset

    columns: dict[str, list[Any]] = {"prompt": [], "environment": [], ROW: []}
    streams = [(spec, spec.tasks(split, limit=-(-size // len(specs)), seed=seed)) for spec in specs]
    while len(columns["prompt"]) < size and streams:
        for spec, stream in list(streams):
            task = next(stream, None)
            if task is None:
                streams = [entry for entry in streams if entry[0] is not spec]
            elif len(columns["prompt"]) < size:
                instructions = task.responses_create_params.get("instructions")
                columns["prompt"].append(to_messages(task.input_items, instructions=instructions))
                columns["environment"].append(spec.name)
                columns[ROW].append(orjson.dumps(task.row).decode())
    return Dataset.from_dict(columns)


class _Session:
    """One rollout slot of TRL: a pooled object whose `reset` opens a new episode. Names with an underscore are no
    tools to TRL."""

    _spec: EnvironmentSpec
    _limits: Limits
    _record: Callable[[Rollout], None] | None

    def __init__(self) -> None:
        self._episode: Episode | None = None
        self._failure: EpisodeFailed | None = None

    def reset(self, **row: Any) -> str | None:
        """Open the task's episode; the prompt stands in the dataset already, so there is no observation to add."""
        _LOOP.run(self._open(row))
        return None

    async def get_reward(self) -> float | None:
        return await _LOOP.await_there(self._finish())

    async def _open(self, row: Mapping[str, Any]) -> None:
        if self._episode is not None:
            await self._episode.close()
        self._episode = self._failure = None
        if ROW not in row:
            raise InputError(
                f"The dataset has no column {ROW!r}; make it with gymrail_trl.environment_dataset(specs, split, size)."
            )
        task = self._spec.cls.task_type.from_row(orjson.loads(row[ROW]))
        try:
            self._episode = await Episode.open(self._spec, task, limits=self._limits)
        except EpisodeFailed as error:
            self._fail(error)

    async def _call(self, name: str, arguments: Mapping[str, Any]) -> str:
        if self._episode is None:
            return "This episode is closed."
        if self._episode.is_done:
            return "The episode is over."
        try:
            call = await self._episode.call(name, dict(arguments))
        except EpisodeFailed as error:
            self._fail(error)
            return "The tool broke; the episode is over."
        return call.output if isinstance(call.output, str) else orjson.dumps(call.output).decode()

    async def _finish(self) -> float | None:
        episode = self._episode
        if episode is None:
            return None
        try:
            await episode.verify()
            outcome = Outcome("scored")
        except EpisodeFailed as error:
            outcome = Outcome("failed", error.failure)
            self._fail(error)
        await episode.close()
        rollout = episode.finish(outcome)
        if self._record is not None:
            self._record(rollout)
        self._episode = None
        return rollout.reward

    def _fail(self, error: EpisodeFailed) -> None:
        self._failure = error
        logger.warning("An episode of %s failed and is left out: %s", self._spec.name, error)


def _method(spec: ToolSpec) -> Callable[..., Any]:
    """Make the async method that TRL shows to the model and calls: the tool's own signature and docstring."""
    if spec.arguments_model is None:
        raise InputError(
            f"Tool {spec.name!r} runs behind a URL or an MCP server and has no Python signature. Use RolloutFunction."
        )

    async def call(self: _Session, **arguments: Any) -> str:
        return await _LOOP.await_there(self._call(spec.name, arguments))

    parameters = [inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)]
    lines = []
    for field in spec.arguments_model.model_fields.values():
        name = str(field.alias)
        default = inspect.Parameter.empty if field.is_required() else field.get_default(call_default_factory=True)
        parameters.append(
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, annotation=field.annotation, default=default)
        )
        lines.append(f"    {name}: {field.description or name}")
    arguments = "\n\nArgs:\n" + "\n".join(lines) if lines else ""
    call.__name__ = spec.name
    call.__qualname__ = spec.name
    call.__doc__ = f"{spec.description or spec.name}{arguments}\n\nReturns:\n    The result."
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters[1:]} | {"return": str}
    call.__signature__ = inspect.Signature(parameters, return_annotation=str)  # pyright: ignore[reportFunctionMemberAccess]
    return call


class _Loop:
    """One event loop in a thread for all sessions: TRL calls `reset` from plain code and the rest from a loop of
    its own."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock = threading.Lock()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._started()).result()

    async def await_there(self, work: Coroutine[Any, Any, Any]) -> Any:
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(work, self._started()))

    def _started(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                thread = threading.Thread(target=self._loop.run_forever, name="gymrail-episodes", daemon=True)
                thread.start()
                atexit.register(self._stop, thread)
            return self._loop

    def _stop(self, thread: threading.Thread) -> None:
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._loop.stop)
        thread.join(5)
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())  # connections are kept until then
        self._loop.close()


_LOOP = _Loop()
