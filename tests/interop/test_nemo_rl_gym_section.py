"""`env.nemo_gym` of our NeMo RL recipes, read by the real nemo-gym's own configuration parser and classes."""

from __future__ import annotations

import copy
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gymrail.recipe import load_recipe
from gymrail_nemo_rl.configuration import configuration
from gymrail_nemo_rl.settings import adapter_settings
from tests.interop import nemo_gym
from tests.recipes.examples import of_trainer, with_examples

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]
FOUR = "mixture=[{environment: mcqa}, {environment: word_math}, {environment: treasure_hunt}, {environment: math}]"


def sections(folder: Path) -> dict[str, dict[str, Any]]:
    """Of every recipe that goes through NeMo Gym, and of one with four environments."""
    found: dict[str, dict[str, Any]] = {}
    for number, path in enumerate(of_trainer("nemo_rl")):
        if adapter_settings(load_recipe(path)).path == "nemo_gym":
            found[path.stem] = section_of(path, *with_examples(path, folder / str(number)))
            found["four"] = section_of(path, FOUR)
    return found


def section_of(path: Path, *overrides: str) -> dict[str, Any]:
    recipe = load_recipe(path, overrides)
    files = {"train": Path("train.jsonl"), "validation": Path("validation.jsonl")}
    return configuration(recipe, recipe.specs(), Path("/checkout"), files)["env"]["nemo_gym"]


def read_by_nemo_gym(asked: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    done = subprocess.run(
        [nemo_gym.install() / "bin/python", "-P", "-W", "ignore", Path(__file__).with_name("parse_by_nemo_gym.py")],
        input=json.dumps(asked), capture_output=True, text=True, timeout=600, check=False, env=nemo_gym.variables(),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_nemo_gym_starts_its_model_server_alone_and_finds_our_agent_under_every_name(tmp_path: Path) -> None:
    asked = sections(tmp_path)
    assert len(asked) > 3
    wrong = copy.deepcopy(next(iter(asked.values())))
    wrong["policy_model"]["responses_api_models"]["vllm_model"]["uses_reasoning_parsr"] = True
    lost = {**copy.deepcopy(next(iter(asked.values()))), "config_paths": ["responses_api_models/no_such_model.yaml"]}

    answers = read_by_nemo_gym({**asked, "wrong key": wrong, "lost file": lost})

    assert "uses_reasoning_parsr" in answers["wrong key"]["refused"]
    assert "no_such_model" in answers["lost file"]["refused"]
    for name, section in asked.items():
        read, model = answers[name], section["policy_model"]["responses_api_models"]["vllm_model"]
        assert read["started"] == ["policy_model"], read
        assert read["model"].items() >= model.items()
        assert read["model"]["return_token_id_information"] is True
        agents = {key: value for key, value in section.items() if "responses_api_agents" in value}
        assert read["agents"] == {key: agents[key]["responses_api_agents"][key] for key in agents}
    assert set(answers["four"]["agents"]) == {"mcqa", "word_math", "treasure_hunt", "math"}
