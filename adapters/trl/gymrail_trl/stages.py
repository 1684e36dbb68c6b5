"""What a training run is made of: load a policy, collect, fine-tune, evaluate. Each stage leaves its result in the
run directory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from gymrail.agents.tool_loop import ToolLoop
from gymrail.collect.estimators import interval
from gymrail.collect.event_loop import run_async
from gymrail.collect.journal import read_keys
from gymrail.collect.run_directory import ROLLOUTS, RunDirectory
from gymrail.collect.runner import Job, collect
from gymrail.data.export import preference_rows, sft_rows, to_dataset
from gymrail.data.export.conversation import fingerprint
from gymrail.data.export.made import is_export
from gymrail.data.overlong import Overlong
from gymrail.episode import Limits
from gymrail.errors import GymrailError, InputError
from gymrail.models.build import build_model
from gymrail.models.token_model import Sampling, TokenModel
from gymrail.models.transformers import load_checkpoint, policy_model
from gymrail.recipe import Recipe
from gymrail.recipe_mixture import plain_mixture_of
from gymrail.spec import EnvironmentSpec
from gymrail_trl.as_sampled import prepared, train_as_sampled
from gymrail_trl.exported import exported_rows
from gymrail_trl.processes import count, is_first, open_run, rank, take_over, wait
from gymrail_trl.tiny import TinyShape, make_tiny_policy

T = TypeVar("T")


@dataclass
class Policy:
    """A loaded checkpoint."""

    path: str
    model: Any
    tokenizer: Any

    def save(self, path: Path) -> str:
        """Write the checkpoint; of several processes the first writes it, and all go on once it is there."""
        if is_first():
            self.model.save_pretrained(path)
            self.tokenizer.save_pretrained(path)
        wait()
        return str(path)


def load_policy(recipe: Recipe, path: str) -> Policy:
    """Load a checkpoint with Transformers.

    Raises:
        InputError: none can be loaded from the path.
    """
    return Policy(path, *load_checkpoint(path, dtype=recipe.dtype))


def prepare_process(recipe: Recipe) -> None:
    """Seed this process and set its threads, as the recipe says."""
    import torch
    from transformers import set_seed

    set_seed(recipe.seed)
    threads = recipe.threads or (1 if recipe.model == "tiny" else None)
    if threads is not None:
        torch.set_num_threads(threads)


def resolve_model(recipe: Recipe, specs: Sequence[EnvironmentSpec]) -> str:
    """Return the checkpoint to start from; `tiny` is made on the spot."""
    if recipe.model != "tiny":
        return recipe.model
    path = recipe.directory / "policy"
    if is_first() and not (path / "config.json").is_file():
        make_tiny_policy(specs, path, shape=TinyShape(**recipe.tiny.model_dump()), seed=recipe.seed)
    wait()
    return str(path)


def sampling_of(recipe: Recipe) -> Sampling:
    return Sampling(recipe.sampling.temperature, recipe.sampling.top_p, recipe.sampling.max_output_tokens)


def overlong_of(recipe: Recipe) -> Overlong | None:
    section = recipe.overlong
    return Overlong(recipe.sampling.max_output_tokens, section.buffer, section.penalty) if section else None


def sampled(recipe: Recipe, policy: Policy) -> TokenModel:
    """Return the policy as a model that plays, sampled as the recipe says."""
    policy.model.eval()
    return policy_model(
        policy.model, policy.tokenizer, sampling=sampling_of(recipe), context_length=recipe.sampling.context_length
    )


def limits_of(recipe: Recipe) -> Limits:
    names = (
        "call_seconds", "episode_seconds", "token_limit", "output_token_limit", "tool_call_limit", "time_limit_seconds",
    )  # fmt: skip
    return Limits(**{name: getattr(recipe.agent, name) for name in names})


def collect_groups(
    recipe: Recipe,
    specs: Sequence[EnvironmentSpec],
    model: Any,
    directory: Path,
    groups: range,
    repeats: int = 1,
) -> RunDirectory:
    """Play these groups of the mixture, each so many times; what is in the directory already is not played again."""
    mixture = plain_mixture_of(recipe, specs)
    jobs = (
        Job(group.spec, group.task, group.index, repeat)
        for group in map(mixture.group, groups)
        for repeat in range(repeats)
    )
    return _collect(recipe, jobs, model, directory, specs)


def collect_teacher(recipe: Recipe, specs: Sequence[EnvironmentSpec], directory: Path) -> RunDirectory:
    """Play the warm start's teacher over the mixture's training tasks."""
    assert recipe.warm_start is not None
    teacher = build_model(recipe.warm_start.teacher, seed=recipe.seed)
    return collect_groups(recipe, specs, teacher, directory, range(recipe.warm_start.rollouts))


def evaluate(
    recipe: Recipe, policy: Policy, specs: Sequence[EnvironmentSpec], directory: Path
) -> dict[str, dict[str, float]]:
    """Measure held-out reward per environment: mean, 95% interval and how many rollouts failed."""
    import torch

    assert recipe.evaluation is not None
    section = recipe.evaluation
    torch.manual_seed(recipe.seed)
    jobs = [
        Job(spec, task, index, repeat)
        for spec in specs
        for index, task in enumerate(spec.tasks(section.split, limit=section.tasks, seed=recipe.seed))
        for repeat in range(section.repeats)
    ]
    model = sampled(recipe, policy)
    return scores_of(_collect(recipe, jobs, model, directory, specs), specs)


def scores_of(run: RunDirectory, specs: Sequence[EnvironmentSpec]) -> dict[str, dict[str, float]]:
    """Return a run's mean reward per environment, with its 95% interval and the number of tasks."""
    rewards: dict[str, dict[int, list[float]]] = {spec.name: {} for spec in specs}
    for finished in run.finished():
        if finished.reward is not None:
            rewards[finished.key.environment].setdefault(finished.key.task_index, []).append(finished.reward)
    return {name: _score(by_task.values()) for name, by_task in rewards.items()}


