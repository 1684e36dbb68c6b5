"""What can go wrong, sorted by who is at fault, and the one helper that sorts it.

Three meanings that are never mixed: a `ToolError` goes back to the model as text; a wrong answer is a score; anything
else that breaks makes the rollout `failed`, with a kind (what broke) and a stage (when). A failure never becomes a
reward.
"""

from __future__ import annotations

import asyncio
import difflib
import inspect
import traceback
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from types import NoneType
from typing import Any, Literal, TypeVar, get_args

T = TypeVar("T")

FailureKind = Literal["environment", "tool", "verifier", "reward", "model", "agent", "timeout", "infrastructure"]
"""What broke. `agent` is the code that plays between the model and the tools, in this process; `reward` is a reward
that is not finite or outside the declared range; `infrastructure` is anything under us (a sandbox, a remote server, a
worker)."""

Stage = Literal["setup", "seed", "model", "tool", "reply", "verify", "close"]
"""When it broke."""

FAILURE_KINDS: tuple[str, ...] = get_args(FailureKind)
RETRYABLE_KINDS: frozenset[str] = frozenset({"model", "timeout", "infrastructure"})
"""Kinds that may go away by themselves; the others are bugs that a second attempt would meet again."""

_KIND_OF_STAGE: dict[str, FailureKind] = {
    "setup": "environment",
    "seed": "environment",
    "model": "model",
    "tool": "tool",
    "reply": "environment",
    "verify": "verifier",
    "close": "environment",
}


class GymrailError(Exception):
    """Everything that Gymrail raises on purpose."""


class InputError(GymrailError):
    """A task row, a configuration, a recipe or an argument is wrong; the text says what is allowed."""


class ToolError(GymrailError):
    """A tool cannot do what the model asked. The text goes back to the model, and the episode goes on."""


class ModelError(GymrailError):
    """The model endpoint failed after its retries, or answered something that is no answer."""

    def __init__(self, message: str, status: int | None = None) -> None:
        super().__init__(message)
        self.status = status
        """The endpoint's last HTTP status, where it had one."""


class ContextOverflow(GymrailError):
    """The conversation no longer fits the model's context; the rollout ends as `truncated`."""


class VerifierError(GymrailError):
    """A verifier could not judge (a judge that is down or answers nonsense); the rollout is `failed`, not scored."""


class InfrastructureError(GymrailError):
    """Something under the environment was lost: a sandbox, a remote server, a worker."""


class EpisodeClosed(GymrailError):
    """The episode was closed, or its time to live ran out; it takes no more calls."""


class EpisodeFailed(GymrailError):
    """The episode broke; `failure` says how. Raised by `guard`, and again by every later use of that episode."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(f"{failure.kind} failure at stage {failure.stage}: {failure.message}")
        self.failure = failure


@dataclass(frozen=True, slots=True)
class Failure:
    """How a rollout failed."""

    kind: FailureKind
    stage: Stage
    message: str
    trace: str = ""
    """The traceback, for the author; it is written to the journal and never shown to an agent."""

    @property
    def is_retryable(self) -> bool:
        return self.kind in RETRYABLE_KINDS


def classify(error: BaseException, stage: Stage, kind: FailureKind | None = None) -> Failure:
    """Say which boundary an exception crossed; `kind` is what broke where the exception does not say: by default what
    the stage stands for."""
    if isinstance(error, EpisodeFailed):
        return error.failure
    kind = kind or _KIND_OF_STAGE[stage]
    if isinstance(error, InfrastructureError):
        kind = "infrastructure"
    elif isinstance(error, ModelError) and stage == "model":
        kind = "model"
    elif isinstance(error, VerifierError):
        kind = "verifier"
    if isinstance(error, ToolError | ContextOverflow):
        message = f"{stage} raised {type(error).__name__}: {error}"
    else:
        message = str(error) if isinstance(error, GymrailError) else f"{type(error).__name__}: {error}"
    return Failure(kind, stage, message, "".join(traceback.format_exception(error)))


_ANSWERS: dict[str, tuple[type[GymrailError], ...]] = {"tool": (ToolError,), "model": (ContextOverflow, EpisodeClosed)}
"""What is an answer at its own stage, and a failure anywhere else: a judge's context overflow does not truncate the
policy."""


_PLAIN = frozenset({NoneType, bool, float, int, str})


async def guard(
    stage: Stage,
    function: Callable[..., Awaitable[T] | T],
    *arguments: Any,
    timeout_seconds: float | None = None,
    kind: FailureKind | None = None,
) -> T:
    """Call `function`, plain or async, and turn whatever breaks in it into `EpisodeFailed`.

    A tool's `ToolError` and a model's `ContextOverflow` pass: they are answers, not failures. So does the caller's own
    cancellation, and no other. A plain function runs where it is called and cannot be interrupted: `timeout_seconds`
    covers what is awaited. `kind` is as of `classify`.
    """
    limit: asyncio.Timeout | None = None
    try:
        result = function(*arguments)
        if result.__class__ in _PLAIN:  # asking whether it can be awaited costs more than many a tool
            return result  # pyright: ignore[reportReturnType]
        if not inspect.isawaitable(result):
            return result
        if timeout_seconds is None:
            return await result
        limit = asyncio.timeout(timeout_seconds)
        async with limit:
            result = await result
        if limit.expired():  # it caught the cancellation and answered late
            raise TimeoutError
        return result
    except EpisodeFailed:
        raise
    except BaseException as error:
        if not _is_a_fault(error):
            raise
        if limit is not None and limit.expired():
            message = f"no result within {timeout_seconds:.3g} seconds"
            raise EpisodeFailed(Failure("timeout", stage, message)) from error
        if isinstance(error, _ANSWERS.get(stage, ())):
            raise
        raise EpisodeFailed(classify(error, stage, kind)) from error


def attempt(function: Callable[..., T], *arguments: Any) -> tuple[T | None, BaseException | None]:
    """Call a plain function and return its result or what it raised, for a thread to hand back to whoever waits."""
    try:
        return function(*arguments), None
    except BaseException as error:
        return None, error


def _is_a_fault(error: BaseException) -> bool:
    """Whether something broke, and nobody asked this process or this task to stop."""
    if isinstance(error, asyncio.CancelledError):
        # A tool that awaits a task cancelled elsewhere raises this too.
        task = asyncio.current_task()
        return task is None or task.cancelling() == 0
    # Extensions written in Rust panic with a class that cannot be imported and is no Exception.
    return isinstance(error, Exception | SystemExit) or type(error).__name__ == "PanicException"


def did_you_mean(name: str, allowed: Iterable[str], limit: int = 12) -> str:
    """Return "Did you mean 'x'?" for a near miss, otherwise the allowed names."""
    names = sorted(allowed)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"Did you mean {near[0]!r}?"
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return f"Allowed: {', '.join(names[:limit]) or 'none'}{more}."
