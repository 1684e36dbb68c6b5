"""A stored rollout is played again: same outputs, same user turns, same reward, or a line for each that differs."""

import asyncio
from typing import Any

import orjson
import pytest

from gymrail import Environment, Reply, Rollout, Task, ToolError, Verdict, call, tool
from gymrail.agents.tool_loop import ToolLoop
from gymrail.collect.replay import ReplayResult, Step, replay, replay_steps
from gymrail.collect.state import state_of
from gymrail.episode import Episode
from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.rollout import Outcome
from gymrail.spec import EnvironmentSpec

TASK = Task.ask("Begin.")


class Till(Environment[Task]):
    """Coins in a till, and a user who asks twice."""

    def seed(self) -> None:
        self.coins = 0
        self.asked = 0

    @tool
    def put(self, coins: int) -> int:
        """Put coins in."""
        if coins < 0:
            raise ToolError("no debts")
        self.coins += coins
        return self.coins

    def reply(self, rollout: Rollout) -> Reply | None:
        self.asked += 1
        return Reply(f"And now {self.coins}?", reward=0.5) if self.asked < 3 else None

    def verify(self, rollout: Rollout) -> Verdict:
        return Verdict((self.coins + sum(rollout.step_rewards) + self.asked) / 100)


SPEC = EnvironmentSpec("till", Till)
TURNS = [
    call("put", coins=3),
    "Three.",
    [call("put", coins=2), call("put", coins=-1)],
    "Five.",
    call("push", coins=1),
    "End.",
]


def played(turns: Any = TURNS, agent: ToolLoop | None = None) -> Rollout:
    rollout = asyncio.run(play(SPEC, TASK, ScriptedModel(turns), agent=agent or ToolLoop()))
    assert rollout.failure is None
    return rollout


def replayed(rollout: Rollout) -> ReplayResult:
    return asyncio.run(replay(SPEC, rollout))


def test_calls_errors_user_turns_and_step_rewards_replay_to_the_same_reward() -> None:
    rollout = played()
    assert rollout.reward == pytest.approx((5 + 1.0 + 3) / 100)
    assert replayed(rollout) == ReplayResult(rollout.reward, ())


def test_a_rollout_that_was_read_back_from_its_row_replays_too() -> None:
    rollout = played()
    row = orjson.loads(orjson.dumps(rollout.to_row()))
    assert replayed(Rollout.from_row(row)) == ReplayResult(rollout.reward, ())


@pytest.mark.parametrize("max_steps", [1, 2, 3, 4])
def test_a_truncated_rollout_replays_up_to_where_it_stopped(max_steps: int) -> None:
    rollout = played(agent=ToolLoop(max_steps=max_steps))
    assert rollout.outcome == Outcome("truncated", reason="max_steps")
    assert replayed(rollout) == ReplayResult(rollout.reward, ())


def test_calls_without_items_replay_from_the_journal() -> None:
    async def served() -> Rollout:
        episode = await Episode.open(SPEC, TASK)
        await episode.call("put", {"coins": 4})
        await episode.verify()
        await episode.close()
        return episode.finish(Outcome("scored"))

    rollout = asyncio.run(served())
    assert replayed(rollout) == ReplayResult(0.04, ())


def test_each_output_user_turn_and_reward_that_differs_is_named() -> None:
    rollout = played()
    rollout.calls[0].output = "4"
    rollout.reward = 0.5
    user = next(item for item in rollout.items if item.get("role") == "user")
    user["content"] = "And now 4?"
    assert replayed(rollout).differences == (
        "call 1 (put) gave '4' and gives '3' now",
        "the user said 'And now 4?' and says 'And now 3?' now",
        "the reward was 0.5 and is 0.09 now",
    )


def test_a_replay_that_breaks_says_so_and_has_no_reward() -> None:
    class Broken(Till):
        def verify(self, rollout: Rollout) -> Verdict:
            raise ZeroDivisionError("broken since")

    result = asyncio.run(replay(EnvironmentSpec("till", Broken), played()))
    assert result.reward is None
    assert result.differences == (
        "the replay failed: verifier failure at stage verify: ZeroDivisionError: broken since",
    )


