"""A recipe as NeMo RL's configuration: GRPO on its native loop or through its NeMo Gym integration, SFT, DPO.

What comes out inherits from an example of the NeMo RL checkout and says all that a recipe decides. `settings` of the
recipe is merged over it, in NeMo RL's own words; what the recipe says elsewhere is refused there. `settings.gymrail` is
the adapter's own part: see `AdapterSettings`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gymrail.recipe import Recipe
from gymrail.spec import EnvironmentSpec
from gymrail_nemo_rl.keys import EXAMPLES, PUBLISHED
from gymrail_nemo_rl.settings import adapter_settings, check_recipe, trainer_settings

ENVIRONMENT = "gymrail"
"""The name under which NeMo RL's registry has our environment, and its section under `env`."""
DATASET = "gymrail_nemo_rl.dataset.TaskDataset"


def configuration(
    recipe: Recipe, specs: Sequence[EnvironmentSpec], source: Path, data: Mapping[str, Path]
) -> dict[str, Any]:
    """Return the configuration for NeMo RL, ready to be written as YAML.

    Args:
        source: the NeMo RL checkout.
        data: the data files by split: `train`, and `validation` where there is one.

    Raises:
        InputError: as `check_recipe`.
    """
    check_recipe(recipe)
    named = adapter_settings(recipe).example
    config: dict[str, Any] = {"defaults": str(source / (PUBLISHED[named] if named else EXAMPLES[recipe.algorithm]))}
    _merge(config, _common(recipe))
    if recipe.algorithm == "grpo":
        _merge(config, _grpo(recipe, specs, data))
        through_gym = adapter_settings(recipe).path == "nemo_gym"
        _merge(config, _nemo_gym(recipe, specs) if through_gym else _native(recipe, specs))
    else:
        _merge(config, _supervised(recipe, data))
    _merge(config, trainer_settings(recipe))
    return config


def max_steps_of(recipe: Recipe, specs: Sequence[EnvironmentSpec]) -> int:
    """Return the model calls that the longest episode of the mixture may take."""
    return recipe.agent.max_steps or max(spec.manifest.agent.max_steps for spec in specs)


def limits_of(recipe: Recipe) -> dict[str, Any]:
    """Return the limits of an episode, as `Limits` takes them."""
    names = ("call_seconds", "episode_seconds", "tool_call_limit", "time_limit_seconds")
    # An episode waits for the slowest of its batch, so the time to live is its own limit.
    return {name: getattr(recipe.agent, name) for name in names} | {"idle_seconds": recipe.agent.episode_seconds}


def _common(recipe: Recipe) -> dict[str, Any]:
    output = recipe.directory.resolve()
    policy: dict[str, Any] = {
        "model_name": recipe.model,
        "tokenizer": {"name": recipe.model},
        "max_total_sequence_length": recipe.sampling.context_length,
    }
    if recipe.dtype != "auto":
        policy["precision"] = recipe.dtype
    if recipe.lora is not None:
        every = recipe.lora.target_modules == "all-linear"
        modules = recipe.lora.target_modules
        policy["dtensor_cfg"] = {
            "lora_cfg": {
                "enabled": True,
                "dim": recipe.lora.r,
                "alpha": recipe.lora.alpha,
                "dropout": recipe.lora.dropout,
                "match_all_linear": every,
                "target_modules": [] if every else [modules] if isinstance(modules, str) else modules,
            }
        }
    return {
        recipe.algorithm: {"seed": recipe.seed},
        "policy": policy,
        "checkpointing": {"checkpoint_dir": str(output / "checkpoints")},
        "logger": _logger(recipe, output),
    }


def _logger(recipe: Recipe, output: Path) -> dict[str, Any]:
    # The examples' names for a run are made of the dataset's, which ours has in another place.
    named = {"project": "gymrail", "name": recipe.name}
    return {
        "log_dir": str(output / "logs"),
        "wandb_enabled": False,
        # What it logs stays on disk, and `logs` reads it.
        "tensorboard_enabled": True,
        "wandb": dict(named),
        "swanlab": dict(named),
        "tensorboard": {"log_dir": str(output / "logs" / "tensorboard")} if recipe.algorithm != "grpo" else {},
        "mlflow": {"experiment_name": "gymrail", "run_name": recipe.name},
    }


def _grpo(recipe: Recipe, specs: Sequence[EnvironmentSpec], data: Mapping[str, Path]) -> dict[str, Any]:
    tasks = recipe.evaluation.tasks * len(specs) if recipe.evaluation is not None else None
    grpo: dict[str, Any] = {"max_num_epochs": 1, "max_val_samples": tasks, "val_batch_size": tasks}
    if tasks is None:
        grpo |= {"val_period": 0, "val_at_start": False, "val_at_end": False, "max_val_samples": 0, "val_batch_size": 1}
    grpo["reward_shaping"] = _overlong(recipe)
    return {
        "grpo": grpo,
        "checkpointing": {} if tasks is not None else {"metric_name": None},
        "policy": {
            "generation": {
                "temperature": recipe.sampling.temperature,
                "top_p": recipe.sampling.top_p,
                "max_new_tokens": recipe.sampling.max_output_tokens,
                "vllm_cfg": {"async_engine": True},
            }
        },
        "data": {
            "_override_": True,
            "max_input_seq_length": "${policy.max_total_sequence_length}",
            # The file is in the mixture's order, which is what a run that goes on must go on in.
            "shuffle": False,
            "num_workers": 0,
            "use_multiple_dataloader": False,
            "train": {"data_path": str(data["train"])},
            "validation": {"data_path": str(data["validation"])} if "validation" in data else None,
        },
    }


