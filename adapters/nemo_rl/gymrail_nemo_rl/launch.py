"""Start NeMo RL on a configuration of ours; runs in NeMo RL's own environment.

    python -m gymrail_nemo_rl.launch --algorithm grpo --config nemo_rl.yaml [--check-only]

`gymrail train` starts it. It has NeMo RL's own loader read the configuration and its own classes check it, refuses
what they would take in silence (unknown keys, missing keys), writes the whole as `nemo_rl.resolved.yaml` beside it,
registers our environment, and calls the `main` of NeMo RL's example program. That program connects to the Ray cluster
that RAY_ADDRESS names, or starts one on this machine. However it ends, what it logged is written as `log.json`.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path
from typing import Any

from gymrail.errors import InputError
from gymrail_nemo_rl.keys import problems_of
from gymrail_nemo_rl.logs import write_log

PROGRAMS = {
    "grpo": "examples/run_grpo.py",
    "nemo_gym": "examples/nemo_gym/run_grpo_nemo_gym.py",
    "sft": "examples/run_sft.py",
    "dpo": "examples/run_dpo.py",
}
"""The programs of a NeMo RL checkout."""
RESOLVED = "nemo_rl.resolved.yaml"


def check(path: Path, algorithm: str) -> dict[str, Any]:
    """Load a configuration as NeMo RL does, check it, and return it whole.

    Raises:
        InputError: NeMo RL refuses it, or it has a key that NeMo RL does not know or lacks one that it needs.
    """
    from importlib import import_module

    from nemo_rl.utils.config import load_config, register_omegaconf_resolvers
    from omegaconf import OmegaConf
    from pydantic import TypeAdapter, ValidationError

    register_omegaconf_resolvers()
    config = OmegaConf.to_container(load_config(path), resolve=True)
    assert isinstance(config, dict), "load_config takes mappings only"
    whole: dict[str, Any] = {str(key): value for key, value in config.items()}
    problems = problems_of(whole, algorithm)
    if problems:
        raise InputError(f"{path}: {'; '.join(problems)}.")
    cls = import_module(f"nemo_rl.algorithms.{algorithm}").MasterConfig
    try:
        TypeAdapter(cls).validate_python(whole)
    except ValidationError as error:
        said = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise InputError(f"{path}: NeMo RL refuses it: {said}.") from None
    return whole


def launch(path: Path, algorithm: str, source: Path, *, check_only: bool = False) -> None:
    """Check a configuration and train by it.

    Raises:
        InputError: as `check`.
    """
    import yaml

    whole = check(path, algorithm)
    path.with_name(RESOLVED).write_text(yaml.safe_dump(whole, sort_keys=False), encoding="utf-8")
    through_gym = bool((whole.get("env") or {}).get("should_use_nemo_gym"))
    if check_only:
        return
    if algorithm == "grpo" and not through_gym:
        from gymrail_nemo_rl.environment import register

        register()
    # NeMo RL hands this process's variables to its actors: they must find what we find.
    os.environ["PYTHONPATH"] = os.pathsep.join(dict.fromkeys([str(source), *filter(None, sys.path)]))
    program = source / PROGRAMS["nemo_gym" if through_gym else algorithm]
    sys.argv = [str(program), "--config", str(path)]
    sys.path.insert(0, str(program.parent))
    found = importlib.util.spec_from_file_location(program.stem, program)
    assert found is not None and found.loader is not None, f"{program} is a Python file"
    module = importlib.util.module_from_spec(found)
    sys.modules[program.stem] = module
    try:
        found.loader.exec_module(module)
        module.main()
    finally:
        write_log(path.parent)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--algorithm", required=True, choices=("grpo", "sft", "dpo"))
    parser.add_argument("--config", required=True, type=Path)
    parser.add_argument("--check-only", action="store_true")
    arguments = parser.parse_args()
    source = Path(os.environ["NEMO_RL_SOURCE"])
    try:
        launch(arguments.config.resolve(), arguments.algorithm, source, check_only=arguments.check_only)
    except InputError as error:
        sys.exit(f"Error: {error}")


if __name__ == "__main__":
    main()
