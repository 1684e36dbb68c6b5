"""A recipe that chooses its training tasks by their pass rate."""

from collections import Counter
from pathlib import Path

from gymrail.data.jsonl import write_jsonl
from gymrail.limits import Limits
from gymrail.recipe import load_recipe
from gymrail.recipe_mixture import mixture_of
from gymrail_trl.stages import limits_of


def test_training_takes_the_profiled_tasks_in_the_range_and_other_splits_are_as_they_were(tmp_path: Path) -> None:
    path, file = tmp_path / "profile.jsonl", tmp_path / "recipe.yaml"
    file.write_text(
        f"algorithm: grpo\nmodel: tiny\nmixture: [{{environment: word_math, profile: {path}, pass_rate: [0.2, 0.8]}}]\n"
    )
    recipe = load_recipe(file)
    (spec,) = recipe.specs()
    tasks = [spec.generate("train", index) for index in range(4)]
    write_jsonl(
        (
            {**task.row, "_profile": {"environment": spec.name, "pass_rate": rate}}
            for task, rate in zip(tasks, (0.0, 0.2, 0.5, 1.0), strict=True)
        ),
        path,
    )
    training = mixture_of(recipe, [spec])
    assert {training.group(index).task.id for index in range(6)} == {tasks[1].id, tasks[2].id}
    held_out = mixture_of(recipe, [spec], "validation")
    assert [held_out.group(index).task.id for index in range(3)] == [
        spec.generate("validation", index).id for index in range(3)
    ]


def test_training_draws_most_often_what_teaches_most_and_keeps_to_the_recipes_limits(tmp_path: Path) -> None:
    path, file = tmp_path / "profile.jsonl", tmp_path / "recipe.yaml"
    file.write_text(
        "algorithm: grpo\nmodel: tiny\nagent: {token_limit: 900, tool_call_limit: 3, call_seconds: 5}\n"
        f"mixture: [{{environment: word_math, profile: {path}, weight_by: pass_rate}}]\n"
    )
    recipe = load_recipe(file)
    (spec,) = recipe.specs()
    tasks = [spec.generate("train", index) for index in range(3)]
    write_jsonl(
        (
            {**task.row, "_profile": {"environment": spec.name, "pass_rate": rate, "count": 64}}
            for task, rate in zip(tasks, (0.0, 0.5, 1.0), strict=True)
        ),
        path,
    )
    training = mixture_of(recipe, [spec])
    drawn = Counter(training.group(index).task.id for index in range(300))
    assert drawn[tasks[1].id] > 250
    assert min(drawn[task.id] for task in tasks) > 0
    assert limits_of(recipe) == Limits(call_seconds=5.0, token_limit=900, tool_call_limit=3)
