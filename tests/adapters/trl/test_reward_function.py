"""Single-turn environments as plain reward functions."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from gymrail import Environment, Rollout, Task
from gymrail.errors import InputError, VerifierError
from gymrail.registry import find
from gymrail.spec import EnvironmentSpec
from gymrail_trl import reward_dataset, reward_function


class Length(Environment[Task]):
    """Paid for short answers; its judge is down for empty ones."""

    def verify(self, rollout: Rollout) -> float:
        if not rollout.final_text:
            raise VerifierError("nothing to judge")
        return 1.0 / len(rollout.final_text)

    @classmethod
    def generate(cls, rng: object) -> Task:
        return Task.ask("Type 3.", nonce=repr(rng.random()))  # pyright: ignore[reportAttributeAccessIssue]


def test_the_completion_is_the_answer_and_a_broken_judge_is_none_not_zero() -> None:
    spec = EnvironmentSpec("length", Length)
    rows = reward_dataset(spec, "train", 4)["gymrail_row"]
    completions = ["abcd", [{"role": "assistant", "content": "ab"}], "", [{"role": "assistant", "content": "a"}]]

    rewards = asyncio.run(reward_function(spec)(completions=completions, gymrail_row=rows))  # pyright: ignore[reportArgumentType]

    assert rewards == [0.25, 0.5, None, 1.0]


def test_a_trainer_takes_it_as_it_is(checkpoint: Callable[[str], str], tmp_path: Path) -> None:
    spec = EnvironmentSpec("length", Length)
    args = GRPOConfig(
        output_dir=str(tmp_path),
        max_steps=1,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=16,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=1,
    )
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(checkpoint("tiny"), dtype="float32"),
        args=args,
        reward_funcs=[reward_function(spec)],
        train_dataset=reward_dataset(spec, "train", 8),
        processing_class=AutoTokenizer.from_pretrained(checkpoint("tiny"), padding_side="left"),
    )
    trainer.train()

    assert 0 < trainer.state.log_history[0]["rewards/length/mean"] <= 1


def test_mcqa_pays_the_right_letter_and_nothing_else() -> None:
    spec = find("mcqa")
    dataset = reward_dataset(spec, "train", 2)
    tasks = list(spec.tasks("train", limit=2))
    gold = [f"\\boxed{{{task.row['expected_answer']}}}\nAnswer: {task.row['expected_answer']}" for task in tasks]
    hedged = ["It is A, or B, or C, or D." for _ in tasks]

    pay = reward_function(spec)
    assert asyncio.run(pay(completions=gold, gymrail_row=dataset["gymrail_row"])) == [1.0, 1.0]  # pyright: ignore[reportArgumentType]
    assert asyncio.run(pay(completions=hedged, gymrail_row=dataset["gymrail_row"])) == [0.0, 0.0]  # pyright: ignore[reportArgumentType]


def test_an_environment_with_tools_is_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match="RolloutFunction"):
        reward_function(find("session_counter"))


def test_an_environment_with_user_turns_is_refused(tmp_path: Path) -> None:
    """A reward function has one answer, and it must not be given again to every question."""

    class Asks(Length):
        def reply(self, rollout: Rollout) -> str | None:
            return "And why?" if rollout.steps < 2 else None

    with pytest.raises(InputError, match="user turns"):
        reward_function(EnvironmentSpec("asks", Asks))
