"""Who gets the processor: a bomb gives way to its neighbours, while it is at it; honest code has its share."""

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from gymrail.sandbox import Interpreter, Limits, Sandbox, bubblewrap, choose

LIMITS = Limits(wall_seconds=60, cpu_seconds=60)
FORKS = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
BOMBS = {
    "forks": FORKS,
    "threads": (
        "import threading, time\nwhile True:\n    try: threading.Thread(target=time.sleep, args=(60,)).start()\n"
        "    except RuntimeError: pass"
    ),
    "memory": "while True: bytearray(b'x') * (1 << 28)",
    "output": "import os\nwhile True: os.pwrite(1, b'x' * (1 << 20), 0)",
}


@pytest.fixture
def sandbox() -> Sandbox:
    """Bubblewrap or a failure that says how to install it, never a skip."""
    return choose("bubblewrap", limits=LIMITS)


@pytest.fixture
def one_core() -> Iterator[None]:
    """All that is started runs on one core, so that sandboxes must share it whatever else the machine does."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    yield
    os.sched_setaffinity(0, cores)


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_a_bomb_gives_way(sandbox: Sandbox, bomb: str) -> None:
    async def play(python: Interpreter) -> int:
        try:
            await python.execute("1")
            attack = asyncio.ensure_future(python.execute(bomb))
            assert await _eventually(lambda: attack.done() or _group_nice(python) != 0)
            assert not attack.done(), attack.result()
            nice = _group_nice(python)
            attack.cancel()
            await asyncio.gather(attack, return_exceptions=True)
            return nice
        finally:
            await python.close()

    assert asyncio.run(play(sandbox.interpreter())) == 10


def test_the_interpreter_has_its_share_again_where_a_bomb_ends_by_itself(sandbox: Sandbox) -> None:
    code = (
        "import os, time\nchildren = []\nwhile True:\n    try: child = os.fork()\n    except OSError: break\n"
        "    if child == 0: time.sleep(60)\n    children.append(child)\n"
        "while not os.path.exists('/tmp/seen'): time.sleep(0.01)\nlen(children)"
    )

    async def play(python: Interpreter) -> tuple[int, str | None, int]:
        try:
            await python.execute("1")
            call = asyncio.ensure_future(python.execute(code))
            assert await _eventually(lambda: call.done() or _group_nice(python) != 0)
            during = _group_nice(python)
            assert {os.getpriority(os.PRIO_PROCESS, number) for number in _forks(python)} == {19}
            _touch(python, "/tmp/seen")
            return during, (await call).value, _group_nice(python)
        finally:
            await python.close()

    assert asyncio.run(play(sandbox.interpreter())) == (10, str(LIMITS.processes), 0)


def test_computing_however_long_is_no_bomb(sandbox: Sandbox) -> None:
    code = (
        "import time\nwhile time.process_time() < 2: sum(range(10000))\nopen('/proc/self/autogroup').read().split()[-1]"
    )

    async def play(python: Interpreter) -> str | None:
        try:
            return (await python.execute(code)).value
        finally:
            await python.close()

    assert asyncio.run(play(sandbox.interpreter())) == "'0'"


@pytest.mark.parametrize("has_users", [True, False], ids=["users", "user namespace"])
def test_the_code_cannot_take_its_share_back(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, has_users: bool
) -> None:
    if not has_users:
        monkeypatch.setattr(bubblewrap, "_mapped_users", lambda: range(0))
    code = (
        "import subprocess, sys\n"
        "print(subprocess.run([sys.executable, '-c', \"open('/proc/self/autogroup', 'w').write('0')\"],"
        " capture_output=True, text=True).stderr)"
    )
    assert "Read-only file system: '/proc/self/autogroup'" in asyncio.run(sandbox.run(code)).stdout


@pytest.mark.usefixtures("one_core")
def test_a_bomb_does_not_slow_its_neighbour_by_more_than_half(sandbox: Sandbox) -> None:
    """On a core of their own the neighbour waits exactly as long as the bomb computes, and on a busy one both get less
    by the same share: so both their CPU times are compared, from the bomb's start on."""
    work = "import time\nstart = time.process_time()\nwhile time.process_time() < start + 3: sum(range(10000))"

    async def play(bomber: Interpreter, neighbour: Interpreter) -> float:
        try:
            await asyncio.gather(bomber.execute("1"), neighbour.execute("1"))
            attack = asyncio.ensure_future(bomber.execute(FORKS))
            done = await neighbour.execute(work)
            assert done.is_ok, done.error
            assert not attack.done(), attack.result()
            spent = sum(map(_cpu_seconds, [_inner(bomber), *_forks(bomber)]))
            attack.cancel()
            await asyncio.gather(attack, return_exceptions=True)
            return 1 + spent / 3
        finally:
            await bomber.close()
            await neighbour.close()

    assert asyncio.run(play(sandbox.interpreter(), sandbox.interpreter())) <= 1.5


def _inner(python: Interpreter) -> int:
    """The interpreter's process: the only child of bubblewrap's inner one."""
    assert python._box is not None
    return min(_children(_children(python._box._process.pid)[0]))


def _forks(python: Interpreter) -> list[int]:
    """All processes below the interpreter's."""
    found = _children(_inner(python))
    for number in found:
        found += _children(number)
    return found


def _touch(python: Interpreter, name: str) -> None:
    Path(f"/proc/{_inner(python)}/root{name}").touch()


def _children(number: int) -> list[int]:
    try:
        return [int(child) for child in Path(f"/proc/{number}/task/{number}/children").read_text().split()]
    except OSError:  # it ended
        return []


def _group_nice(python: Interpreter) -> int:
    """As the kernel says it: `/autogroup-123 nice 0`."""
    assert python._box is not None
    inner = _children(python._box._process.pid)
    return int(Path(f"/proc/{inner[0]}/autogroup").read_text().split()[-1]) if inner else 0


def _cpu_seconds(number: int) -> float:
    try:
        return int(Path(f"/proc/{number}/schedstat").read_text().split()[0]) / 1e9
    except OSError:  # it ended
        return 0.0


async def _eventually(holds: Callable[[], bool], seconds: float = 50.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.01)
    return True