def rows_from(recipe: Recipe, specs: Sequence[EnvironmentSpec], sources: Iterable[str], algorithm: str) -> Any:
    """Read run directories, exports and files of rows into one dataset.

    Raises:
        InputError: a source does not exist, is an export of another kind, or nothing in them can be trained on.
    """
    rows: list[dict[str, Any]] = []
    known = {spec.name: spec for spec in specs} or None
    for source in sources:
        path = Path(source)
        if path.is_dir() and not is_export(path):
            rollouts = RunDirectory.open(path).rollouts()
            if algorithm == "sft":
                rows += sft_rows(rollouts, specs=known, min_reward=recipe.min_reward)
            else:
                pairs = map(_to_first_turn, preference_rows(rollouts, specs=known, margin=recipe.margin))
                rows += (pair for pair in pairs if fingerprint(pair["chosen"][0]) != fingerprint(pair["rejected"][0]))
        else:
            rows += exported_rows(path, algorithm, min_reward=recipe.min_reward, margin=recipe.margin)
    if not rows:
        raise InputError(
            f"data: nothing in {list(sources)} can be trained on with min_reward={recipe.min_reward}, "
            f"margin={recipe.margin}."
        )
    return to_dataset(rows)


def _to_first_turn(row: dict[str, Any]) -> dict[str, Any]:
    """Cut both sides of a pair to the answer in which they part.

    TRL's DPO has no mask for tool messages and would train on the tools' words in all that follows.
    """
    return {**row, "chosen": row["chosen"][:1], "rejected": row["rejected"][:1]}


