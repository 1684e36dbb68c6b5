"""Replay: seed the task again, run the journal, compare outputs, verify again.

That re-verifies stateful environments after a change of their verifier, shows whether an environment is
deterministic, and shows its state at any step.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass, field
from typing import Any

from gymrail.collect.state import state_of
from gymrail.episode import Episode
from gymrail.errors import EpisodeFailed, Failure
from gymrail.rollout import Rollout, ToolCall, Verdict
from gymrail.spec import EnvironmentSpec
from gymrail.task import Item


@dataclass(frozen=True, slots=True)
class ReplayResult:
    """What came of a replay."""

    reward: float | None
    """The verifier's reward now; None where the replay failed."""
    differences: tuple[str, ...]
    """One line per output, user turn or reward that is not what the record says; empty when all agree."""
    verdict: Verdict | None = field(default=None, compare=False)
    """All that the verifier says now."""
    failure: Failure | None = field(default=None, compare=False)
    """What broke in the replay."""
    other_outputs: tuple[str, ...] = field(default=(), compare=False)
    """Of the differences those of what a tool answered."""


@dataclass(frozen=True, slots=True)
class Step:
    """One turn of the model and what came of it, with the environment's state afterwards; step 0 is the prompt."""

    number: int
    items: list[Item]
    calls: tuple[ToolCall, ...]
    """As they came out now."""
    state: dict[str, Any]
    differences: tuple[str, ...]
    """What is not as the record says, of this step."""
    failure: Failure | None = None
    """The replay broke in this step; there is no later one."""


async def replay(spec: EnvironmentSpec, rollout: Rollout) -> ReplayResult:
    """Play a recorded rollout again without a model: its calls in the order of the journal, its user turns where they
    came."""
    player = _Player(rollout)
    try:
        episode = await Episode.open(spec, rollout.task, task_index=rollout.task_index, repeat=rollout.repeat)
    except EpisodeFailed as error:
        return player.failed(error)
    try:
        async for _ in player.steps(episode):
            pass
        verdict = await episode.verify()
    except EpisodeFailed as error:
        return player.failed(error)
    finally:
        await episode.close()
    reward = float(verdict.reward)
    heard = tuple(player.differences)
    if rollout.reward is not None and abs(reward - rollout.reward) > 1e-9:
        heard = (*heard, f"the reward was {rollout.reward:g} and is {reward:g} now")
    return ReplayResult(reward, heard, verdict, other_outputs=tuple(player.other_outputs))


async def replay_steps(spec: EnvironmentSpec, rollout: Rollout, to_step: int | None = None) -> list[Step]:
    """Play a recorded rollout again up to a step, the last by default, and return every step with its state."""
    player = _Player(rollout)
    try:
        episode = await Episode.open(spec, rollout.task, task_index=rollout.task_index, repeat=rollout.repeat)
    except EpisodeFailed as error:
        return [Step(0, list(rollout.conversation[: rollout.prompt_length]), (), {}, (), error.failure)]
    steps = [Step(0, episode.rollout.conversation[:], (), state_of(episode.environment), ())]
    items: list[Item] = []
    calls = differences = 0
    failure: Failure | None = None
    walk = player.steps(episode)
    try:
        while failure is None and (to_step is None or len(steps) <= to_step):
            try:
                items = await anext(walk)
            except StopAsyncIteration:
                break
            except EpisodeFailed as error:
                items, failure = player.pending_items, error.failure
            made, differing = tuple(episode.rollout.calls[calls:]), tuple(player.differences[differences:])
            calls, differences = calls + len(made), differences + len(differing)
            steps.append(Step(len(steps), items, made, state_of(episode.environment), differing, failure))
    finally:
        await walk.aclose()
        await episode.close()
    return steps


class _Player:
    """Walks the record's turns and its journal side by side."""

    def __init__(self, rollout: Rollout) -> None:
        self.record = rollout
        self.pending = list(reversed(rollout.calls))
        self.differences: list[str] = []
        self.other_outputs: list[str] = []
        self.pending_items: list[Item] = []
        """Of the step under way."""

    async def steps(self, episode: Episode) -> AsyncGenerator[list[Item], None]:
        """Play step by step; yields the record's items of each step after it was played."""
        live = episode.rollout
        turns = list(_turns(self.record.items))
        for index, (said, heard) in enumerate(turns):
            self.pending_items = [*said, *heard]
            live.conversation.extend(said)
            live.steps += any(item.get("type") == "function_call" or item.get("role") == "assistant" for item in said)
            calls = sum(item.get("type") == "function_call" for item in said)
            for _ in range(min(calls, len(self.pending))):
                await self._call(episode, self.pending.pop())
            if not calls and self._asked_for_reply(said, heard, is_last=index == len(turns) - 1):
                await self._reply(episode, next((item for item in heard if item.get("role") == "user"), None))
            live.conversation.extend(heard)
            yield self.pending_items
        self.pending_items = []
        while self.pending:  # calls of agents that ran their tools themselves, over HTTP or MCP
            await self._call(episode, self.pending.pop())
            yield []

    def failed(self, error: EpisodeFailed) -> ReplayResult:
        """A replay that fails as its record did agrees with it."""
        known = self.record.failure
        if known is None or (known.kind, known.stage) != (error.failure.kind, error.failure.stage):
            self.differences.append(f"the replay failed: {error}")
        return ReplayResult(None, tuple(self.differences), failure=error.failure)

    async def _call(self, episode: Episode, recorded: ToolCall) -> None:
        number = len(episode.rollout.calls) + 1
        call = await episode.call(recorded.name, recorded.arguments, recorded.call_id)
        if call.output != recorded.output:  # what the model heard; NeMo Gym's records have no `is_error`
            found = f"call {number} ({call.name}) gave {_short(recorded.output)} and gives {_short(call.output)} now"
            self.differences.append(found)
            self.other_outputs.append(found)

    async def _reply(self, episode: Episode, recorded: Item | None) -> None:
        turn = await episode.reply()
        said, says = (item and item.get("content") for item in (recorded, turn))
        if said != says:
            self.differences.append(f"the user said {_short(said)} and says {_short(says)} now")

    def _asked_for_reply(self, said: list[Item], heard: list[Item], *, is_last: bool) -> bool:
        """Whether the agent asked the environment for a user turn here: not after reasoning alone, nor when a model
        call was cut off."""
        outcome = self.record.outcome
        broke = outcome is not None and outcome.failure is not None and outcome.failure.stage != "verify"
        # A limit that ends the talk between steps comes after the user's turn, one that cuts an answer off before it.
        is_cut_off = outcome is not None and (broke or (outcome.reason not in (None, "max_steps") and not heard))
        return not (is_last and is_cut_off) and any(item.get("role") == "assistant" for item in said)


def _turns(items: list[Item]) -> Iterator[tuple[list[Item], list[Item]]]:
    """Split a conversation into pairs: what the model said in a turn, what it heard back."""
    said: list[Item] = []
    heard: list[Item] = []
    for item in items:
        is_answer = item.get("type") == "function_call_output" or item.get("role") in (
            "user",
            "system",
            "developer",
            "tool",
        )
        if is_answer:
            heard.append(item)
            continue
        if heard:
            yield said, heard
            said, heard = [], []
        said.append(item)
    if said or heard:
        yield said, heard


def _short(value: object, limit: int = 100) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."
