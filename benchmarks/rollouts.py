"""How fast Gymrail plays rollouts and what they cost, beside a bare aiohttp loop; prints which targets are met.

    python benchmarks/rollouts.py            about three minutes
    python benchmarks/rollouts.py --quick    a few seconds: does it run? Its figures mean nothing
    python benchmarks/rollouts.py --json     for machines
    python benchmarks/rollouts.py --check    exit code 1 when a target is missed

W1 is one model call, W2 five tool calls, W3 a seeded counter, each verified; W4 is W2 behind 500 ms of model latency.
Ours and the bare loop run in turns, on both event loops. A ratio is the median over the pairs of neighbouring runs, so
that other work on the machine falls on both sides; rates and CPU times are those of the best run, because other work
only makes a run slower. The endpoint is a process of its own and is not in the CPU times.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import resource
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from bare_loop import Result, run_bare
from figures import Figure, machine
from mock_openai import serving
from workloads import jobs_of, script_of, spec_of

from gymrail.collect.event_loop import new_event_loop, rare_collections
from gymrail.collect.runner import Job, collect
from gymrail.models.model import EpisodePolicy, Model, ModelRequest, ModelResponse
from gymrail.models.openai import EndpointSettings, OpenAIModel
from gymrail.rollout import Rollout

Loop = Callable[[], asyncio.AbstractEventLoop]
Runs = dict[tuple[str, str], list[Result]]
"""By side ("ours", "bare") and event loop ("asyncio", "uvloop")."""
LOOPS: dict[str, Loop] = {"asyncio": asyncio.new_event_loop}
if type(_made := new_event_loop()).__module__.startswith("uvloop"):
    LOOPS["uvloop"] = new_event_loop
_made.close()
USED = "uvloop" if "uvloop" in LOOPS else "asyncio"
"""The event loop that `gymrail rollout` and the trainers run on here."""
T = TypeVar("T")
_PACKAGES = ("pyreqwest", "aiohttp", "pydantic", "orjson")


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    rounds: int
    http_rollouts: int
    process_rollouts: int
    concurrency: int
    open_episodes: int
    latency_ms: float
    waves: int
    """Rollouts of W4 per episode that is open at once."""
    starts: int


FULL = Plan(
    rounds=13, http_rollouts=500, process_rollouts=2000, concurrency=64, open_episodes=2000, latency_ms=500, waves=2,
    starts=7,
)  # fmt: skip
QUICK = Plan(
    rounds=1, http_rollouts=64, process_rollouts=100, concurrency=16, open_episodes=100, latency_ms=5, waves=1, starts=1
)


def measure(plan: Plan) -> Iterator[Figure]:
    """Yield the figures as they are measured."""
    yield from _in_process(plan)
    yield from _memory(plan)
    for workload in ("W1", "W2", "W3"):
        yield from _over_http(plan, workload)
    for episodes in (256, 1000):
        yield from _with_latency(plan, episodes)
    yield from _starting(plan)


def _in_process(plan: Plan) -> Iterator[Figure]:
    for workload in ("W1", "W2", "W3"):
        runs = [
            _run(asyncio.new_event_loop, _ours(workload, None, plan.process_rollouts, 32)) for _ in range(plan.rounds)
        ]
        best, name = _best(runs), f"{workload} in process"
        target = 1000 if workload == "W2" else None
        yield Figure(name, best.rollouts_per_second, "rollouts/s", target, note="scripted model, one core")
        yield Figure(name, best.cpu_ms_per_rollout, "CPU ms/rollout")


def _memory(plan: Plan) -> Iterator[Figure]:
    for workload, target in (("W2", None), ("W3", 20.0)):
        kilobytes = _run(asyncio.new_event_loop, _open_episodes(workload, plan.open_episodes))
        name = f"{workload} open episode" + (" (session_counter)" if workload == "W3" else "")
        yield Figure(name, kilobytes, "KB", target, at_most=True, note="all tools called, last answer awaited")


def _over_http(plan: Plan, workload: str) -> Iterator[Figure]:
    with serving(workload) as url:
        runs = _interleaved(workload, url, plan.http_rollouts, plan.concurrency, plan.rounds)
    is_bound = workload == "W2"
    yield from _compared(f"{workload} over HTTP", runs, 0.8 if is_bound else None)
    milliseconds = min(run.cpu_ms_per_rollout for run in runs["ours", USED])
    yield Figure(f"{workload} over HTTP", milliseconds, "CPU ms/rollout", 2.0 if is_bound else None, at_most=True)
    bare = min(run.cpu_ms_per_rollout for run in runs["bare", USED])
    yield Figure(f"{workload} over HTTP, bare loop", bare, "CPU ms/rollout")


def _with_latency(plan: Plan, episodes: int) -> Iterator[Figure]:
    with serving("W4", plan.latency_ms) as url:
        rounds = min(plan.rounds, 3)
        runs = _interleaved("W4", url, plan.waves * episodes, episodes, rounds, loops=(USED,))
    ideal = episodes / (6 * plan.latency_ms / 1000)
    note = f"{plan.latency_ms:g} ms per model call; ideal {ideal:.0f}/s"
    yield from _compared(f"W4, {episodes} episodes at once", runs, 0.95, note)


def _compared(
    name: str, runs: dict[tuple[str, str], list[Result]], target: float | None, note: str = ""
) -> Iterator[Figure]:
    for side, label in (("ours", name), ("bare", f"{name}, bare loop")):
        yield Figure(label, _best(runs[side, USED]).rollouts_per_second, "rollouts/s", note=note)
    # Gymrail runs on uvloop where it is installed, so the bare loop does too: that is the harder comparison.
    yield Figure(name, _ratio(runs, USED), "of the bare loop", target, note=f"both on {USED}")
    if USED != "asyncio" and ("ours", "asyncio") in runs:
        yield Figure(name, _ratio(runs, "asyncio"), "of the bare loop", note="both on asyncio's own event loop")


def _starting(plan: Plan) -> Iterator[Figure]:
    command = [sys.executable, "-c", "import gymrail"]
    yield Figure("import gymrail", _wall_seconds(command, plan.starts), "s", 0.3, at_most=True, note="a new process")
    command = [sys.executable, "-m", "gymrail", "--help"]
    yield Figure("gymrail --help", _wall_seconds(command, plan.starts), "s", 0.5, at_most=True, note="a new process")


def _interleaved(
    workload: str,
    url: str,
    rollouts: int,
    concurrency: int,
    rounds: int,
    loops: tuple[str, ...] = ("asyncio", "uvloop"),
) -> Runs:
    """Run ours and the bare loop in turns."""
    factories = {name: factory for name, factory in LOOPS.items() if name in loops}
    runs: Runs = defaultdict(list)
    for factory in factories.values():  # caches, imports
        _run(factory, _ours(workload, url, min(rollouts, 50), concurrency))
        _run(factory, run_bare(workload, url, min(rollouts, 50), concurrency))
    for _ in range(rounds):
        for name, factory in factories.items():
            with rare_collections():  # as every run of Gymrail's own
                runs["ours", name].append(_run(factory, _ours(workload, url, rollouts, concurrency)))
            runs["bare", name].append(_run(factory, run_bare(workload, url, rollouts, concurrency)))
    return runs


async def _ours(workload: str, url: str | None, rollouts: int, concurrency: int) -> Result:
    """Play rollouts as `gymrail rollout` does, without a journal; the tasks exist beforehand."""
    jobs = list(jobs_of(spec_of(workload), workload, rollouts))
    if url is None:
        return await _timed(jobs, script_of(workload), concurrency)
    async with OpenAIModel("mock", url, api_key="none", settings=EndpointSettings(max_retries=0)) as model:
        return await _timed(jobs, model, concurrency)


async def _timed(jobs: list[Job], model: Model | EpisodePolicy, concurrency: int) -> Result:
    wrong: list[str] = []

    def inspect(rollout: Rollout) -> None:
        if rollout.reward != 1:
            wrong.append(repr(rollout.failure or rollout.reward))

    started, cpu_started = time.perf_counter(), time.process_time()
    summary = await collect(jobs, model, concurrency=concurrency, retries=0, on_rollout=inspect)
    seconds, cpu_seconds = time.perf_counter() - started, time.process_time() - cpu_started
    if wrong or summary.scored != len(jobs):
        raise SystemExit(
            f"{len(wrong)} of {len(jobs)} rollouts did not earn 1, so their time means nothing: {wrong[:1]}"
        )
    return Result(len(jobs) / seconds, 1000 * cpu_seconds / len(jobs))


async def _open_episodes(workload: str, episodes: int) -> float:
    """Kilobytes per episode while all of them wait for the model's last answer: task, state, conversation, frames."""
    spec = spec_of(workload)
    waiting = _WaitingAtTheEnd(workload, episodes)
    await collect(jobs_of(spec, workload, 3), script_of(workload), concurrency=3)
    gc.collect()
    tracemalloc.start()
    playing = asyncio.create_task(collect(jobs_of(spec, workload, episodes), waiting, concurrency=episodes))
    await waiting.all_wait.wait()
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    waiting.go_on.set()
    summary = await playing
    if summary.scored != episodes:
        raise SystemExit(f"{episodes - summary.scored} of {episodes} open episodes were not scored.")
    return size / episodes / 1000


