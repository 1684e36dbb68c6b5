"""How much a bomb in one sandbox slows its neighbours: their wall time beside it by their wall time without it."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from statistics import median

from figures import Figure, machine

from gymrail.sandbox import Interpreter, Limits, Sandbox, choose

MOST = 1.5
"""What a neighbour may take beside a bomb, by what it takes without: half as much again."""
LIMITS = Limits(wall_seconds=60, cpu_seconds=60)
WORK = "x = 0\nfor i in range(3_000_000): x += i * i"
"""About a fifth of a second of one core."""
FORKS = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
BOMBS = {
    "fork bomb": FORKS,
    "forks that end at once": "import os\nwhile True:\n    if os.fork() == 0: os._exit(0)\n    os.wait()",
    "memory bomb": "while True:\n    try: x = bytearray(b'x') * (1 << 28)\n    except MemoryError: pass",
    "memory bomb of many processes": (
        "import os\nfor _ in range(10):\n    if os.fork() == 0: break\n"
        "while True:\n    try: x = bytearray(b'x') * (1 << 28)\n    except MemoryError: pass"
    ),
    "output bomb": "import os\nwhile True: os.pwrite(1, b'x' * (1 << 20), 0)",
    "disk bomb": (
        "while True:\n    try:\n        with open('/tmp/x', 'wb') as file:\n"
        "            while True: file.write(b'x' * 65536)\n    except OSError: pass"
    ),
}
LOOP = "while True: pass"
"""No bomb: it takes the share of the processor that is its due, until its limit."""


@dataclass(frozen=True)
class Plan:
    """How long it takes."""

    rounds: int
    calls: int
    """Of each neighbour, one after the other; the first begin with the bomb."""


FULL = Plan(rounds=7, calls=8)
QUICK = Plan(rounds=1, calls=1)


def measure(plan: Plan, names: list[str]) -> Iterator[Figure]:
    """Yield a figure for each bomb and for one neighbour and two."""
    for name in names:
        for neighbours in (1, 2):
            ratio = asyncio.run(_slowing(BOMBS.get(name, LOOP), neighbours, plan))
            target = MOST if name in BOMBS else None
            beside = f"{neighbours} neighbour{'s' if neighbours > 1 else ''}"
            yield Figure(f"{name}, {beside}", ratio, "times the time", target, at_most=True)


async def _slowing(attack: str, neighbours: int, plan: Plan) -> float:
    sandbox = choose("bubblewrap", limits=LIMITS)
    sandbox.places = 16
    ratios = []
    for _ in range(plan.rounds):
        # In turns, so that what else the machine does falls on both.
        alone = await _round(sandbox, None, neighbours, plan.calls)
        ratios.append(await _round(sandbox, attack, neighbours, plan.calls) / alone)
    return median(ratios)


async def _round(sandbox: Sandbox, attack: str | None, neighbours: int, calls: int) -> float:
    """Mean seconds in which a neighbour has all its calls answered."""
    pythons = [sandbox.interpreter() for _ in range(neighbours + 1)]
    bomber, *others = pythons
    try:
        for python in pythons:
            await python.execute("1")
        attacking = asyncio.ensure_future(_attack(bomber, attack))
        seconds = await asyncio.gather(*(_work(python, calls) for python in others))
        attacking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await attacking
        return sum(seconds) / neighbours
    finally:
        for python in pythons:
            await python.close()


async def _attack(python: Interpreter, code: str | None) -> None:
    """Attack again and again: a bomb that was stopped is no relief."""
    while code is not None:
        await python.execute(code)


async def _work(python: Interpreter, calls: int) -> float:
    started = time.perf_counter()
    for _ in range(calls):
        done = await python.execute(WORK)
        if not done.is_ok:
            raise SystemExit(f"a neighbour did not finish, so its time means nothing: {done.error}")
    return time.perf_counter() - started


def main() -> int:
    """Measure, print, and say by the exit code whether the targets are met where `--check` asks for that."""
    parser = argparse.ArgumentParser(description="Measure how much a bomb in a sandbox slows its neighbours.")
    parser.add_argument("--quick", action="store_true", help="only see whether it runs; the figures mean nothing")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    names = [*BOMBS, "endless loop"]
    parser.add_argument("bombs", nargs="*", metavar="BOMB", help=f"only these of: {', '.join(names)}")
    arguments = parser.parse_args()
    print(", ".join(f"{name} {value}" for name, value in machine(()).items()), flush=True)
    figures = []
    for figure in measure(QUICK if arguments.quick else FULL, arguments.bombs or names):
        figures.append(figure)
        print(figure.line, flush=True)
    missed = sum(figure.is_met is False for figure in figures)
    return int(arguments.check and missed > 0)


if __name__ == "__main__":
    sys.exit(main())
