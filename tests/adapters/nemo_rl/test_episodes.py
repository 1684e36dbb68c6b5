"""Episodes behind NeMo RL's `step`, without NeMo RL: what it is told, what is recorded, what is masked."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gymrail.agents.tool_loop import ToolLoop
from gymrail.data.mixture import Group
from gymrail.errors import InputError
from gymrail.limits import Limits
from gymrail.registry import find
from gymrail.rollout import Rollout
from gymrail_nemo_rl.episodes import Answer, Episodes
from gymrail_nemo_rl.segments import Segments
from gymrail_nemo_rl.stepped import Room
from gymrail_nemo_rl.tasks import SPLIT, native_row
from tests.interop.inside_nemo_rl.keypad import KeypadTask
from tests.interop.nemo_rl_scripts import turns_of, write_tokenizer

SPEC = find(str(Path(__file__).parents[2] / "interop" / "inside_nemo_rl" / "keypad.py"))
TASK = KeypadTask.ask("Type 3.", first=3, second=5)


@pytest.fixture(scope="module")
def segments(tmp_path_factory: pytest.TempPathFactory) -> Segments:
    return Segments(write_tokenizer("qwen2_5", tmp_path_factory.mktemp("tokenizer")))


def info_of(task: KeypadTask, index: int = 0) -> dict[str, Any]:
    row = native_row(Group(index, SPEC, task, index), {})
    return {"environment": row["environment"], "task_index": index, "task": json.dumps(row["task"])}


class Player:
    """NeMo RL's side of one conversation."""

    def __init__(self, episodes: Episodes, segments: Segments, task: KeypadTask = TASK, index: int = 0) -> None:
        self.episodes = episodes
        prompt = segments.text(segments.prompt(task.input_items, SPEC.tool_schemas(task)))
        self.log: list[dict[str, str]] = [{"role": "user", "content": prompt}]
        self.info = info_of(task, index)

    async def say(self, text: str) -> Answer:
        self.log.append({"role": "assistant", "content": text})
        (answer,) = await self.episodes.step([self.log], [self.info])
        self.log.append({"role": "environment", "content": answer.text})
        self.info = answer.metadata
        return answer


def played(
    segments: Segments,
    turns: list[str],
    task: KeypadTask = TASK,
    room: Room = Room(200, 2000),  # noqa: B008  # frozen
) -> tuple[list[Answer], list[Rollout], dict[str, float]]:
    """Play one conversation and return what was answered, what was recorded, and the metrics."""
    recorded: list[Rollout] = []

    async def run() -> tuple[list[Answer], dict[str, float]]:
        episodes = Episodes([SPEC], segments, room, record=recorded.append)
        player = Player(episodes, segments, task)
        answers = [await player.say(text) for text in turns]
        metrics = episodes.take_metrics()
        await episodes.close()
        return answers, metrics

    answers, metrics = asyncio.run(run())
    return answers, recorded, metrics


def test_an_episode_of_several_turns_is_answered_in_the_templates_own_words_and_judged_at_its_end(
    segments: Segments,
) -> None:
    answers, recorded, metrics = played(segments, turns_of("right", TASK, "qwen2_5"))
    tool, user = "\n<|im_start|>user\n<tool_response>\nThe pad shows 3.\n</tool_response>", "\n<|im_start|>user\nNow"
    assert answers[0].text == f"{tool}<|im_end|>\n<|im_start|>assistant\n"
    assert answers[1].text == f"{user} type 5.<|im_end|>\n<|im_start|>assistant\n"
    assert [(answer.reward, answer.is_over) for answer in answers] == [(0, False), (0, False), (0, False), (1.0, True)]
    assert answers[3].text == ""
    (rollout,) = recorded
    assert (rollout.reward, len(rollout.calls), rollout.steps) == (1.0, 2, 4)
    assert metrics["env/keypad/reward"] == 1.0
    assert metrics["env/keypad/tool_calls"] == 2.0


