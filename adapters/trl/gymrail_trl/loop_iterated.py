"""An iterated recipe's stages, run small and looked at: for `gymrail validate-trainer`."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gymrail.errors import GymrailError
from gymrail.recipe import Recipe
from gymrail.recipe_stages import POLICY, StageSection
from gymrail.validation.report import Line, Points
from gymrail_trl.loop import steps_line
from gymrail_trl.scaled_down import TEACHER, Load, Scaled

TOKENS, LOOP = Points("tokens"), Points("loop")
_TASKS, _REPEATS = 32, 4


def check_iterated(scaled: Scaled, load: Load) -> Iterator[Line]:
    """Run every stage on a few tasks and look at what each training stage left."""
    from gymrail_trl.train import train_checked

    why = "the stages train on stored rollouts, not on what the policy samples meanwhile"
    yield TOKENS.skipped("trained tokens", why)
    yield TOKENS.skipped("log-probs", why)
    recipe = _small(scaled)
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # its own tables are of four tasks
            train_checked(recipe, recipe.specs(), load)
    except GymrailError as error:
        yield LOOP.failed(
            "stages", str(error), f"gymrail train, with tasks and max_steps as here: '{recipe.directory}'"
        )
        return
    start = scaled.path
    for place, stage in enumerate(recipe.stages, start=1):
        section = stage.sft or stage.dpo
        if section is None:
            continue
        name = f"{place}_{stage.kind}"
        steps = int(section.settings["max_steps"])
        yield steps_line(_log(recipe.directory / name / "checkpoints", steps), steps, f"{name}, steps")
        policy = str(recipe.directory / name / "policy")
        yield _moved(recipe, load, start, policy, name)
        start = policy


def _small(scaled: Scaled) -> Recipe:
    steps = int(scaled.plan.recipe.settings["max_steps"])
    stages = []
    for stage in scaled.plan.recipe.stages:
        section = stage.sft or stage.dpo
        if stage.collect is not None:
            repeats = max(_REPEATS if stage.collect.repeats > 1 else 1, 1)
            model = TEACHER if stage.collect.model != POLICY else POLICY
            changed: Any = stage.collect.model_copy(update={"tasks": _TASKS, "repeats": repeats, "model": model})
        else:
            assert section is not None
            settings = {**section.settings, "max_steps": steps, "save_steps": steps, "warmup_steps": 0}
            settings |= {"save_strategy": "steps", "per_device_train_batch_size": 8}
            settings.pop("warmup_ratio", None)
            changed = section.model_copy(update={"settings": settings})
        stages.append(StageSection.model_construct(_fields_set={stage.kind}, **{stage.kind: changed}))
    return scaled.plan.recipe.model_copy(update={"stages": stages, "settings": {}, "model": scaled.path})


def _log(checkpoints: Path, step: int) -> list[dict[str, Any]]:
    file = checkpoints / f"checkpoint-{step}" / "trainer_state.json"
    return json.loads(file.read_text(encoding="utf-8"))["log_history"] if file.is_file() else []


def _moved(recipe: Recipe, load: Load, before: str, after: str, name: str) -> Line:
    plain = recipe.model_copy(update={"lora": None})
    one, two = (dict(load(plain, path).model.named_parameters()) for path in (before, after))
    moved = [float((two[key].detach() - value.detach()).abs().max()) for key, value in one.items()]
    problems = [] if any(moved) else [f"the policy that {name} saved has the weights of the one before it"]
    changed = sum(change > 0 for change in moved)
    detail = f"the saved policy loads; {changed} of {len(moved)} tensors changed, by up to {max(moved):.1e}"
    return LOOP.judged(f"{name}, weights", problems, detail, "Set the stage's settings.learning_rate.")
