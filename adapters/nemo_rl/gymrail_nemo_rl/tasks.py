"""A mixture's tasks as files for NeMo RL, in the mixture's order: our rows for its native loop, or NeMo Gym's rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gymrail.data.jsonl import write_jsonl
from gymrail.data.mixture import Group
from gymrail.data.mixture_stream import MixtureStream
from gymrail.errors import InputError
from gymrail.messages import responses_tools
from gymrail.recipe import Recipe
from gymrail.recipe_mixture import mixture_of
from gymrail.spec import EnvironmentSpec
from gymrail_nemo_rl.settings import adapter_settings, trainer_settings

SPLIT = "gymrail_split"
"""The field of a held-out task's row that says so; its rollouts are recorded apart."""


def write_tasks(recipe: Recipe, specs: Iterable[EnvironmentSpec], folder: Path) -> dict[str, Path]:
    """Write a GRPO recipe's tasks, as many as the run's steps draw, and its held-out ones; return the files by split.

    Raises:
        InputError: a member of the mixture has no tasks, its epochs are over before the run's steps are, or its floors
            are more than a step's prompts.
    """
    specs = list(specs)
    row = gym_row if adapter_settings(recipe).path == "nemo_gym" else native_row
    folder.mkdir(parents=True, exist_ok=True)
    files = {"train": folder / "train.jsonl"}
    write_jsonl((row(group, {}) for group in _groups(recipe, specs)), files["train"])
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


def _groups(recipe: Recipe, specs: Sequence[EnvironmentSpec]) -> Iterator[Group]:
    """Draw the run's groups from the mixture, in the order in which NeMo RL reads them: a step's prompts together."""
    mixture, (steps, prompts) = mixture_of(recipe, specs), _batches(recipe)
    if mixture.is_plain:
        yield from map(mixture.group, range(steps * prompts))
        return
    if mixture.length is not None and mixture.length < steps * prompts:
        raise InputError(
            f"The mixture's epochs have {mixture.length} groups, and the run draws {steps * prompts}: {steps} batches "
            f"of settings.grpo.num_prompts_per_step={prompts}. Lower settings.grpo.max_num_steps, or raise epochs."
        )
    floors = sum(member.floor for member in mixture.members)
    if floors > prompts:
        raise InputError(
            f"The floors of the mixture sum to {floors}, and a batch has {prompts} groups; lower them, or raise "
            "settings.grpo.num_prompts_per_step."
        )
    stream = MixtureStream(mixture)
    for step in range(steps):
        yield from stream.batch(prompts, step)


def _batches(recipe: Recipe) -> tuple[int, int]:
    """How many batches a run reads, and the groups of each: one for each prompt."""
    grpo = trainer_settings(recipe)["grpo"]
    # What dynamic sampling throws away is drawn anew, at most so many batches for one step.
    batches = grpo.get("dynamic_sampling_max_gen_batches", 10) if grpo.get("use_dynamic_sampling") else 1
    per_batch = grpo.get("num_prompts_per_step", 32) * grpo.get("batch_multiplier", 1)
    return int(grpo["max_num_steps"] * batches), int(per_batch)
