"""A mixture's tasks as files for NeMo RL, in the mixture's order: our rows for its native loop, or NeMo Gym's rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from gymrail.data.jsonl import write_jsonl
from gymrail.data.mixture import Group, Member, Mixture
from gymrail.messages import responses_tools
from gymrail.recipe import Recipe
from gymrail.spec import EnvironmentSpec
from gymrail_nemo_rl.settings import adapter_settings, trainer_settings

SPLIT = "gymrail_split"
"""The field of a held-out task's row that says so; its rollouts are recorded apart."""


def write_tasks(recipe: Recipe, specs: Iterable[EnvironmentSpec], folder: Path) -> dict[str, Path]:
    """Write a GRPO recipe's tasks, as many as the run's steps draw, and its held-out ones; return the files by split.

    Raises:
        InputError: a member of the mixture has no tasks.
    """
    specs = list(specs)
    members = [
        Member(
            spec, entry.weight, entry.split, entry.limit, Path(entry.profile) if entry.profile else None,
            entry.pass_rate, entry.weight_by,
        )
        for spec, entry in zip(specs, recipe.mixture, strict=True)
    ]  # fmt: skip
    mixture = Mixture(members, seed=recipe.seed)
    row = gym_row if adapter_settings(recipe).path == "nemo_gym" else native_row
    folder.mkdir(parents=True, exist_ok=True)
    files = {"train": folder / "train.jsonl"}
    write_jsonl((row(mixture.group(index), {}) for index in range(groups_needed(recipe))), files["train"])
    if recipe.evaluation is not None:
        section, files["validation"] = recipe.evaluation, folder / "validation.jsonl"
        held_out = (
            Group(place, spec, task, place)
            for spec in specs
            for place, task in enumerate(spec.tasks(section.split, limit=section.tasks, seed=recipe.seed))
        )
        mark = {SPLIT: section.split}
        write_jsonl((row(group, mark) for group in held_out for _ in range(section.repeats)), files["validation"])
    return files


def groups_needed(recipe: Recipe) -> int:
    """How many groups a run draws: one for each prompt of each step."""
    grpo = trainer_settings(recipe)["grpo"]
    # What dynamic sampling throws away is drawn anew, at most so many batches for one step.
    batches = grpo.get("dynamic_sampling_max_gen_batches", 10) if grpo.get("use_dynamic_sampling") else 1
    per_batch = grpo.get("num_prompts_per_step", 32) * grpo.get("batch_multiplier", 1)
    return int(grpo["max_num_steps"] * per_batch * batches)


def native_row(group: Group, mark: Mapping[str, str]) -> dict[str, Any]:
    """A group as our dataset class reads it; the tools stand beside the task, so that no environment need be loaded."""
    return {
        "environment": group.spec.name,
        "task_index": group.index,
        "task": {**group.task.row, **mark},
        "tools": group.spec.tool_schemas(group.task),
    }


def gym_row(group: Group, mark: Mapping[str, str]) -> dict[str, Any]:
    """A group as NeMo Gym's rows are: with its agent's name and its tools."""
    row = dict(group.task.row)
    parameters = {**(row.get("responses_create_params") or {})}
    tools = group.spec.tool_schemas(group.task)
    if tools:
        parameters["tools"] = responses_tools(tools)
    return {
        **row,
        **mark,
        "responses_create_params": parameters,
        "agent_ref": {"type": "responses_api_agents", "name": group.spec.name},
        "_ng_task_index": group.index,
    }
