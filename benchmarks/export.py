"""How fast rollouts become training rows, and in how much memory; prints which targets are met.

    python benchmarks/export.py            a million rollouts: a few minutes and 3 GB of disk while it runs
    python benchmarks/export.py --quick    some seconds: does it run? Its figures mean nothing
    python benchmarks/export.py --json     for machines
    python benchmarks/export.py --check    exit code 1 when a target is missed
    python benchmarks/export.py --write FILE    the table as Markdown too

A rollout is a line of about a kilobyte: a prompt, a tool call, its output, an answer; four of each task. They are
exported to JSONL with two processes, each export in a new process whose memory is watched: the sum over it and its
workers, sampled every 0.1 s as proportional set size where the system tells it. Flat means that ten times the rollouts
take less than a third more memory.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

import orjson
from figures import Figure, machine

PROCESSES = 2
REPEATS = 4
_PACKAGES = ("orjson", "pydantic")
_EXPORTS = {
    "SFT": "Sft(), selection=Selection(min_reward=0.5)",
    "SFT, best of 2, no duplicates": "Sft(), selection=Selection(best_of=2, dedup='exact')",
    "DPO": "Dpo()",
    "DPO, all pairs": "Dpo(rule='all', max_pairs=4)",
}
_TARGETS = {"SFT": 20_000, "DPO": 20_000}
_PROGRAM = """
import sys, time
from gymrail.data.export import Dpo, Selection, Sft, export
if __name__ == "__main__":
    started = time.perf_counter()
    summary = export([sys.argv[1]], sys.argv[2], {made}, processes={processes}, overwrite=True)
    print(summary["rows"], summary["rollouts_read"], time.perf_counter() - started)
"""
_TOOL = {
    "type": "function",
    "name": "search_orders",
    "description": "Search.",
    "parameters": {"type": "object", "properties": {"customer": {"type": "string"}}, "required": ["customer"]},
    "strict": False,
}


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rollouts: int


FULL = Plan(rollouts=1_000_000)
QUICK = Plan(rollouts=20_000)


def measure(plan: Plan) -> Iterator[Figure]:
    """Yield the figures as they are measured."""
    with tempfile.TemporaryDirectory(prefix="gymrail-export-") as folder:
        small, large = Path(folder) / "small.jsonl", Path(folder) / "large.jsonl"
        write_rollouts(small, plan.rollouts // 10)
        write_rollouts(large, plan.rollouts)
        size = large.stat().st_size / plan.rollouts
        yield Figure("rollouts", plan.rollouts, "rollouts", note=f"{size:.0f} bytes each, {REPEATS} of each task")
        for name, made in _EXPORTS.items():
            _, _, before = _export(small, made)
            used = _cpu_seconds()
            rows, seconds, peak = _export(large, made)
            each = 1e6 * (_cpu_seconds() - used) / plan.rollouts
            note = f"{rows} rows in {seconds:.0f} s, {PROCESSES} processes, {each:.0f} µs of CPU each"
            yield Figure(name, plan.rollouts / seconds, "rollouts/s", _TARGETS.get(name), note=note)
            target = 1.33 if name in _TARGETS else None
            note = f"{peak:.0f} MB of memory; {before:.0f} MB for a tenth of the rollouts"
            yield Figure(f"{name}: memory", peak / before, "of a tenth's", target, at_most=True, note=note)


def write_rollouts(path: Path, count: int) -> None:
    """Write rollouts as a run has them: the same number gives the same bytes."""
    rng = Random("export")
    with path.open("wb") as file:
        for place in range(count):
            task, repeat = divmod(place, REPEATS)
            customer, answer = f"customer {task}", task % 1000
            call = f"call_{place:08x}"
            items = [
                {
                    "type": "function_call",
                    "call_id": call,
                    "name": "search_orders",
                    "arguments": f'{{"customer":"{customer}"}}',
                },
                {"type": "function_call_output", "call_id": call, "output": f"{answer} orders of {customer} are open."},
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": f"There are {answer + repeat} open orders."}],
                },
            ]
            row = {
                "responses_create_params": {
                    "input": f"How many orders of {customer} are open? Look it up and answer.",
                    "tools": [_TOOL],
                },
                "_ng_task_index": task,
                "_ng_rollout_index": repeat,
                "response": {"id": f"resp_{place}", "object": "response", "output": items},
                "reward": round(rng.random(), 2),
                "gymrail": {
                    "id": f"{place:032x}",
                    "environment": "orders",
                    "task_id": f"{task:016x}",
                    "status": "scored",
                    "steps": 2,
                    "calls": [{"call_id": call, "name": "search_orders", "is_error": False, "seconds": 0.01}],
                },
            }
            file.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


def _export(rollouts: Path, made: str) -> tuple[int, float, float]:
    """Export in a new process; return rows, seconds, and megabytes at the peak."""
    output = rollouts.with_name("out")
    with tempfile.NamedTemporaryFile("w", suffix=".py", dir=rollouts.parent, delete=False) as program:
        program.write(_PROGRAM.format(made=made, processes=PROCESSES))
    process = subprocess.Popen(
        [sys.executable, program.name, str(rollouts), f"{output}.jsonl"], stdout=subprocess.PIPE, text=True
    )
    watch = _Watch(process.pid)
    printed, _ = process.communicate()
    megabytes = watch.stop()
    if process.returncode:
        raise SystemExit(f"The export {made} failed with exit code {process.returncode}.")
    rows, read, seconds = printed.split()
    if int(read) == 0 or int(rows) == 0:
        raise SystemExit(f"The export {made} made {rows} rows of {read} rollouts, so its time means nothing.")
    return int(rows), float(seconds), megabytes


def _cpu_seconds() -> float:
    """CPU time of all processes that have ended, their workers included."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


