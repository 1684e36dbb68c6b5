"""Recipes for NeMo RL, down to NeMo RL's own configuration classes; runs with a checkout, as test_nemo_rl.py does."""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import yaml

from gymrail.collect.run_directory import RunDirectory
from gymrail.collect.runner import Job, collect
from gymrail.errors import GymrailError
from gymrail.models.scripted import Oracle
from gymrail.recipe import load_recipe
from gymrail.registry import find
from gymrail_nemo_rl.configuration import max_steps_of
from gymrail_nemo_rl.train import train, write_inputs
from tests.interop.nemo_rl_checkout import ask, interpreter, settings, source
from tests.interop.nemo_rl_scripts import write_tokenizer
from tests.interop.node import ROOT
from tests.recipes.examples import FOLDER, of_trainer, with_examples

pytestmark = [
    pytest.mark.skipif(source() is None, reason="needs NEMO_RL_SOURCE, a NeMo RL checkout"),
    pytest.mark.timeout(1800),
]

RECIPES = of_trainer("nemo_rl")
VARIANTS = {
    "lora": ("grpo/nemo_rl_quickstart.yaml", "lora.r=8"),
    "one environment": ("grpo/nemo_rl_quickstart.yaml", "mixture=[{environment: mcqa}]"),
    "no evaluation": ("grpo/nemo_rl_quickstart.yaml", "evaluation=null", "settings.grpo.val_period=0"),
    "four environments through NeMo Gym": (
        "grpo/nemo_rl_workplace_assistant.yaml",
        "mixture=[{environment: mcqa}, {environment: word_math, weight: 2}, {environment: treasure_hunt}, "
        "{environment: session_counter}]",
    ),
    "SFT with LoRA": ("sft/nemo_rl_from_rollouts.yaml", "lora.r=8"),
}


BROKEN: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    str(FOLDER / "grpo/nemo_rl_quickstart.yaml"): (
        lambda config: config["policy"].update(max_total_sequence_lenght=1),
        "Did you mean 'max_total_sequence_length'",
    ),
    str(FOLDER / "grpo/nemo_rl_nemotron_3_nano.yaml"): (
        lambda config: config["policy"]["generation"]["vllm_cfg"].update(reasoning_parser="nano_v3"),
        "policy.generation.vllm_cfg.reasoning_parser: NeMo RL has no such key",
    ),
    str(FOLDER / "grpo/nemo_rl_math_dapo.yaml"): (
        lambda config: config["grpo"]["reward_shaping"].update(penalty=1.0),
        "grpo.reward_shaping.penalty: NeMo RL has no such key",
    ),
    str(FOLDER / "grpo/nemo_rl_four_environments.yaml"): (
        lambda config: config.pop("defaults"),
        "missing, and NeMo RL needs it",
    ),
    str(FOLDER / "grpo/nemo_rl_two_nodes.yaml"): (
        lambda config: config["grpo"].update(num_prompts_per_step="many"),
        "grpo.num_prompts_per_step",
    ),
}
"""Mistakes that must not get through: a recipe, what is done to its configuration, and what the refusal says."""


def test_every_recipe_loads_through_nemo_rls_loader_and_classes(tmp_path: Path) -> None:
    teacher = _teacher(tmp_path / "teacher")
    asked, recipes = {}, {}
    for name, (file, *overrides) in {**{str(path): (path,) for path in RECIPES}, **VARIANTS}.items():
        path = ROOT / "recipes" / file
        examples = with_examples(path, tmp_path / f"rows{len(asked)}")
        small = [f"output={tmp_path / f'run{len(asked)}'}", *_small(path, teacher)]
        recipe = load_recipe(path, [*examples, *overrides, *small])
        recipe.directory.mkdir()
        checkout = source()
        assert checkout is not None
        asked[name] = [str(write_inputs(recipe, recipe.specs(), checkout)), recipe.algorithm]
        recipes[name] = recipe
    broken = {name: _broken(Path(path), name, tmp_path) for name, (path, _) in asked.items() if name in BROKEN}
    assert broken.keys() == BROKEN.keys()
    planted = {f"broken {name}": [str(path), "grpo"] for name, path in broken.items()}
    answer = ask("check_configurations.py", {**asked, **planted}, tmp_path)

    refused = {name: found["refused"] for name, found in answer["checked"].items() if "refused" in found}
    assert set(refused) == set(planted), refused
    for name, (_, words) in BROKEN.items():
        assert words in refused[f"broken {name}"]
    for name, recipe in recipes.items():
        _check(answer["checked"][name]["config"], recipe)
    known = json.loads(resources.files("gymrail_nemo_rl").joinpath("config_keys.json").read_text(encoding="utf-8"))
    assert answer["keys"] == known, "the checkout has other keys: python -m gymrail_nemo_rl.read_keys writes them"


