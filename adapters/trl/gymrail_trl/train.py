"""`gymrail train` with TRL: a recipe from its first check to its last table."""

from __future__ import annotations

import itertools
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymrail.collect.run_directory import FAILURES, ROLLOUTS, RunDirectory
from gymrail.contract_quick import check_before_training
from gymrail.errors import InputError
from gymrail.recipe import Recipe
from gymrail.rollout import Rollout
from gymrail.spec import EnvironmentSpec
from gymrail_trl.processes import count, is_first, is_first_here, open_run, take_over, wait
from gymrail_trl.requirements import check_requirements
from gymrail_trl.settings import build_config
from gymrail_trl.stage_log import StageLog

if TYPE_CHECKING:
    from gymrail_trl.stages import Policy

Load = Callable[[Recipe, str], "Policy"]


def train(recipe: Recipe) -> dict[str, Any]:
    """Run a recipe and return its summary, which is also written to `<run>/metrics.json`.

    In several processes (`accelerate launch`, `gymrail train --processes N`) each plays its share of the episodes.

    Raises:
        InputError: before anything loads: a wrong setting, a missing package or GPU, a version out of range, an unknown
            environment or one that fails its check, an existing run directory.
    """
    if is_first_here():
        check_requirements(recipe)
    specs = recipe.specs()
    if is_first_here():
        for note in check_before_training(recipe, specs):
            sys.stderr.write(f"Note: {note}\n")
    return train_checked(recipe, specs)


def train_checked(recipe: Recipe, specs: Sequence[EnvironmentSpec], load: Load | None = None) -> dict[str, Any]:
    """Run a recipe whose requirements are checked, and return its summary.

    Args:
        load: loads the policy, with the adapters that the recipe asks for; by default Transformers loads it, and peft
            adds the adapters.

    Raises:
        InputError: before anything loads: a value that TRL refuses, an existing run directory.
    """
    _quiet()
    if recipe.algorithm == "iterated":
        from gymrail_trl.iterated import run_iterated

        return run_iterated(recipe, specs, _lora(recipe) if load is None else None, load)
    run = _Run(recipe, specs, load)
    try:
        return run.train()
    finally:
        run.run.close()


