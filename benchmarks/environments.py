"""What an episode of `workplace_assistant` costs, beside NeMo Gym's original; prints which targets are met.

    python benchmarks/environments.py            half a minute
    python benchmarks/environments.py --quick    does it run? Its figures mean nothing
    python benchmarks/environments.py --json     for machines
    python benchmarks/environments.py --check    exit code 1 when a target is missed
    python benchmarks/environments.py --alone    without the original

Both sides have the original's tables, make the same six calls (four searches, an update, a reply) and earn 1; both are
measured in process, without HTTP, in turns. Ours is a whole `Episode`: it validates arguments, keeps the journal and
the limits. A figure is the median over the episodes of a turn, in the best turn, because other work on the machine
only makes a turn slower. Memory is what 1,000 open episodes hold after their six calls (tracemalloc), each with a task
of its own; the original's is the growth of its process per open session, before any call, because its tables are not
Python's.
It runs from .interop/nemo_gym, which `make interop` installs; without it, or with `--alone`, ours is measured by
itself, on generated tables.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import itertools
import json
import os
import statistics
import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from figures import Figure, machine

from gymrail.collect.event_loop import new_event_loop
from gymrail.episode import Episode
from gymrail.registry import find
from gymrail.spec import EnvironmentSpec
from gymrail.task import Task
from gymrail_mcp_servers.workplace.generated import generated_office

HERE = Path(__file__).resolve().parent
NEMO_GYM = HERE.parent / ".interop" / "nemo_gym"
_TABLES = "lib/python*/site-packages/resources_servers/workplace_assistant/csv_data"
_PACKAGES = ("pydantic", "orjson")
_NEW_OWNER = {"field": "assigned_to_email", "new_value": "raj.patel@atlas.com"}
_LEADS = {"assigned_to_email": "akira.sato@atlas.com", "status": "Lead"}
CALLS = [
    {"name": name, "arguments": json.dumps(arguments)}
    for name, arguments in (
        ("company_directory_find_email_address", {"name": "raj"}),
        ("email_search_emails", {"query": "carlos report generation"}),
        ("calendar_search_events", {"query": "sync", "time_min": "2023-11-30 23:59:00"}),
        ("customer_relationship_manager_search_customers", _LEADS),
        ("customer_relationship_manager_update_customer", {"customer_id": "00000095", **_NEW_OWNER}),
        ("email_reply_email", {"email_id": "00000057", "body": "Thanks, I will get back to you tomorrow."}),
    )
]
GROUND_TRUTH = CALLS[-2:]


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    turns: int
    episodes: int
    """Of ours, in a turn."""
    original_episodes: int
    open_episodes: int
    original_sessions: int


FULL = Plan(turns=5, episodes=400, original_episodes=10, open_episodes=1000, original_sessions=100)
QUICK = Plan(turns=1, episodes=20, original_episodes=1, open_episodes=50, original_sessions=3)


def measure(plan: Plan, tables: Path | None) -> Iterator[Figure]:
    """Yield the figures.

    Args:
        tables: the original's, where it is installed and takes part.
    """
    spec = find("workplace_assistant")
    if tables is not None:
        spec = spec.with_config({"data_dir": str(tables)})
    ours, theirs, kilobytes = [], [], None
    with _original(tables is not None) as ask:
        for _ in range(plan.turns):
            ours.append(_run(lambda: _episodes(spec, plan.episodes)))
            if ask is not None:
                words = {"episodes": plan.original_episodes, "calls": CALLS, "ground_truth": GROUND_TRUTH}
                theirs.append(ask(words))
        if ask is not None:
            kilobytes = ask({"memory": plan.original_sessions})["kilobytes"]
    mine = _run(lambda: _memory(spec, plan.open_episodes))
    yield from _compared(_best(ours), _best(theirs) if theirs else None)
    yield Figure("open episode", mine, "KB", 30, at_most=True, note="state, journal and task, after six calls")
    if kilobytes is not None:
        yield Figure("open session, original", kilobytes, "KB", note="resident memory, before any call")
        yield Figure("open episode", kilobytes / mine, "x less", note="than the original's session")
    yield Figure("a generated office", 1000 * _making_an_office(), "ms", note="once per process and seed")


def _compared(ours: dict[str, float], theirs: dict[str, float] | None) -> Iterator[Figure]:
    lines = (
        ("open", "seed", "open and seed an episode", 50.0, "the original: seed_session"),
        ("call", "call", "a tool call", None, "mean of the six"),
        ("verify", "verify", "verify", None, "ground truth known; the original: is_correct"),
        ("verify, first", "verify", "verify, not cached", None, "ground truth is run once"),
        ("episode", "episode", "six-call episode", 2000.0, "opened, six calls, verified, closed"),
    )
    yield Figure("seed the state", ours["seed"], "us", note="five tables, inside of opening")
    for mine, their, name, target, note in lines:
        yield Figure(name, ours[mine], "us", target, at_most=True, note=note)
        if theirs is not None:
            yield Figure(f"{name}, original", theirs[their], "us")
            yield Figure(name, theirs[their] / ours[mine], "x faster")


async def _episodes(spec: EnvironmentSpec, count: int) -> dict[str, float]:
    """Medians in microseconds over some episodes."""
    task = _task(spec)
    shared = await spec.setup()
    times: dict[str, list[float]] = {}
    for number in range(count):
        is_first = number % 2 == 1
        if is_first:
            shared.expected.clear()
        marks = [time.perf_counter()]
        episode = await Episode.open(spec, task)
        marks.append(time.perf_counter())
        for call in CALLS:
            await episode.call(call["name"], call["arguments"])
        marks.append(time.perf_counter())
        verdict = await episode.verify()
        marks.append(time.perf_counter())
        await episode.close()
        marks.append(time.perf_counter())
        if verdict.reward != 1.0:
            raise SystemExit(f"The episode earned {verdict.reward}, so its time means nothing: {verdict.reason}")
        seeding = time.perf_counter()
        episode.environment.seed()
        seeded = time.perf_counter()
        opening, calling, verifying, _ = (later - sooner for sooner, later in itertools.pairwise(marks))
        for name, seconds in (
            ("seed", seeded - seeding), ("open", opening), ("call", calling / len(CALLS)),
            ("verify, first" if is_first else "verify", verifying), ("episode", marks[-1] - marks[0]),
        ):  # fmt: skip
            times.setdefault(name, []).append(1e6 * seconds)
    return {name: statistics.median(values) for name, values in times.items()}


async def _memory(spec: EnvironmentSpec, episodes: int) -> float:
    """Kilobytes per open episode."""
    await _episodes(spec, 2)
    gc.collect()
    tracemalloc.start()
    open_episodes = []
    for _ in range(episodes):
        episode = await Episode.open(spec, _task(spec))
        for call in CALLS:
            await episode.call(call["name"], call["arguments"])
        open_episodes.append(episode)
    gc.collect()
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    for episode in open_episodes:
        await episode.close()
    return size / episodes / 1000


def _task(spec: EnvironmentSpec) -> Task:
    row: dict[str, Any] = {
        "responses_create_params": {"input": "Give Akira's lead to Raj, answer Carlos.", "parallel_tool_calls": False},
        "ground_truth": [dict(call) for call in GROUND_TRUTH],
    }  # fmt: skip
    if spec.config.data_dir is None:
        row["office_seed"] = 0
    return spec.cls.task_type.from_row(row)


@contextmanager
def _original(is_installed: bool) -> Iterator[Callable[[dict[str, Any]], dict[str, float]] | None]:
    """Yield a function that sends a command to the original's process and returns its answer."""
    if not is_installed:
        yield None
        return
    command = [NEMO_GYM / "bin/python", "-P", "-W", "ignore", HERE / "original_workplace.py"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=_scrubbed()) as child:
        assert child.stdin is not None and child.stdout is not None

        def ask(words: dict[str, Any]) -> dict[str, float]:
            assert child.stdin is not None and child.stdout is not None
            child.stdin.write(json.dumps(words) + "\n")
            child.stdin.flush()
            answer = child.stdout.readline()
            if not answer:
                raise SystemExit(f"The original's process ended with {child.wait()}.")
            return json.loads(answer)

        yield ask
        child.stdin.close()


