"""Verifiers as plain reward functions, in a real GRPO step."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from gymrail.errors import VerifierError
from gymrail.models.model import ModelRequest, ModelResponse, message
from gymrail.rollout import Verdict
from gymrail.verifiers.combined import Combined
from gymrail.verifiers.exact import ExactAnswer
from gymrail.verifiers.judge import Judge
from gymrail.verifiers.math import MathVerify
from gymrail.verifiers.reward import reward_function


class SaysDifferent:
    """A judge's model."""

    async def respond(self, request: ModelRequest) -> ModelResponse:
        return ModelResponse([message("[[A!=B]]")])


class DownEveryOtherTime:
    """A verifier that pays for any text, half of the time."""

    def __init__(self) -> None:
        self.calls = self.failed = 0

    async def __call__(self, answer: str, /, *, expected_answer: str) -> Verdict:
        self.calls += 1
        if self.calls % 2:
            self.failed += 1
            raise VerifierError("down")
        return Verdict(0.5)


def train(checkpoint: str, path: Path, rewards: list[Any], prompts: list[Any]) -> dict[str, float]:
    """Take one step and return what TRL logged."""
    args = GRPOConfig(
        output_dir=str(path),
        max_steps=1,
        per_device_train_batch_size=4,
        num_generations=4,
        max_completion_length=8,
        use_cpu=True,
        bf16=False,
        gradient_checkpointing=False,
        report_to=[],
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=1,
    )
    rows = {"prompt": prompts, "expected_answer": ["3"] * len(prompts), "question": ["2 + 1?"] * len(prompts)}
    trainer = GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(checkpoint, dtype="float32"),
        args=args,
        reward_funcs=rewards,
        train_dataset=Dataset.from_dict(rows),
        processing_class=AutoTokenizer.from_pretrained(checkpoint, padding_side="left"),
    )
    trainer.train()
    return trainer.state.log_history[0]


@pytest.mark.parametrize("form", ["conversational", "plain"])
def test_a_grpo_step_takes_several_verifiers_and_masks_what_could_not_be_judged(
    checkpoint: Callable[[str], str], tmp_path: Path, form: str
) -> None:
    prompt: Any = [{"role": "user", "content": "2 + 1?"}] if form == "conversational" else "2 + 1?"
    flaky, library = DownEveryOtherTime(), MathVerify(workers=1)
    rewards = [
        reward_function(library),
        reward_function(Judge(SaysDifferent())),
        reward_function(Combined({"exact": (ExactAnswer(), 0.5), "math": (library, 0.5)}), name="both"),
        reward_function(flaky, name="flaky"),
    ]
    logged = train(checkpoint("tiny"), tmp_path, rewards, [prompt] * 8)

    assert logged["rewards/judge/mean"] == 0.0
    assert 0 <= logged["rewards/math_verify/mean"] <= 1
    assert 0 <= logged["rewards/both/mean"] <= 1
    # Failures are left out of the mean: as zeros they would have made it 0.25.
    assert flaky.failed == 2
    assert logged["rewards/flaky/mean"] == 0.5
    assert logged["flaky/failed"] == 0.5
    assert logged["math_verify/failed"] == 0.0


def test_the_documents_example_trains(checkpoint: Callable[[str], str], tmp_path: Path) -> None:
    """In a process of its own, as a reader runs it: the worker processes end with it."""
    example = Path(__file__).parents[3] / "docs/examples/reward_functions.py"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [sys.executable, str(example), checkpoint("tiny"), str(tmp_path)],
        capture_output=True, text=True, timeout=300, env=environment, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert "rewards/math_verify/mean" in done.stdout
    assert "rewards/boxed/mean" in done.stdout
