"""An iterated recipe: play, filter, train, play with what was trained, and so on, with held-out reward measured at the
start and after every training.

Each stage has a folder in the run directory, named by its place and kind:

    start/evaluation/           held-out rollouts of the policy that the recipe starts from
    1_collect/                  rollouts, a run directory
    2_sft/data/                 the rows that passed the filter: an export, with its card
    2_sft/checkpoints/          the trainer's
    2_sft/policy/               what came out
    2_sft/evaluation/           held-out rollouts, a run directory
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gymrail.data.export import Sft, export
from gymrail.data.export.write import SUMMARY
from gymrail.errors import InputError
from gymrail.recipe import Recipe
from gymrail.recipe_stages import POLICY, StageSection
from gymrail.spec import EnvironmentSpec
from gymrail_trl.processes import is_first, open_run, wait
from gymrail_trl.settings import build_config
from gymrail_trl.stage_log import StageLog

if TYPE_CHECKING:
    from gymrail_trl.stages import Policy

Scores = Mapping[str, Mapping[str, float]]
ALL = "all"
"""Beside the environments' names: their mean."""
_FREE = {"resume", "check", "output", "name", "threads", "stages"}
"""Keys that may differ when a run goes on; stages are compared one by one, and more may follow."""


def run_iterated(
    recipe: Recipe,
    specs: Sequence[EnvironmentSpec],
    lora: Any = None,
    load: Callable[[Recipe, str], Policy] | None = None,
) -> dict[str, Any]:
    """Run the stages and return the summary, which is also written to `<run>/metrics.json`.

    Args:
        lora: adapters for every training stage, merged into the policy after it.
        load: as `gymrail_trl.train.train` takes it.

    Raises:
        InputError: before anything loads: a wrong setting, an existing run directory, a begun stage that was changed.
    """
    run = _Iterated(recipe, specs, lora, load)
    try:
        return run.run()
    finally:
        run.directory.close()


