"""What an author writes: tool servers (what an agent can do) and environments (what it is asked, and how it is judged).

One instance is one episode, so state is plain attributes. Every hook but `generate` and `solve` may be plain or async.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from gymrail.errors import InputError
from gymrail.rollout import Rollout, ToolCall, Verdict
from gymrail.task import Item, Task
from gymrail.tools import ToolSpec, collect_tools

TaskT = TypeVar("TaskT", bound=Task)

_HOOKS = frozenset(
    {"seed", "close", "setup", "teardown", "generate", "reply", "verify", "solve", "sabotage", "compute_metrics"}
)


class ToolServer:
    """Tools over shared state. Subclass it, keep state in attributes, and mark methods with `@tool`."""

    tools: ClassVar[dict[str, ToolSpec]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.tools = collect_tools(cls)
        for spec in cls.tools.values():
            if spec.method in _HOOKS:
                raise InputError(
                    f"Tool {cls.__qualname__}.{spec.method} hides the hook of that name; "
                    "call it otherwise and name it by @tool(name=...)."
                )

    def seed(self, **state: Any) -> Any:
        """Set the initial state. An environment calls this for the servers it composes; alone, the server gets the
        request's fields."""

    def close(self) -> Any:
        """Give back what the episode holds: files, processes, connections."""


