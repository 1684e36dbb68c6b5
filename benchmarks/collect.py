"""What collecting at scale costs: the journal, more processes, a long run; prints which targets are met.

    python benchmarks/collect.py                      about six minutes
    python benchmarks/collect.py --only journal       one part: journal, workers, ray, resume or memory
    python benchmarks/collect.py --million            memory over a million rollouts instead of 200,000
    python benchmarks/collect.py --quick              does it run? Its figures mean nothing
    python benchmarks/collect.py --write FILE         the table as Markdown too; --json and --check as elsewhere

`journal` plays five tool calls against a mocked endpoint with the journal on and off, in turns. `workers` and `ray` run
`gymrail rollout` on an environment that computes, start and end of all processes included. `resume` goes on with a run
of a million rollouts, and `memory` watches one grow. A ratio is the median over neighbouring runs.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from figures import Figure, machine
from long_runs import HERE, collecting, resuming
from mock_openai import serving
from workloads import jobs_of, spec_of

from gymrail.collect.event_loop import run_async
from gymrail.collect.run_directory import RunDirectory
from gymrail.collect.runner import collect
from gymrail.models.openai import EndpointSettings, OpenAIModel

BURNING = HERE / "burning.py"
_PACKAGES = ("pyreqwest", "uvloop", "pydantic", "orjson", "ray")
_COMMAND_SECONDS = 600.0


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int
    journal_rollouts: int
    burning_rollouts: int
    resumed_rollouts: int
    collected_rollouts: int
    settled_rollouts: int
    """From here on memory is watched."""


FULL = Plan(
    rounds=9, journal_rollouts=1500, burning_rollouts=600, resumed_rollouts=1_000_000, collected_rollouts=200_000,
    settled_rollouts=20_000,
)  # fmt: skip
QUICK = Plan(
    rounds=1, journal_rollouts=64, burning_rollouts=20, resumed_rollouts=4000, collected_rollouts=6000,
    settled_rollouts=500,
)  # fmt: skip


class Speed(NamedTuple):
    """Of one run."""

    rollouts_per_second: float
    cpu_seconds: float
    """Of this process, per rollout: on a machine with other work it says more than the time by the clock."""


def _journal(plan: Plan, folder: Path) -> Iterator[Figure]:
    speeds: dict[str, list[Speed]] = {"off": [], "on": []}
    with serving("W2") as url:
        _play_over_http(url, min(plan.journal_rollouts, 100), None)  # caches, imports
        for number in range(plan.rounds):
            # By turns in the other order too: whoever comes second finds a warm machine.
            for side in ("off", "on") if number % 2 else ("on", "off"):
                gc.collect()
                run = folder / f"journal-{number}" if side == "on" else None
                speeds[side].append(_play_over_http(url, plan.journal_rollouts, run))
    for side, measured in speeds.items():
        best = max(speed.rollouts_per_second for speed in measured)
        yield Figure(f"W2 over HTTP, journal {side}", best, "rollouts/s", note="the best run")
    pairs = list(zip(speeds["on"], speeds["off"], strict=True))
    note = f"median of {plan.rounds} pairs"
    ratio = statistics.median(on.rollouts_per_second / off.rollouts_per_second for on, off in pairs)
    yield Figure("W2 over HTTP, journal on", ratio, "of journal off", 0.85, note=note)
    added = statistics.median(on.cpu_seconds - off.cpu_seconds for on, off in pairs)
    yield Figure(
        "W2 over HTTP, the journal's CPU", added * 1e6, "us per rollout", note=f"{note}; the endpoint's is not in it"
    )


def _play_over_http(url: str, rollouts: int, run: Path | None) -> Speed:
    """Play, record where `run` says, and return how fast; opening and closing the run count too."""
    spec = spec_of("W2")
    jobs = list(jobs_of(spec, "W2", rollouts))
    started, cpu_started = time.perf_counter(), time.process_time()
    if run is None:
        scored = run_async(_collect(url, jobs, None))
    else:
        with RunDirectory.create(run, {"model": url}, environments=[spec]) as folder:
            scored = run_async(_collect(url, jobs, folder))
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    if scored != rollouts:
        raise SystemExit(f"{rollouts - scored} of {rollouts} rollouts were not scored, so their time means nothing.")
    return Speed(rollouts / seconds, cpu_seconds / rollouts)


async def _collect(url: str, jobs: Sequence, folder: RunDirectory | None) -> int:
    settings = EndpointSettings(max_retries=0)
    async with OpenAIModel("mock", url, api_key="none", settings=settings) as model:
        record = folder.record if folder is not None else None
        summary = await collect(jobs, model, retries=0, record=record)
    return summary.scored


def _workers(plan: Plan, folder: Path) -> Iterator[Figure]:
    rounds = min(plan.rounds, 3)
    rates: dict[str, list[float]] = {"0": [], "1": [], "2": []}
    for number in range(rounds):
        for workers, measured in rates.items():
            if workers != "0" or number == 0:
                options = ["--workers", workers] if workers != "0" else []
                measured.append(_burn(folder / f"workers-{workers}-{number}", plan.burning_rollouts, options))
    for workers, measured in rates.items():
        name = "computing, in the runner" if workers == "0" else f"computing, --workers {workers}"
        yield Figure(name, max(measured), "rollouts/s", note="about 50 ms of CPU each; start and end included")
    ratio = statistics.median(two / one for two, one in zip(rates["2"], rates["1"], strict=True))
    yield Figure("computing, --workers 2", ratio, "x of --workers 1", 1.7, note=f"median of {rounds} pairs")


def _ray(plan: Plan, folder: Path) -> Iterator[Figure]:
    rate = _burn(folder / "ray", plan.burning_rollouts, ["--executor", "ray"])
    yield Figure("computing, --executor ray", rate, "rollouts/s", note="one node, started and stopped for it")


def _burn(run: Path, rollouts: int, options: Sequence[str]) -> float:
    """Run the command and return rollouts per second of its whole time."""
    command = [sys.executable, "-m", "gymrail", "rollout", str(BURNING), "--model", "oracle", "--json"]
    command += ["--tasks", str(rollouts), "--run", str(run), *options]
    started = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True, timeout=_COMMAND_SECONDS)
    seconds = time.perf_counter() - started
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with exit code {done.returncode}:\n{done.stderr[-4000:]}")
    mean = json.loads(done.stdout)["overall"]["reward"]["mean"]
    if mean != 1:
        raise SystemExit(f"The mean reward is {mean}, not 1, so the time means nothing.")
    return rollouts / seconds


def _resume(plan: Plan, folder: Path) -> Iterator[Figure]:
    for repeats in (4, 1):
        yield from resuming(folder, plan.resumed_rollouts, repeats)


def _memory(plan: Plan, folder: Path) -> Iterator[Figure]:
    yield from collecting(folder, plan.collected_rollouts, plan.settled_rollouts)


PARTS: dict[str, Callable[[Plan, Path], Iterator[Figure]]] = {
    "journal": _journal,
    "workers": _workers,
    "ray": _ray,
    "resume": _resume,
    "memory": _memory,
}


def main() -> int:
    """Measure, print, and say by the exit code whether the targets are met where `--check` asks for that."""
    arguments = _arguments()
    if not Path("/proc/self/status").exists():
        raise SystemExit("This reads memory from /proc/PID/status; run it on Linux.")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    plan = QUICK if arguments.quick else FULL
    if arguments.million:
        plan = Plan(**{**asdict(plan), "collected_rollouts": 1_000_000})
    about = ", ".join(f"{name} {value}" for name, value in machine(_PACKAGES).items())
    figures: list[Figure] = []
    if not arguments.json:
        print(about, flush=True)
    with tempfile.TemporaryDirectory(prefix="gymrail-collect-", dir=arguments.folder) as folder:
        for part in arguments.only or PARTS:
            for figure in PARTS[part](plan, Path(folder)):
                figures.append(figure)
                if not arguments.json:
                    print(figure.line, flush=True)
    missed = [figure for figure in figures if figure.is_met is False]
    verdict = f"{sum(figure.target is not None for figure in figures) - len(missed)} of "
    verdict += f"{sum(figure.target is not None for figure in figures)} targets met."
    if arguments.json:
        rows = [{**asdict(figure), "is_met": figure.is_met} for figure in figures]
        print(json.dumps({"machine": machine(_PACKAGES), "quick": arguments.quick, "figures": rows}, indent=1))
    else:
        print(verdict)
    if arguments.write is not None:
        lines = [about, *(figure.line for figure in figures), verdict]
        arguments.write.write_text(_page(lines), encoding="utf-8")
    return int(arguments.check and bool(missed))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure what collecting rollouts at scale costs.")
    parser.add_argument("--only", nargs="+", choices=list(PARTS), metavar="PART", help=f"parts of: {', '.join(PARTS)}")
    parser.add_argument("--million", action="store_true", help="watch the memory of a million rollouts")
    parser.add_argument("--quick", action="store_true", help="only see whether it runs; the figures mean nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--write", type=Path, default=None, metavar="FILE", help="write the table as Markdown too")
    parser.add_argument("--folder", type=Path, default=None, help="where runs of up to 2 GB are written and removed")
    return parser.parse_args()


def _page(lines: Sequence[str]) -> str:
    return "\n".join(
        [
            "# Collecting at scale",
            "",
            "    make bench-collect          # or: python benchmarks/collect.py",
            "",
            f"Measured on {datetime.now(UTC):%Y-%m-%d}; `benchmarks/collect.py` says what each line is.",
            "",
            "```",
            *lines,
            "```",
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
