"""The chaos test of `gymrail rollout`: kill -9 of everything, a model and tools that go wrong, and nothing is lost.

    python -m tests.chaos.run                          10,000 rollouts, 24 kills
    python -m tests.chaos.run --rollouts 400 --kills 6 --seed 7 --compress zstd

One run is left in peace. Another one, of the same tasks, has its runner, its workers and its model killed at random
times, and is resumed until it is done. Then the two are held against each other: each (task, repeat) has one final
record, failures are failures, and no reward and no conversation differs. The same seed makes the same plan; when
exactly a kill arrives is the machine's to say.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from gymrail.collect.run_directory import RunDirectory
from tests.chaos.comparison import Recorded, kinds, problems, problems_undisturbed, read
from tests.chaos.disturbance import (
    ChaosError,
    Disturbed,
    Plan,
    play_disturbed,
    play_undisturbed,
    resume_undisturbed,
)


@dataclass
class Report:
    """What came out."""

    plan: Plan
    disturbed: Disturbed = field(default_factory=Disturbed)
    runs: dict[str, tuple[float, Recorded]] = field(default_factory=dict)
    """Seconds and content, in the order in which they were read."""
    problems: list[str] = field(default_factory=list)


def run_chaos(plan: Plan) -> Report:
    """Play both runs and compare them."""
    report = Report(plan)
    seconds = play_undisturbed(plan)
    undisturbed = _read(report, "undisturbed", seconds, plan.undisturbed)
    report.problems += problems_undisturbed(undisturbed, plan.rollouts)
    report.disturbed = play_disturbed(plan)
    report.problems += report.disturbed.problems
    disturbed = _read(report, "disturbed", report.disturbed.seconds, plan.disturbed)
    report.problems += [f"disturbed: {text}" for text in problems(undisturbed, disturbed, is_clean=False)]
    seconds = resume_undisturbed(plan)
    resumed = _read(report, "resumed in peace", seconds, plan.disturbed)
    report.problems += [f"resumed: {text}" for text in problems(undisturbed, resumed, is_clean=True)]
    report.problems += _metrics_problems(plan)
    if (kills := report.disturbed.kills.total()) < plan.kills:
        report.problems.append(f"only {kills} of {plan.kills} kills were made")
    log = (plan.folder / "runner.log").read_text(encoding="utf-8", errors="replace")
    if crashes := log.count("Traceback (most recent call last)"):
        report.problems.append(f"{crashes} tracebacks were printed; see {plan.folder / 'runner.log'}")
    return report


def table(report: Report) -> Iterator[str]:
    """The report as lines of text."""
    plan, done = report.plan, report.disturbed
    yield f"{'':<18} {'rollouts':>8} {'scored':>7} {'failed':>7} {'seconds':>8}  failures"
    for name, (seconds, recorded) in report.runs.items():
        counts = recorded.statuses
        line = f"{name:<18} {len(recorded.final):>8} {counts['scored']:>7} {counts['failed']:>7} {seconds:>8.1f}"
        yield f"{line}  {kinds(recorded.failures)}"
    yield f"seed {plan.seed}, {plan.workers} workers, {'zstd' if plan.compress else 'no compression'}"
    yield f"kill -9: {done.kills.total()} ({_counts(done.kills)}), and {done.torn} times the journal's end was cut off"
    yield f"starts: {done.starts}, of them {done.refused} refused because the model was down"
    yield f"the model's answers: {_counts(done.faults)}"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {times}" for name, times in counts.items())


def _read(report: Report, name: str, seconds: float, path: Path) -> Recorded:
    recorded = read(path)
    report.runs[name] = seconds, recorded
    return recorded


def _metrics_problems(plan: Plan) -> list[str]:
    before, now = (RunDirectory.open(path).metrics()["overall"] for path in (plan.undisturbed, plan.disturbed))
    return [
        f"metrics.json says {name} is {now[name]!r}, and undisturbed {before[name]!r}"
        for name in ("rollouts", "outcomes", "reward")
        if before[name] != now[name]
    ]


def main() -> int:
    """Run the test, print the table, and end with 1 where anything is wrong."""
    parser = argparse.ArgumentParser(description="Kill and break a collection of rollouts, and look for what is lost.")
    parser.add_argument("--rollouts", type=int, default=10_000, help="how many are collected (10,000)")
    parser.add_argument("--kills", type=int, default=24, help="how often something is killed (24)")
    parser.add_argument("--seed", type=int, default=None, help="of tasks, kills and faults; a new one by default")
    parser.add_argument("--workers", type=int, default=2, help="worker processes; 0 plays in the runner (2)")
    parser.add_argument("--compress", choices=["zstd"], default=None, help="write compressed journals")
    parser.add_argument("--keep", type=Path, default=None, help="a new folder for the runs and logs, which stay there")
    arguments = parser.parse_args()
    seed = secrets.randbelow(10**6) if arguments.seed is None else arguments.seed
    folder = arguments.keep or Path(tempfile.mkdtemp(prefix="gymrail-chaos-"))
    plan = Plan(folder, arguments.rollouts, arguments.kills, seed, arguments.workers, arguments.compress)
    print(f"Chaos with seed {seed} in {folder}", flush=True)
    try:
        report = run_chaos(plan)
    except ChaosError as error:
        print(f"FAILED: {error}\nIts files stay in {folder}. Again: --seed {seed}")
        return 1
    print("\n".join(table(report)))
    if report.problems:
        print("\n".join(f"WRONG: {problem}" for problem in report.problems))
        print(f"Its files stay in {folder}. Again: --seed {seed}")
        return 1
    if arguments.keep is None:
        shutil.rmtree(folder)
    print("Every rollout has one final record, failures are failures, and no reward differs.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