class Config(BaseModel):
    """Settings of an environment; a nested class of this type declares its own. Unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


@dataclass(frozen=True, slots=True)
class Reply:
    """A user turn that carries more than text."""

    content: str | list[dict[str, Any]]
    """Text, or content parts (`input_text`, `input_image`)."""
    reward: float | None = None
    """A step reward for what the agent just said; recorded in `Rollout.step_rewards`."""


@dataclass(frozen=True, slots=True)
class Call:
    """A tool call in a scripted turn."""

    name: str
    arguments: Mapping[str, Any]


Turn = str | Call | Sequence[Call]
"""What a scripted model says in one turn: a final text, one call, or several at once."""


def call(name: str, /, **arguments: Any) -> Call:
    """Write a tool call for `solve` or a script: `call("increment", by=3)`."""
    return Call(name, arguments)


class Environment(ToolServer, Generic[TaskT]):
    """Tasks, tools, user turns and a verifier. Compose tool servers by annotation: `office: Workplace`."""

    task_type: ClassVar[type[Task]] = Task
    Config: ClassVar[type[Config]] = Config
    reward_range: ClassVar[tuple[float, float]] = (0.0, 1.0)
    """Lowest and highest reward; one outside it makes the rollout `failed`."""
    split_by: ClassVar[tuple[str, ...]] = ()
    """The fields of a generated task's row that decide its split; by default all. Name what is asked where other
    fields, such as a level, can differ for the same question."""
    key_metrics: ClassVar[tuple[str, ...]] = ()
    """The metrics that sum up a run: names that `compute_metrics` returns, and `mean/NAME` of rewards, components and
    verdict metrics. By default all means."""

    task: TaskT
    config: Any
    """The environment's settings, an instance of `Config`."""
    shared: Any
    """What `setup` returned, one object for all episodes of the process."""
    done: bool = False
    """Set it in a tool to end the episode after that call: the game is over, the order is placed."""

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        for base in vars(cls).get("__orig_bases__", ()):
            arguments = typing.get_args(base)
            origin = typing.get_origin(base)
            if (
                arguments
                and inspect.isclass(origin)
                and issubclass(origin, Environment)
                and inspect.isclass(arguments[0])
            ):
                cls.task_type = arguments[0]  # pyright: ignore[reportAttributeAccessIssue]

    @classmethod
    def setup(cls, config: Any) -> Any:
        """Load what all episodes share (a corpus, a judge client), once per process; returned as `self.shared`."""

    @classmethod
    def teardown(cls, shared: Any) -> Any:
        """Give back what `setup` returned."""

    @classmethod
    def generate(cls, rng: Random) -> Task:
        """Make one task. Procedural environments define this; splits are kept apart by content, see
        `EnvironmentSpec.generate`. With a second parameter `config: Settings = DEFAULTS` it is given the settings."""
        raise InputError(
            f"{cls.__qualname__} generates no tasks; define generate(cls, rng) or list datasets in environment.yaml."
        )

    def seed(self) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Set the first state from `self.task`, and seed the composed servers.

        Where the first observation or the tools are known only now, say so: `self.task = self.task.opened(prompt)`.
        """

    def after_call(self, call: ToolCall) -> Any:
        """Hear of each finished tool call, refused ones and those of composed servers included: to end the episode, to
        keep a tally."""

    def reply(self, rollout: Rollout) -> Any:
        """Answer what the agent just said: text or a `Reply` for another user turn, None when the talk is over."""
        return None

    def verify(self, rollout: Rollout) -> Verdict | float | Any:
        """Judge the episode. Return a `Verdict` or a number; raise when it cannot be judged, never 0 for that."""
        raise InputError(f"{type(self).__qualname__} has no verify(self, rollout).")

    def solve(self) -> Generator[Turn, Any, None]:
        """The gold policy: yield the turns that earn the highest reward; each `yield` of calls returns their outputs.

        `check`, the oracle and the noisy teacher play it. It runs on the live episode but must act through tools alone.
        """
        raise InputError(f"{type(self).__qualname__} has no gold policy; define solve(self) and yield its turns.")
        yield ""

    def sabotage(self, turn: Turn, rng: Random) -> Turn:
        """Make a plausible mistake: what a noisy teacher says instead of `turn`.

        By default a call goes to another tool of the same signature or, where there is none, with one number, flag or
        choice changed; text stays as it is. Environments override this to err the way a weak policy errs.
        """
        if not isinstance(turn, Call):
            return turn
        table = tool_table(type(self))
        if turn.name not in table:
            return turn
        mine = table[turn.name].parameters.get("properties", {})
        others = [
            spec.name
            for spec in table.values()
            if spec.name != turn.name and spec.parameters.get("properties", {}).keys() == mine.keys()
        ]
        if others:
            return Call(rng.choice(others), turn.arguments)
        return _with_a_wrong_argument(turn, mine, rng)

    @classmethod
    def compute_metrics(cls, rollouts: Sequence[Rollout]) -> dict[str, float]:
        """Metrics of this environment over a run, beyond the means of every number that verdicts report."""
        return {}


def computes_metrics(environment: type[Environment[Any]]) -> bool:
    """Whether an environment has a `compute_metrics` of its own."""
    inherited = Environment.compute_metrics.__func__  # pyright: ignore[reportFunctionMemberAccess]
    return getattr(environment.compute_metrics, "__func__", None) is not inherited


def _with_a_wrong_argument(turn: Call, properties: Mapping[str, Any], rng: Random) -> Call:
    wrong: dict[str, Any] = {}
    for name, value in turn.arguments.items():
        choices = [choice for choice in properties.get(name, {}).get("enum", ()) if choice != value]
        if isinstance(value, bool):
            wrong[name] = not value
        elif isinstance(value, int | float):
            wrong[name] = value + rng.choice((-10, -2, -1, 1, 2, 10))
        elif choices:
            wrong[name] = rng.choice(choices)
    if not wrong:
        return turn
    name = rng.choice(sorted(wrong))
    return Call(turn.name, {**turn.arguments, name: wrong[name]})


@functools.cache
def servers_of(environment: type[Environment]) -> dict[str, type[ToolServer]]:
    """Return the tool servers that an environment composes, by attribute name."""
    try:
        hints = typing.get_type_hints(environment)
    except NameError as error:
        raise InputError(
            f"{environment.__qualname__}: {error}; annotations of an environment must be importable names."
        ) from None
    return {
        name: hint
        for name, hint in hints.items()
        if inspect.isclass(hint) and issubclass(hint, ToolServer) and not issubclass(hint, Environment)
    }


@functools.cache
def tool_table(server: type[ToolServer]) -> dict[str, ToolSpec]:
    """Return every tool that an environment or a tool server offers: its own, then those of the servers it composes.

    Raises:
        InputError: two of them claim one name.
    """
    table = dict(server.tools)
    if not issubclass(server, Environment):
        return table
    for attribute, kind in servers_of(server).items():
        for name, spec in kind.tools.items():
            if name in table:
                owner = f"{table[name].server}: {name}" if table[name].server else server.__qualname__
                raise InputError(
                    f"Tool {name!r} is defined by {owner} and by {attribute}: {kind.__qualname__}; "
                    "rename one with @tool(name=...)."
                )
            table[name] = replace(spec, server=attribute)
    return table


def user_message(content: str | list[dict[str, Any]]) -> Item:
    """Build the item of a user turn."""
    return {"type": "message", "role": "user", "content": content}
