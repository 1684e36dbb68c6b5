"""What is trained is what was sampled: log-probs at sampling against TRL's own training forward, and masks against
the transcript."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from families import FAMILIES, PAD
from grpo_runs import train

from gymrail.tokens import sequence_of


@pytest.mark.parametrize("family", FAMILIES)
def test_log_probs_at_sampling_equal_those_of_the_training_forward(
    family: str, checkpoint: Callable[[str], str], tmp_path: Path
) -> None:
    trainer, rollouts = train(checkpoint(family), PAD, tmp_path, groups=4, generations=4)

    (batch, log_probs), *_ = trainer.batches
    trained, worst = 0, 0.0
    for row, rollout in enumerate(rollouts.last_rollouts):
        sequence = sequence_of(rollout)
        length = len(sequence.completion_ids)
        assert batch["completion_ids"][row, :length].tolist() == sequence.completion_ids
        assert batch["tool_mask"][row, :length].tolist() == sequence.mask
        sampled = torch.tensor(sequence.mask, dtype=torch.bool)
        difference = (log_probs[row, :length] - torch.tensor(sequence.log_probs)).abs()[sampled]
        worst = max(worst, difference.max().item())
        trained += int(sampled.sum())
    assert trained > 100
    assert worst < 1e-4
    # Without tool-using turns on both sides of a user turn this would prove little.
    assert any(len(rollout.calls) >= 2 and rollout.steps >= 4 for rollout in rollouts.last_rollouts)


@pytest.mark.parametrize("family", FAMILIES)
def test_only_what_the_model_said_is_trained(family: str, checkpoint: Callable[[str], str], tmp_path: Path) -> None:
    trainer, rollouts = train(checkpoint(family), PAD, tmp_path)

    tokenizer = trainer.processing_class
    for rollout in rollouts.last_rollouts:
        sequence = sequence_of(rollout)
        said = [token for token, keep in zip(sequence.completion_ids, sequence.mask, strict=True) if keep]
        sampled = [token for item in rollout.model_calls() for token in item["generation_token_ids"]]
        assert said == sampled
        rest = tokenizer.decode(
            [token for token, keep in zip(sequence.completion_ids, sequence.mask, strict=True) if not keep]
        )
        for call in rollout.calls:
            assert call.is_error or str(call.output) in rest
        if len(rollout.answers) > 1:
            assert f"Now type {rollout.task.row['second']}." in rest
