"""GRPO through `rollout_func`: failures never become rewards, groups stay whole, wrong use is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families import PAD, Pad
from grpo_runs import train

from gymrail import Rollout, tool
from gymrail.data.mixture import Member, Mixture
from gymrail.data.overlong import Overlong
from gymrail.episode import Limits
from gymrail.errors import InputError
from gymrail.rollout import Outcome
from gymrail.spec import EnvironmentSpec
from gymrail_trl import RolloutFunction


class BrokenTool(Pad):
    """Its tool crashes in every second repeat's episode."""

    opened = 0

    def seed(self) -> None:
        super().seed()
        type(self).opened += 1
        self.breaks = type(self).opened % 2 == 0

    @tool
    def press(self, digit: int) -> str:
        """Press a key.

        Args:
            digit: The key.
        """
        if self.breaks:
            raise RuntimeError("the pad is on fire")
        return super().press(digit)


class BrokenVerifier(Pad):
    async def verify(self, rollout: Rollout) -> float:
        raise ConnectionError("judge down")


class SlowTool(Pad):
    @tool
    async def press(self, digit: int) -> str:
        """Press a key.

        Args:
            digit: The key.
        """
        await asyncio.sleep(600)
        return "late"


class AllTheSame(Pad):
    """Every episode earns its own repeat's number, so that groups have spread."""

    reward_range = (0.0, 100.0)

    def verify(self, rollout: Rollout) -> float:
        return float(rollout.repeat)


def test_a_tool_that_crashes_masks_its_rollouts_and_training_goes_on(
    checkpoint: Callable[[str], str], tmp_path: Path
) -> None:
    recorded: list[Rollout] = []
    spec = EnvironmentSpec("pad", BrokenTool)
    trainer, _ = train(checkpoint("tiny"), spec, tmp_path, steps=3, record=recorded.append)

    failed = [rollout for rollout in recorded if rollout.failure is not None]
    assert trainer.state.global_step == 3
    assert len(recorded) == 24
    assert failed
    assert len(failed) < len(recorded)
    assert {(rollout.failure.kind, rollout.failure.stage) for rollout in failed if rollout.failure} == {
        ("tool", "tool")
    }
    assert all(rollout.reward is None for rollout in failed)
    for (batch, _), step in zip(trainer.batches, range(3), strict=True):
        for row, rollout in enumerate(recorded_in_order(recorded, step)):
            if rollout.failure is not None:
                assert trained_tokens(batch, row) == 0
                assert batch["advantages"][row] == 0
    shares = [entry["env/pad/failed"] for entry in trainer.state.log_history if "env/pad/failed" in entry]
    assert sum(shares) / len(shares) == pytest.approx(len(failed) / len(recorded))


def trained_tokens(batch: Any, row: int) -> int:
    """TRL pads its tool mask with ones; what is trained is where both masks are 1."""
    return int((batch["tool_mask"][row] * batch["completion_mask"][row]).sum())


def recorded_in_order(recorded: list[Rollout], step: int) -> list[Rollout]:
    mine = [rollout for rollout in recorded if rollout.metrics["train_step"] == step]
    return sorted(mine, key=lambda rollout: (rollout.task_index, rollout.repeat))


def test_a_verifier_that_is_down_for_a_whole_batch_changes_no_weight(
    checkpoint: Callable[[str], str], tmp_path: Path
) -> None:
    recorded: list[Rollout] = []
    spec = EnvironmentSpec("pad", BrokenVerifier)
    trainer, _ = train(checkpoint("tiny"), spec, tmp_path, record=recorded.append, config={"weight_decay": 0.0})

    from transformers import AutoModelForCausalLM

    before = AutoModelForCausalLM.from_pretrained(checkpoint("tiny"), dtype="float32").state_dict()
    after = trainer.model.state_dict()
    assert {rollout.failure.kind for rollout in recorded if rollout.failure} == {"verifier"}
    assert len([rollout for rollout in recorded if rollout.failure]) == 8
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_tool_that_hangs_fails_by_timeout_and_is_played_again_first(
    checkpoint: Callable[[str], str], tmp_path: Path
) -> None:
    recorded: list[Rollout] = []
    spec = EnvironmentSpec("pad", SlowTool)
    train(checkpoint("tiny"), spec, tmp_path, record=recorded.append, limits=Limits(call_seconds=0.05), retries=1)

    timeouts = [rollout for rollout in recorded if rollout.failure and rollout.failure.kind == "timeout"]
    assert timeouts
    assert all(rollout.attempt == 2 and rollout.reward is None for rollout in timeouts)


