"""The package as a whole: what it exports, and that importing it is light."""

import json
import subprocess
import sys

import gymrail

HEAVY = (
    "torch",
    "transformers",
    "trl",
    "ray",
    "mcp",
    "fastapi",
    "aiohttp",
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


def measure_import() -> tuple[float, list[str]]:
    """Import in a new process; return its CPU seconds, to which waiting for a core adds nothing, and what it loaded."""
    code = (
        "import sys, time, json; start = time.process_time(); import gymrail; seconds = time.process_time() - start; "
        f"print(json.dumps([seconds, [name for name in {HEAVY!r} if name in sys.modules]]))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    seconds, loaded = json.loads(done.stdout)
    return seconds, loaded


def test_importing_is_quick_and_loads_no_framework() -> None:
    runs = [measure_import() for _ in range(5)]
    assert all(loaded == [] for _, loaded in runs)
    assert min(seconds for seconds, _ in runs) < 0.3
