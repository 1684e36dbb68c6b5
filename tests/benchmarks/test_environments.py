"""The benchmark runs, and what it measures is played to the right end."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "environments.py"


def test_a_quick_run_names_every_target_and_fails_no_episode() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--quick", "--json", "--alone"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    figures = report["figures"]
    assert report["quick"] is True
    assert all(figure["value"] > 0 for figure in figures)
    targets = {figure["name"]: (figure["target"], figure["unit"]) for figure in figures if figure["target"]}
    assert targets == {
        "open and seed an episode": (50, "us"), "six-call episode": (2000, "us"), "open episode": (30, "KB"),
    }  # fmt: skip