def _scrubbed() -> dict[str, str]:
    return {name: os.environ[name] for name in ("HOME", "LANG", "PATH", "TMPDIR") if name in os.environ}


def _making_an_office() -> float:
    started = time.perf_counter()
    generated_office.__wrapped__(11)
    return time.perf_counter() - started


def _best(turns: list[dict[str, float]]) -> dict[str, float]:
    return {name: min(turn[name] for turn in turns) for name in turns[0]}


def _run(work: Callable[[], Any]) -> Any:
    gc.collect()
    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        return runner.run(work())


def main() -> int:
    """Measure, print, and say by the exit code whether the targets are met where `--check` asks for that."""
    parser = argparse.ArgumentParser(description="Measure workplace_assistant beside NeMo Gym's original.")
    parser.add_argument("--quick", action="store_true", help="only see whether it runs; the figures mean nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    parser.add_argument("--alone", action="store_true", help="leave the original out")
    arguments = parser.parse_args()
    tables = None if arguments.alone else next(NEMO_GYM.glob(_TABLES), None)
    if tables is None and not arguments.alone:
        print("NeMo Gym is not in .interop/nemo_gym (make interop): ours is measured alone.", file=sys.stderr)
    if not arguments.json:
        print(", ".join(f"{name} {value}" for name, value in machine(_PACKAGES).items()), flush=True)
    figures: list[Figure] = []
    for figure in measure(QUICK if arguments.quick else FULL, tables):
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
