"""What a GRPO trainer makes of scripted episodes, as JSON: run by the Python of each trainer's environment.

    python trainer_rows.py trl record POLICY SCRIPT OUT       plays, and writes every model call to SCRIPT
    python trainer_rows.py unsloth replay POLICY SCRIPT OUT   plays the same calls again

A replay samples nothing: each model call must ask with the recorded prompt, token for token, and gets the recorded
answer, or the recorded failure. One episode runs at a time, so that the calls keep their order.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from gymrail.agents.tool_loop import ToolLoop
from gymrail.data.mixture import Member, Mixture
from gymrail.errors import ModelError
from gymrail.models.token_model import Sample, Sampling
from gymrail.recipe import load_recipe
from gymrail.registry import find

FAILS_EVERY = 9
STEPS = 3
"""The last batch fails as a whole: nothing of it may be trained."""
GROUPS, GENERATIONS = 4, 4
RECIPE = Path(__file__).parents[2] / "recipes" / "grpo" / "quickstart.yaml"


class Recorder:
    """Samples with another sampler and writes down what came; some calls fail."""

    def __init__(self, sampler: Any) -> None:
        self.sampler = sampler
        self.calls: list[dict[str, Any]] = []
        self.fails_all = False

    async def sample(self, prompt_ids: list[int], sampling: Sampling) -> Sample:
        call: dict[str, Any] = {"prompt_ids": prompt_ids}
        self.calls.append(call)
        if self.fails_all or len(self.calls) % FAILS_EVERY == 0:
            raise ModelError("scripted: no answer")
        sample = await self.sampler.sample(prompt_ids, sampling)
        call |= {"token_ids": sample.token_ids, "log_probs": sample.log_probs}
        return sample


class Script:
    """Answers as a recorder has written down."""

    def __init__(self, calls: list[dict[str, Any]]) -> None:
        self.calls = calls
        self.next = 0
        self.fails_all = False

    async def sample(self, prompt_ids: list[int], sampling: Sampling) -> Sample:
        call = self.calls[self.next]
        self.next += 1
        assert prompt_ids == call["prompt_ids"], f"call {self.next}: {prompt_ids} instead of {call['prompt_ids']}"
        if "token_ids" not in call:
            raise ModelError("scripted: no answer")
        return Sample(call["token_ids"], call["log_probs"])


def main(trainer: str, mode: str, policy: str, script: str, out: str) -> None:
    if trainer == "unsloth":
        from gymrail_unsloth import start_unsloth

        start_unsloth(Path(out).with_suffix(".compiled"))
    import torch

    torch.set_num_threads(1)
    calls = json.loads(Path(script).read_text(encoding="utf-8")) if mode == "replay" else []
    rows, log, sampler = run(trainer, policy, Path(out).with_suffix(".run"), calls if mode == "replay" else None)
    if mode == "record":
        Path(script).write_text(json.dumps(sampler.calls), encoding="utf-8")
    else:
        assert sampler.next == len(calls), f"{len(calls) - sampler.next} calls of the script were not made"
    Path(out).write_text(json.dumps({"rows": rows, "log": log, "trainer": trainer_name()}), encoding="utf-8")


def run(trainer_name: str, policy: str, output: Path, calls: list[dict[str, Any]] | None) -> tuple[Any, Any, Any]:
    """Train some steps; return the trainer's batches, its log, and the sampler."""
    import torch
    import trl
    from transformers import set_seed

    import gymrail_trl.rollout as rollout_module
    from gymrail_trl import RolloutFunction, group_dataset, groups_needed

    made: list[Any] = []
    live_policy = rollout_module.live_policy

    def scripted(*arguments: Any, **options: Any) -> Any:
        model = live_policy(*arguments, **options)
        model.sampler = Recorder(model.sampler) if calls is None else Script(calls)
        made.append(model.sampler)
        return model

    rollout_module.live_policy = scripted  # pyright: ignore[reportPrivateImportUsage]
    batches: list[list[dict[str, Any]]] = []

    class Watched(trl.GRPOTrainer):
        def _generate_and_score_completions(self, inputs: Any) -> Any:
            if made:
                made[0].fails_all = len(batches) == STEPS - 1
            batch = super()._generate_and_score_completions(inputs)
            ids = torch.cat([batch["prompt_ids"], batch["completion_ids"]], dim=1)
            attention = torch.cat([batch["prompt_mask"], batch["completion_mask"]], dim=1)
            with torch.no_grad():
                logits = self.accelerator.unwrap_model(self.model)(input_ids=ids, attention_mask=attention).logits
            chosen = torch.log_softmax(logits[:, :-1].float(), -1).gather(-1, ids[:, 1:, None])[..., 0]
            batches.append(rows_of(batch, chosen[:, -batch["completion_ids"].size(1) :], rollouts))
            return batch

    recipe = load_recipe(RECIPE)
    specs = [find(entry.environment) for entry in recipe.mixture]
    mixture = Mixture(
        [Member(spec, entry.weight) for spec, entry in zip(specs, recipe.mixture, strict=True)], seed=recipe.seed
    )
    set_seed(0)
    model, tokenizer = load(trainer_name, policy)
    rollouts = RolloutFunction(
        {"train": mixture}, sampling=Sampling(max_output_tokens=48), context_length=108, concurrency=1, retries=0,
        agent=ToolLoop(3), train_truncated=False,
    )  # fmt: skip
    args = trl.GRPOConfig(
        output_dir=str(output), max_steps=STEPS, per_device_train_batch_size=GROUPS * GENERATIONS,
        gradient_accumulation_steps=1, num_generations=GENERATIONS, max_completion_length=256, learning_rate=0.0,
        optim="adamw_torch", use_cpu=True, bf16=False, gradient_checkpointing=False, report_to=[], save_strategy="no",
        disable_tqdm=True, shuffle_dataset=False, logging_steps=1, seed=0,
    )  # fmt: skip
    trainer = Watched(
        model=model, args=args, reward_funcs=[rollouts.reward], rollout_func=rollouts, processing_class=tokenizer,
        train_dataset=group_dataset(mixture, "train", groups_needed(args)),
    )  # fmt: skip
    trainer.train()
    log = [{key: entry[key] for key in ("loss", "grad_norm", "reward")} for entry in trainer.state.log_history[:STEPS]]
    return batches, log, made[0]


