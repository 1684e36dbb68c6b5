"""Our episodes behind NeMo RL's `step`: a batch of conversations in, what the environment says to each out.

Nothing here imports NeMo RL or Ray; `environment` wraps it in their classes.

A failed episode is never scored. NeMo RL's native loop takes a number and a text for every sample and has no word for
"leave this one out", but `grpo.overlong_filtering` leaves out of the loss what runs into the length limit: so the
answer to a failed episode is a text that fills the rest of the sequence. The number that goes with it is the mean
reward of the task's other rollouts so far, which leaves the group's baseline where it is; where it fails before them,
the environment's mean of late. The record says `failed`, without a reward.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gymrail.agents.tool_loop import ToolLoop
from gymrail.collect.batch_metrics import batch_metrics
from gymrail.errors import InputError, did_you_mean
from gymrail.limits import DEFAULT_LIMITS, Limits
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec
from gymrail.tokens import left_out_because
from gymrail_nemo_rl.segments import Segments
from gymrail_nemo_rl.stepped import Move, Room, SteppedEpisode
from gymrail_nemo_rl.tasks import SPLIT

logger = logging.getLogger("gymrail.nemo_rl")

_REMEMBERED_TASKS = 4096
"""Tasks whose rewards are kept for failed rollouts of the same group: more than any batch has."""
_LATEST = 256
"""Rewards of an environment that speak for a rollout of a group of which nothing is known yet."""
_Key = tuple[str, int, str]
"""A task: its environment, its place, its split."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What `step` says of one sample."""

    text: str
    metadata: dict[str, Any]
    reward: float = 0.0
    is_over: bool = False
    answer: str | None = None


