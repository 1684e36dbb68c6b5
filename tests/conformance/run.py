"""Runs the official MCP conformance suite against `gymrail serve`: `make conformance`, or, from the repository's root,

    python -m tests.conformance.run [REVISION ...]

The suite is given an episode's capability URL, once for each revision of the protocol. It fails where a scenario fails
that baseline.<revision>.yaml does not list, and where one passes that it lists.
"""

from __future__ import annotations

import contextlib
import os
import queue
import re
import secrets
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx2 as httpx
import orjson
import yaml

from gymrail.registry import find
from tests.interop.node import ROOT, install, node, variables

REVISIONS = ("2025-11-25", "2026-07-28")
HERE = Path(__file__).parent
HOME = ROOT / ".interop" / "conformance"
_START_SECONDS = 60
_SUITE_SECONDS = 300
_FOLDER = re.compile(r"server-(.+)-\d{4}-\d\d-\d\dT[\d-]+Z")


class Counts(NamedTuple):
    """Scenarios of one run."""

    passed: list[str]
    not_applicable: list[str]
    """Those that the baseline lists whole, and those of which the suite itself says so."""
    failed: list[str]


def main(revisions: list[str]) -> int:
    for revision in revisions:
        if revision not in REVISIONS:
            print(f"There is no baseline for the revision {revision!r}; there is one for {', '.join(REVISIONS)}.")
            return 2
    modules = install(HERE / "package.json", HOME)
    suite = modules / "@modelcontextprotocol" / "conformance" / "dist" / "index.js"
    is_good = True
    with served() as control:
        for revision in revisions or REVISIONS:
            is_good &= run(suite, control, revision)
    return 0 if is_good else 1


def run(suite: Path, control: httpx.Client, revision: str) -> bool:
    """Run one revision's scenarios on a new episode, print what became of them, and return whether all is well."""
    results = HOME / "results" / revision
    shutil.rmtree(results, ignore_errors=True)
    seeded = control.post("/seed_session", json=find(str(HERE)).generate("train", 0).row).raise_for_status().json()
    baseline = HERE / f"baseline.{revision}.yaml"
    started = time.monotonic()
    done = subprocess.run(
        [
            node(), suite, "server", "--url", seeded["mcp"]["url"], "--suite", "all", "--spec-version", revision,
            "--expected-failures", baseline, "-o", results,
        ],
        env=variables(), capture_output=True, text=True, timeout=_SUITE_SECONDS, check=False,
    )  # fmt: skip
    seconds = time.monotonic() - started
    counts = count(results, baseline)
    if done.returncode != 0 or counts.failed or not counts.passed:
        print(done.stdout[done.stdout.find("=== SUMMARY ===") :], done.stderr, *complaints(results, counts), sep="\n")
        print(f"MCP {revision}: FAILED ({len(counts.failed)} scenarios, suite's exit code {done.returncode})")
        return False
    body = {"episode_id": seeded["episode_id"], "response": {"output": []}, "responses_create_params": {"input": ""}}
    judged = control.post("/verify", json=body, headers={"x-gymrail-episode-id": seeded["episode_id"]})
    if judged.status_code != 200:
        print(f"MCP {revision}: FAILED: the suite broke the episode: {judged.text}")
        return False
    print(
        f"MCP {revision}: {len(counts.passed)} passed, {len(counts.not_applicable)} not applicable ({seconds:.1f} s)",
        flush=True,
    )
    return True


def count(results: Path, baseline: Path) -> Counts:
    """Sort the scenarios of a run by what their checks say, with a warning as bad as a failure."""
    left_out = set(yaml.safe_load(baseline.read_text(encoding="utf-8"))["server"])
    counts = Counts([], [], [])
    for scenario, checks in read(results):
        states = {check["status"] for check in checks if f"{scenario}:{check['id']}" not in left_out}
        if scenario in left_out or not states & {"SUCCESS", "FAILURE", "WARNING"}:
            counts.not_applicable.append(scenario)
        elif states & {"FAILURE", "WARNING"}:
            counts.failed.append(scenario)
        else:
            counts.passed.append(scenario)
    return counts


def complaints(results: Path, counts: Counts) -> list[str]:
    """What the suite says of the scenarios that failed."""
    return [
        f"{scenario}: {check['id']}: {check.get('errorMessage')}"
        for scenario, checks in read(results)
        for check in checks
        if scenario in counts.failed and check["status"] in ("FAILURE", "WARNING")
    ]


def read(results: Path) -> Iterator[tuple[str, list[dict[str, Any]]]]:
    """Yield each scenario with its checks."""
    for path in sorted(results.glob("*/checks.json")):
        found = _FOLDER.fullmatch(path.parent.name)
        assert found is not None, path
        yield found[1], orjson.loads(path.read_bytes())


@contextlib.contextmanager
def served() -> Iterator[httpx.Client]:
    """Start `gymrail serve` on the fixture, and yield a client that has the server's key."""
    key = secrets.token_urlsafe(32)
    process = subprocess.Popen(
        [Path(sys.executable).with_name("gymrail"), "serve", HERE, "--port", "0"],
        env=os.environ | {"GYMRAIL_KEY": key}, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    said: queue.Queue[str | None] = queue.Queue()
    reader = threading.Thread(target=_read, args=(process, said))
    reader.start()
    try:
        url = _address(said)
        with httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}, trust_env=False) as client:
            yield client
    finally:
        process.terminate()
        try:
            process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        reader.join()


def _read(process: subprocess.Popen[str], said: queue.Queue[str | None]) -> None:
    assert process.stderr is not None
    for line in process.stderr:
        said.put(line)
    said.put(None)


def _address(said: queue.Queue[str | None]) -> str:
    lines: list[str] = []
    while (line := said.get(timeout=_START_SECONDS)) is not None:
        found = re.search(r" on (http://\S+)", line)
        if found:
            return found[1]
        lines.append(line)
    raise RuntimeError(f"gymrail serve did not start:\n{''.join(lines)}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
