"""Trainers' own dataset classes, from checkouts of their source, in environments that hold what those import.

Each environment sees the packages of this one, torch above all, and has its own where theirs want other versions.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

from tests.interop.node import ROOT

PACKAGES = {
    "nemo_rl": ("soundfile==0.14.0", "absl-py==2.5.1", "omegaconf==2.4.0", "scipy==1.17.1"),
    # verl imports classes that Transformers 5 no longer has; that release wants these of the others.
    "verl": (
        "transformers==4.57.6", "datasets==4.5.0", "huggingface-hub==0.36.2", "tensordict==0.15.3", "omegaconf==2.4.0",
        "codetiming==1.4.0",
    ),
}  # fmt: skip
_INSTALL_SECONDS = 800
_LOAD_SECONDS = 300


def load(name: str, source: Path, request: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run `load_<name>.py` on a request; return what its dataset classes made of the files."""
    home = ROOT / ".interop" / f"{name}_data"
    python, marker = home / "bin" / "python", home / "installed.txt"
    if not marker.is_file() or marker.read_text(encoding="utf-8").split() != list(PACKAGES[name]):
        _run(sys.executable, "-m", "venv", "--clear", str(home))
        (packages,) = home.glob("lib/python*/site-packages")
        (packages / "beside.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
        _run(str(python), "-m", "pip", "install", "--quiet", *PACKAGES[name])
        marker.write_text("\n".join(PACKAGES[name]), encoding="utf-8")
    script = Path(__file__).with_name(f"load_{name}.py")
    settings = {
        "PYTHONPATH": str(source),
        "HF_HOME": str(folder / "hub"),
        "HF_HUB_OFFLINE": "1",
        "HOME": str(folder),
        "PATH": "/usr/bin:/bin",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [str(python), str(script)], input=json.dumps(request), capture_output=True, text=True, timeout=_LOAD_SECONDS,
        env=settings, cwd=folder, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