def test_a_failed_episode_is_answered_with_what_fills_the_sequence_and_recorded_without_a_reward(
    segments: Segments,
) -> None:
    task = TASK.model_copy(update={"breaks": True})
    answers, recorded, metrics = played(segments, turns_of("right", TASK, "qwen2_5")[:3], task)
    assert answers[-1].is_over
    assert segments.count(answers[-1].text) == 2000
    (rollout,) = recorded
    assert rollout.reward is None
    assert rollout.failure is not None
    assert rollout.failure.stage == "tool"
    assert metrics["env/keypad/failed"] == 1.0
    assert "env/keypad/reward" not in metrics


def test_a_failed_rollout_leaves_its_groups_baseline_where_it_is(segments: Segments) -> None:
    async def run() -> list[Answer]:
        episodes = Episodes([SPEC], segments, Room(200, 2000))
        fails = Player(episodes, segments, TASK.model_copy(update={"breaks": True}))
        good = Player(episodes, segments)
        for text in turns_of("right", TASK, "qwen2_5")[:2]:
            await fails.say(text)
        for text in turns_of("right", TASK, "qwen2_5")[:3]:
            await good.say(text)
        last = turns_of("right", TASK, "qwen2_5")
        fails.log.append({"role": "assistant", "content": last[2]})
        good.log.append({"role": "assistant", "content": last[3]})
        answers = await episodes.step([fails.log, good.log], [fails.info, good.info])
        await episodes.close()
        return answers

    failed, scored = asyncio.run(run())
    assert (failed.is_over, scored.is_over) == (True, True)
    assert failed.reward == scored.reward == 1.0


def test_what_fails_before_any_of_its_group_is_judged_gets_the_environments_mean_and_not_0(segments: Segments) -> None:
    async def run() -> tuple[Answer, Answer, Answer]:
        episodes = Episodes([SPEC], segments, Room(200, 2000))
        fails = TASK.model_copy(update={"breaks": True})
        turns = turns_of("right", TASK, "qwen2_5")
        unknown = Player(episodes, segments, fails, index=1)
        first = [await unknown.say(text) for text in turns[:3]][-1]
        good = Player(episodes, segments, index=2)
        for text in turns:
            await good.say(text)
        later = Player(episodes, segments, fails, index=3)
        second = [await later.say(text) for text in turns[:3]][-1]
        late = Player(episodes, segments, index=4)
        late.info["episode"] = "given up before"
        third = await late.say(turns[0])
        await episodes.close()
        return first, second, third

    first, second, third = asyncio.run(run())
    assert all(answer.is_over and segments.count(answer.text) == 2000 for answer in (first, second, third))
    assert (first.reward, second.reward, third.reward) == (0.0, 1.0, 1.0)


def test_rewards_are_scaled_for_the_trainer_and_recorded_as_they_are(segments: Segments) -> None:
    async def run(task: KeypadTask, recorded: list[Rollout]) -> float:
        episodes = Episodes(
            [SPEC], segments, Room(200, 2000), record=recorded.append, reward_scales={SPEC.name: 2.5}
        )  # fmt: skip
        player = Player(episodes, segments, task)
        answers = [await player.say(text) for text in turns_of("right", TASK, "qwen2_5")]
        assert episodes.take_metrics()["env/keypad/reward"] == 1.0
        await episodes.close()
        return answers[-1].reward

    recorded: list[Rollout] = []
    held_out = KeypadTask.from_row({**TASK.row, SPLIT: "validation"})
    assert asyncio.run(run(TASK, recorded)) == 2.5
    assert asyncio.run(run(held_out, recorded)) == 1.0
    assert [rollout.reward for rollout in recorded] == [1.0, 1.0]


