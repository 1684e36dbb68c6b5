"""Environments that worker processes load from this file: well-behaved, slow, and deadly ones."""

import asyncio
import os
import signal
import time
from collections.abc import Generator
from pathlib import Path
from random import Random
from typing import Any, ClassVar

from gymrail import Config, Environment, Rollout, Task, Verdict, call, tool


class NumberTask(Task):
    number: int
    deadly: bool = False


class Adder(Environment[NumberTask]):
    """Add up; some milliseconds of waiting per call, and a verdict that says which process played."""

    class Config(Config):
        seconds: float = 0.0
        folder: str = ""
        processes: int = 0
        """No call returns before so many processes have left a file in the folder, so that each of them plays."""
        halt_after: int = 0
        """After so many calls a process waits until the file `go` is in the folder."""

    calls: ClassVar[int] = 0

    @classmethod
    def generate(cls, rng: Random) -> NumberTask:
        number = rng.randint(0, 10**9)
        return NumberTask.ask(f"Add {number}.", number=number)

    def seed(self) -> None:
        self.total = 0

    @tool
    async def add(self, number: int) -> int:
        """Add `number` to the total."""
        await asyncio.sleep(self.config.seconds)
        while self.is_held_up():  # noqa: ASYNC110 - until the limit per call
            await asyncio.sleep(0.02)
        Adder.calls += 1
        self.total += number
        return self.total

    def is_held_up(self) -> bool:
        folder = Path(self.config.folder)
        if self.config.processes:
            (folder / f"process-{os.getpid()}").touch()
            if len(list(folder.glob("process-*"))) < self.config.processes:
                return True
        return 0 < self.config.halt_after <= Adder.calls and not (folder / "go").exists()

    def verify(self, rollout: Rollout) -> Verdict:
        return Verdict(
            float(self.total == self.task.number), metrics={"pid": os.getpid(), "file": str(Path(__file__).resolve())}
        )

    def solve(self) -> Generator[Any, Any, None]:
        yield call("add", number=self.task.number)
        yield "Done."

    def sabotage(self, turn: Any, rng: Random) -> Any:
        return "No."


class Gated(Adder):
    """Waits in its tool until the file `open` is in the folder; leaves a file there while it is seeded."""

    class Config(Adder.Config):
        folder: str = os.environ.get("GYMRAIL_TEST_FOLDER", "")
        blocks: bool = os.environ.get("GYMRAIL_TEST_BLOCKS") == "1"

    @property
    def marker(self) -> Path:
        return Path(self.config.folder, f"playing-{os.getpid()}-{self.task.number}")

    @tool
    async def add(self, number: int) -> int:
        """Add `number` to the total."""
        self.marker.touch()
        if self.config.seconds:
            await asyncio.sleep(self.config.seconds)
        while not self.is_open():  # noqa: ASYNC110 - another process opens it
            await asyncio.sleep(0.02)
        self.total += number
        return self.total

    def is_open(self) -> bool:
        if self.config.blocks:
            time.sleep(600)
        return Path(self.config.folder, "open").exists()

    def close(self) -> None:
        self.marker.unlink(missing_ok=True)


class Deadly(Adder):
    """Kills its process where the task says so."""

    @tool
    async def add(self, number: int) -> int:
        """Add `number` to the total."""
        if self.task.deadly:
            os.kill(os.getpid(), signal.SIGSEGV)
        await asyncio.sleep(0.005)
        self.total += number
        return self.total


class Hanging(Adder):
    """Never yields again where the task says so."""

    @tool
    async def add(self, number: int) -> int:
        """Add `number` to the total."""
        if self.task.deadly:
            self.hang()
        self.total += number
        return self.total

    def hang(self) -> None:
        time.sleep(600)
