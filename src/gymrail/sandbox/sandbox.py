"""A sandbox as it is configured, and what is done with it: run a program, or hold an interpreter."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import weakref
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from gymrail.errors import InfrastructureError, InputError, did_you_mean
from gymrail.sandbox.box import Box
from gymrail.sandbox.bubblewrap import Bubblewrap
from gymrail.sandbox.docker import IMAGE, Docker
from gymrail.sandbox.limits import Execution, Limits
from gymrail.sandbox.provider import Provider
from gymrail.sandbox.unsafe import Subprocess
from gymrail.sandbox.watch import Watch

ProviderName = Literal["auto", "bubblewrap", "docker", "subprocess"]
_NAMES = ("auto", "bubblewrap", "docker", "subprocess")
_SAFE = ("bubblewrap", "docker")
_PLACES_PER_CORE = 2
_NOTHING_KEPT = "Variables, imports and functions of earlier calls are gone."


@dataclass(eq=False)
class Sandbox:
    """Runs code under limits. Get one with `choose`; share it between episodes, for it bounds how much runs at once."""

    provider: Provider
    limits: Limits = field(default_factory=Limits)
    places: int = max(2, _PLACES_PER_CORE * (os.cpu_count() or 1))
    """Calls that run at once; the others wait, and their limits begin after that."""
    _by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[asyncio.Semaphore, Watch]] = field(
        default_factory=weakref.WeakKeyDictionary, init=False, repr=False
    )

    async def run(self, code: str, *, stdin: str = "", files: Mapping[str, bytes] | None = None) -> Execution:
        """Run a Python program in a sandbox of its own.

        Args:
            files: what its private folder holds at first, by relative name.
        """
        async with self.programs() as programs:
            return await programs.run(code, stdin=stdin, files=files)

    @contextlib.asynccontextmanager
    async def programs(self) -> AsyncIterator[Programs]:
        """Hold a sandbox for several programs, one after the other; none leaves anything running for the next."""
        programs = Programs(self)
        try:
            yield programs
        finally:
            await programs.close()

    def interpreter(self) -> Interpreter:
        """Return an interpreter; its sandbox starts with the first call."""
        return Interpreter(self)

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[Watch]:
        """Wait for one of the places."""
        semaphore, watch = self._by_loop.setdefault(
            asyncio.get_running_loop(), (asyncio.Semaphore(self.places), Watch())
        )
        async with semaphore:
            yield watch


class Programs:
    """A sandbox that runs program after program, each in a fork of its own."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._box: Box | None = None

    async def prepare(self, code: str) -> Execution:
        """Run code once, before the programs, in the process that they are forked from: what it imports is there."""
        return await self._ask(b"execute", _bytes(code))

    async def run(
        self, code: str, *, stdin: str = "", files: Mapping[str, bytes] | None = None, prelude: str = ""
    ) -> Execution:
        """Run a program as `python main.py < stdin` would.

        Args:
            prelude: run first, in the same namespace.
        """
        if len(stdin) > self._sandbox.limits.file_bytes // 4:  # a character takes up to four bytes
            raise InputError(
                f"The program's input has {len(stdin)} characters; with file_bytes={self._sandbox.limits.file_bytes} "
                "it may have a quarter as many."
            )
        parts = [part for name, content in (files or {}).items() for part in (_inside(name), content)]
        return await self._ask(b"run", _bytes(code), _bytes(stdin), b"", b"", _bytes(prelude), *parts)

    async def call(self, code: str, function: str, arguments: Sequence[object], *, prelude: str = "") -> Execution:
        """Run a program and call a function of it, or a method of its class `Solution`, with JSON values; the result is
        `value`, as JSON."""
        # Of whole numbers JSON has all; orjson has those of 64 bits.
        written = json.dumps(list(arguments))
        return await self._ask(b"run", _bytes(code), b"", _bytes(function), _bytes(written), _bytes(prelude))

    async def close(self) -> None:
        if self._box is not None:
            await self._box.close()

    async def _ask(self, *request: bytes) -> Execution:
        async with self._sandbox.place() as watch:
            if self._box is None or not self._box.is_alive:
                self._box = await Box.start(self._sandbox.provider, self._sandbox.limits, watch)
            done = await self._box.ask(*request)
        return replace(done, is_restarted=False)


class Interpreter:
    """A Python interpreter in a sandbox of its own: what one call defines, the next one has. One call at a time."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._box: Box | None = None
        self._lock = asyncio.Lock()
        self._is_closed = False

    async def execute(self, code: str) -> Execution:
        """Run code and wait for what came of it. Past its wall time it is interrupted and variables stay; where that
        does not help, the interpreter is killed, and the next call has a fresh one.

        Raises:
            InfrastructureError: the sandbox did not start or was lost, and it was not the code's doing.
        """
        async with self._lock:
            if self._is_closed:
                raise InfrastructureError("This interpreter is closed; make another one.")
            async with self._sandbox.place() as watch:
                if self._box is None or not self._box.is_alive:
                    self._box = await Box.start(self._sandbox.provider, self._sandbox.limits, watch)
                done = await self._box.ask(b"execute", _bytes(code))
        if done.is_restarted:
            return replace(done, error=f"{done.error}. The interpreter starts anew. {_NOTHING_KEPT}")
        return done

    async def close(self) -> None:
        """End the interpreter and everything that it started; safe to call again."""
        self._is_closed = True
        if self._box is not None:
            await self._box.close()


def choose(
    provider: str = "auto",
    *,
    limits: Limits | None = None,
    packages: tuple[str, ...] = (),
    image: str = IMAGE,
) -> Sandbox:
    """Return a sandbox by a provider's name; "auto" takes the first safe one that works here, and never an unsafe one.

    Args:
        packages: installed distributions that the code may import; under docker they are those of the image.
        image: for docker.

    Raises:
        InputError: no provider of that name, or it does not work here; the text says what to install.
    """
    if provider not in _NAMES:
        raise InputError(f"No sandbox provider named {provider!r}. {did_you_mean(provider, _NAMES)}")
    known: dict[str, Provider] = {
        "bubblewrap": Bubblewrap(packages), "docker": Docker(image), "subprocess": Subprocess(packages)
    }  # fmt: skip
    problems = []
    for name in _SAFE if provider == "auto" else (provider,):
        problem = known[name].problem()
        if problem is None:
            return Sandbox(known[name], limits or Limits())
        problems.append(f"{name}: {problem}")
    raise InputError(f"No sandbox for model-written code works here. {' -- '.join(problems)}")


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "replace")


def _inside(name: str) -> bytes:
    parts = name.split("/")
    if name.startswith("/") or ".." in parts or not name:
        raise InputError(f"The file {name!r} is not inside the sandbox's folder; give a relative name without '..'.")
    return name.encode()