class Episodes:
    """The live episodes of one process."""

    def __init__(
        self,
        specs: Iterable[EnvironmentSpec],
        segments: Segments,
        room: Room,
        *,
        agent: ToolLoop | None = None,
        limits: Limits = DEFAULT_LIMITS,
        record: Callable[[Rollout], None] | None = None,
        reward_scales: Mapping[str, float] | None = None,
        train_truncated: bool = True,
    ) -> None:
        """
        Args:
            record: called with every finished rollout, such as a `Record`.
            reward_scales: what an environment's rewards are multiplied by for the trainer; records, metrics and
                held-out tasks keep the verifier's.
            train_truncated: False leaves rollouts that ran out of a budget out of the loss, as failed ones are.
        """
        self.specs = {spec.name: spec for spec in specs}
        self.segments = segments
        self.room = room
        self.agent = agent or ToolLoop()
        self.limits = limits
        self.record = record
        self.reward_scales = dict(reward_scales or {})
        self.train_truncated = train_truncated
        self.abandoned = 0
        """Episodes that NeMo RL ended without a word."""
        self.inexact = 0
        """Texts whose tokens are others than the template's; what is trained on is still what the policy saw."""
        self.finished: list[Rollout] = []
        """Since `take_metrics` was called last."""
        self._live: dict[str, SteppedEpisode] = {}
        self._opened = 0
        self._rewards: dict[_Key, list[float]] = {}
        self._latest: dict[tuple[str, str], deque[float]] = {}
        self._filler = str(segments.tokenizer.eos_token) * room.max_total_tokens

    async def step(self, logs: Sequence[Sequence[Mapping[str, Any]]], metadata: Sequence[Any]) -> list[Answer]:
        """Answer each conversation's last turn.

        Raises:
            InputError: the data and the environments do not fit together; no sample could be right.
        """
        moves = await asyncio.gather(*(self._step(log, info) for log, info in zip(logs, metadata, strict=True)))
        # What is left out last: the rewards of their groups are known by then.
        judged = {place: self._over(move) for place, move in enumerate(moves) if move.rollout and self._counts(move)}
        return [judged[place] if place in judged else self._answer(move) for place, move in enumerate(moves)]

    def take_metrics(self) -> dict[str, float]:
        """Return per-environment means of what finished since the last call, under `env/<name>/...`."""
        finished, self.finished = self.finished, []
        return batch_metrics(finished) if finished else {}

    async def close(self) -> None:
        """Give up what is live and give back what the environments share."""
        await asyncio.gather(*(episode.close() for episode in self._live.values()))
        self._live.clear()
        for spec in self.specs.values():
            await spec.teardown()

    async def _step(self, log: Sequence[Mapping[str, Any]], info: Mapping[str, Any]) -> _Step:
        text = str(log[-1]["content"])
        if info.get("too_long"):
            return _Step(dict(info), Move([]), text)
        live = self._live.get(info.get("episode", ""))
        if "episode" in info and live is None:  # NeMo RL came back after the time to live
            return _Step(dict(info), Move([]), text)
        if live is None:
            info = {**info, "episode": f"{self._opened}"}
            self._opened += 1
            live, move = await self._open(info, str(log[0]["content"]))
            if move.rollout is not None:
                return _Step(dict(info), move, text)
        move = await live.turn(text)
        if move.rollout is not None:
            self._live.pop(info["episode"], None)
        elif not self.segments.is_exact(move.between):
            self.inexact += 1
        return _Step(dict(info), move, text)

    async def _open(self, info: Mapping[str, Any], shown: str) -> tuple[SteppedEpisode, Move]:
        spec = self._spec(info["environment"])
        task = spec.cls.task_type.from_row(json.loads(info["task"]))
        index = int(info["task_index"])
        episode = SteppedEpisode(self.segments, self.room, self.limits.idle_seconds)
        name = info["episode"]

        def forget() -> None:
            self.abandoned += 1
            self._live.pop(name, None)
            logger.warning("NeMo RL did not come back to an episode of %s; it is cancelled.", spec.name)

        move = await episode.open(
            spec, task, agent=self.agent, limits=self.limits, task_index=index, on_abandoned=forget
        )
        if move.rollout is None and self.segments.text(move.between) != shown:
            await episode.close()
            raise InputError(
                f"NeMo RL prompted the policy with another text than the environment {spec.name!r} asks, because its "
                "prompt is only known once an episode is seeded, or the dataset has another tokenizer. "
                "Set settings.gymrail.path to nemo_gym."
            )
        self._live[name] = episode
        return episode, move

    def _spec(self, name: str) -> EnvironmentSpec:
        if name not in self.specs:
            raise InputError(f"A row is of the environment {name!r}. {did_you_mean(name, self.specs)}")
        return self.specs[name]

    def _answer(self, step: _Step) -> Answer:
        rollout = step.move.rollout
        if rollout is None and step.move.between:
            return Answer(self.segments.text(step.move.between), step.info)
        if rollout is None:
            return Answer(self._filler, step.info, self._stand_in(_key_of(step.info)), is_over=True)
        return self._over(step)

    def _over(self, step: _Step) -> Answer:
        rollout = step.move.rollout
        assert rollout is not None
        self.finished.append(rollout)
        if self.record is not None:
            self.record(rollout)
        key = _key_of(step.info)
        if self._counts(step):
            assert rollout.reward is not None, "what is trained on has a reward"
            is_held_out = SPLIT in rollout.task.row
            reward = rollout.reward * (1.0 if is_held_out else self.reward_scales.get(rollout.environment, 1.0))
            self._rewards.setdefault(key, []).append(reward)
            self._latest.setdefault((key[0], key[2]), deque(maxlen=_LATEST)).append(reward)
            if len(self._rewards) > _REMEMBERED_TASKS:
                self._rewards.pop(next(iter(self._rewards)))
            return Answer("", step.info, reward, True, rollout.final_text)
        if rollout.failure is not None:
            logger.warning("An episode of %s failed and is left out: %s", rollout.environment, rollout.failure)
        return Answer(self._filler, step.info, self._stand_in(key), True)

    def _stand_in(self, key: _Key) -> float:
        """The number for a sample that has none: the mean of its group so far; before any of it is known, that of the
        environment's last ones, because 0 would say that the others of the group are better than they are."""
        environment, _, split = key
        known = self._rewards.get(key) or self._latest.get((environment, split))
        return sum(known) / len(known) if known else 0.0

    def _counts(self, step: _Step) -> bool:
        """Whether the rollout's reward is told; a held-out one that ran out of a budget still says how good it was."""
        assert step.rollout is not None
        is_held_out = SPLIT in step.rollout.task.row
        return left_out_because(step.rollout, train_truncated=self.train_truncated or is_held_out) is None


def _key_of(info: Mapping[str, Any]) -> _Key:
    return info["environment"], int(info["task_index"]), str(json.loads(info["task"]).get(SPLIT))


@dataclass(frozen=True, slots=True)
class _Step:
    info: dict[str, Any]
    move: Move
    text: str

    @property
    def rollout(self) -> Rollout | None:
        return self.move.rollout
