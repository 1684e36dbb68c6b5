"""The benchmark of task files runs, and measures every step."""

import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "data.py"


def test_a_small_run_measures_every_step() -> None:
    command = [sys.executable, str(BENCHMARK), "--rows", "300"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("300 rows of 4")
    assert [line[:24].strip() for line in lines[2:]] == [
        "validate",
        "prepare",
        "split",
        "split by group",
        "split against benchmark",
    ]
    assert all(float(figure.replace(",", "")) > 0 for line in lines[2:] for figure in line[24:].split())
