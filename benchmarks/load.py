"""A load generator that is a process of its own and costs little: raw HTTP/1.1 over uvloop, one keep-alive connection
per session, the next request when the answer is there.

It reads jobs, one JSON object a line, and answers each with a line. Kinds: "calls" sends the same requests over and
over, "posts" sends a list once and returns the bodies, "episodes" seeds, calls and verifies, "stdio" speaks to
processes that it starts. The servers' CPU time is read from /proc right before and after, without the start of
anything.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import uvloop

Answered = Callable[[bytes], None]
_LINE_LIMIT = 2**20


def cpu_seconds(pids: list[int]) -> float:
    """CPU time that processes have had, over all their threads, to the nanosecond."""
    total = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            total += int((thread / "schedstat").read_text(encoding="ascii").split()[0])
    return total / 1e9


class Connection(asyncio.Protocol):
    """Sends a request and hands the whole answer on."""

    def __init__(self) -> None:
        self.answered: Answered = lambda answer: None
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.data = b""
        self.end = 0

    def connection_made(self, transport: Any) -> None:  # uvloop's is no asyncio.Transport
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data = data = self.data + data if self.data else data
        if not self.end:
            head = data.find(b"\r\n\r\n")
            if head < 0:
                return
            place = data.lower().find(b"content-length:", 0, head)
            if place < 0:
                raise SystemExit(f"An answer without a length: {data[:300]!r}")
            self.end = head + 4 + int(data[place + 15 : data.index(b"\r", place)])
        if len(data) >= self.end:
            self.data, self.end = b"", 0
            self.answered(data)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.lost.done():
            self.lost.set_exception(ConnectionError("The server closed a connection.") if exc is None else exc)
            self.lost.exception()

    async def ask(self, request: bytes) -> bytes:
        """Send one request and return the answer's body.

        Raises:
            ConnectionError: the server closed the connection.
        """
        answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.answered = answer.set_result
        self.transport.write(request)
        await asyncio.wait([answer, self.lost], return_when=asyncio.FIRST_COMPLETED)
        if not answer.done():
            await self.lost
        head, _, body = answer.result().partition(b"\r\n\r\n")
        if b" 200 " not in head[:16]:
            raise SystemExit(f"A request failed: {request[:200]!r} was answered {answer.result()[:600]!r}")
        return body


async def _calls(job: dict[str, Any]) -> dict[str, float]:
    """Send each connection's requests round and round, and time every answer."""
    expected = job["expected"].encode()
    plans = [[request.encode() for request in requests] for requests in job["connections"]]
    links = [await _connect(job["port"]) for _ in plans]
    turns = [itertools.cycle(plan) for plan in plans]
    await _phase(links, turns, job["warm_up"], expected)
    cpu, started = cpu_seconds(job["pids"]), time.perf_counter()
    waits = await _phase(links, turns, job["calls"], expected)
    seconds, cpu = time.perf_counter() - started, cpu_seconds(job["pids"]) - cpu
    for link in links:
        link.transport.close()
    return _summary(waits, seconds, cpu)


async def _phase(links: list[Connection], turns: list[Iterator[bytes]], calls: int, expected: bytes) -> list[float]:
    """Make so many calls over every connection; return the seconds that each took."""
    waits: list[float] = []
    over = asyncio.get_running_loop().create_future()
    running = len(links)

    def drive(link: Connection, requests: Iterator[bytes]) -> None:
        left = calls
        sent = time.perf_counter()

        def answered(answer: bytes) -> None:
            nonlocal left, sent, running
            now = time.perf_counter()
            waits.append(now - sent)
            if answer[9:12] != b"200" or expected not in answer:
                over.set_exception(SystemExit(f"A call failed: {answer[:600]!r}"))
                return
            left -= 1
            if left:
                sent = now
                link.transport.write(next(requests))
                return
            running -= 1
            if not running:
                over.set_result(None)

        link.answered = answered
        link.transport.write(next(requests))

    for link, requests in zip(links, turns, strict=True):
        drive(link, requests)
    lost = [link.lost for link in links]
    await asyncio.wait([over, *lost], return_when=asyncio.FIRST_COMPLETED)
    if not over.done():
        raise SystemExit("The server closed a connection.")
    over.result()
    return waits


