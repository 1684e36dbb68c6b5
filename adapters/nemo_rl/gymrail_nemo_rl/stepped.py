"""An episode whose turns of the policy come from outside: the trainer samples, and `turn` brings in what it sampled.

The episode is played by `play` with the ordinary tool loop, so that budgets, user turns, failures and the verdict are
what they are everywhere; only its model waits for the trainer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from gymrail.agents.tool_loop import ToolLoop
from gymrail.errors import ContextOverflow
from gymrail.limits import Limits
from gymrail.models.model import ModelRequest, ModelResponse
from gymrail.play import play
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task
from gymrail_nemo_rl.segments import Segments


@dataclass(frozen=True, slots=True)
class Room:
    """How long answers and episodes may be, as NeMo RL was told."""

    max_new_tokens: int
    """Per turn."""
    max_total_tokens: int
    """Of a whole episode."""


@dataclass(frozen=True, slots=True)
class Move:
    """What comes after a turn of the policy: the template's ids up to its next turn, or the end."""

    between: list[int]
    rollout: Rollout | None = None


class SteppedEpisode:
    """One episode, from its first prompt to its rollout."""

    def __init__(self, segments: Segments, room: Room, idle_seconds: float) -> None:
        self._segments = segments
        self._room = room
        self._idle_seconds = idle_seconds
        self._asked: asyncio.Queue[list[int]] = asyncio.Queue()
        self._answer: asyncio.Future[ModelResponse] | None = None
        self._playing: asyncio.Task[Rollout] | None = None
        self._reaper: asyncio.TimerHandle | None = None
        self._prompt: list[int] = []
        self._length = 0
        """Tokens up to now."""

    async def open(
        self,
        spec: EnvironmentSpec,
        task: Task,
        *,
        agent: ToolLoop,
        limits: Limits,
        task_index: int,
        on_abandoned: Callable[[], None],
    ) -> Move:
        """Seed the episode and return its first prompt, or its end where seeding broke.

        Args:
            on_abandoned: called when the trainer has not come back for `idle_seconds`: NeMo RL ends an episode that
                reaches its own limits without a word. The episode is cancelled then.
        """

        def give_up() -> None:
            assert self._playing is not None
            self._playing.cancel()
            on_abandoned()

        self._give_up = give_up
        self._playing = asyncio.ensure_future(play(spec, task, self, agent=agent, limits=limits, task_index=task_index))
        return await self._next()

    async def turn(self, text: str) -> Move:
        """Bring in what the policy said and return what comes next.

        Raises:
            asyncio.CancelledError: the episode was given up before.
        """
        assert self._answer is not None, "an episode is asked for before it is answered"
        if self._reaper is not None:
            self._reaper.cancel()
        words = self._segments.count(text)
        # A turn that ended has one more token than its words: the one that ended it. One that was cut has none.
        cut = words >= self._room.max_new_tokens or self._length + words >= self._room.max_total_tokens
        self._length += words if cut else words + 1
        answer, self._answer = self._answer, None
        answer.set_result(
            ModelResponse(self._segments.parse(text), "max_output_tokens" if cut else "stop", model="nemo_rl")
        )
        return await self._next()

    async def close(self) -> None:
        """Give the episode up."""
        if self._reaper is not None:
            self._reaper.cancel()
        if self._playing is not None and not self._playing.done():
            self._playing.cancel()
            await asyncio.wait([self._playing])

    async def respond(self, request: ModelRequest) -> ModelResponse:
        """Be the episode's model: tell what it is asked, and wait for the trainer."""
        if not self._prompt:
            between = self._prompt = self._segments.prompt(
                request.input, request.tools, request.parameters.get("instructions")
            )
        else:
            between = self._segments.between(request.input)
        if self._length + len(between) >= self._room.max_total_tokens:
            raise ContextOverflow(f"The conversation has {self._length + len(between)} tokens.")
        self._length += len(between)
        loop = asyncio.get_running_loop()
        self._answer = loop.create_future()
        self._reaper = loop.call_later(self._idle_seconds, self._give_up)
        self._asked.put_nowait(between)
        return await self._answer

    async def _next(self) -> Move:
        assert self._playing is not None
        asked = asyncio.ensure_future(self._asked.get())
        try:
            await asyncio.wait([asked, self._playing], return_when=asyncio.FIRST_COMPLETED)
            return Move(asked.result()) if asked.done() else Move([], self._playing.result())
        finally:
            asked.cancel()
