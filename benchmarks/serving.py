"""What a tool call costs over HTTP and MCP, beside a bare FastAPI route and FastMCP; prints which targets are met.

    python benchmarks/serving.py            about five minutes
    python benchmarks/serving.py --quick    half a minute: does it run? Its figures mean nothing
    python benchmarks/serving.py --json     for machines
    python benchmarks/serving.py --check    exit code 1 when a target is missed

Every server is one process with one event loop, uvloop and httptools, and runs the same tool: `session_counter`'s
increment. Ours is `gymrail serve`, with fresh episodes for every run, and journals each call. The load comes from a
process of its own (`load.py`). The servers are measured in turns; the CPU time of the server per call is the figure to
trust on a shared machine, and a ratio is the median over the turns. FastMCP runs from .interop/fastmcp (`make
bench-serving` installs it) and is left out where that is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import resource
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from figures import Figure, machine
from raw_requests import LEGACY, MODERN, TOOL, call, legacy, modern, post

HERE = Path(__file__).resolve().parent
FASTMCP_PYTHON = HERE.parent / ".interop" / "fastmcp" / "bin" / "python"
KEY = "the-key-of-the-benchmark"
_PACKAGES = ("mcp", "fastapi", "starlette", "uvicorn", "uvloop", "httptools", "pydantic", "orjson")
_CALLS_PER_EPISODE = 5
_ROW = {
    "responses_create_params": {"input": "Add 5 to the counter, one by one."},
    "initial_count": 0,
    "expected_count": _CALLS_PER_EPISODE,
}


@dataclass(frozen=True)
class Measurement:
    """One way to call the tool, at one number of sessions; the best of its turns."""

    name: str
    sessions: int
    cpu_us: float
    """CPU time of the server per call."""
    per_second: float
    p50_ms: float
    p99_ms: float

    @property
    def line(self) -> str:
        name = f"{self.name}, {self.sessions} session{'s' * (self.sessions > 1)}"
        return (
            f"{name:<46} {self.cpu_us:>6.0f} us {self.per_second:>6.0f}/s "
            f"p50 {self.p50_ms:>7.2f} ms  p99 {self.p99_ms:>7.2f} ms"
        )


@dataclass(frozen=True)
class Plan:
    """How much is measured."""

    turns: int
    sessions: tuple[int, ...]
    calls: int
    """In one turn of one server, over all sessions."""
    episodes: int
    open_episodes: int
    stdio_sessions: tuple[int, ...]


FULL = Plan(turns=7, sessions=(1, 32, 256), calls=2048, episodes=1000, open_episodes=10_000, stdio_sessions=(1, 32))
QUICK = Plan(turns=1, sessions=(1, 32), calls=64, episodes=32, open_episodes=200, stdio_sessions=(1,))


@dataclass(frozen=True)
class Server:
    """A running server."""

    port: int
    pid: int

    @property
    def resident_kilobytes(self) -> float:
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize() / 1000


class Load:
    """The load generator's process."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "load.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(self, kind: str, **job: Any) -> dict[str, Any]:
        """Do one job and return what it measured."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"kind": kind, **job}) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise SystemExit("The load generator gave up; its last line says why.")
        return json.loads(answer)

    def seed(self, server: Server, episodes: int) -> list[dict[str, Any]]:
        """Open episodes of ours."""
        request = post("/seed_session", _ROW, authorization=f"Bearer {KEY}")
        return self.run("posts", port=server.port, requests=[request] * episodes)["bodies"]

    def close(self, server: Server, seeded: list[dict[str, Any]]) -> None:
        """Close episodes of ours."""
        ids = [{"episode_id": one["episode_id"]} for one in seeded]
        requests = [post("/close", id, authorization=f"Bearer {KEY}") for id in ids]
        self.run("posts", port=server.port, requests=requests)


@dataclass(frozen=True)
class Side:
    """One way to call the tool; TOKEN in its request is an episode's credential."""

    name: str
    server: Server
    request: str
    expected: str
    is_ours: bool = True

    def measure(self, load: Load, sessions: int, calls: int) -> dict[str, float]:
        """Call over so many connections, each with an episode of its own."""
        seeded = load.seed(self.server, sessions) if self.is_ours else []
        tokens = [_token(one) for one in seeded] or [f"session-{number}" for number in range(sessions)]
        per_session = max(2, calls // sessions)
        measured = load.run(
            "calls", port=self.server.port, pids=[self.server.pid], expected=self.expected, calls=per_session,
            warm_up=max(1, per_session // 8), connections=[[self.request.replace("TOKEN", token)] for token in tokens],
        )  # fmt: skip
        load.close(self.server, seeded)
        return measured


def measure(plan: Plan) -> Iterator[Figure | Measurement | str]:
    """Yield the figures as they are measured, and what is left out and why."""
    with contextlib.ExitStack() as stack:
        load = Load()
        stack.callback(load.process.terminate)
        ours = stack.enter_context(_started(_gymrail("serve", "session_counter", "--port", "0")))
        bare = stack.enter_context(_started([sys.executable, str(HERE / "bare_serving.py")]))
        fastmcp = None
        if FASTMCP_PYTHON.exists():
            fastmcp = stack.enter_context(_started([str(FASTMCP_PYTHON), str(HERE / "fastmcp_serving.py")]))
        else:
            yield "FastMCP is left out: it is not in .interop/fastmcp; `make bench-serving` installs it there."
        sides = _sides(ours, bare, fastmcp)
        for sessions in plan.sessions:
            yield from _compared(load, sides, sessions, plan)
        yield from _whole_episodes(load, ours, plan)
        yield from _over_stdio(load, ours, plan)
    with contextlib.ExitStack() as stack:
        load = Load()
        stack.callback(load.process.terminate)
        command = _gymrail("serve", "session_counter", "--port", "0", "--max-episodes", "20000")
        yield from _many_open(load, stack.enter_context(_started(command)), plan)


def _sides(ours: Server, bare: Server, fastmcp: Server | None) -> list[Side]:
    plain, text = post(f"/e/TOKEN/{TOOL}", {"count": 1}), '"text":"ok"'
    sides = [
        Side("HTTP", ours, plain, "\r\n\r\nok"),
        Side("HTTP, bare FastAPI route", bare, plain, '\r\n\r\n"ok"', is_ours=False),
        Side(f"MCP {MODERN}", ours, modern("/e/TOKEN/mcp"), text),
        Side(f"MCP {LEGACY}", ours, legacy("/e/TOKEN/mcp"), text),
        # An Accept header that few clients send: such a request is answered by the SDK.
        Side(f"MCP {MODERN}, by the SDK", ours, modern("/e/TOKEN/mcp", "*/*;q=0.9"), text),
        Side(f"MCP {LEGACY}, by the SDK", ours, legacy("/e/TOKEN/mcp", "*/*;q=0.9"), text),
    ]
    if fastmcp is not None:
        sides += [
            Side(f"MCP {MODERN}, FastMCP", fastmcp, modern("/mcp"), text, is_ours=False),
            Side(f"MCP {LEGACY}, FastMCP", fastmcp, legacy("/mcp"), text, is_ours=False),
        ]
    return sides


def _compared(load: Load, sides: list[Side], sessions: int, plan: Plan) -> Iterator[Figure | Measurement]:
    runs: dict[str, list[dict[str, float]]] = defaultdict(list)
    for _ in range(plan.turns):
        for side in sides:
            runs[side.name].append(side.measure(load, sessions, plan.calls))
    for side in sides:
        yield _best(side.name, sessions, runs[side.name])
    pairs = [
        ("HTTP", "HTTP, bare FastAPI route", 1.2),
        (f"MCP {MODERN}", f"MCP {MODERN}, FastMCP", 3.0),
        (f"MCP {LEGACY}", f"MCP {LEGACY}, FastMCP", 3.0),
    ]
    for name, other, target in pairs:
        if other not in runs:
            continue
        about = f"{name}, {sessions} session{'s' * (sessions > 1)}"
        by_cpu = [theirs["cpu_us"] / our["cpu_us"] for our, theirs in zip(runs[name], runs[other], strict=True)]
        by_rate = [
            our["per_second"] / theirs["per_second"] for our, theirs in zip(runs[name], runs[other], strict=True)
        ]
        whose = "of FastMCP's" if "MCP" in name else "of FastAPI's"
        yield Figure(about, statistics.median(by_cpu), f"x {whose}", target, note="calls per second of CPU time")
        yield Figure(about, statistics.median(by_rate), f"x {whose}", target, note="calls per second")


def _whole_episodes(load: Load, ours: Server, plan: Plan) -> Iterator[Figure]:
    answer = {"output": [{"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "5"}]}]}
    job: dict[str, Any] = {
        "port": ours.port,
        "pids": [ours.pid],
        "sessions": 32,
        "episodes": plan.episodes,
        "calls": _CALLS_PER_EPISODE,
        "call": post(f"/e/TOKEN/{TOOL}", {"count": 1}),
        "seed": post("/seed_session", _ROW, authorization=f"Bearer {KEY}"),
        "verify": post(
            "/verify", {**_ROW, "response": answer}, authorization=f"Bearer {KEY}", x_gymrail_episode_id="EPISODE_ID"
        ),
    }
    runs = [load.run("episodes", **job) for _ in range(min(3, plan.turns))]
    name = f"seed + {_CALLS_PER_EPISODE} tools + verify"
    yield Figure(name, max(run["per_second"] for run in runs), "episodes/s", note="HTTP, 32 at once")
    yield Figure(name, min(run["cpu_us"] for run in runs) / 1000, "CPU ms/episode", note="HTTP, 32 at once")


def _over_stdio(load: Load, ours: Server, plan: Plan) -> Iterator[Measurement]:
    """A process per session; 256 of them are more than a small machine's memory."""
    for sessions in plan.stdio_sessions:
        alone = [_gymrail("mcp", "session_counter")] * sessions
        seeded = load.seed(ours, sessions)
        bridges = [_gymrail("mcp", "--url", f"http://127.0.0.1:{ours.port}/e/{_token(one)}/mcp") for one in seeded]
        for name, commands, pids in (("stdio, in one process", alone, []), ("stdio, bridge", bridges, [ours.pid])):
            calls = max(2, plan.calls // 2 // sessions)
            run = load.run(
                "stdio", commands=commands, pids=pids, request=json.dumps(call(True)), expected='"text":"ok"',
                calls=calls, warm_up=max(1, calls // 8),
            )  # fmt: skip
            yield _best(name, sessions, [run])
        load.close(ours, seeded)


def _many_open(load: Load, server: Server, plan: Plan) -> Iterator[Figure | Measurement]:
    """What so many open episodes take, and whether a call among them takes longer."""
    connections, count = 32, plan.open_episodes
    side = Side("HTTP", server, post(f"/e/TOKEN/{TOOL}", {"count": 1}), "\r\n\r\nok")
    side.measure(load, connections, 2 * connections)  # imports and caches
    before = server.resident_kilobytes
    seeded = load.seed(server, count)
    yield Figure(f"{count} open episodes", (server.resident_kilobytes - before) / count, "KB each", note="resident")
    yield Figure(f"{count} open episodes", server.resident_kilobytes / 1000, "MB resident", note="the whole server")
    requests = [side.request.replace("TOKEN", _token(one)) for one in seeded]
    job: dict[str, Any] = {
        "port": server.port, "pids": [server.pid], "expected": side.expected, "warm_up": 2,
        "calls": max(2, plan.calls // connections),
        "connections": [requests[number::connections] for number in range(connections)],
    }  # fmt: skip
    many = [load.run("calls", **job) for _ in range(plan.turns)]
    load.close(server, seeded)
    few = [side.measure(load, connections, plan.calls) for _ in range(plan.turns)]
    yield _best(f"HTTP, {connections} episodes open", connections, few)
    yield _best(f"HTTP, {count} episodes open", connections, many)
    ratio = statistics.median(run["p99_ms"] for run in many) / statistics.median(run["p99_ms"] for run in few)
    yield Figure(f"p99 with {count} open", ratio, f"x with {connections}", note="median of the turns")


@contextlib.contextmanager
def _started(command: list[str]) -> Iterator[Server]:
    """Run a server that says its address on stderr."""
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "GYMRAIL_KEY": KEY})
    assert process.stderr is not None
    try:
        said = ""
        while not (found := re.search(r"http://127\.0\.0\.1:(\d+)", said)):
            line = process.stderr.readline()
            if not line:
                raise SystemExit(f"{' '.join(command)} did not start:\n{said}")
            said += line
        yield Server(int(found[1]), process.pid)
    finally:
        process.terminate()
        process.stderr.close()
        process.wait(timeout=30)


def _gymrail(*words: str) -> list[str]:
    return [sys.executable, "-m", "gymrail", *words]


def _token(seeded: dict[str, Any]) -> str:
    return seeded["url"].rpartition("/")[2]


def _best(name: str, sessions: int, runs: list[dict[str, float]]) -> Measurement:
    """Other work on the machine only makes a run slower."""
    cpu, p50, p99 = (min(run[field] for run in runs) for field in ("cpu_us", "p50_ms", "p99_ms"))
    return Measurement(name, sessions, cpu, max(run["per_second"] for run in runs), p50, p99)


def main() -> int:
    """Measure, print, and say by the exit code whether the targets are met where `--check` asks for that."""
    parser = argparse.ArgumentParser(description="Measure gymrail serve beside a bare FastAPI route and FastMCP.")
    parser.add_argument("--quick", action="store_true", help="only see whether it runs; the figures mean nothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a target is missed")
    arguments = parser.parse_args()
    if not Path("/proc/self/schedstat").exists():
        raise SystemExit("This reads the servers' CPU time from /proc/PID/task/*/schedstat; run it on Linux.")
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    found: list[Figure | Measurement | str] = []
    if not arguments.json:
        print(", ".join(f"{name} {value}" for name, value in machine(_PACKAGES).items()), flush=True)
    for thing in measure(QUICK if arguments.quick else FULL):
        found.append(thing)
        if not arguments.json:
            print(thing if isinstance(thing, str) else thing.line, flush=True)
    figures = [thing for thing in found if isinstance(thing, Figure)]
    missed = [figure for figure in figures if figure.is_met is False]
    if arguments.json:
        _print_json(found, arguments.quick)
    else:
        targets = sum(figure.target is not None for figure in figures)
        print(f"{targets - len(missed)} of {targets} targets met.")
    return int(arguments.check and bool(missed))


def _print_json(found: list[Figure | Measurement | str], is_quick: bool) -> None:
    figures = [{**asdict(one), "is_met": one.is_met} for one in found if isinstance(one, Figure)]
    calls = [asdict(one) for one in found if isinstance(one, Measurement)]
    left_out = [one for one in found if isinstance(one, str)]
    about = {"machine": machine(_PACKAGES), "quick": is_quick}
    print(json.dumps({**about, "calls": calls, "figures": figures, "left_out": left_out}, indent=1))


if __name__ == "__main__":
    sys.exit(main())
