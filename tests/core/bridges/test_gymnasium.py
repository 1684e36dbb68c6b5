"""Gymnasium's real environments, and games of one's own with its API, as Gymrail environments."""

from __future__ import annotations

import asyncio
import threading
from random import Random
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from gymrail.bridges.gymnasium import GymnasiumEnvironment
from gymrail.bridges.spaces import as_text, describe_actions, names_of, parse_action
from gymrail.collect.replay import replay
from gymrail.contract import check_environment
from gymrail.environment import call
from gymrail.episode import Limits
from gymrail.errors import InputError, ToolError
from gymrail.models.scripted import ScriptedModel
from gymrail.play import play
from gymrail.registry import find
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec

LAKE = "gymnasium:FrozenLake-v1?is_slippery=false&reward_range=[0, 1]"
WAY = ("down", "down", "right", "right", "down", "right")


def answers(*actions: str) -> list[Any]:
    return [f"I go on. <action>{action}</action>" for action in actions]


def played(spec: EnvironmentSpec, script: Any, *, limits: Limits | None = None, number: int = 0) -> Rollout:
    task = list(spec.tasks("train", limit=number + 1))[number]
    options: dict[str, Any] = {"limits": limits} if limits else {}
    return asyncio.run(play(spec, task, ScriptedModel(script), **options))


def turns(rollout: Rollout) -> list[str]:
    return [item["content"] for item in rollout.items if item.get("role") == "user"]


def test_a_game_is_played_by_answers_and_pays_its_step_rewards() -> None:
    spec = find(LAKE)
    rollout = played(spec, answers(*WAY))
    assert (rollout.reward, rollout.step_rewards) == (1.0, [0, 0, 0, 0, 0, 1])
    (prompt,) = (item["content"] for item in rollout.conversation[: rollout.prompt_length])
    assert prompt == (
        "Actions: left (0), down (1), right (2), up (3). Answer with exactly one action, as <action>NAME</action>."
        "\n\n[S]FFF\nFHFH\nFFFH\nHFFG"
    )
    assert turns(rollout)[0] == "  (Down)\nSFFF\n[F]HFH\nFFFH\nHFFG"
    assert rollout.metrics == {"game_steps": 6, "finished": True, "invalid_answers": 0}
    assert asyncio.run(replay(spec, rollout)).differences == ()


def test_the_opened_task_keeps_the_id_of_the_row_that_was_asked() -> None:
    spec = find(LAKE)
    (task,) = spec.tasks("train", limit=1)
    rollout = asyncio.run(play(spec, task, ScriptedModel(answers(*WAY))))
    assert rollout.task.id == task.id
    assert task.input_items == []
    again = Rollout.from_row(rollout.to_row(), spec.cls.task_type)
    assert (again.task.id, again.conversation) == (task.id, rollout.conversation)


def test_a_row_that_has_a_prompt_keeps_it() -> None:
    spec = find(LAKE)
    task = spec.cls.task_type.ask("Cross the lake: down, down, right, right, down, right.", seed=1)
    rollout = asyncio.run(play(spec, task, ScriptedModel(answers(*WAY))))
    assert rollout.conversation[0]["content"].startswith("Cross the lake")
    assert rollout.reward == 1.0


def test_a_game_is_played_by_a_tool_where_that_is_asked() -> None:
    script = [call("act", action="1"), call("act", action="fly"), *(call("act", action=name) for name in WAY[1:])]
    rollout = played(find(LAKE + "&act_by=tool"), script)
    assert rollout.reward == 1.0
    assert rollout.calls[1].is_error
    assert "'fly' is no action" in str(rollout.calls[1].output)
    assert str(rollout.calls[-1].output).endswith("Reward: 1\nThe game is over.")


@pytest.mark.parametrize(
    "said", ["left", "<action>left</action> or <action>right</action>", "<action>4</action>", "<action></action>", ""]
)
def test_an_answer_without_one_valid_action_moves_nothing_and_three_in_a_row_end_the_game(said: str) -> None:
    rollout = played(find(LAKE), [said] * 9)
    assert (rollout.reward, rollout.steps) == (0.0, 3)
    assert rollout.metrics == {"game_steps": 0, "finished": False, "invalid_answers": 3}
    assert all("Answer with exactly one action" in turn for turn in turns(rollout))


def test_equal_seeds_play_equally_and_others_do_not() -> None:
    spec = find("gymnasium:Taxi-v4")
    prompts = [played(spec, ["done"] * 3, number=number).conversation[0]["content"] for number in (0, 0, 1)]
    assert prompts[0] == prompts[1] != prompts[2]


def test_an_observation_that_is_no_text_is_written_out() -> None:
    rollout = played(find("gymnasium:Blackjack-v1"), answers("stick"))
    assert "stick (0), hit (1)" in rollout.conversation[0]["content"]
    assert rollout.conversation[0]["content"].rsplit("\n\n", 1)[1].startswith("[")
    assert rollout.outcome is not None
    assert rollout.outcome.status == "scored"


def test_bridged_environments_pass_the_contract_that_needs_no_gold_policy() -> None:
    report = asyncio.run(check_environment(find(LAKE), tasks=4))
    assert report.failures == ()
    assert {"replay", "determinism", "interleaving", "row"} <= {check.name for check in report.checks if check.passed}


