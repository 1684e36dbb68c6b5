"""A recipe's `settings` for NeMo RL, checked before anything loads: its own keys, and the adapter's under `gymrail`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from gymrail.errors import InputError
from gymrail.recipe import Recipe, yaml_numbers
from gymrail.spec import explain
from gymrail_nemo_rl.keys import check_settings

OURS: dict[str, dict[str, str]] = {
    "grpo": {
        "data": "mixture",
        "env": "mixture, agent and settings.gymrail",
        "grpo.seed": "seed",
        "grpo.max_rollout_turns": "agent.max_steps",
        "grpo.max_val_samples": "evaluation.tasks",
        "grpo.val_batch_size": "evaluation.tasks",
        "grpo.reward_shaping": "overlong",
        "policy.max_total_sequence_length": "sampling.context_length",
        "policy.generation.max_new_tokens": "sampling.max_output_tokens",
        "policy.generation.temperature": "sampling.temperature",
        "policy.generation.top_p": "sampling.top_p",
    },
    "sft": {"data": "data", "sft.seed": "seed", "policy.max_total_sequence_length": "sampling.context_length"},
    "dpo": {"data": "data", "dpo.seed": "seed", "policy.max_total_sequence_length": "sampling.context_length"},
}
"""Keys that a recipe sets elsewhere, and where."""
SAID_HERE = ("num_prompts_per_step", "num_generations_per_prompt", "use_dynamic_sampling")
DYNAMIC = ("batch_multiplier", "dynamic_sampling_max_gen_batches")
"""What a recipe says even where it inherits from a published setting; the second with dynamic sampling."""
MEGATRON = ("workplace_assistant", "nemotron_3_nano", "nemotron_3_super_rlvr", "nemotron_3_super_rlhf")
"""The published settings whose policy is Megatron's."""
Example = Literal["workplace_assistant", "dapo_7b", "nemotron_3_nano", "nemotron_3_super_rlvr", "nemotron_3_super_rlhf"]
_EVERYWHERE = {
    "policy.model_name": "model",
    "policy.precision": "dtype",
    "policy.dtensor_cfg.lora_cfg": "lora",
    "checkpointing.checkpoint_dir": "output",
    "logger.log_dir": "output",
}


class AdapterSettings(BaseModel):
    """`settings.gymrail`: what only this adapter asks."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    example: Example | None = None
    """Inherit from this published setting of the checkout instead of its plain GRPO example: `keys.PUBLISHED`."""
    path: Literal["native", "nemo_gym"] = "native"
    """NeMo RL's own turn loop, or its NeMo Gym integration with our served agent in NeMo Gym's place."""
    check_only: bool = False
    """Write the data and the configuration, have NeMo RL's own loader check it, and stop; needs no GPU."""
    agent_host: str = "127.0.0.1"
    """nemo_gym: where NeMo RL reaches the served agent."""
    agent_port: int = Field(5990, ge=1, le=65535)
    policy_host: str | None = None
    """nemo_gym: where NeMo Gym's model server is, as the agent reaches it; this machine's own address by default."""
    policy_port: int = Field(5989, ge=1, le=65535)
    """nemo_gym: the port of NeMo Gym's model server, which the agent asks."""
    tool_parser: str = "hermes"
    """nemo_gym: vLLM's parser for the model's tool calls."""
    reasoning_parser: str | None = None
    """nemo_gym: vLLM's parser for the model's reasoning."""
    chat_template_kwargs: dict[str, Any] | None = None
    """nemo_gym: arguments of the chat template, such as {enable_thinking: false}."""


def adapter_settings(recipe: Recipe) -> AdapterSettings:
    """Return `settings.gymrail`.

    Raises:
        InputError: an unknown key, or a wrong value.
    """
    try:
        return AdapterSettings.model_validate(recipe.settings.get("gymrail") or {})
    except ValidationError as error:
        raise InputError(f"settings.gymrail: {explain(error, AdapterSettings)}.") from None


def check_recipe(recipe: Recipe) -> None:
    """Check what can be checked without loading anything.

    Raises:
        InputError: a key that NeMo RL does not have, one that the recipe sets elsewhere, or a part of the recipe that
            this trainer has no use for.
    """
    _refuse_parts(recipe)
    adapter_settings(recipe)
    settings = trainer_settings(recipe)
    places = {**OURS[recipe.algorithm], **_EVERYWHERE}
    for path in _paths(settings):
        if path in places:
            raise InputError(f"settings.{path}: set {places[path]} instead; the recipe keeps the two in step.")
    check_settings(settings, recipe.algorithm)
    if recipe.algorithm == "grpo":
        _refuse_mixture(recipe)
    section = settings.get(recipe.algorithm) or {}
    _check_example(recipe, settings)
    if recipe.algorithm == "grpo":
        if "max_num_steps" not in section:
            raise InputError(
                "settings.grpo.max_num_steps is not set; a mixture has no epochs, so say how many steps to train."
            )
        for key in ("val_period", "val_at_start", "val_at_end"):
            if section.get(key) and recipe.evaluation is None:
                raise InputError(f"settings.grpo.{key} is {section[key]!r}, and the recipe has no `evaluation` to do.")
        if section.get("overlong_filtering") is False and adapter_settings(recipe).path == "native":
            raise InputError(
                "settings.grpo.overlong_filtering is False; on the native path it is what keeps failed episodes out of "
                "the loss. Leave it out, or set settings.gymrail.path to nemo_gym, which marks them one by one."
            )


