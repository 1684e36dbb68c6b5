"""Every installed environment keeps the contract, and comes with what a reader needs."""

import asyncio
import json

import jsonschema
import pytest

from gymrail.contract import check_environment
from gymrail.environment import Environment
from gymrail.models.scripted import Oracle
from gymrail.play import play
from gymrail.registry import environment_folders, find

NAMES = sorted(environment_folders())
PROCEDURAL = {"treasure_hunt", "word_math"}


def test_the_environments_of_the_main_job_are_installed() -> None:
    wanted = {"follow_ups", "mcqa", "multi_step", "session_counter", "single_tool", "tool_call_multireward"}
    assert wanted | PROCEDURAL <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_the_environment_keeps_the_contract_without_warnings(name: str) -> None:
    report = asyncio.run(check_environment(find(name), tasks=16, seed=1))
    assert report.failures == ()
    # An environment may say that it cannot be replayed; that it is solvable is proven for each.
    assert [check.name for check in report.warnings if check.name not in ("replay", "determinism")] == []
    assert report.passed


@pytest.mark.parametrize("name", NAMES)
def test_the_tool_schemas_are_valid_json_schema(name: str) -> None:
    for tool in find(name).tools.values():
        jsonschema.Draft202012Validator.check_schema(tool.parameters)
        assert tool.schema["name"] == tool.name
        assert tool.schema["parameters"] == tool.parameters


@pytest.mark.parametrize("name", NAMES)
def test_the_noisy_teacher_earns_less_than_gold_and_more_than_nothing(name: str) -> None:
    spec = find(name)
    if spec.cls.sabotage is Environment.sabotage and not spec.tools:
        pytest.fail(f"{name} has no tools to mix up, so it defines sabotage(self, turn, rng)")

    async def mean_reward() -> float:
        tasks = list(spec.tasks("train", limit=60))
        rollouts = [await play(spec, task, Oracle(noise=0.45), task_index=index) for index, task in enumerate(tasks)]
        assert [rollout.failure for rollout in rollouts if rollout.failure] == []
        return sum(rollout.reward or 0.0 for rollout in rollouts) / len(rollouts)

    low, high = spec.reward_range
    share = (asyncio.run(mean_reward()) - low) / (high - low)
    assert 0.15 < share < 0.85


@pytest.mark.parametrize("name", NAMES)
def test_the_folder_explains_itself(name: str) -> None:
    _, folder = environment_folders()[name]
    spec = find(name)
    readme = (folder / "README.md").read_text(encoding="utf-8")
    assert readme.startswith(f"# {name}\n")
    assert "## Reward" in readme
    assert "`Oracle()`" in readme
    first_example = readme.split("```json\n", 1)[1].split("```", 1)[0]
    spec.cls.task_type.from_row(json.loads(first_example))
    assert spec.manifest.description
    assert {"train", "validation", "example"} <= {entry.split for entry in spec.manifest.datasets}
    assert all(entry.license for entry in spec.manifest.datasets)


@pytest.mark.parametrize("name", NAMES)
def test_five_example_tasks_are_there(name: str) -> None:
    assert len(list(find(name).tasks("example"))) == 5