def test_without_a_declared_range_low_policies_are_not_held_against_one() -> None:
    report = asyncio.run(check_environment(find("gymnasium:Blackjack-v1"), tasks=2))
    assert report.failures == ()
    assert "reward_range" in next(check.detail for check in report.checks if check.name == "empty answer")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("gymnasium:FrozenLke-v1", "Did you mean: `FrozenLake`"),
        ("gymnasium:FrozenLake-v1?size=3", "unexpected keyword argument 'size'"),
        ("gymnasium:FrozenLake-v1?act_by=mouse", "act_by is 'mouse'. Allowed: answer, tool"),
        ("gymnasium:FrozenLake-v1?max_invalid=x", "'max_invalid' is 'x'"),
        ("gymnasium:FrozenLake-v1?max_steps=0", "max_steps is 0"),
        ("gymnasium:FrozenLake-v1?reward_range=1", "reward_range is 1"),
        ("gymnasium:FrozenLake-v1?slippery", "'slippery' is no option"),
        ("gymnasum:FrozenLake-v1", "No environment named 'gymnasum'. Did you mean 'gymnasium'?"),
    ],
)
def test_what_cannot_be_made_is_said_when_it_is_named(name: str, text: str) -> None:
    with pytest.raises(InputError) as error:
        find(name)
    assert text in str(error.value)


class Corridor(gymnasium.Env[Any, Any]):
    """Walk right to the end; `trap` is where the game breaks or hangs."""

    action_space = spaces.Discrete(2)
    observation_space = spaces.Discrete(4)

    def __init__(self, trap: Any = None) -> None:
        self.trap = trap
        self.is_closed = False

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
        self.place = 0
        return self.place, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        if self.trap is not None:
            self.trap()
        self.place += 1 if action else -1
        return self.place, float(self.place == 3), self.place == 3, False, {}

    def close(self) -> None:
        self.is_closed = True


class Walk(GymnasiumEnvironment):
    """Walk to the end of a corridor."""

    in_thread = False

    def make_game(self) -> Corridor:
        return Corridor()

    def action_names(self) -> tuple[str, ...]:
        return ("back", "on")

    def rules(self) -> str:
        return "Go on three times."


def break_down() -> None:
    raise ZeroDivisionError("the floor gave way")


class Breaking(Walk):
    def make_game(self) -> Corridor:
        return Corridor(break_down)


RELEASE = threading.Event()


class Hanging(Walk):
    in_thread = True

    def make_game(self) -> Corridor:
        return Corridor(lambda: RELEASE.wait(600))


def test_a_game_of_ones_own_plays_by_its_names_and_rules() -> None:
    rollout = played(EnvironmentSpec("walk", Walk), answers("on", "BACK", "on", "1", "on"))
    assert rollout.reward == 1.0
    assert rollout.conversation[0]["content"].startswith("Go on three times.\n\nActions: back (0), on (1).")
    assert turns(rollout) == ["1", "0", "1", "2"]


@pytest.mark.parametrize("in_thread", [False, True])
def test_a_game_that_breaks_is_the_environments_failure_and_no_reward(in_thread: bool) -> None:
    kind = type("Threaded", (Breaking,), {"in_thread": in_thread})
    rollout = played(EnvironmentSpec("walk", kind), answers("on"))
    assert rollout.failure is not None
    assert rollout.reward is None
    assert (rollout.failure.kind, rollout.failure.stage) == ("environment", "reply")
    assert rollout.failure.message == "ZeroDivisionError: the floor gave way"


def test_a_game_that_hangs_ends_by_the_deadline_and_leaves_the_event_loop_free() -> None:
    try:
        rollout = played(EnvironmentSpec("walk", Hanging), answers("on"), limits=Limits(call_seconds=0.2))
    finally:
        RELEASE.set()
    assert rollout.failure is not None
    assert rollout.reward is None
    assert (rollout.failure.kind, rollout.failure.stage) == ("timeout", "reply")


def test_actions_of_every_kind_of_space_are_parsed_strictly() -> None:
    box = spaces.Box(-1.0, 1.0, (2,), np.float32)
    assert parse_action(" Left ", spaces.Discrete(2), ("left", "right")) == 0
    assert parse_action("5", spaces.Discrete(3, start=4)) == 5
    assert parse_action("[0.5, -1]", box).tolist() == [0.5, -1.0]
    assert parse_action("[1, 0]", spaces.MultiDiscrete([2, 3])).tolist() == [1, 0]
    assert parse_action("go north", spaces.Text(20, charset="gonrth ")) == "go north"
    for text, space in (("3", spaces.Discrete(3)), ("1.0", spaces.Discrete(3)), ("[2, 0]", box), ("[1", box),
                        ('["a"]', box), ("[true, 0]", box), ("x" * 30, spaces.Text(20))):  # fmt: skip
        with pytest.raises(ToolError):
            parse_action(text, space)


def test_observations_are_written_as_a_reader_would() -> None:
    assert as_text("You are in a maze.") == "You are in a maze."
    assert as_text(np.array([[0, 1], [2, 3]])) == "0 1\n2 3"
    assert as_text({"mission": "go", "grid": np.eye(2, dtype=int)}) == "mission: go\ngrid: \n1 0\n0 1"
    assert as_text((np.int64(4), 2.5, False)) == "[4, 2.5, false]"
    assert describe_actions(spaces.Discrete(3, start=2)) == "Actions: the whole numbers from 2 to 4."
    assert names_of(gymnasium.make("CartPole-v1")) == ("left", "right")


def test_tasks_are_seeds_and_splits_do_not_overlap() -> None:
    spec = find("gymnasium:FrozenLake-v1")
    train, held_out = ({task.row["seed"] for task in spec.tasks(split, limit=50)} for split in ("train", "validation"))
    assert len(train) == len(held_out) == 50
    assert not train & held_out
    assert spec.cls.generate(Random(1)).row == spec.cls.generate(Random(1)).row