def test_a_failed_rollout_that_fails_in_the_same_way_agrees() -> None:
    class Breaks(Till):
        @tool
        def put(self, coins: int) -> int:
            """Put coins in."""
            raise RuntimeError("the till is jammed")

    class BreaksAtOnce(Till):
        def seed(self) -> None:
            raise RuntimeError("no till")

    for cls in (Breaks, BreaksAtOnce):
        spec = EnvironmentSpec("till", cls)
        rollout = asyncio.run(play(spec, TASK, ScriptedModel(TURNS)))
        assert rollout.failure is not None
        assert asyncio.run(replay(spec, rollout)) == ReplayResult(None, ())
        assert asyncio.run(replay(SPEC, rollout)).reward is not None


def stepped(rollout: Rollout, to_step: int | None = None, spec: EnvironmentSpec = SPEC) -> list[Step]:
    return asyncio.run(replay_steps(spec, rollout, to_step))


def test_each_step_has_its_messages_its_calls_and_the_state_after_it() -> None:
    rollout = played()
    steps = stepped(rollout)
    assert [item for step in steps for item in step.items] == rollout.conversation
    assert [(step.state["coins"], step.state["asked"]) for step in steps] == [
        (0, 0), (3, 0), (3, 1), (5, 1), (5, 2), (5, 2), (5, 3),
    ]  # fmt: skip
    assert [[(call.name, call.output) for call in step.calls] for step in steps[3:6]] == [
        [("put", "5"), ("put", "no debts")],
        [],
        [("push", "Unknown tool 'push'. Available tools: put.")],
    ]
    assert {(step.differences, step.failure) for step in steps} == {((), None)}


@pytest.mark.parametrize("to_step", range(7))
def test_a_replay_stops_at_the_step_that_is_asked_for(to_step: int) -> None:
    rollout = played()
    states = [step.state for step in stepped(rollout)]
    assert [step.state for step in stepped(rollout, to_step)] == states[: to_step + 1]


def test_calls_without_items_are_a_step_each() -> None:
    rollout = played([[call("put", coins=1), call("put", coins=2)], "a", "b", "c"])
    rollout.conversation = rollout.conversation[:1]
    assert [step.state["coins"] for step in stepped(rollout)] == [0, 1, 3]


def test_a_replay_that_breaks_ends_at_the_step_that_broke() -> None:
    class Jams(Till):
        @tool
        def put(self, coins: int) -> int:
            """Put coins in."""
            if self.coins:
                raise RuntimeError("jammed")
            return super().put(coins)

    rollout = played()
    *before, last = stepped(rollout, spec=EnvironmentSpec("till", Jams))
    assert [step.failure for step in before] == [None] * 3
    assert last.failure is not None
    assert (last.number, last.failure.kind, last.state["coins"]) == (3, "tool", 3)
    assert last.items == [item for step in stepped(rollout)[3:4] for item in step.items]


def test_the_last_user_turn_of_a_rollout_whose_verifier_failed_is_asked_for_again() -> None:
    class Broken(Till):
        def verify(self, rollout: Rollout) -> Verdict:
            raise ZeroDivisionError

    rollout = asyncio.run(play(EnvironmentSpec("till", Broken), TASK, ScriptedModel(TURNS)))
    assert replayed(rollout).reward == played().reward


def test_state_is_json_without_addresses() -> None:
    class Thing:
        def __init__(self) -> None:
            self.size = 3
            self.itself = self

    environment = Till()
    environment.task = TASK
    environment.seed()
    mixed: Any = {1: {"b", "a"}, "thing": Thing(), "raw": b"\xff", "make": dict, "pair": (1, None), "do": print}
    environment.__dict__["mixed"] = mixed
    view = state_of(environment)
    assert orjson.loads(orjson.dumps(view)) == {
        "done": False,
        "coins": 0,
        "asked": 0,
        "mixed": {
            "1": ["a", "b"],
            "thing": {"class": Thing.__qualname__, "size": 3, "itself": "<Thing>"},
            "raw": "\\xff",
            "make": "<dict>",
            "pair": [1, None],
            "do": "<print>",
        },
    }
