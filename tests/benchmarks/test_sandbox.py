"""The benchmark runs: it tries a bomb beside one neighbour and beside two."""

import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "sandbox.py"


def test_a_quick_run_sets_a_neighbours_time_beside_a_bomb_against_its_time_without() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--quick", "fork bomb"], capture_output=True, text=True, timeout=90
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()[1:]
    assert [line.partition("  ")[0] for line in lines] == ["fork bomb, 1 neighbour", "fork bomb, 2 neighbours"]
    assert all("times the time    <= 1.5" in line for line in lines)
