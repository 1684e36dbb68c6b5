"""The quickstart's promise, measured: three seeds, a process each, held-out reward before and after, and the time.

    python benchmarks/quickstart.py                  (seeds 0, 1 and 2: about 8 minutes on 2 cores)
    python benchmarks/quickstart.py --seeds 0 --check

Targets: held-out mean reward rises by at least 0.3 in each environment with every seed; a run takes less than 180
seconds.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

RISE = 0.3
SECONDS = 180.0
RECIPE = Path(__file__).parents[1] / "recipes" / "grpo" / "quickstart.yaml"


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Run the quickstart recipe with several seeds and print what it learned."
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds to run, one after another")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--write", type=Path, help="write the table as Markdown to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs = [run_seed(seed, Path(folder) / str(seed)) for seed in options.seeds]
    table = as_markdown(runs)
    print(table)
    if options.write is not None:
        options.write.write_text(table + "\n", encoding="utf-8")
    return int(options.check and not all(met(run) for run in runs))


def run_seed(seed: int, output: Path) -> dict[str, Any]:
    """Train once, as `make quickstart` does, and return the summary with wall and CPU seconds of the whole process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "gymrail", "train", str(RECIPE), f"seed={seed}", f"output={output}"],
        check=True,
        timeout=1200,
        env={**os.environ, "OMP_WAIT_POLICY": "passive"},
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    summary = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return {**summary, "seed": seed, "wall": time.monotonic() - started, "cpu": cpu}


def met(run: dict[str, Any]) -> bool:
    rises = [run["after"][name]["mean"] - run["before"][name]["mean"] for name in run["after"]]
    return min(rises) >= RISE and run["wall"] < SECONDS


def as_markdown(runs: list[dict[str, Any]]) -> str:
    lines = [
        "# The quickstart, with three seeds",
        "",
        "    python benchmarks/quickstart.py --write benchmarks/results/quickstart.md",
        "",
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, no GPU.",
        "Mean reward of 128 held-out tasks per environment with its 95% interval; seconds of the whole process.",
        "",
        "| Seed | Environment | Before | After | Change | Wall s | CPU s | Targets met |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for run in runs:
        for name, after in run["after"].items():
            before = run["before"][name]
            change = f"{after['mean'] - before['mean']:+.2f}"
            cells = [str(run["seed"]), name, cell(before), cell(after), change]
            cells += [f"{run['wall']:.0f}", f"{run['cpu']:.0f}", "yes" if met(run) else "no"]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(score: dict[str, float]) -> str:
    return f"{score['mean']:.2f} [{score['low']:.2f}, {score['high']:.2f}]"


if __name__ == "__main__":
    sys.exit(main())
