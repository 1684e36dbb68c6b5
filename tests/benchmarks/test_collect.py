"""The benchmark of collecting runs, and each part measures what its targets are about."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHMARK = Path(__file__).parents[2] / "benchmarks" / "collect.py"


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(BENCHMARK), "--quick", *options], capture_output=True, text=True, timeout=300
    )


def figures_of(*options: str) -> list[dict[str, Any]]:
    done = run("--json", *options)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["quick"] is True
    return report["figures"]


def test_a_quick_run_measures_the_journal_and_the_workers_and_names_their_targets() -> None:
    figures = figures_of("--only", "journal", "workers")
    assert all(figure["value"] > 0 for figure in figures)
    targets = {(figure["name"], figure["unit"]): figure["target"] for figure in figures if figure["target"] is not None}
    assert targets == {
        ("W2 over HTTP, journal on", "of journal off"): 0.85,
        ("computing, --workers 2", "x of --workers 1"): 1.7,
    }


def test_a_quick_run_resumes_a_long_run_and_watches_the_memory_of_another() -> None:
    figures = figures_of("--only", "resume", "memory")
    by_name = {(figure["name"], figure["unit"]): figure["value"] for figure in figures}
    assert 0 < by_name["resume 4,000 rollouts, 4 a task", "s"] < 600
    assert 10 < by_name["resume 4,000 rollouts, 1 a task", "MB peak"] < 1000
    assert ("collect 6,000 rollouts", "bytes/rollout") in by_name


def test_the_table_is_written_as_markdown(tmp_path: Path) -> None:
    page = tmp_path / "collect.md"
    done = run("--only", "journal", "--write", str(page))
    assert done.returncode == 0, done.stderr
    text = page.read_text(encoding="utf-8")
    assert text.startswith("# Collecting at scale\n")
    assert all(line in text for line in done.stdout.splitlines())


def test_a_part_that_does_not_exist_is_refused() -> None:
    done = run("--only", "journals")
    assert done.returncode == 2
    assert "journals" in done.stderr
