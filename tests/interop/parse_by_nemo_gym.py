"""Reads `env.nemo_gym` sections as nemo-gym does when NeMo RL starts it. Run by its Python; JSON in, JSON out.

{"a recipe": {...section...}}  ->  {"a recipe": {"started": [...], "agents": {name: {...}}, "model": {...}}}
                                or {"a recipe": {"refused": "..."}}
"""

import contextlib
import io
import json
import sys
from pathlib import Path

from nemo_gym.global_config import GlobalConfigDictParser, GlobalConfigDictParserConfig, get_first_server_config_dict
from omegaconf import DictConfig, OmegaConf
from responses_api_models.vllm_model.app import VLLMModelConfig

# What NeMo RL adds to the section before it hands it over (nemo_rl/environments/nemo_gym.py).
ADDED = {
    "policy_model_name": "policy",
    "policy_api_key": "dummy_key",
    "policy_base_url": ["http://127.0.0.1:8000/v1"],
    "default_host": "10.0.0.1",
    "port_range_low": 5000,
    "port_range_high": 5999,
    "head_server": {"host": "0.0.0.0", "port": 5001},
}


def read(section):
    parser = GlobalConfigDictParser()
    config = parser.parse(
        GlobalConfigDictParserConfig(
            dotenv_path=Path("/nonexistent"),
            initial_global_config_dict=DictConfig({**section, **ADDED}),
            skip_load_from_cli=True,
        )
    )
    agents = [name for name, below in section.items() if isinstance(below, dict) and "responses_api_agents" in below]
    model = OmegaConf.to_container(get_first_server_config_dict(config, "policy_model"), resolve=True)
    unknown = model.keys() - VLLMModelConfig.model_fields.keys()
    if unknown:
        raise ValueError(f"unknown keys of the model server: {sorted(unknown)}")
    VLLMModelConfig.model_validate({**model, "name": "policy_model"})
    return {
        "started": [each.name for each in parser.filter_for_server_instance_configs(config)],
        "agents": {name: dict(get_first_server_config_dict(config, name)) for name in agents},
        "model": model,
    }


def answer(section):
    try:
        return read(section)
    except (ValueError, OSError, RuntimeError) as error:
        return {"refused": f"{type(error).__name__}: {error}"}


with contextlib.redirect_stdout(io.StringIO()):
    answers = {name: answer(section) for name, section in json.load(sys.stdin).items()}
print(json.dumps(answers))
