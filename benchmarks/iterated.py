"""The iterated recipe's promise, measured: three seeds, a process each, mean reward after every stage, and the time.

    python benchmarks/iterated.py                    (seeds 0, 1 and 2, one after another)
    python benchmarks/iterated.py --seeds 0 1 --jobs 2 --check

Targets, over both environments: held-out mean reward after SFT is above that of the teacher's rollouts, and after DPO
above that after SFT.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

RECIPE = Path(__file__).parents[1] / "recipes" / "iterated" / "quickstart.yaml"
COLLECTED, AFTER_SFT, AFTER_DPO = "1_collect", "2_sft", "4_dpo"
SHOWN = ("start", COLLECTED, AFTER_SFT, "3_collect", AFTER_DPO)


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Run the iterated recipe with several seeds and print what each stage gained."
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds to run")
    parser.add_argument("--jobs", type=int, default=1, help="how many run at once, each on one core")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--write", type=Path, help="write the table as Markdown to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        runs = list(pool.map(lambda seed: run_seed(seed, Path(folder) / str(seed)), options.seeds))
    table = as_markdown(runs, options.jobs)
    print(table)
    if options.write is not None:
        options.write.write_text(table + "\n", encoding="utf-8")
    return int(options.check and not all(met(run) for run in runs))


def run_seed(seed: int, output: Path) -> dict[str, Any]:
    """Run the recipe once and return each stage's scores, with the wall seconds of the whole process."""
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "gymrail", "train", str(RECIPE), f"seed={seed}", f"output={output}"],
        check=True,
        timeout=1200,
        env={**os.environ, "OMP_WAIT_POLICY": "passive"},
    )
    summary = json.loads((output / "metrics.json").read_text(encoding="utf-8"))
    scores = {row["stage"]: row["scores"] for row in summary["stages"]}
    return {"seed": seed, "scores": scores, "wall": time.monotonic() - started}


def met(run: dict[str, Any]) -> bool:
    collected, sft, dpo = (run["scores"][stage]["all"]["mean"] for stage in (COLLECTED, AFTER_SFT, AFTER_DPO))
    return collected < sft < dpo


def as_markdown(runs: list[dict[str, Any]], jobs: int) -> str:
    lines = [
        "# The iterated recipe, seed by seed",
        "",
        "    python benchmarks/iterated.py --write benchmarks/results/iterated.md",
        "",
        f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, no GPU; {jobs} at once.",
        "Mean reward with its 95% interval. `start`, `2_sft` and `4_dpo` are held out; `1_collect` (the teacher) and",
        "`3_collect` (the policy after SFT) are what was trained on. `all` is the mean of the environments.",
        "",
        f"| Seed | Environment | {' | '.join(SHOWN)} | Wall s | Targets met |",
        f"|---|---|{'---|' * len(SHOWN)}---|---|",
    ]
    for run in runs:
        for name in run["scores"][COLLECTED]:
            cells = [str(run["seed"]), name, *(cell(run["scores"][stage][name]) for stage in SHOWN)]
            verdict = ("yes" if met(run) else "**no**") if name == "all" else ""
            cells += [f"{run['wall']:.0f}", verdict]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(score: dict[str, float]) -> str:
    return f"{score['mean']:.2f} [{score['low']:.2f}, {score['high']:.2f}]"


if __name__ == "__main__":
    sys.exit(main())
