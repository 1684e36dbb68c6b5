"""What the contract asks of an episode that is done again, or cut off: the same verdict, and never a half one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any

from gymrail.collect.replay import ReplayResult, replay
from gymrail.collect.state import state_of
from gymrail.contract_policies import BAD_POLICIES
from gymrail.contract_report import Check, check_of, place_of
from gymrail.environment import Environment
from gymrail.episode import Episode
from gymrail.errors import EpisodeFailed
from gymrail.models.model import EpisodePolicy, Model, ModelRequest, ModelResponse
from gymrail.models.scripted import Oracle
from gymrail.play import play
from gymrail.rollout import Rollout, Verdict
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task

_CANCELLED = 4
"""Episodes that are cut off."""
CANCEL_SECONDS = 10.0
"""What an episode may take to close after it was cancelled."""
_REACH_SECONDS = 30.0
"""What an episode may take to its first tool call."""


async def check_determinism(spec: EnvironmentSpec, rollouts: Sequence[Rollout], *, is_replayed: bool | None) -> Check:
    """Seed, replay and judge every rollout twice more; all that the verdicts say must agree.

    State that differs after seeding is a warning: it may be a time, a path or an id.
    """
    name = "determinism"
    if is_replayed is not True:
        return Check(name, None, "not checked: see `replay`")
    problems = []
    judged = [rollout for rollout in rollouts if rollout.is_trainable]
    for rollout in judged:
        verdicts = [_verdict(await replay(spec, rollout)) for _ in range(2)]
        recorded = {key: rollout.metrics.get(key) for key in verdicts[0]["metrics"]}
        said = {
            "reward_components": rollout.reward_components, "metrics": recorded, "reason": rollout.verdict_reason
        }  # fmt: skip
        differing = [key for key in said if any(repr(said[key]) != repr(verdict[key]) for verdict in verdicts)]
        if differing:
            key = differing[0]
            other = next(verdict[key] for verdict in verdicts if repr(verdict[key]) != repr(said[key]))
            problems.append(f"{place_of(rollout)}: the verdict's {key} was {said[key]!r} and is {other!r} judged again")
    if problems:
        return check_of(name, problems)
    unlike = await _unlike_seeds(spec, [rollout.task for rollout in judged])
    return Check(name, None, unlike) if unlike else Check(name, True, f"{len(judged)} rollouts, twice each")


async def check_cancellation(spec: EnvironmentSpec, sample: Sequence[Task], seed: int) -> Check:
    """Cancel episodes in the middle of a tool call, or right after it where the tool never waits: each closes, and none
    has a reward."""
    problems, cancelled = [], 0
    is_solved = spec.cls.solve is not Environment.solve
    for index, task in enumerate(sample):
        policy = Oracle() if is_solved else BAD_POLICIES["random calls"](spec, task, Random(f"{seed}:{index}"))
        found = await _cancelled(spec, task, index, policy)
        if found is not None:
            cancelled += 1
            problems += [f"task {index} ({task.id}): {problem}" for problem in found]
        if cancelled == _CANCELLED:
            break
    return check_of("cancellation", problems, f"{cancelled} episodes" if cancelled else "nothing waits: no tool calls")


def _verdict(result: ReplayResult) -> dict[str, Any]:
    verdict = result.verdict or Verdict()
    components = {name: float(value) for name, value in verdict.reward_components.items()}
    return {"reward_components": components, "metrics": dict(verdict.metrics), "reason": verdict.reason}


async def _unlike_seeds(spec: EnvironmentSpec, tasks: Sequence[Task]) -> str:
    for task in {task.id: task for task in tasks}.values():
        states = []
        for _ in range(2):
            try:
                episode = await Episode.open(spec, task)
            except EpisodeFailed:
                return ""  # a seed that breaks is other checks' finding
            states.append(state_of(episode.environment))
            await episode.close()
        one, two = states
        names = [name for name in one if repr(one[name]) != repr(two.get(name))]
        if names:
            return (
                f"task {task.id}: seeded twice, {names[0]!r} differs ({_short(one[names[0]])} and "
                f"{_short(two.get(names[0]))}); fine for a time, a path or an id; else draw from "
                f"Random(self.task.id)"
            )
    return ""


async def _cancelled(spec: EnvironmentSpec, task: Task, index: int, policy: Model | EpisodePolicy) -> list[str] | None:
    """Return what is wrong; None where the episode ended before it called a tool."""
    watched = _Watched(policy)
    playing = asyncio.ensure_future(play(spec, task, watched, task_index=index))
    deadline = asyncio.get_running_loop().time() + _REACH_SECONDS
    while not playing.done() and not watched.is_calling and asyncio.get_running_loop().time() < deadline:  # noqa: ASYNC110
        await asyncio.sleep(0)  # a call is seen from the turn of the loop in which it began
    if playing.done():
        return None
    playing.cancel()
    await asyncio.wait([playing], timeout=CANCEL_SECONDS)
    episode = watched.episode
    if not playing.done():
        return [f"it had not ended {CANCEL_SECONDS:g} seconds after it was cancelled; a tool or `close` hangs"]
    if episode is None:
        return None
    problems = []
    if not playing.cancelled():
        problems.append(
            f"it went on after it was cancelled, to the reward {episode.rollout.reward}; "
            "let asyncio.CancelledError pass"
        )
    elif episode.rollout.reward is not None:
        problems.append(f"it was cancelled and has the reward {episode.rollout.reward}")
    if not episode.is_closed:
        problems.append("it was not closed")
    if "close_error" in episode.rollout.metrics:
        problems.append(f"`close` broke after a cancelled call: {episode.rollout.metrics['close_error']}")
    return problems


class _Watched:
    """Plays as another policy does, and waits a moment before each answer, so that a call can be seen."""

    def __init__(self, policy: Model | EpisodePolicy) -> None:
        self.policy = policy
        self.model: Any = None
        self.episode: Episode | None = None

    def bind(self, episode: Episode) -> Model:
        self.episode = episode
        self.model = self.policy.bind(episode) if isinstance(self.policy, EpisodePolicy) else self.policy
        return self

    async def respond(self, request: ModelRequest) -> ModelResponse:
        await asyncio.sleep(0)
        return await self.model.respond(request)

    @property
    def is_calling(self) -> bool:
        return self.episode is not None and bool(self.episode.rollout.calls)


def _short(value: object, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
