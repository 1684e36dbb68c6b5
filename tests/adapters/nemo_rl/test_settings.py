"""Recipes for NeMo RL are checked without NeMo RL: every mistake is one sentence with the fix."""

from __future__ import annotations

from pathlib import Path

import pytest

from gymrail.errors import InputError
from gymrail.recipe import load_recipe
from gymrail_nemo_rl.keys import problems_of
from gymrail_nemo_rl.settings import check_recipe

RECIPES = Path(__file__).parents[3] / "recipes"
QUICKSTART = RECIPES / "grpo" / "nemo_rl_quickstart.yaml"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("settings.grpo.num_promts_per_step=8", "Did you mean 'num_prompts_per_step'?"),
        ("settings.polcy.precision=float32", "Did you mean 'policy'?"),
        ("settings.policy.optimizer.kwarg={}", "Did you mean 'kwargs'?"),
        ("settings.grpo.num_prompts_per_step=many", "settings.grpo.num_prompts_per_step is 'many'; NeMo RL takes int"),
        ("settings.grpo.use_dynamic_sampling=1", "NeMo RL takes bool"),
        ("settings.grpo.seed=1", "set seed instead"),
        ("settings.policy.generation.temperature=0.7", "set sampling.temperature instead"),
        ("settings.policy.model_name=x", "set model instead"),
        ("settings.data.shuffle=true", "set mixture instead"),
        ("settings.grpo.max_num_steps=null", "NeMo RL takes int"),
        ("settings.grpo.overlong_filtering=false", "keeps failed episodes out of the loss"),
        ("settings.gymrail.path=both", "settings.gymrail"),
        ("settings.gymrail.paht=native", "Did you mean 'path'?"),
        ("sampling.context_length=null", "sampling.context_length is not set"),
        ("agent.token_limit=100", "set sampling.context_length"),
        ("model=tiny", "a checkpoint folder or a hub id"),
        ("warm_start={}", "run an SFT recipe first"),
        ("evaluation=null", "settings.grpo.val_period is 20, and the recipe has no `evaluation` to do"),
        ("threads=1", "NeMo RL trains on GPUs"),
    ],
)
def test_a_wrong_recipe_is_refused_with_the_fix(override: str, words: str) -> None:
    with pytest.raises(InputError) as raised:
        check_recipe(load_recipe(QUICKSTART, [override]))
    assert words in str(raised.value)


def test_steps_must_be_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="say how many steps to train"):
        check_recipe(load_recipe(QUICKSTART, ["settings.grpo={}"]))


def test_an_iterated_recipe_names_the_algorithms_that_there_are() -> None:
    recipe = load_recipe(RECIPES / "iterated" / "quickstart.yaml", ["trainer=nemo_rl"])
    with pytest.raises(InputError, match="it has dpo, grpo, sft"):
        check_recipe(recipe)


def test_numbers_that_yaml_reads_as_text_are_numbers() -> None:
    check_recipe(load_recipe(QUICKSTART, ["settings.loss_fn.ratio_clip_min=2e-1"]))


def test_a_complete_configuration_has_no_unknown_and_no_missing_key() -> None:
    found = problems_of({"sft": {"max_num_stps": 3}, "data": {"shuffle": True}}, "sft")
    assert "sft.max_num_stps: NeMo RL has no such key. Did you mean 'max_num_steps'?" in found[0]
    assert "data.train: missing, and NeMo RL needs it" in found
    assert "policy: missing, and NeMo RL needs it" in found
