"""Holds every environment of the repository against all that is promised of it, one line each: the contract, 200
episodes at once, and the baselines that its README states.

    python scripts/check_environments.py [NAME]...        # or: make check-environments

Exit code 1 when one does not pass. Event-loop lag is measured too, so an idle machine gives the fairest figures.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from gymrail.baselines import EMPTY, ORACLE, RANDOM, check_stated_baselines
from gymrail.contract import check_environment
from gymrail.contract_load import measure_load
from gymrail.contract_report import Check
from gymrail.errors import EpisodeFailed, GymrailError, guard
from gymrail.registry import environment_folders, find

ROOT = Path(__file__).resolve().parents[1]
EPISODES = 200
SECONDS = 600
"""A generator that never comes to an end holds up nobody but itself."""


def main(names: list[str]) -> int:
    """Check the environments, each in a process of its own, and return the exit code."""
    own = [name for name, (_, folder) in environment_folders().items() if folder.is_relative_to(ROOT)]
    chosen = names or sorted(own)
    if len(chosen) == 1:
        return 0 if check(chosen[0]) else 1
    failed = []
    for name in chosen:
        try:
            done = subprocess.run([sys.executable, __file__, name], timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            print(f"{name:24} FAILED: not done in {SECONDS} s", flush=True)
            failed.append(name)
        else:
            failed += [name] if done.returncode else []
    print(f"\n{len(failed)} of {len(chosen)} failed: {', '.join(failed)}" if failed else f"\nAll {len(chosen)} passed.")
    return 1 if failed else 0


def check(name: str) -> bool:
    """Check one environment, print its line, and tell whether it passed."""
    started = time.monotonic()
    try:
        # Other people's code runs here; `guard` sorts whatever it raises.
        checks = asyncio.run(guard("setup", _checks, name))
    except (EpisodeFailed, GymrailError) as error:
        checks = [Check("run", False, error.failure.message if isinstance(error, EpisodeFailed) else str(error))]
    # An environment may say that it cannot be replayed.
    failures = [check for check in checks if not check.passed and check.name not in ("replay", "determinism")]
    mark = "FAILED" if failures else "ok"
    print(f"{name:24} {mark:6} {time.monotonic() - started:6.1f} s  {'; '.join(_shown(checks))}", flush=True)
    for failure in failures:
        print(f"    {failure.name}: {failure.detail}", flush=True)
    return not failures


async def _checks(name: str) -> list[Check]:
    spec = find(name)
    report = await check_environment(spec, seed=1)
    load = await measure_load(spec, EPISODES)
    return [*report.checks, load.check(), *await check_stated_baselines(spec)]


def _shown(checks: list[Check]) -> Iterator[str]:
    later = {"load", ORACLE, f"{RANDOM} baseline", f"{EMPTY} baseline"}
    clauses = [check for check in checks if check.name not in later]
    yield f"contract {sum(check.passed is True for check in clauses)} of {len(clauses)}"
    for check in checks:
        if check.name in later and check.passed:
            yield check.detail if check.name == "load" else f"{check.name.split()[0]} {check.detail.split(' on ')[0]}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
