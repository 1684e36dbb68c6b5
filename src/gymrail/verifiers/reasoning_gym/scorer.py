"""The library's scorers, in processes of their own that are killed when an answer takes too long.

Covers: an answer that never ends to be scored, that fills the memory, or that one of the library's `eval` and
`parse_expr` would run as code (see worker.py). Does not cover: a fault of the library that corrupts its results.
"""

from __future__ import annotations

import asyncio
import os
import queue
import selectors
import subprocess
import sys
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson

from gymrail.errors import InfrastructureError, InputError, VerifierError
from gymrail.rollout import Verdict
from gymrail.verifiers.reasoning_gym.extract import extract_answer, is_hedged
from gymrail.verifiers.reasoning_gym.library import dataset_of, gold_answer

_START_SECONDS = 120.0
"""The library and what it imports take seconds to load, and more on a busy machine."""
_SHOWN_CHARACTERS = 2000
_KEPT_VARIABLES = ("PATH", "HOME", "LANG", "PYTHONPATH", "LD_LIBRARY_PATH", "SYSTEMROOT")


class Scorer:
    """Scores answers; safe to share between episodes, threads and event loops. Its processes start when needed."""

    def __init__(
        self, seconds: float = 10.0, workers: int = 1, parameters: Mapping[str, Mapping[str, Any]] | None = None
    ) -> None:
        self._seconds = seconds
        self._parameters = parameters or {}
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="reasoning-gym")
        self._free: queue.LifoQueue[_Worker] = queue.LifoQueue()
        for _ in range(workers):
            self._free.put(_Worker())

    async def score(self, dataset: str, answer: str, entry: Mapping[str, Any]) -> tuple[float, str | None]:
        """Return the library's score and, where the answer could not be read, why it is 0.

        Raises:
            InputError: the library has no such dataset.
            VerifierError: the scorer fails on this row whatever the answer.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._threads, self._score, dataset, answer, entry)

    async def __call__(self, answer: str, /, **fields: Any) -> Verdict:
        r"""Judge a whole answer; the fields are the row's `question`, `answer` and `metadata`.

        The answer is what stands in the last `<answer>`, else in the last `\boxed{}`, else the text. One that earned
        a part because it merely contains the right one is worth 0.
        """
        found = extract_answer(answer)
        dataset = dataset_of(fields.get("metadata"))
        entry = {name: fields.get(name) for name in ("question", "answer", "metadata")}
        score, reason = await self.score(dataset, found, entry)
        said = {"task_name": dataset, "extracted_answer": found[:_SHOWN_CHARACTERS], "library_score": score}
        if is_hedged(found, fields.get("answer"), score):
            return Verdict(0.0, metrics=said, reason="hedged: the right answer stands among other things")
        return Verdict(score, metrics=said, reason=reason)

    async def aclose(self) -> None:
        """End the processes."""
        self.close()

    def close(self) -> None:
        """End the processes."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        while not self._free.empty():
            self._free.get_nowait().stop()

    def _score(self, dataset: str, answer: str, entry: Mapping[str, Any]) -> tuple[float, str | None]:
        worker = self._free.get()
        try:
            found = self._ask(worker, dataset, answer, entry)
            if "score" in found:
                return found["score"], None
            if found.get("unknown"):
                raise InputError(found["error"])
            # The answer is at fault if the scorer takes a right one; else the row or the library is.
            control = self._ask(worker, dataset, _control(dataset, entry), entry)
            if "score" not in control:
                raise VerifierError(f"reasoning-gym's scorer of {dataset} fails on this row: {control['error']}")
            return 0.0, f"the scorer cannot read the answer: {found['error']}"
        finally:
            self._free.put(worker)

    def _ask(self, worker: _Worker, dataset: str, answer: str, entry: Mapping[str, Any]) -> dict[str, Any]:
        request = {
            "dataset": dataset,
            "answer": answer,
            "entry": entry,
            "parameters": self._parameters.get(dataset, {}),
        }
        return worker.ask(orjson.dumps(request), self._seconds)


class _Worker:
    """One process, started anew after it was killed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._finalizer: Any = None

    def ask(self, request: bytes, seconds: float) -> dict[str, Any]:
        if self._process is None or self._process.poll() is not None:
            self._start()
        assert self._process is not None and self._process.stdin is not None
        try:
            self._process.stdin.write(request + b"\n")
            self._process.stdin.flush()
            line = self._line(seconds)
        except BrokenPipeError:
            line = b""
        if line:
            return orjson.loads(line)
        self.stop()
        return {"error": f"no score within {seconds:g} seconds, or out of memory"}

    def stop(self) -> None:
        if self._finalizer is not None:
            self._finalizer()

    def _start(self) -> None:
        self.stop()
        variables = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        self._process = subprocess.Popen(
            # -P: the folder that it is started in may hold modules of any name.
            [sys.executable, "-P", "-m", "gymrail.verifiers.reasoning_gym.worker"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            env={**variables, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )  # fmt: skip
        self._finalizer = weakref.finalize(self, _end, self._process)
        if self._line(_START_SECONDS) != b"ready":
            self.stop()
            raise InfrastructureError("The process that runs reasoning-gym's scorers did not start.")

    def _line(self, seconds: float) -> bytes:
        """The next line without its end; empty when the time is up or the process ended."""
        assert self._process is not None and self._process.stdout is not None
        found = bytearray()
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while not found.endswith(b"\n"):
                if not selector.select(seconds):
                    return b""
                read = os.read(self._process.stdout.fileno(), 65536)
                if not read:
                    return b""
                found += read
        return bytes(found[:-1])


def _control(dataset: str, entry: Mapping[str, Any]) -> str:
    try:
        return gold_answer(dataset, entry)
    except InputError:
        return ""


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()
    process.wait()