async def _posts(job: dict[str, Any]) -> dict[str, Any]:
    """Send every request once, over some connections; return the bodies in their order."""
    requests = [text.encode() for text in job["requests"]]
    bodies: list[Any] = [None] * len(requests)
    left = iter(range(len(requests)))

    async def work() -> None:
        link = await _connect(job["port"])
        for index in left:
            bodies[index] = json.loads(await link.ask(requests[index]))
        link.transport.close()

    await asyncio.gather(*(work() for _ in range(min(32, len(requests)))))
    return {"bodies": bodies}


async def _episodes(job: dict[str, Any]) -> dict[str, float]:
    """Play whole episodes: seed, the calls, verify; each answer is read, and each reward must be 1."""
    call, seed, verify = job["call"], job["seed"].encode(), job["verify"]
    waits: list[float] = []
    left = iter(range(job["episodes"]))

    async def work() -> None:
        link = await _connect(job["port"])
        for _ in left:
            started = time.perf_counter()
            seeded = json.loads(await link.ask(seed))
            request = call.replace("TOKEN", seeded["url"].rpartition("/")[2]).encode()
            for _ in range(job["calls"]):
                await link.ask(request)
            judged = json.loads(await link.ask(verify.replace("EPISODE_ID", seeded["episode_id"]).encode()))
            if judged["reward"] != 1:
                raise SystemExit(f"An episode earned {judged['reward']!r}: {judged!r}")
            waits.append(time.perf_counter() - started)
        link.transport.close()

    cpu, started = cpu_seconds(job["pids"]), time.perf_counter()
    await asyncio.gather(*(work() for _ in range(job["sessions"])))
    seconds, cpu = time.perf_counter() - started, cpu_seconds(job["pids"]) - cpu
    return _summary(waits, seconds, cpu)


async def _stdio(job: dict[str, Any]) -> dict[str, float]:
    """Start a process per session and call its tool over stdin and stdout."""
    processes = [
        await asyncio.create_subprocess_exec(*command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=_LINE_LIMIT)
        for command in job["commands"]
    ]
    request, expected = job["request"].encode() + b"\n", job["expected"].encode()
    waits: list[float] = []

    async def work(process: asyncio.subprocess.Process, calls: int, waits: list[float]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(calls):
            started = time.perf_counter()
            process.stdin.write(request)
            answer = await process.stdout.readline()
            waits.append(time.perf_counter() - started)
            if expected not in answer:
                raise SystemExit(f"A call failed: {answer[:600]!r}")

    await asyncio.gather(*(work(process, job["warm_up"], []) for process in processes))
    pids = [*job["pids"], *(process.pid for process in processes)]
    cpu, started = cpu_seconds(pids), time.perf_counter()
    await asyncio.gather(*(work(process, job["calls"], waits) for process in processes))
    seconds, cpu = time.perf_counter() - started, cpu_seconds(pids) - cpu
    for process in processes:
        assert process.stdin is not None
        process.stdin.close()
    await asyncio.gather(*(process.wait() for process in processes))
    return _summary(waits, seconds, cpu)


async def _connect(port: int) -> Connection:
    _, link = await asyncio.get_running_loop().create_connection(Connection, "127.0.0.1", port)
    return link


def _summary(waits: list[float], seconds: float, cpu: float) -> dict[str, float]:
    waits.sort()
    count = len(waits)
    return {
        "count": count,
        "per_second": count / seconds,
        "cpu_us": 1e6 * cpu / count,
        "p50_ms": 1000 * waits[count // 2],
        "p99_ms": 1000 * waits[min(count - 1, count * 99 // 100)],
    }


_KINDS = {"calls": _calls, "posts": _posts, "episodes": _episodes, "stdio": _stdio}


def main() -> None:
    """Do the jobs on stdin until it ends."""
    for line in sys.stdin:
        job = json.loads(line)
        print(json.dumps(uvloop.run(_KINDS[job["kind"]](job))), flush=True)


if __name__ == "__main__":
    main()
