"""The benchmark runs, and what it measures is played to the right end."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "rollouts.py"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCHMARK), "--quick", *options], capture_output=True, text=True, timeout=300
    )


def test_a_quick_run_measures_every_workload_on_both_sides_and_names_every_target() -> None:
    done = run("--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["quick"] is True
    figures = report["figures"]
    assert all(figure["value"] > 0 for figure in figures)
    targets = {(figure["name"], figure["unit"]): figure["target"] for figure in figures if figure["target"] is not None}
    assert targets == {
        ("W2 in process", "rollouts/s"): 1000,
        ("W3 open episode (session_counter)", "KB"): 20,
        ("W2 over HTTP", "of the bare loop"): 0.8,
        ("W2 over HTTP", "CPU ms/rollout"): 2,
        ("W4, 256 episodes at once", "of the bare loop"): 0.95,
        ("W4, 1000 episodes at once", "of the bare loop"): 0.95,
        ("import gymrail", "s"): 0.3,
        ("gymrail --help", "s"): 0.5,
    }
    measured = {figure["name"] for figure in figures}
    assert {"W1 over HTTP, bare loop", "W3 over HTTP, bare loop", "W1 in process", "W3 in process"} <= measured