@pytest.mark.parametrize(("is_trained", "is_held_out"), [(True, False), (False, False), (False, True)])
def test_an_episode_out_of_steps_is_left_out_where_the_recipe_says_so(
    segments: Segments, is_trained: bool, is_held_out: bool
) -> None:
    task = KeypadTask.from_row({**TASK.row, SPLIT: "validation"}) if is_held_out else TASK

    async def run() -> Answer:
        episodes = Episodes(
            [SPEC], segments, Room(200, 2000), agent=ToolLoop(3), record=recorded.append, train_truncated=is_trained
        )  # fmt: skip
        player = Player(episodes, segments, task)
        answers = [await player.say(text) for text in turns_of("right", TASK, "qwen2_5")[:3]]
        await episodes.close()
        return answers[-1]

    recorded: list[Rollout] = []
    answer = asyncio.run(run())
    (rollout,) = recorded
    assert rollout.outcome is not None
    assert (rollout.outcome.status, rollout.outcome.reason, rollout.reward) == ("truncated", "max_steps", 1.0)
    fills = is_trained is False and not is_held_out
    assert (segments.count(answer.text), answer.reward) == ((2000, 0.0) if fills else (0, 1.0))


@pytest.mark.parametrize("reason", ["max_output_tokens", "context"])
def test_a_turn_that_was_cut_and_a_full_context_are_truncated_rollouts(segments: Segments, reason: str) -> None:
    said = turns_of("right", TASK, "qwen2_5")[0]
    length = len(segments.prompt(TASK.input_items, SPEC.tool_schemas(TASK))) + segments.count(said) + 1
    # After one turn there is room for three more tokens, and the tool's answer has more.
    room = Room(200, length + 3) if reason == "context" else Room(segments.count(said), 2000)
    answers, recorded, _ = played(segments, [said], room=room)
    assert (answers[0].is_over, answers[0].text, answers[0].reward) == (True, "", 0.0)
    assert [(each.outcome.status, each.outcome.reason) for each in recorded if each.outcome] == [("truncated", reason)]


def test_an_episode_that_nemo_rl_does_not_come_back_to_is_closed(segments: Segments) -> None:
    async def run() -> tuple[int, Answer, list[Rollout]]:
        recorded: list[Rollout] = []
        limits = Limits(idle_seconds=0.05)
        episodes = Episodes([SPEC], segments, Room(200, 2000), limits=limits, record=recorded.append)
        player = Player(episodes, segments)
        await player.say(turns_of("right", TASK, "qwen2_5")[0])
        async with asyncio.timeout(120):
            while not episodes.abandoned:  # noqa: ASYNC110  # a counter; nothing sets an event
                await asyncio.sleep(0.01)
        late = await player.say("I typed 3.")
        return episodes.abandoned, late, recorded

    abandoned, late, recorded = asyncio.run(run())
    assert abandoned == 1
    assert late.is_over
    assert segments.count(late.text) == 2000
    assert recorded == []


def test_a_prompt_that_did_not_fit_is_over_at_once(segments: Segments) -> None:
    async def run() -> list[Answer]:
        episodes = Episodes([SPEC], segments, Room(200, 2000))
        log = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
        return await episodes.step([log], [{**info_of(TASK), "too_long": True}])

    (answer,) = asyncio.run(run())
    assert answer.is_over


def wrong_prompt(player: Player) -> None:
    player.log[0]["content"] = "another prompt"


def wrong_environment(player: Player) -> None:
    player.info["environment"] = "keypat"


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(wrong_prompt, "settings.gymrail.path to nemo_gym"), (wrong_environment, "Did you mean 'keypad'")],
)
def test_data_that_does_not_fit_the_environments_stops_the_run(
    segments: Segments, spoil: Callable[[Player], None], words: str
) -> None:
    async def run() -> None:
        episodes = Episodes([SPEC], segments, Room(200, 2000))
        player = Player(episodes, segments)
        spoil(player)
        try:
            await player.say("Hi")
        finally:
            await episodes.close()

    with pytest.raises(InputError, match=words):
        asyncio.run(run())


def test_a_tokenizer_whose_tool_calls_nemo_rl_would_hide_is_refused(tmp_path: Path) -> None:
    tokenizer = write_tokenizer("qwen2_5", tmp_path)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<tool_call>"]})
    with pytest.raises(InputError, match=r"settings\.gymrail\.path to nemo_gym"):
        Segments(tokenizer)