class _WaitingAtTheEnd:
    """Plays the workload's script and holds every episode's last turn back until all have come to it."""

    def __init__(self, workload: str, episodes: int) -> None:
        self.script = script_of(workload)
        self.missing = episodes
        self.all_wait = asyncio.Event()
        self.go_on = asyncio.Event()

    async def respond(self, request: ModelRequest) -> ModelResponse:
        response = await self.script.respond(request)
        if response.items[-1]["type"] == "message":
            self.missing -= 1
            if self.missing == 0:
                self.all_wait.set()
            await self.go_on.wait()
        return response


def _run(factory: Loop, work: Coroutine[Any, Any, T]) -> T:
    gc.collect()
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(work)


def _ratio(runs: Runs, loop: str) -> float:
    pairs = zip(runs["ours", loop], runs["bare", loop], strict=True)
    return statistics.median(ours.rollouts_per_second / bare.rollouts_per_second for ours, bare in pairs)


def _best(runs: list[Result]) -> Result:
    return Result(max(run.rollouts_per_second for run in runs), min(run.cpu_ms_per_rollout for run in runs))


def _wall_seconds(command: list[str], times: int) -> float:
    best = float("inf")
    for _ in range(times):
        started = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        best = min(best, time.perf_counter() - started)
    return best


def main() -> int:
    """Measure, print, and say by the exit code whether the targets are met where `--check` asks for that."""
    parser = argparse.ArgumentParser(description="Measure Gymrail's rollouts beside a bare aiohttp loop.")
    parser.add_argument("--quick", action="store_true", help="only see whether it runs; the figures mean nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    arguments = parser.parse_args()
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    figures: list[Figure] = []
    if not arguments.json:
        print(", ".join(f"{name} {value}" for name, value in machine(_PACKAGES).items()), flush=True)
    for figure in measure(QUICK if arguments.quick else FULL):
        figures.append(figure)
        if not arguments.json:
            print(figure.line, flush=True)
    missed = [figure for figure in figures if figure.is_met is False]
    if arguments.json:
        rows = [{**asdict(figure), "is_met": figure.is_met} for figure in figures]
        print(json.dumps({"machine": machine(_PACKAGES), "quick": arguments.quick, "figures": rows}, indent=1))
    else:
        targets = sum(figure.target is not None for figure in figures)
        print(f"{targets - len(missed)} of {targets} targets met.")
    return int(arguments.check and bool(missed))


if __name__ == "__main__":
    sys.exit(main())
