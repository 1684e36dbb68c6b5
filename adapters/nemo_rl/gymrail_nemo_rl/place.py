"""Where NeMo RL is: its checkout and its interpreter, found out before anything loads.

NEMO_RL_SOURCE   the checkout; NeMo RL is not on the package index
NEMO_RL_PYTHON   its interpreter; .venv/bin/python of the checkout by default
RAY_ADDRESS      a Ray cluster to train on; this machine by default
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

import gymrail
from gymrail.errors import InputError
from gymrail_nemo_rl.keys import TESTED_COMMIT

REPOSITORY = "https://github.com/NVIDIA-NeMo/RL"
MINIMUM = (0, 6)
"""The release that the tested commit belongs to: older ones have other keys and another environment interface."""
_IMPORT_SECONDS = 30


@dataclass(frozen=True, slots=True)
class Place:
    """A NeMo RL checkout and the interpreter that runs it."""

    source: Path
    python: Path

    @classmethod
    def find(cls) -> Place:
        """Return what the environment variables name.

        Raises:
            InputError: there is no checkout, or an old one, or no interpreter.
        """
        named = os.environ.get("NEMO_RL_SOURCE")
        if not named:
            raise InputError(
                "trainer nemo_rl needs a NeMo RL checkout with its environment (NeMo RL is not on the package index): "
                f"git clone --recursive {REPOSITORY} && cd RL && uv sync && export NEMO_RL_SOURCE=$PWD; "
                "then install Gymrail there: uv pip install gymrail."
            )
        source = Path(named).resolve()
        if not (source / "nemo_rl" / "__init__.py").is_file():
            raise InputError(
                f"NEMO_RL_SOURCE is {named!r}, which is no NeMo RL checkout: nemo_rl/__init__.py is missing."
            )
        _check_version(source)
        python = Path(os.environ.get("NEMO_RL_PYTHON") or source / ".venv" / "bin" / "python")
        if not python.is_file():
            raise InputError(
                f"There is no interpreter {str(python)!r} for NeMo RL: run `uv sync` in {str(source)!r}, or set "
                "NEMO_RL_PYTHON."
            )
        return cls(source, python.absolute())

    def other_commit(self) -> str | None:
        """Return the checkout's commit where it is known and another one than the adapter was tested with."""
        if not (self.source / ".git").exists():
            return None
        command = ["git", "-C", str(self.source), "rev-parse", "HEAD"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=_IMPORT_SECONDS, check=False)
        commit = done.stdout.strip()
        return commit if done.returncode == 0 and commit != TESTED_COMMIT else None

    def variables(self) -> dict[str, str]:
        """The environment variables to run under."""
        paths = [str(self.source), *_own_folders(), os.environ.get("PYTHONPATH", "")]
        return {**os.environ, "NEMO_RL_SOURCE": str(self.source), "PYTHONPATH": os.pathsep.join(filter(None, paths))}

    def check_imports(self) -> None:
        """See that Gymrail is installed beside NeMo RL; its interpreter takes most of a second to say so.

        Raises:
            InputError: it is not, with the command that installs it.
        """
        # Not `import nemo_rl`: that alone takes half a minute, and the launcher says what is missing there.
        done = subprocess.run(
            [str(self.python), "-c", "import gymrail_nemo_rl.configuration"], capture_output=True, text=True,
            env=self.variables(), timeout=_IMPORT_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            said = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise InputError(
                f"Gymrail cannot be imported by NeMo RL's interpreter {str(self.python)!r}: {said}. Install it there: "
                f"uv pip install --python {self.python} gymrail"
            )


def _check_version(source: Path) -> None:
    file = source / "nemo_rl" / "package_info.py"
    if not file.is_file():
        return
    found = dict(re.findall(r"^(MAJOR|MINOR) *= *(\d+)", file.read_text(encoding="utf-8"), re.MULTILINE))
    version = int(found.get("MAJOR", 0)), int(found.get("MINOR", 0))
    if found and version < MINIMUM:
        raise InputError(
            f"The NeMo RL checkout {str(source)!r} is version {version[0]}.{version[1]}; the adapter needs "
            f"{MINIMUM[0]}.{MINIMUM[1]} or newer: cd {source} && git fetch && git checkout {TESTED_COMMIT[:12]} && "
            "uv sync."
        )


def check_gpu() -> None:
    """Refuse to start where nothing can be trained on.

    Raises:
        InputError: no GPU here, and no cluster is named.
    """
    if os.environ.get("RAY_ADDRESS") or any(map(os.path.exists, ("/dev/nvidiactl", "/dev/nvidia0", "/dev/dxg"))):
        return
    raise InputError(
        "NeMo RL trains on GPUs and there is none here: set RAY_ADDRESS to a Ray cluster that has some, or have the "
        "recipe checked alone: settings.gymrail.check_only=true."
    )


def _own_folders() -> list[str]:
    """Our packages' folders where they are an editable install, which NeMo RL's interpreter knows nothing of."""
    if "site-packages" in Path(gymrail.__file__).parts:
        return []
    import gymrail_environments
    import gymrail_mcp_servers
    import gymrail_nemo_rl

    modules = (gymrail, gymrail_environments, gymrail_mcp_servers, gymrail_nemo_rl)
    return [str(Path(path).resolve().parent) for module in modules for path in module.__path__]