class _Iterated:
    def __init__(
        self,
        recipe: Recipe,
        specs: Sequence[EnvironmentSpec],
        lora: Any,
        load: Callable[[Recipe, str], Policy] | None,
    ) -> None:
        from gymrail_trl.stages import load_policy

        self.recipe = recipe
        self.specs = specs
        self.lora = lora
        self.load = load or load_policy
        self.stages = {f"{place}_{stage.kind}": stage for place, stage in enumerate(recipe.stages, start=1)}
        self.configs = {name: self._checked(name, stage) for name, stage in self.stages.items()}
        config = recipe.model_dump(mode="json", exclude={"resume", "check"})
        self.directory = open_run(recipe.directory, config, specs, resume=recipe.resume)
        self.log = StageLog(recipe.directory)
        wait()  # every process has read the log as it was
        self._loaded: Policy | None = None
        try:
            self._check_unchanged()
        except InputError:
            self.directory.close()
            raise

    def run(self) -> dict[str, Any]:
        from gymrail_trl.stages import prepare_process, resolve_model

        prepare_process(self.recipe)
        policy = resolve_model(self.recipe, self.specs)
        collected = self.recipe.directory
        rows = [self._evaluated("start", policy)]
        first_group = 0
        for name, stage in self.stages.items():
            if "begun" not in self._entry(name):
                self._note(name, begun=stage.model_dump(mode="json"))
            if stage.collect is not None:
                collected = self.recipe.directory / name
                groups = range(first_group, first_group + stage.collect.tasks)
                rows.append(self._collected(name, stage, policy, groups))
                first_group = groups.stop
            else:
                policy = self._trained(name, stage, policy, collected)
                rows.append(self._evaluated(name, policy))
        return self._report([row for row in rows if row is not None], policy)

    def _collected(self, name: str, stage: StageSection, policy: str, groups: range) -> dict[str, Any]:
        import torch

        from gymrail.models.build import build_model
        from gymrail_trl.stages import collect_groups, sampled, scores_of

        section = stage.collect
        assert section is not None
        if "scores" not in self._entry(name):
            torch.manual_seed(self.recipe.seed)
            model = (
                sampled(self.recipe, self._load(policy))
                if section.model == POLICY
                else build_model(section.model, seed=self.recipe.seed)
            )
            run = collect_groups(self.recipe, self.specs, model, self.recipe.directory / name, groups, section.repeats)
            self._note(name, scores=scores_of(run, self.specs))
        return self._row(name, f"collected, {section.model}", self._entry(name)["scores"])

    def _trained(self, name: str, stage: StageSection, policy: str, collected: Path) -> str:
        from gymrail_trl.progress import Progress
        from gymrail_trl.stages import fine_tune, rows_from

        folder = self.recipe.directory / name
        if "policy" in self._entry(name):
            return str(self.recipe.directory / self._entry(name)["policy"])
        data = folder / "data"
        if is_first() and not (data / SUMMARY).is_file():
            section = stage.sft or stage.dpo
            assert section is not None
            kind = stage.dpo.kind() if stage.dpo is not None else Sft()
            known = {spec.name: spec for spec in self.specs}
            export([collected], data, kind, selection=section.selection(), format="jsonl", specs=known)
        wait()
        dataset = rows_from(self.recipe, self.specs, [str(data)], stage.kind)
        self.log.say(f"{name}: {len(dataset)} rows of {collected.name}")
        trained = self._load(policy)
        self._loaded = None
        # A copy: peft writes the policy's path into it.
        fine_tune(trained, dataset, self.configs[name], stage.kind, [Progress(name)], copy.deepcopy(self.lora))
        if self.lora is not None:
            trained.model = trained.model.merge_and_unload()
        saved = trained.save(folder / "policy")
        self._note(name, policy=f"{name}/policy")
        return saved

    def _evaluated(self, name: str, policy: str) -> dict[str, Any] | None:
        from gymrail_trl.stages import evaluate

        if self.recipe.evaluation is None:
            return None
        if "evaluation" not in self._entry(name):
            folder = self.recipe.directory / name / "evaluation"
            self._note(name, evaluation=evaluate(self.recipe, self._load(policy), self.specs, folder))
        return self._row(name, "held out", self._entry(name)["evaluation"])

    def _row(self, name: str, what: str, scores: Scores) -> dict[str, Any]:
        scores = {**scores, ALL: overall(scores)}
        shown = ", ".join(f"{environment} {score['mean']:.2f}" for environment, score in scores.items())
        self.log.say(f"{name}: {what}: {shown}")
        return {"stage": name, "what": what, "scores": scores}

    def _report(self, rows: list[dict[str, Any]], policy: str) -> dict[str, Any]:
        from gymrail_trl.report import print_stages, write_json

        summary = {"stages": rows, "seconds": round(self.log.seconds, 1), "policy": policy}
        if not is_first():
            return summary
        write_json(self.recipe.directory / "metrics.json", summary)
        print_stages(rows, f"{self.recipe.name}: mean reward [95% interval]")
        self.log.say(f"policy: {policy}")
        return summary

    def _load(self, path: str) -> Policy:
        if self._loaded is None or self._loaded.path != path:
            self._loaded = None  # the old one must not stay in memory while the new one loads
            self._loaded = self.load(self.recipe, path)
        return self._loaded

    def _entry(self, name: str) -> dict[str, Any]:
        return self.log.stages.get(name, {})

    def _note(self, name: str, **result: Any) -> None:
        self.log.write(name, {**self._entry(name), **result})

    def _checked(self, name: str, stage: StageSection) -> Any:
        """A training stage's configuration; nothing for collecting, whose model must have a form that is known."""
        from gymrail.models.build import build_model

        section = stage.sft or stage.dpo
        where = f"stages.{self.recipe.stages.index(stage)}, {stage.kind}"
        try:
            if section is not None:
                output = self.recipe.directory / name / "checkpoints"
                return build_config(self.recipe, stage.kind, section.settings, output)
            assert stage.collect is not None
            if stage.collect.model != POLICY and not Path(stage.collect.model).is_dir():
                build_model(stage.collect.model)
            return None
        except InputError as error:
            raise InputError(f"{where}: {error}") from None

    def _check_unchanged(self) -> None:
        """Refuse to mix what two different recipes made."""
        whole = self.recipe.model_dump(mode="json", exclude=_FREE)
        before = self.log.stages.get("recipe", whole)
        changed = [key for key in whole if before.get(key) != whole[key]]
        for name, entry in self.log.stages.items():
            stage = self.stages.get(name)
            if "begun" in entry and (stage is None or stage.model_dump(mode="json") != entry["begun"]):
                changed.append(f"the stage {name}, which has begun")
        if changed:
            raise InputError(
                f"'{self.recipe.directory}' was begun by a recipe that differs in {', '.join(changed)}. "
                "Undo the change, or name another directory: output=DIR."
            )
        self.log.write("recipe", whole)


def overall(scores: Scores) -> dict[str, float]:
    """Return the mean of the environments' means, however many tasks each has, with its 95% interval.

    The distances from mean to limit add up as those of independent estimates do: the root of the sum of squares.
    """
    found = list(scores.values())
    mean = sum(score["mean"] for score in found) / len(found)
    below = math.sqrt(sum((score["mean"] - score["low"]) ** 2 for score in found)) / len(found)
    above = math.sqrt(sum((score["high"] - score["mean"]) ** 2 for score in found)) / len(found)
    return {"mean": mean, "low": mean - below, "high": mean + above, "tasks": sum(score["tasks"] for score in found)}