def _overlong(recipe: Recipe) -> dict[str, Any]:
    """NeMo RL's own overlong shaping is DAPO's, of an episode's first answer."""
    if recipe.overlong is None:
        return {"enabled": False}
    return {
        "enabled": True,
        "overlong_buffer_length": recipe.overlong.buffer,
        "overlong_buffer_penalty": recipe.overlong.penalty,
        "max_response_length": recipe.sampling.max_output_tokens,
        "stop_properly_penalty_coef": None,
    }


def _native(recipe: Recipe, specs: Sequence[EnvironmentSpec]) -> dict[str, Any]:
    return {
        # What a failed episode is masked by: see `environment`.
        "grpo": {"max_rollout_turns": max_steps_of(recipe, specs), "overlong_filtering": True},
        "data": {
            "default": {
                "dataset_name": DATASET,
                "env_name": ENVIRONMENT,
                "prompt_file": None,
                "system_prompt_file": None,
                "processor": "default",
            }
        },
        "env": {
            "_override_": True,
            ENVIRONMENT: {
                "environments": [
                    {
                        "source": _source(entry.environment),
                        "config": dict(entry.config),
                        "reward_scale": entry.reward_scale,
                    }
                    for entry in recipe.mixture
                ],
                "max_steps": recipe.agent.max_steps,
                "train_truncated": recipe.train_truncated,
                "limits": limits_of(recipe),
                "run": str(recipe.directory.resolve()),
                "tokenizer": "${policy.tokenizer}",
                "max_new_tokens": "${policy.generation.max_new_tokens}",
                "max_total_sequence_length": "${policy.max_total_sequence_length}",
            },
        },
    }


def _nemo_gym(recipe: Recipe, specs: Sequence[EnvironmentSpec]) -> dict[str, Any]:
    ours = adapter_settings(recipe)
    agents = {
        # No `entrypoint`: NeMo Gym starts nothing and still finds the address by name.
        spec.name: {"responses_api_agents": {spec.name: {"host": ours.agent_host, "port": ours.agent_port}}}
        for spec in specs
    }
    serving: dict[str, Any] = {"enable_auto_tools": True, "tool_parser": ours.tool_parser}
    if ours.reasoning_parser is not None:
        serving["reasoning_parser"] = ours.reasoning_parser
    return {
        "grpo": {"max_val_samples": None, "val_batch_size": None, "max_rollout_turns": 1},
        "policy": {
            "generation": {
                "vllm_cfg": {
                    "expose_http_server": True,
                    "skip_tokenizer_init": False,
                    "http_server_serving_chat_kwargs": serving,
                },
                "stop_strings": None,
                "stop_token_ids": None,
                "top_k": None,
            }
        },
        "data": {
            "max_input_seq_length": None,
            "default": {
                "dataset_name": "NemoGymDataset",
                "env_name": "nemo_gym",
                "prompt_file": None,
                "system_prompt_file": None,
                "processor": "nemo_gym_data_processor",
            },
        },
        "env": {
            "_override_": True,
            "should_use_nemo_gym": True,
            "should_log_nemo_gym_responses": True,
            "should_mask_flagged_samples": True,
            "nemo_gym": {
                "config_paths": ["responses_api_models/vllm_model/configs/vllm_model_for_training.yaml"],
                "policy_model": {
                    "responses_api_models": {
                        "vllm_model": {
                            "port": ours.policy_port,
                            "uses_reasoning_parser": ours.reasoning_parser is not None,
                            "chat_template_kwargs": ours.chat_template_kwargs,
                        }
                    }
                },
                **agents,
            },
        },
    }


def _supervised(recipe: Recipe, data: Mapping[str, Path]) -> dict[str, Any]:
    name = "openai_format" if recipe.algorithm == "sft" else "PreferenceDataset"
    files: dict[str, Any] = {"train": {"dataset_name": name, "data_path": str(data["train"])}}
    files["validation"] = None
    default: dict[str, Any] = {"dataset_name": name, "prompt_file": None, "system_prompt_file": None}
    config: dict[str, Any] = {
        "data": {
            "_override_": True,
            "max_input_seq_length": "${policy.max_total_sequence_length}",
            "shuffle": True,
            "num_workers": 0,
            **files,
        },
        recipe.algorithm: {"val_period": 0, "val_at_start": False, "val_at_end": False},
        "checkpointing": {"metric_name": None},
    }
    if recipe.algorithm == "sft":
        default |= {"processor": "sft_processor", "chat_key": "messages", "tool_key": "tools"}
        default["use_preserving_dataset"] = True
        # The checkpoint's own template writes its own beginning and end.
        config["data"] |= {"add_bos": False, "add_eos": False, "add_generation_prompt": False}
        config["policy"] = {"tokenizer": {"chat_template": "default"}}
    config["data"]["default"] = default
    return config


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = dict(value) if isinstance(value, Mapping) else value


def _source(environment: str) -> str:
    """A path is made absolute: the actor that loads it runs elsewhere."""
    path, mark, name = environment.partition(":")
    is_path = not environment.startswith(("http://", "https://")) and ("/" in path or path.endswith(".py"))
    return f"{Path(path).resolve()}{mark}{name}" if is_path and Path(path).exists() else environment