def fine_tune(
    policy: Policy, dataset: Any, config: Any, algorithm: str, callbacks: Sequence[Any], lora: Any = None
) -> list[dict[str, Any]]:
    """Run TRL's SFT or DPO trainer over the policy, in place, and return the trainer's log."""
    from transformers import PrinterCallback
    from trl.trainer.dpo_trainer import DPOTrainer
    from trl.trainer.sft_trainer import SFTTrainer

    cls = SFTTrainer if algorithm == "sft" else DPOTrainer
    dataset = prepared(dataset, policy.tokenizer, policy.model, algorithm)
    if algorithm == "sft" and "messages" not in dataset.column_names:
        config = copy.copy(config)
        config.assistant_only_loss = False  # labels, or a column of completions, say what is trained on
    forget_precision()
    trainer = built(
        cls,
        model=policy.model,
        args=config,
        train_dataset=dataset,
        processing_class=policy.tokenizer,
        peft_config=lora,
        callbacks=list(callbacks),
    )
    train_as_sampled(trainer)
    trainer.remove_callback(PrinterCallback)
    trainer.train(resume_from_checkpoint=_checkpoint(config) if config.save_strategy != "no" else None)
    policy.model = trainer.accelerator.unwrap_model(trainer.model)
    return list(trainer.state.log_history)


def built(trainer: Callable[..., T], **arguments: Any) -> T:
    """Make a trainer.

    Raises:
        InputError: it refuses the settings, the adapters or the rows.
    """
    try:
        return trainer(**arguments)
    except (ValueError, TypeError, ImportError) as error:
        raise InputError(f"{trainer.__name__} refuses the recipe: {error}") from error


def forget_precision() -> None:
    """Let the next trainer of this process have a precision of its own; Accelerate would keep the first one's and
    refuse another."""
    from accelerate.state import AcceleratorState

    if AcceleratorState._shared_state:
        AcceleratorState._reset_state()  # as Transformers does when it sets up a device


def last_checkpoint(directory: Path) -> str | None:
    """Return the newest checkpoint in a trainer's output folder."""
    from transformers.trainer_utils import get_last_checkpoint

    return get_last_checkpoint(str(directory)) if directory.is_dir() else None


def last_step(directory: Path) -> int:
    """Return the optimiser step of the newest checkpoint; 0 without one."""
    checkpoint = last_checkpoint(directory)
    return int(checkpoint.rpartition("-")[2]) if checkpoint else 0


def _checkpoint(config: Any) -> str | None:
    return last_checkpoint(Path(config.output_dir))


def _collect(
    recipe: Recipe, jobs: Iterable[Job], model: Any, directory: Path, specs: Sequence[EnvironmentSpec]
) -> RunDirectory:
    config = {
        "recipe": recipe.name,
        "seed": recipe.seed,
        "agent": recipe.agent.model_dump(),
        "sampling": recipe.sampling.model_dump(),
    }
    with open_run(directory, config, specs, resume=True) as run:
        summary = run_async(
            collect(
                _own_share(run, directory, jobs),
                model,
                agent=ToolLoop(recipe.agent.max_steps),
                limits=limits_of(recipe),
                concurrency=recipe.agent.concurrency,
                retries=recipe.agent.retries,
                record=run.record,
            )
        )
        take_over(run)
    if summary.asked and summary.failed == summary.asked:
        failure = next((rollout.failure for rollout in run.rollouts() if rollout.failure), None)
        shown = f"{failure.kind} at stage {failure.stage}: {failure.message}" if failure else "unknown"
        raise GymrailError(
            f"All {summary.asked} rollouts failed; the first: {shown}. See '{directory / 'failures.jsonl'}'."
        )
    return RunDirectory.open(directory)


def _own_share(run: RunDirectory, directory: Path, jobs: Iterable[Job]) -> Iterator[Job]:
    """What this process is to play of the jobs that are not done: every n-th of all of them, of n processes."""
    if count() == 1:
        return run.remaining(jobs)
    listed = list(jobs)
    own = {job.key for job in listed[rank() :: count()]}
    if is_first():  # it notes the tasks of all
        return (job for job in run.remaining(listed) if job.key in own)
    journal = directory / ROLLOUTS
    done = read_keys(journal) if journal.is_file() else set()
    return run.remaining(job for job in listed if job.key in own and job.key not in done)


def _score(rewards_by_task: Iterable[Sequence[float]]) -> dict[str, float]:
    means = [sum(rewards) / len(rewards) for rewards in rewards_by_task]
    low, high = interval(means)
    return {"mean": sum(means) / len(means) if means else float("nan"), "low": low, "high": high, "tasks": len(means)}