class _Run:
    """One recipe being run. Finished stages are written down, so that `resume=true` goes on where the run stopped."""

    def __init__(self, recipe: Recipe, specs: Sequence[EnvironmentSpec], load: Load | None) -> None:
        from gymrail_trl.grpo import check_config, check_mixture
        from gymrail_trl.stages import load_policy

        self.recipe = recipe
        self.specs = specs
        self.directory = recipe.directory
        self.config = build_config(recipe, recipe.algorithm, recipe.settings, self.directory / "checkpoints")
        if recipe.algorithm == "grpo":
            check_config(self.config)
            check_mixture(recipe, specs, self.config)
        self.warm_config: Any = None
        if recipe.warm_start is not None:
            settings = {"save_strategy": "no", **recipe.warm_start.settings}
            self.warm_config = build_config(recipe, "sft", settings, self.directory / "warm_start" / "checkpoints")
        self.lora = _lora(recipe) if load is None else None
        self.load = load or load_policy
        self.log = StageLog(self.directory)
        self._check_processes()
        self.run = open_run(self.directory, _written(recipe), specs, resume=recipe.resume)
        self.earlier = sum(_lines(self.directory / name) for name in (ROLLOUTS, FAILURES))
        """Rollouts of the run before it was gone on with."""
        self.rollouts = 0
        """Played by this process, or taken over from the others."""
        wait()  # every process has read the log as it was
        self.log.write("processes", count())

    def train(self) -> dict[str, Any]:
        from gymrail_trl.stages import last_step, prepare_process, resolve_model

        recipe = self.recipe
        prepare_process(recipe)
        path = resolve_model(recipe, self.specs)
        path = self._warm_start(path) if recipe.warm_start else path
        policy = self.load(recipe, path)
        parameters = sum(parameter.numel() for parameter in policy.model.parameters())
        self.log.say(f"policy: {recipe.model}, {parameters:,} parameters")
        before = self._evaluate(policy, "before")
        begun = last_step(self.directory / "checkpoints")
        log = self._run_algorithm(policy)
        self._note_trained(begun, int(log[-1]["step"]) if log else 0)
        after = self._evaluate(policy, "after")
        final = policy.save(self.directory / "final")
        return self._report(before, after, log, final)

    def _check_processes(self) -> None:
        """A checkpoint goes on with as many processes as it was made with: a batch is spread over them."""
        from gymrail_trl.stages import last_checkpoint

        before = self.log.stages.get("processes", 1)
        if before != count() and last_checkpoint(self.directory / "checkpoints"):
            raise InputError(
                f"'{self.directory}' was trained in {before} processes and would go on in {count()}, with other "
                f"batches. Go on with --processes {before}, or name another directory: output=DIR."
            )

    def _warm_start(self, path: str) -> str:
        from gymrail_trl.progress import Progress
        from gymrail_trl.stages import collect_teacher, fine_tune, rows_from

        section = self.recipe.warm_start
        assert section is not None
        finished = self.log.stages.get("warm_start")
        if finished and Path(finished).is_dir():
            return finished
        folder = self.directory / "warm_start"
        teacher = collect_teacher(self.recipe, self.specs, folder / "rollouts")
        self.log.say(f"warm start: {section.rollouts} rollouts of {section.teacher} collected")
        recipe = self.recipe.model_copy(update={"min_reward": section.min_reward})
        dataset = rows_from(recipe, self.specs, [str(teacher.path)], "sft")
        policy = self.load(self.recipe, path)
        fine_tune(policy, dataset, self.warm_config, "sft", [Progress("warm start")])
        self.log.write("warm_start", policy.save(folder / "policy"))
        return self.log.stages["warm_start"]

    def _evaluate(self, policy: Any, name: str) -> dict[str, dict[str, float]] | None:
        from gymrail_trl.stages import evaluate

        if self.recipe.evaluation is None or not self.specs:
            return None
        key = f"evaluation_{name}"
        if key not in self.log.stages:
            policy.model.eval()
            scores = evaluate(self.recipe, policy, self.specs, self.directory / key)
            self.log.write(key, scores)
        scores = self.log.stages[key]
        shown = ", ".join(f"{environment} {score['mean']:.2f}" for environment, score in scores.items())
        self.log.say(f"held-out reward {name} training: {shown}")
        return scores

    def _run_algorithm(self, policy: Any) -> list[dict[str, Any]]:
        from gymrail_trl.grpo import run_grpo
        from gymrail_trl.progress import Progress
        from gymrail_trl.stages import fine_tune, rows_from

        recipe = self.recipe
        if recipe.algorithm == "grpo":
            progress = Progress("GRPO", lambda: self.rollouts * count())  # shares are equal
            with self._held_out() as held_out:
                log = run_grpo(
                    recipe, policy, self.specs, self.config, record=self._record, callbacks=[progress], lora=self.lora,
                    record_held_out=held_out.record if held_out is not None else None,
                )  # fmt: skip
                if held_out is not None:
                    take_over(held_out)
            self.rollouts += take_over(self.run)
            return log
        if not recipe.data:
            return []
        dataset = rows_from(recipe, self.specs, recipe.data, recipe.algorithm)
        self.log.say(f"{recipe.algorithm}: {len(dataset)} rows")
        progress = Progress(recipe.algorithm.upper())
        return fine_tune(policy, dataset, self.config, recipe.algorithm, [progress], self.lora)

    @contextmanager
    def _held_out(self) -> Iterator[RunDirectory | None]:
        """Where the rollouts of the trainer's own evaluations go: nobody is to train on them."""
        if self.config.eval_strategy == "no":
            yield None
            return
        with open_run(self.directory / "evaluation_during", _written(self.recipe), self.specs, resume=True) as run:
            yield run

    def _note_trained(self, begun: int, step: int) -> None:
        """Note how far the policy is trained. What was measured after an earlier training is kept under another name:
        it is not of this policy."""
        if step > begun or self.log.stages.get("trained", step) != step:
            folder = self.directory / "evaluation_after"
            if is_first() and folder.is_dir():
                names = (folder.with_name(f"{folder.name}_{number}") for number in itertools.count(1))
                folder.rename(next(name for name in names if not name.exists()))
            wait()
            self.log.stages.pop(folder.name, None)
        self.log.write("trained", step)

    def _record(self, rollout: Rollout) -> None:
        self.run.record(rollout)
        self.rollouts += 1

    def _report(self, before: Any, after: Any, log: list[dict[str, Any]], final: str) -> dict[str, Any]:
        from gymrail_trl.report import print_table, write_curve, write_json

        directory = self.directory
        summary = {
            "before": before,
            "after": after,
            "rollouts": self.earlier + self.rollouts,
            "seconds": round(self.log.seconds, 1),
            "policy": final,
        }
        if not is_first():
            return summary
        write_json(directory / "metrics.json", summary)
        write_json(directory / "log.json", log)
        if after:
            print_table(before, after, f"{self.recipe.name}: held-out mean reward [95% interval]")
        if log and self.recipe.algorithm == "grpo" and write_curve(log, directory / "reward.png", before, after):
            self.log.say(f"reward curve: {directory / 'reward.png'}")
        self.log.say(f"policy: {final}   rollouts: {directory / 'rollouts.jsonl'}   {summary['seconds']:.0f} s")
        return summary


def _written(recipe: Recipe) -> dict[str, Any]:
    """What a run directory keeps of the recipe."""
    return recipe.model_dump(mode="json", exclude={"resume", "check"})


def _lines(file: Path) -> int:
    if not file.is_file():
        return 0
    with file.open("rb") as lines:
        return sum(1 for _ in lines)


def _lora(recipe: Recipe) -> Any:
    if recipe.lora is None:
        return None
    try:
        from peft import LoraConfig
    except ImportError as error:
        raise InputError("lora: adapters need peft: pip install 'gymrail[trl]'") from error
    section = recipe.lora
    return LoraConfig(
        r=section.r,
        lora_alpha=section.alpha,
        lora_dropout=section.dropout,
        target_modules=section.target_modules,
        task_type="CAUSAL_LM",
    )


def _quiet() -> None:
    """Keep the libraries' own progress bars and notices out of the recipe's output."""
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # TRL's own defaults trip over a name that Transformers is about to change; nobody who runs a recipe can act on it.
    warnings.filterwarnings("ignore", message=".*gradient_checkpointing.*", category=FutureWarning)
    import datasets
    import transformers

    datasets.disable_progress_bars()
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