class _Watch:
    """Samples the memory of a process and its children from a thread."""

    def __init__(self, pid: int) -> None:
        self._pid, self._peak = pid, 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> float:
        """Return the highest sum, in megabytes."""
        self._done.set()
        self._thread.join()
        return self._peak / 1000

    def _run(self) -> None:
        while not self._done.wait(0.1):
            self._peak = max(self._peak, sum(map(_kilobytes, _family(self._pid))))


def _family(pid: int) -> list[int]:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except OSError:
        return []
    return [pid, *(grandchild for child in children for grandchild in _family(int(child)))]


def _kilobytes(pid: int) -> int:
    try:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines():
            if line.startswith("Pss:"):
                return int(line.split()[1])
    except OSError:
        return 0
    return 0


def main() -> int:
    """Measure, print, and say by the exit code whether the targets are met where `--check` asks for that."""
    parser = argparse.ArgumentParser(description="Measure exports of a million rollouts.")
    parser.add_argument("--quick", action="store_true", help="only see whether it runs; the figures mean nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--write", type=Path, default=None, metavar="FILE", help="write the table as Markdown too")
    arguments = parser.parse_args()
    figures: list[Figure] = []
    if not arguments.json:
        print(", ".join(f"{name} {value}" for name, value in machine(_PACKAGES).items()), flush=True)
    started = time.perf_counter()
    for figure in measure(QUICK if arguments.quick else FULL):
        figures.append(figure)
        if not arguments.json:
            print(figure.line, flush=True)
    missed = [figure for figure in figures if figure.is_met is False]
    rows = [{**asdict(figure), "is_met": figure.is_met} for figure in figures]
    document = {"machine": machine(_PACKAGES), "quick": arguments.quick, "figures": rows}
    if arguments.json:
        print(json.dumps(document, indent=1))
    else:
        targets = sum(figure.target is not None for figure in figures)
        print(f"{targets - len(missed)} of {targets} targets met in {time.perf_counter() - started:.0f} s.")
    if arguments.write is not None:
        head = ", ".join(f"{name} {value}" for name, value in machine(_PACKAGES).items())
        table = "\n".join([head, *(figure.line for figure in figures)])
        arguments.write.write_text(f"# Exports of rollouts\n\n```\n{table}\n```\n", encoding="utf-8")
    return int(arguments.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())