def _check_example(recipe: Recipe, settings: Mapping[str, Any]) -> None:
    named = adapter_settings(recipe).example
    if named is not None:
        if recipe.algorithm != "grpo":
            raise InputError(f"settings.gymrail.example is {named!r}, a setting of GRPO; leave it out.")
        section = settings.get("grpo") or {}
        for key in (*SAID_HERE, *(DYNAMIC if section.get("use_dynamic_sampling") else ())):
            if key not in section:
                raise InputError(
                    f"settings.grpo.{key} is not set; with settings.gymrail.example the recipe says it, because the "
                    "length of the data file depends on it."
                )
    megatron = named in MEGATRON or _at(settings, "policy", "megatron_cfg", "enabled")
    if recipe.lora is not None and megatron:
        raise InputError("`lora` is for NeMo RL's DTensor policy; Megatron's is settings.policy.megatron_cfg.peft.")


def _at(settings: Mapping[str, Any], *path: str) -> Any:
    found: Any = settings
    for key in path:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def trainer_settings(recipe: Recipe) -> dict[str, Any]:
    """Return the part of a recipe's `settings` that is NeMo RL's own configuration."""
    return _numbers({key: value for key, value in recipe.settings.items() if key != "gymrail"})


def _refuse_parts(recipe: Recipe) -> None:
    if recipe.algorithm not in OURS:
        raise InputError(f"trainer nemo_rl has no algorithm {recipe.algorithm!r}; it has {', '.join(sorted(OURS))}.")
    refused = {
        "model": ("tiny" if recipe.model == "tiny" else None, "NeMo RL loads a checkpoint folder or a hub id"),
        "warm_start": (recipe.warm_start, "run an SFT recipe first and set `model` to what it saved"),
        "threads": (recipe.threads, "NeMo RL trains on GPUs"),
    }
    for name, (value, instead) in refused.items():
        if value is not None:
            raise InputError(f"`{name}` does not go with trainer nemo_rl: {instead}.")
    if recipe.sampling.context_length is None:
        raise InputError(
            "sampling.context_length is not set; NeMo RL cuts every sequence at policy.max_total_sequence_length, so "
            "say how many tokens an episode may have."
        )
    if recipe.agent.token_limit is not None or recipe.agent.output_token_limit is not None:
        raise InputError(
            "agent.token_limit and agent.output_token_limit do not go with trainer nemo_rl, which does not tell its "
            "environments what was sampled; set sampling.context_length."
        )


def _refuse_mixture(recipe: Recipe) -> None:
    """NeMo RL reads the mixture from a file that is written before it begins, and plays its episodes itself."""
    written = "NeMo RL trains on tasks that are drawn before it begins"
    own = "settings.grpo.use_dynamic_sampling is NeMo RL's own"
    mixing = {
        "unit": (recipe.mixing.unit != "episodes", f"{written}, and tokens are counted as they are sampled"),
        "curriculum": (recipe.mixing.curriculum, f"{written}; use a profile: `gymrail profile`, pass_rate, weight_by"),
        "dynamic_sampling": (recipe.mixing.dynamic_sampling, f"{written}; {own}"),
        "late": (recipe.mixing.late, "NeMo RL waits for every episode; set agent.episode_seconds"),
    }
    for name, (value, instead) in mixing.items():
        if value:
            raise InputError(f"mixing.{name} does not go with trainer nemo_rl: {instead}.")
    ours, grpo = adapter_settings(recipe), trainer_settings(recipe).get("grpo") or {}
    for entry in recipe.mixture:
        refused = {
            "subset_by": (entry.subset_by, "it is for a curriculum and its metrics"),
            "concurrency": (entry.concurrency, "NeMo RL plays a step's episodes side by side"),
            "deadline_seconds": (entry.deadline_seconds, "NeMo RL waits for every episode; set agent.episode_seconds"),
            "reward_scale": (
                entry.reward_scale != 1 and ours.path == "nemo_gym",
                "its agent server answers with the verifier's reward; set settings.gymrail.path to native",
            ),
            "schedule": (
                entry.schedule and grpo.get("use_dynamic_sampling"),
                "under settings.grpo.use_dynamic_sampling nobody knows beforehand which step a task is for",
            ),
        }
        for name, (value, instead) in refused.items():
            if value:
                raise InputError(f"{name} of {entry.environment} does not go with trainer nemo_rl: {instead}.")


def _numbers(settings: Mapping[str, Any]) -> dict[str, Any]:
    found = yaml_numbers(dict(settings))
    return {key: _numbers(value) if isinstance(value, dict) else value for key, value in found.items()}


def _paths(settings: Mapping[str, Any], before: str = "") -> list[str]:
    """Every key's path, those of mappings too."""
    paths: list[str] = []
    for key, value in settings.items():
        path = f"{before}{key}"
        paths.append(path)
        if isinstance(value, Mapping):
            paths += _paths(value, f"{path}.")
    return paths
