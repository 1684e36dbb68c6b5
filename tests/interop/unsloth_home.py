"""The real Unsloth in an environment of its own, with Gymrail beside it: `.interop/unsloth`, without a GPU.

Torch is the CPU build that the tests use, so the packages that only GPUs need (triton, xformers, bitsandbytes,
torchvision, torchao) are left out: Unsloth is installed without what it requires, and the rest is named here.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

from tests.interop.node import ROOT

VERSION = "2026.10.9"
HOME = ROOT / ".interop" / "unsloth"
PACKAGES = (
    "torch==2.13.0", "trl==1.15.0", "transformers==5.17.0", "datasets==4.8.5", "accelerate==1.15.0", "peft==0.21.2",
    "einops", "hf_transfer", "msgspec", "nest-asyncio", "pillow", "protobuf", "psutil", "regex", "requests",
    "sentencepiece", "tyro", "wheel",
)  # fmt: skip
UNSLOTH = (f"unsloth=={VERSION}", f"unsloth_zoo=={VERSION}")
_INSTALL_SECONDS = 900


def install() -> Path:
    """Return the environment's `bin` folder; the first time it is made, which takes minutes and 1.5 GB.

    Raises:
        RuntimeError: a package index cannot be reached.
    """
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    marker = HOME / "installed.txt"
    core = tomllib.loads(project)["project"]["dependencies"]
    wanted = "\n".join([*PACKAGES, *UNSLOTH, project])
    if not marker.is_file() or marker.read_text(encoding="utf-8") != wanted:
        if not (HOME / "bin" / "python").exists():
            _run(sys.executable, "-m", "venv", str(HOME))
        pip = (str(HOME / "bin" / "python"), "-m", "pip", "install", "--quiet")
        _run(*pip, *PACKAGES, *core)
        _run(*pip, "--no-deps", *UNSLOTH)
        _run(*pip, "--no-deps", "--editable", str(ROOT))
        marker.write_text(wanted, encoding="utf-8")
    return HOME / "bin"


def variables(**more: str) -> dict[str, str]:
    """Environment variables of a run without a network: Unsloth counts its users over one."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GYMRAIL_", "UNSLOTH_"))}
    return kept | {"HF_HUB_OFFLINE": "1", "UNSLOTH_DISABLE_STATISTICS": "1", "OMP_NUM_THREADS": "1"} | more


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