def test_groups_are_one_task_each_and_advantages_are_theirs(checkpoint: Callable[[str], str], tmp_path: Path) -> None:
    spec = EnvironmentSpec("pad", AllTheSame)
    trainer, rollouts = train(checkpoint("tiny"), spec, tmp_path, groups=3, generations=4)

    played = [(rollout.task.id, rollout.repeat) for rollout in rollouts.last_rollouts]
    assert [repeat for _, repeat in played] == [0, 1, 2, 3] * 3
    for group in range(3):
        assert len({task for task, _ in played[group * 4 : group * 4 + 4]}) == 1
    rewards = torch.tensor([0.0, 1.0, 2.0, 3.0])
    expected = ((rewards - rewards.mean()) / (rewards.std() + 1e-4)).repeat(3)
    (batch, _), *_ = trainer.batches
    assert torch.allclose(batch["advantages"], expected, atol=1e-4)


def test_metrics_of_each_environment_are_logged_beside_trl_s(checkpoint: Callable[[str], str], tmp_path: Path) -> None:
    mixture = Mixture([Member(PAD), Member(EnvironmentSpec("same", AllTheSame))], seed=0)
    trainer, _ = train(checkpoint("tiny"), PAD, tmp_path, mixture=mixture)

    logged = trainer.state.log_history[0]
    for name in ("pad", "same"):
        assert logged[f"env/{name}/share"] == pytest.approx(0.5)
        assert {
            f"env/{name}/{key}" for key in ("reward", "scored", "truncated", "failed", "steps", "tool_calls")
        } <= logged.keys()
    assert logged["env/same/reward"] == pytest.approx(1.5)


def test_truncated_rollouts_are_masked_when_asked(checkpoint: Callable[[str], str], tmp_path: Path) -> None:
    trainer, rollouts = train(checkpoint("tiny"), PAD, tmp_path, context_length=40, train_truncated=False)

    statuses = [rollout.outcome.status for rollout in rollouts.last_rollouts if rollout.outcome]
    (batch, _), *_ = trainer.batches
    assert "truncated" in statuses
    for row, status in enumerate(statuses):
        assert (trained_tokens(batch, row) == 0) == (status == "truncated")


def test_the_trainer_gets_scaled_rewards_and_the_record_keeps_the_verifier_s() -> None:
    mixture = Mixture([Member(PAD, reward_scale=2.5)], seed=0)
    played = []
    for reward in (1.0, 0.25):
        rollout = Rollout(PAD.name, mixture.group(0).task, "one", outcome=Outcome("scored"), reward=reward)
        answer = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "1"}]}
        answer |= {"prompt_token_ids": [1], "generation_token_ids": [5, 2], "generation_log_probs": [-0.5, -0.5]}
        rollout.conversation = [answer]
        played.append(rollout)

    columns = RolloutFunction({"train": mixture}).to_columns(played, 2)
    assert columns["gymrail_reward"] == [2.5, 0.625]
    assert [rollout.reward for rollout in played] == [1.0, 0.25]


def test_overlong_shaping_lowers_what_the_trainer_gets_and_never_makes_a_number_of_a_failure() -> None:
    mixture = Mixture([Member(PAD, reward_scale=2.0)], seed=0)
    scored = Rollout(PAD.name, mixture.group(0).task, "one", outcome=Outcome("scored"), reward=1.0)
    answer = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "1"}]}
    answer |= {"prompt_token_ids": [1], "generation_token_ids": [5] * 8, "generation_log_probs": [-0.5] * 8}
    scored.conversation = [answer]
    failed = Rollout(PAD.name, mixture.group(0).task, "one", outcome=Outcome("failed"))
    failed.conversation = [answer]

    shaped = RolloutFunction({"train": mixture}, overlong=Overlong(limit=10, buffer=4, penalty=1.0))
    assert shaped.to_columns([scored, failed], 2)["gymrail_reward"] == [2.0 - 0.5, None]
    assert (scored.reward, scored.metrics["overlong_penalty"]) == (1.0, -0.5)
    assert "overlong_penalty" not in failed.metrics


def test_a_prompt_without_a_task_is_refused_with_the_fix() -> None:
    rollouts = RolloutFunction({"train": Mixture([Member(PAD)])})

    with pytest.raises(InputError, match=r"group_dataset"):
        rollouts._keys([[{"role": "user", "content": "hi"}]])


def test_trl_s_own_tools_beside_ours_are_refused() -> None:
    rollouts = RolloutFunction({"train": Mixture([Member(PAD)])})

    with pytest.raises(InputError, match="Pass one"):
        rollouts([], _FakeTrainer(tools=[print]))


class _FakeTrainer:
    """Just what is looked at before anything is played."""

    def __init__(self, tools: Any = ()) -> None:
        self.tools = list(tools)
        self.accelerator = type("Accelerator", (), {"process_index": 0})()
        self.model = torch.nn.Identity()
        self.num_generations = self.num_generations_eval = 1
