"""A few steps of real GRPO on a tiny checkpoint, and what the trainer saw."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from gymrail.data.mixture import Member, Mixture
from gymrail.models.token_model import Sampling
from gymrail.spec import EnvironmentSpec
from gymrail_trl import RolloutFunction, group_dataset, groups_needed


class WatchedTrainer(GRPOTrainer):
    """Keeps every batch that TRL made of the rollouts, with the training forward's log-probs for it."""

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        batch = super()._generate_and_score_completions(inputs)
        completion = batch["completion_ids"]
        ids = torch.cat([batch["prompt_ids"], completion], dim=1)
        attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
        with torch.no_grad():
            log_probs = self._get_per_token_logps_and_entropies(self.model, ids, attention, completion.size(1))[0]
        self.batches = [*getattr(self, "batches", []), (batch, log_probs)]
        return batch


def train(
    checkpoint: str,
    spec: EnvironmentSpec,
    output: Path,
    *,
    steps: int = 1,
    groups: int = 2,
    generations: int = 4,
    **options: Any,
) -> tuple[WatchedTrainer, RolloutFunction]:
    """Run GRPO and return the trainer and its rollouts."""
    config: dict[str, Any] = {
        "output_dir": str(output),
        "max_steps": steps,
        "per_device_train_batch_size": groups * generations,
        "num_generations": generations,
        "max_completion_length": 512,
        "learning_rate": 1e-4,
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "report_to": [],
        "save_strategy": "no",
        "disable_tqdm": True,
        "shuffle_dataset": False,
        "logging_steps": 1,
        "seed": 0,
    }
    config |= options.pop("config", {})
    args = GRPOConfig(**config)
    mixture = options.pop("mixture", None) or Mixture([Member(spec)], seed=0)
    rollouts = RolloutFunction({"train": mixture}, sampling=Sampling(max_output_tokens=48), **options)
    tokenizer = AutoTokenizer.from_pretrained(checkpoint, padding_side="left")
    trainer = WatchedTrainer(
        model=AutoModelForCausalLM.from_pretrained(checkpoint, dtype="float32"),
        args=args,
        reward_funcs=[rollouts.reward],
        rollout_func=rollouts,
        train_dataset=group_dataset(mixture, "train", groups_needed(args)),
        processing_class=tokenizer,
    )
    trainer.train()
    return trainer, rollouts
