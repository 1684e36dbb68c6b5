"""How fast task files are validated, prepared and split, and in how much memory: benchmarks/data.py [--rows N]

Rows of some 500 bytes for the environment `mcqa`; each step runs in a process of its own. Prints rows per second, of
wall time and of CPU time, and the peak of resident memory. The benchmark of the contamination check has 20,000 rows.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from random import Random

from gymrail.data.contamination import BenchmarkIndex
from gymrail.data.prepare import Source, prepare
from gymrail.data.splits import split_files
from gymrail.data.validate import validate
from gymrail.registry import find

STEPS = ("validate", "prepare", "split", "split by group", "split against benchmark")
BENCHMARK_ROWS = 20_000


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    options.add_argument("--rows", type=int, default=1_000_000)
    options.add_argument("--step", choices=STEPS)
    options.add_argument("--folder", type=Path)
    arguments = options.parse_args()
    if arguments.step:
        print(json.dumps(measure(arguments.step, arguments.folder)))
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        write_rows(file, arguments.rows, seed=0)
        write_rows(Path(folder) / "benchmark.jsonl", min(arguments.rows, BENCHMARK_ROWS), seed=1)
        size = file.stat().st_size / arguments.rows
        print(f"{arguments.rows:,} rows of {size:.0f} bytes")
        print(f"{'step':24}{'rows/s':>10}{'rows/CPU s':>12}{'peak MB':>9}")
        for step in STEPS:
            command = [sys.executable, __file__, "--step", step, "--folder", folder]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            found = json.loads(done.stdout)
            wall, cpu = arguments.rows / found["wall"], arguments.rows / found["cpu"]
            print(f"{step:24}{wall:>10,.0f}{cpu:>12,.0f}{found['peak_mb']:>9.0f}", flush=True)


def measure(step: str, folder: Path) -> dict[str, float]:
    """Run one step on the rows of a folder."""
    spec, file, output = find("mcqa"), folder / "rows.jsonl", folder / "out"
    benchmark = folder / "benchmark.jsonl"
    wall, cpu = time.perf_counter(), time.process_time()
    if step == "validate":
        assert validate([file], spec).passed
    elif step == "prepare":
        prepare([Source(spec, "train", file)], output, overwrite=True)
    else:
        index = BenchmarkIndex.read([benchmark]) if step.endswith("benchmark") else None
        by = "document" if step.endswith("group") else None
        split_files([file], folder / "split", by=by, benchmarks=index, overwrite=True)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "peak_mb": peak}


def write_rows(path: Path, count: int, *, seed: int) -> None:
    """Write rows, none twice, with words of a made-up language."""
    random = Random(f"{seed}:rows")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = ["".join(random.choices(letters, k=random.randint(2, 9))) for _ in range(20_000)]
    with path.open("w", encoding="utf-8", buffering=1 << 20) as file:
        for number in range(count):
            text = " ".join(random.choices(words, k=43))
            row = {
                "responses_create_params": {"input": f"{text}\nA: Oslo {number}\nB: Rome\nAnswer in \\boxed{{}}."},
                "options": [{"A": f"Oslo {number}"}, {"B": "Rome"}],
                "expected_answer": "AB"[number % 2],
                "document": f"document-{seed}-{number // 10}",
            }
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
