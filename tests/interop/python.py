"""Virtual environments for Python packages that do not live beside Gymrail's, under .interop."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

from tests.interop.node import ROOT

PACKAGES = {
    "openai-agents": ("openai-agents==0.24.0",),
    # The adapters want another major version of `mcp` than Gymrail.
    "langgraph": ("langchain==1.4.7", "langchain-mcp-adapters==0.3.2", "langchain-openai==1.7.3"),
}
CORE = tuple(tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["dependencies"])
BRIDGED = {
    # Each has packages that do not go with Gymrail's own development environment; Gymrail's core is put on the path.
    "openenv": ("openenv-core==0.3.0", *CORE),
    "verifiers": ("verifiers==0.3.1", *CORE),
    "verifiers-v1": ("verifiers==0.4.0", *CORE),
}
_INSTALL_SECONDS = 800


def virtual_environment(name: str) -> Path:
    """Install the packages of that name, unless they stand there already; return their interpreter."""
    folder = ROOT / ".interop" / name
    python, marker = folder / "bin" / "python", folder / "installed.txt"
    packages = {**PACKAGES, **BRIDGED}[name]
    if not marker.is_file() or marker.read_text(encoding="utf-8").splitlines() != list(packages):
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        _run(str(python), "-m", "pip", "install", "--quiet", *packages)
        marker.write_text("\n".join(packages), encoding="utf-8")
    return python


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
