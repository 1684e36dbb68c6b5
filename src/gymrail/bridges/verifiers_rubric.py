"""A verifiers rubric, asked for a score: what raises inside it is a failure, where the package itself counts 0."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

from gymrail.errors import EpisodeFailed, InputError, VerifierError, guard

_raised: ContextVar[list[tuple[str, EpisodeFailed]]] = ContextVar("raised")
_MARK = "__gymrail_watched__"


def check_rubric(environment: Any, id: str) -> None:
    """See to it that every reward function of an environment is watched.

    Raises:
        InputError: the rubric scores a group of rollouts at once, or has no function at all.
    """
    rubrics = [*_rubrics(environment.rubric)]
    if getattr(environment.rubric, "has_group_rewards", False):
        raise InputError(f"The rubric of {id!r} scores a group of rollouts at once, which the bridge cannot.")
    if not any(rubric.funcs for rubric in rubrics):
        raise InputError(f"The rubric of {id!r} has no reward function.")
    for rubric in rubrics:
        rubric.funcs[:] = [_watched(function) for function in rubric.funcs]


async def score(environment: Any, state: Any) -> tuple[float, dict[str, float]]:
    """Return the reward and what each function gave.

    Raises:
        VerifierError: a reward function raised.
    """
    raised: list[tuple[str, EpisodeFailed]] = []
    token = _raised.set(raised)
    try:
        await environment.rubric.score_rollout(state)
    finally:
        _raised.reset(token)
    if raised:
        name, error = raised[0]
        raise VerifierError(f"The reward function {name!r} raised {error.failure.message}") from error
    return float(state["reward"]), {name: float(value) for name, value in (state["metrics"] or {}).items()}


def _rubrics(rubric: Any) -> Iterator[Any]:
    inner = getattr(rubric, "rubrics", None)
    if inner is None:
        yield rubric
    else:
        for part in inner:
            yield from _rubrics(part)


def _watched(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same function, which writes down what it raises; its signature says what the package passes to it."""
    if hasattr(function, _MARK):
        return function
    name = getattr(function, "__name__", type(function).__name__)

    @functools.wraps(function)
    async def watched(*arguments: Any, **fields: Any) -> Any:
        try:
            return await guard("verify", functools.partial(function, *arguments, **fields))
        except EpisodeFailed as error:
            _raised.get([]).append((name, error))
            raise

    setattr(watched, _MARK, True)
    return watched
