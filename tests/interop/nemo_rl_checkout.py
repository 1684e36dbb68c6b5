"""NeMo RL from a checkout of its source, in a virtual environment of its own, on CPU.

NeMo RL is not on the package index. `NEMO_RL_SOURCE` names the checkout; what its rollout, data and configuration
modules import is installed into .interop/nemo_rl, with torch as released for CPUs where the index offers that.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.interop.node import ROOT
from tests.interop.python import CORE

PACKAGES = (
    "torch==2.13.0", "transformers>=5.5.0,<5.9.0", "ray[default]==2.60.0", "pillow", "hydra-core", "wandb", "datasets",
    "pyzmq", "nvidia-ml-py", "uvicorn", "fastapi", "tensorboard", "aiohttp", "tensordict", "torchdata", "matplotlib",
    "soundfile", "scipy", "math-verify", *CORE,
)  # fmt: skip
_STUB = '''"""Not installed here: NeMo RL imports it for a logger that is switched off."""


def __getattr__(name):
    raise AttributeError(name)
'''
_SITE = '''"""Below Python 3.12 pydantic refuses typing.TypedDict, of which NeMo RL's configuration is made."""

import sys
import typing

if sys.version_info < (3, 12):
    import typing_extensions

    typing.TypedDict = typing_extensions.TypedDict
'''
_INSTALL_SECONDS = 1500
_RUN_SECONDS = 600


def source() -> Path | None:
    """The checkout, where one is named."""
    named = os.environ.get("NEMO_RL_SOURCE")
    return Path(named).resolve() if named else None


def interpreter() -> Path:
    """Install what NeMo RL's modules need, unless it stands there already; return the interpreter."""
    folder = ROOT / ".interop" / "nemo_rl"
    python, marker = folder / "bin" / "python", folder / "installed.txt"
    if not marker.is_file() or marker.read_text(encoding="utf-8").splitlines() != list(PACKAGES):
        # What is there is brought up to date, not cleared: the folder may be a link to one that others use too.
        if not python.exists():
            _run(sys.executable, "-m", "venv", str(folder.resolve()))
        _run(str(python), "-m", "pip", "install", "--quiet", *PACKAGES)
        (packages,) = folder.glob("lib/python*/site-packages")
        for name in ("mlflow", "swanlab"):
            (packages / f"{name}.py").write_text(_STUB, encoding="utf-8")
        (packages / "sitecustomize.py").write_text(_SITE, encoding="utf-8")
        marker.write_text("\n".join(PACKAGES), encoding="utf-8")
    return python


def settings(folder: Path) -> dict[str, str]:
    """The environment variables under which NeMo RL's modules run, with our packages beside them."""
    checkout = source()
    assert checkout is not None
    ours = [ROOT / part for part in ("src", "environments", "mcp_servers", "adapters/nemo_rl")]
    return {
        "PYTHONPATH": os.pathsep.join(map(str, [checkout, *ours])),
        "PYTHONDONTWRITEBYTECODE": "1",
        "NEMO_RL_SOURCE": str(checkout),
        "HF_HOME": str(folder / "hub"),
        "HF_HUB_OFFLINE": "1",
        "HOME": str(folder),
        "PATH": f"{interpreter().parent}:/usr/bin:/bin",
        "OMP_NUM_THREADS": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def ask(script: str, request: dict[str, Any], folder: Path) -> Any:
    """Run a script of inside_nemo_rl in NeMo RL's environment: JSON goes in, and comes back."""
    asked, answered = folder / f"{script}.request.json", folder / f"{script}.answer.json"
    asked.write_text(json.dumps(request), encoding="utf-8")
    done = subprocess.run(
        [str(interpreter()), str(Path(__file__).parent / "inside_nemo_rl" / script), str(asked), str(answered)],
        capture_output=True, text=True, timeout=_RUN_SECONDS, env=settings(folder), cwd=folder, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-3000:]}\n{done.stderr[-6000:]}"
    return json.loads(answered.read_text(encoding="utf-8"))


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