def test_gymrail_train_hands_a_recipe_to_nemo_rl_and_has_it_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NEMO_RL_PYTHON", str(interpreter()))
    overrides = [f"output={tmp_path / 'run'}", "settings.gymrail.check_only=true", "settings.grpo.max_num_steps=1"]
    recipe = load_recipe(ROOT / "recipes" / "grpo" / "nemo_rl_quickstart.yaml", overrides)
    train(recipe)
    capsys.readouterr()

    whole = yaml.safe_load((tmp_path / "run" / "nemo_rl.resolved.yaml").read_text(encoding="utf-8"))
    _check(whole, recipe)
    rows = [json.loads(line) for line in (tmp_path / "run" / "data" / "train.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == whole["grpo"]["num_prompts_per_step"]
    assert {row["environment"] for row in rows} == {"word_math", "treasure_hunt"}


def test_gymrail_train_takes_nemo_rls_own_program_as_far_as_its_search_for_gpus(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a Ray cluster without GPUs: configuration, environment actor, datasets and loaders are made before that."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokenizer = write_tokenizer("qwen2_5", tmp_path / "model")
    Qwen3ForCausalLM(Qwen3Config(vocab_size=len(tokenizer), **shape)).save_pretrained(tmp_path / "model")
    overrides = [f"model={tmp_path / 'model'}", f"output={tmp_path / 'run'}", "settings.grpo.max_num_steps=1"]
    recipe = load_recipe(ROOT / "recipes" / "grpo" / "nemo_rl_quickstart.yaml", [*overrides, "evaluation.tasks=4"])
    monkeypatch.setenv("NEMO_RL_PYTHON", str(interpreter()))
    monkeypatch.setenv("NRL_VIRTUAL_CLUSTER_MAX_RETRIES", "1")
    for name in ("OMP_NUM_THREADS", "RAY_USAGE_STATS_ENABLED", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "HF_HUB_OFFLINE"):
        monkeypatch.setenv(name, settings(tmp_path)[name])
    with ray_cluster(tmp_path) as address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(GymrailError, match="ResourceInsufficientError"):
            train(recipe)
    capsys.readouterr()

    log = (tmp_path / "run" / "nemo_rl.log").read_text(encoding="utf-8")
    assert "Training dataset loaded with 16 samples" in log
    assert "Validation dataset loaded with 8 samples" in log


@contextmanager
def ray_cluster(folder: Path) -> Iterator[str]:
    """A Ray cluster of this test's own, without GPUs; its sockets' paths must be short."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    with TemporaryDirectory(prefix="ray") as short:
        command = [str(interpreter().parent / "ray"), "start", "--head", "--block", "--port", str(port)]
        command += ["--num-cpus", "2", "--num-gpus", "0", "--include-dashboard", "false", "--temp-dir", short]
        with (folder / "ray.log").open("w") as log:
            process = subprocess.Popen(command, env=settings(folder), stdout=log, stderr=log)
            try:
                _wait_for(port)
                yield f"127.0.0.1:{port}"
            finally:
                process.terminate()
                process.wait(60)


def _wait_for(port: int) -> None:
    limit = time.monotonic() + 60
    while time.monotonic() < limit:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.2)
    raise TimeoutError("Ray did not start.")


def _check(whole: dict[str, Any], recipe: Any) -> None:
    """What a recipe says is what NeMo RL understood."""
    policy = whole["policy"]
    assert policy["model_name"] == policy["tokenizer"]["name"] == recipe.model
    assert policy["max_total_sequence_length"] == recipe.sampling.context_length
    assert whole[recipe.algorithm]["seed"] == recipe.seed
    assert policy["dtensor_cfg"].get("lora_cfg", {}).get("enabled", False) == (recipe.lora is not None)
    for key, value in recipe.settings[recipe.algorithm].items():
        assert whole[recipe.algorithm][key] == value
    if recipe.algorithm == "grpo":
        generation = policy["generation"]
        assert generation["max_new_tokens"] == recipe.sampling.max_output_tokens
        assert generation["vllm_cfg"]["async_engine"]
        assert not whole["data"]["shuffle"]
        if "gymrail" in whole["env"]:
            assert whole["grpo"]["max_rollout_turns"] == max_steps_of(recipe, recipe.specs())
            assert whole["env"]["gymrail"]["tokenizer"] == policy["tokenizer"]


def _broken(path: Path, name: str, folder: Path) -> Path:
    """A recipe's configuration with a mistake in it, as our conversion might make one."""
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    BROKEN[name][0](config)
    broken = folder / f"broken{len(list(folder.glob('broken*')))}.yaml"
    broken.write_text(yaml.safe_dump(config), encoding="utf-8")
    return broken


def _small(path: Path, teacher: Path) -> list[str]:
    return ["settings.grpo.max_num_steps=1"] if path.parent.name == "grpo" else [f"data=[{teacher}]"]


def _teacher(path: Path) -> Path:
    """A run of a noisy teacher, so that there are pairs."""
    specs = [find("word_math"), find("treasure_hunt")]
    jobs = [
        Job(spec, task, index, repeat)
        for spec in specs
        for index, task in enumerate(spec.tasks("train", limit=6))
        for repeat in range(4)
    ]
    with RunDirectory.create(path, {}, environments=specs) as run:
        asyncio.run(collect(jobs, Oracle(0.5), record=run.record))
    return path