def rows_of(batch: Any, trained: Any, rollouts: Any) -> list[dict[str, Any]]:
    """Each row of a trainer's batch without its padding, which trainers are free to choose."""
    rows = []
    for number, rollout in enumerate(rollouts.last_rollouts):
        prompt, completion = batch["prompt_mask"][number].bool(), batch["completion_mask"][number].bool()
        # TRL masks the padding of a row by one of the two, and the environment's tokens by the other.
        mask = batch["tool_mask"][number] if "tool_mask" in batch else batch["completion_mask"][number]
        rows.append(
            {
                "environment": rollout.environment,
                "status": rollout.outcome.status,
                "reward": rollout.reward,
                "prompt_ids": batch["prompt_ids"][number][prompt].tolist(),
                "completion_ids": batch["completion_ids"][number][completion].tolist(),
                "mask": mask[completion].tolist(),
                "advantage": float(batch["advantages"][number]),
                "sampled_log_probs": _sampled(rollout),
                "trained_log_probs": trained[number][completion].tolist(),
            }
        )
    return rows


def _sampled(rollout: Any) -> list[float] | None:
    from gymrail_trl.rollout import RolloutFunction

    columns = RolloutFunction({}, train_truncated=False).to_columns([rollout], 0)
    return columns["logprobs"][0] if columns["gymrail_reward"][0] is not None else None


def load(trainer: str, policy: str) -> tuple[Any, Any]:
    if trainer == "trl":
        from gymrail.models.transformers import load_checkpoint

        return load_checkpoint(policy, device="cpu", dtype="float32")
    from gymrail_unsloth import load_policy

    loaded = load_policy(load_recipe(RECIPE, ["trainer=unsloth"]), policy)
    return loaded.model, loaded.tokenizer


def trainer_name() -> str:
    import trl

    return trl.GRPOTrainer.__name__


if __name__ == "__main__":
    main(*sys.argv[1:])
