"""What stops a run with Unsloth before anything is imported, and what it says."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gymrail.errors import InputError
from gymrail.recipe import Recipe
from gymrail_trl import requirements as trl_requirements
from gymrail_unsloth import requirements
from gymrail_unsloth.requirements import check_packages, check_requirements, has_gpu, on_cpu

Install = Callable[..., Path]


def recipe(**fields: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "t",
            "algorithm": "grpo",
            "trainer": "unsloth",
            "model": "tiny",
            "mixture": [{"environment": "word_math"}],
            "sampling": {"context_length": 256},
            **fields,
        }
    )


def test_the_tested_versions_are_in_range(install: Install) -> None:
    install()
    check_packages()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"unsloth": None}, r"needs the package unsloth, which is not installed: pip install 'gymrail\[unsloth\]'"),
        ({"unsloth": "2026.9.14"}, r"The Unsloth adapter needs unsloth >=2026\.10\.1; installed is 2026\.9\.14"),
        ({"trl": "1.6.0"}, r"The Unsloth adapter needs trl >=1\.7; installed is 1\.6\.0"),
        ({"trl": "1.16.0"}, r"unsloth 2026\.10\.9 needs trl .*<=1\.15\.0.*; installed is 1\.16\.0.*environment of its"),
        ({"datasets": "5.2.0"}, r"unsloth 2026\.10\.9 needs datasets .*<5\.0\.0.*; installed is 5\.2\.0"),
        ({"torch": "2.15.1"}, r"needs torch <2\.15\.0"),
    ],
)
def test_a_package_that_is_missing_or_out_of_range_is_named_with_its_range_and_the_way_out(
    install: Install, changed: dict[str, str | None], message: str
) -> None:
    # What is left out must not be found beside Gymrail either.
    install(**changed)
    with pytest.raises(InputError, match=message):
        check_packages()


def test_without_a_gpu_the_text_names_both_ways_to_go_on(install: Install) -> None:
    install()
    assert not has_gpu()
    with pytest.raises(InputError, match=r"sees none \(torch 2\.13\.0\+cpu\).*trainer=trl.*UNSLOTH_ALLOW_CPU=1"):
        check_requirements(recipe())


def test_a_cpu_run_is_allowed_by_unsloth_s_own_variable_and_refused_beside_a_gpu(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install()
    monkeypatch.setenv("UNSLOTH_ALLOW_CPU", "1")
    assert on_cpu()
    check_requirements(recipe())
    monkeypatch.setattr(requirements, "has_gpu", lambda: True)
    with pytest.raises(InputError, match="unset UNSLOTH_ALLOW_CPU"):
        on_cpu()


def test_several_processes_are_refused(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install()
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(InputError, match=r"WORLD_SIZE is 4; .*one GPU.*trainer=trl with accelerate"):
        check_requirements(recipe())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"unsloth": {"load_in_4bit": True}}, "the recipe has no `lora`; set lora.r=16"),
        ({"unsloth": {"load_in_4bit": True, "load_in_8bit": True}, "lora": {}}, "choose one"),
        ({"unsloth": {"load_in_4bit": True}, "lora": {}}, "pip install bitsandbytes"),
        ({"unsloth": {"fast_inference": True}, "lora": {}}, "pip install vllm"),
        ({"sampling": {}}, "sampling.context_length is not set"),
        ({"settings": {"use_vllm": True}}, "set unsloth.fast_inference instead"),
        ({"settings": {"learning_rat": 1}}, "GRPOConfig has no such key. Did you mean 'learning_rate'"),
        ({"warm_start": {"settings": {"max_step": 1}}}, "warm_start.settings.max_step: SFTConfig has no such key"),
    ],
)
def test_options_that_could_not_work_are_refused_with_the_fix(
    install: Install, monkeypatch: pytest.MonkeyPatch, fields: dict[str, Any], message: str
) -> None:
    install()
    monkeypatch.setattr(requirements, "has_gpu", lambda: True)
    with pytest.raises(InputError) as raised:
        check_requirements(recipe(**fields))
    assert message in str(raised.value)


def test_with_a_gpu_and_the_packages_quantised_weights_and_vllm_pass(
    install: Install, monkeypatch: pytest.MonkeyPatch
) -> None:
    install("bitsandbytes", "vllm")
    monkeypatch.setattr(requirements, "has_gpu", lambda: True)
    check_requirements(recipe(unsloth={"load_in_4bit": True, "fast_inference": True}, lora={"r": 8}))


def test_a_cpu_run_refuses_what_only_a_gpu_can_do(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("bitsandbytes")
    monkeypatch.setenv("UNSLOTH_ALLOW_CPU", "1")
    with pytest.raises(InputError, match=r"unsloth\.load_in_4bit needs a GPU"):
        check_requirements(recipe(unsloth={"load_in_4bit": True}, lora={"r": 8}))


def test_a_cpu_run_refuses_an_optimiser_of_the_gpu(install: Install, monkeypatch: pytest.MonkeyPatch) -> None:
    install("bitsandbytes")
    monkeypatch.setenv("UNSLOTH_ALLOW_CPU", "1")
    monkeypatch.setattr(trl_requirements, "count_gpus", lambda: 0)
    with pytest.raises(InputError, match=r"settings\.optim is 'adamw_8bit': this optimiser needs a GPU"):
        check_requirements(recipe(settings={"optim": "adamw_8bit"}))


def test_a_stop_has_loaded_neither_unsloth_nor_anything_that_must_come_after_it(install: Install) -> None:
    folder = install()
    code = (
        f"import sys; sys.path.insert(0, {str(folder)!r})\n"
        "from gymrail.errors import InputError\n"
        "from gymrail.recipe import load_recipe\n"
        "from gymrail_unsloth import train\n"
        "try:\n    train(load_recipe('recipes/grpo/unsloth_quickstart.yaml'))\n"
        "except InputError as error:\n    print(error)\n"
        "print(sorted({'torch', 'transformers', 'trl', 'unsloth'} & sys.modules.keys()))\n"
    )
    root = Path(__file__).parents[3]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=300)
    assert done.stdout.startswith("Unsloth trains on a GPU"), done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "[]"
