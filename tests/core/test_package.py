"""The package as a whole: what it exports, and that importing it is light."""

import json
import subprocess
import sys

import gymrail
from tests.yardstick import seconds_of_command, seconds_of_imports

HEAVY = (
    "torch",
    "transformers",
    "trl",
    "ray",
    "mcp",
    "fastapi",
    "aiohttp",
    "httptools",
    "pyreqwest",
    "typer",
    "rich",
    "openai",
    "datasets",
    "numpy",
)


def test_the_exported_names_are_these() -> None:
    assert gymrail.__all__ == [
        "Config", "Environment", "Episode", "File", "GymrailError", "Image", "Outcome", "Reply", "Rollout", "Task",
        "ToolError", "ToolServer", "Verdict", "call", "tool",
    ]  # fmt: skip
    assert all(hasattr(gymrail, name) for name in gymrail.__all__)


def loaded_by_import() -> list[str]:
    """Import in a new process; return what of the heavy it loaded."""
    code = f"import gymrail, json, sys; print(json.dumps([name for name in {HEAVY!r} if name in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300, check=True)
    return json.loads(done.stdout)


def test_importing_is_quick_and_loads_no_framework() -> None:
    assert loaded_by_import() == []
    assert seconds_of_command("-c", "import gymrail") < 4 * seconds_of_imports()
