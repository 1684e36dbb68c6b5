"""The benchmark of exports runs, and names its targets."""

import json
import subprocess
import sys
from pathlib import Path

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "export.py"


def test_a_quick_run_measures_both_exports_and_their_memory() -> None:
    done = subprocess.run(
        [sys.executable, str(BENCHMARK), "--quick", "--json"], capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    targets = {figure["name"]: figure["target"] for figure in report["figures"] if figure["target"] is not None}
    assert targets == {"SFT": 20_000, "SFT: memory": 1.33, "DPO": 20_000, "DPO: memory": 1.33}
    assert all(figure["value"] > 0 for figure in report["figures"])
