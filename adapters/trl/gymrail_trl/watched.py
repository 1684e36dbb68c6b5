"""What a GRPO trainer makes of rollouts, seen from inside: the rows of its loss held against what the sampler gave."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from transformers import TrainerCallback

from gymrail.rollout import Rollout
from gymrail.validation.sampled import Sampled, sampled_of
from gymrail_trl.rollout import RolloutFunction


@dataclass
class Rows:
    """What was found in the loss."""

    rows: int = 0
    tokens: int = 0
    """Trained ones."""
    masked: int = 0
    """Rows of which nothing is trained."""
    problems: list[str] = field(default_factory=list)
    differences: list[float] = field(default_factory=list)
    """Of log-probs, the trainer's less the sampler's, before the weights moved."""

    @property
    def largest(self) -> float:
        return max((abs(value) for value in self.differences), default=math.nan)

    @property
    def mean(self) -> float:
        return sum(map(abs, self.differences)) / len(self.differences) if self.differences else math.nan

    @property
    def ratio(self) -> float:
        """The mean of exp(|difference|): NeMo RL's token_mult_prob_error, 1 where both agree."""
        if not self.differences:
            return math.nan
        return sum(math.exp(min(abs(value), 50.0)) for value in self.differences) / len(self.differences)


class RowWatch:
    """Looks into a trainer's loss. Pass it to `run_grpo(watch=...)`."""

    def __init__(self) -> None:
        self.found = Rows()
        self.batches: list[list[Rollout]] = []
        """The rollouts of each batch, in the order of its rows."""
        self.rewards: list[list[float | None]] = []
        """What the trainer was given for them."""
        self.steps: list[int] = []
        """The optimiser steps at which they were sampled."""
        self._expected: dict[tuple[int, ...], Sampled] = {}

    def __call__(self, trainer: Any, rollouts: RolloutFunction) -> None:
        to_columns, compute_loss = rollouts.to_columns, trainer.compute_loss

        def noting(rollouts: Sequence[Rollout], eos_token_id: int) -> dict[str, list[Any]]:
            columns = to_columns(rollouts, eos_token_id)
            self.batches.append(list(rollouts))
            self.rewards.append(list(columns["gymrail_reward"]))
            self.steps.append(trainer.state.global_step)
            self._expected = dict(entry for rollout in rollouts if (entry := sampled_of(rollout)) is not None)
            return columns

        @functools.wraps(compute_loss)
        def looking(model: Any, inputs: Any, *rest: Any, **named: Any) -> Any:
            if model.training:  # the trainer's own evaluation has other batches
                self._look(trainer, model, inputs)
            return compute_loss(model, inputs, *rest, **named)

        rollouts.to_columns = noting
        trainer.compute_loss = looking

    def _look(self, trainer: Any, model: Any, inputs: Any) -> None:
        found = self.found
        is_on_policy = bool(self.steps) and trainer.state.global_step == self.steps[-1]
        log_probs = train_log_probs(trainer, model, inputs) if is_on_policy else None
        prompts, completions, trained = _rows_of(inputs)
        for number, (prompt, completion, places) in enumerate(zip(prompts, completions, trained, strict=True)):
            found.rows += 1
            found.tokens += len(places)
            if not places:
                found.masked += 1
                continue
            expected = self._expected.get((*prompt, *completion))
            if expected is None:
                found.problems.append(
                    f"a row of {len(prompt) + len(completion)} tokens in the loss was never sampled so"
                )
                continue
            got = {len(prompt) + place for place in places}
            if got != expected.keys():
                odd = sorted(got ^ expected.keys())[0]
                what = "is trained, and was not sampled" if odd in got else "was sampled, and is not trained"
                token = trainer.processing_class.decode([(*prompt, *completion)[odd]])
                found.problems.append(f"token {odd} of a row ({token!r}) {what}")
                continue
            if log_probs is not None:
                found.differences += [log_probs[number][place] - expected[len(prompt) + place] for place in places]


def train_log_probs(trainer: Any, model: Any, inputs: Any) -> list[list[float]]:
    """Return the log-probs that the trainer gives the completions' tokens, in its own precision, dropout off.

    TRL's own function is asked; where another library has replaced it (Unsloth's returns something else), the model.
    """
    import torch

    ids = torch.cat([inputs["prompt_ids"], inputs["completion_ids"]], dim=1)
    mask = torch.cat([inputs["prompt_mask"], inputs["completion_mask"]], dim=1)
    length = inputs["completion_ids"].size(1)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), trainer.compute_loss_context_manager():
            own = getattr(trainer, "_get_per_token_logps_and_entropies", None)
            if own is not None and type(trainer).__module__.startswith("trl."):
                return own(model, ids, mask, length)[0].float().tolist()
            logits = model(input_ids=ids, attention_mask=mask).logits[:, -length - 1 : -1].float()
            chosen = torch.log_softmax(logits / trainer.args.temperature, -1)
            return chosen.gather(-1, inputs["completion_ids"].unsqueeze(-1)).squeeze(-1).tolist()
    finally:
        model.train(was_training)


def _rows_of(inputs: Any) -> tuple[list[list[int]], list[list[int]], list[list[int]]]:
    """Each row's prompt, completion and places of trained tokens in the completion, without padding."""
    prompts = _unpadded(inputs["prompt_ids"], inputs["prompt_mask"])
    completions = _unpadded(inputs["completion_ids"], inputs["completion_mask"])
    mask = inputs["completion_mask"] * inputs["tool_mask"] if "tool_mask" in inputs else inputs["completion_mask"]
    trained = [[place for place, keep in enumerate(row) if keep] for row in mask.tolist()]
    return prompts, completions, trained


def _unpadded(ids: Any, mask: Any) -> list[list[int]]:
    return [
        [token for token, keep in zip(row, kept, strict=True) if keep]
        for row, kept in zip(ids.tolist(), mask.tolist(), strict=True)
    ]


class WeightWatch(TrainerCallback):
    """Keeps the trainable weights as they were at the beginning, at each checkpoint and at the end, and the log."""

    def __init__(self) -> None:
        self.before: dict[str, Any] = {}
        self.begun: dict[str, Any] = {}
        """At the first step: those of the checkpoint that the run goes on from."""
        self.after: dict[str, Any] = {}
        self.saved: dict[int, dict[str, Any]] = {}
        self.log: list[dict[str, Any]] = []
        self.steps: list[int] = []
        """The optimiser steps that were made here; the log has those before a checkpoint too."""

    def on_step_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.begun = self.begun or trainable(model)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.steps.append(state.global_step)

    def on_train_begin(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.before = trainable(model)

    def on_save(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.saved[state.global_step] = trainable(model)

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any = None, **_: Any) -> None:
        self.after = trainable(model)
        self.log = [dict(entry) for entry in state.log_history]


def trainable(model: Any) -> dict[str, Any]:
    """Return copies of a model's trainable parameters, by name."""
    named = model.named_parameters()
    return {name: value.detach().to("cpu", copy=True) for name, value in named if value.requires_grad}
