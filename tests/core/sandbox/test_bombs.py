"""Bombs in a sandbox: processes, memory, output, endless loops; each ends as its own result, and neighbours go on."""

# ruff: noqa: E501
# The programs that are tried stand here as one string each.

import asyncio
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gymrail.sandbox import Execution, Interpreter, Limits, Sandbox, choose

SHORT = Limits(wall_seconds=60, cpu_seconds=5, memory_bytes=256 * 1024**2, file_bytes=4 * 1024**2, output_bytes=4096)


@pytest.fixture(scope="module")
def sandbox() -> Sandbox:
    """Bubblewrap or a failure that says how to install it, never a skip."""
    return choose("bubblewrap", limits=SHORT)


def run(sandbox: Sandbox, code: str) -> Execution:
    return asyncio.run(sandbox.run(code))


def test_a_fork_bomb_stops_at_the_process_limit_and_its_episode_goes_on(sandbox: Sandbox) -> None:
    bomb = "import os\nwhile True:\n    try: os.fork()\n    except OSError: pass"
    polite = (
        "import os, time\nmade, refused = 0, None\nfor _ in range(200):\n    try:\n        child = os.fork()\n"
        "    except OSError as error:\n        refused = error.errno\n        break\n"
        "    if child == 0:\n        time.sleep(60)\n    made += 1\n(made, refused)"
    )

    async def play(python: Interpreter) -> tuple[Execution, Execution, Execution]:
        try:
            return await python.execute(polite), await python.execute(bomb), await python.execute("1 + 1")
        finally:
            await python.close()

    counted, exploded, after = asyncio.run(play(sandbox.interpreter()))
    assert counted.value == f"({SHORT.processes}, 11)"
    assert exploded.stopped in ("cpu", "timeout", "killed")
    assert after.value == "2"


def test_threads_count_as_processes() -> None:
    code = (
        "import threading, time\nthreads = 0\ntry:\n    for _ in range(500):\n"
        "        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n        threads += 1\n"
        "except RuntimeError as error:\n    print(threads, error)"
    )
    limits = Limits(processes=8, wall_seconds=60)
    assert run(choose("bubblewrap", limits=limits), code).stdout == "7 can't start new thread\n"


def test_a_memory_bomb_ends_as_its_own_result_in_one_process_and_in_many(sandbox: Sandbox) -> None:
    one = run(sandbox, "x = bytearray(10**9)")
    assert one.exit_code == 1
    assert "MemoryError" in one.stderr
    limits = Limits(wall_seconds=120, cpu_seconds=60, memory_bytes=160 * 1024**2)
    many = (
        "import os, time\nfor _ in range(8):\n    if os.fork() == 0:\n"
        "        x = bytearray(os.urandom(1 << 20) * 100)\n        time.sleep(300)\ntime.sleep(300)"
    )
    assert run(choose("bubblewrap", limits=limits), many).stopped == "memory"


def test_shared_memory_and_files_count_against_the_folders_limit(sandbox: Sandbox) -> None:
    code = (
        "import os\nfor folder in ('/tmp', '/dev/shm'):\n    written = 0\n    try:\n"
        "        for index in range(100):\n            with open(f'{folder}/{index}', 'wb') as file:\n"
        "                written += file.write(b'x' * (1 << 20))\n"
        "    except OSError as error:\n        print(folder, written >> 20, error.strerror)"
    )
    done = run(sandbox, code)
    lines = re.findall(r"(\S+) (\d+) (.+)", done.stdout)
    assert [(folder, reason) for folder, _, reason in lines] == [
        ("/tmp", "No space left on device"), ("/dev/shm", "No space left on device")
    ]  # fmt: skip
    assert [int(size) for _, size, _ in lines] == [16, 4]


@pytest.mark.parametrize(
    "code",
    [
        "print('x' * 10**6)",
        "while True: print('endless')",
        "import os\nwhile True: os.write(2, b'endless' * 1000)",
        "import subprocess\nsubprocess.run(['/usr/bin/yes'])",
        "raise ValueError('x' * 10**6)",
        "'x' * 10**6",
    ],
)
def test_endless_output_is_cut_off_and_said(sandbox: Sandbox, code: str) -> None:
    async def play(python: Interpreter) -> tuple[Execution, Execution]:
        try:
            return await python.execute(code), await python.execute("1 + 1")
        finally:
            await python.close()

    done, after = asyncio.run(play(sandbox.interpreter()))
    longest = max(len(text or "") for text in (done.stdout, done.stderr, done.value, done.error))
    assert SHORT.output_bytes < longest < SHORT.output_bytes + 200
    assert "cut off after 4096 bytes" in f"{done.stdout}{done.stderr}{done.value}{done.error}"
    assert after.value == "2"


@pytest.mark.parametrize(
    "code",
    [
        "while True: pass",
        "import time\ntime.sleep(600)",
        "import signal\nfor number in range(1, 65):\n    try: signal.signal(number, signal.SIG_IGN)\n    except (OSError, ValueError): pass\nwhile True: pass",
        "import ctypes\nctypes.CDLL(None).pause()\nctypes.CDLL(None).pause()",
        "import os, signal\nos.kill(os.getpid(), signal.SIGSTOP)",
        "x = 7 ** (7 ** 9)",
        "while True:\n    try:\n        while True: pass\n    except BaseException: pass",
    ],
)
def test_an_endless_loop_ends_in_time_whatever_it_ignores(code: str) -> None:
    sandbox = choose("bubblewrap", limits=Limits(wall_seconds=0.5, cpu_seconds=5))

    async def play(python: Interpreter) -> tuple[Execution, Execution]:
        try:
            done = await python.execute(code)
            for _ in range(20):  # half a second may be too short even for this on a machine that stalls
                after = await python.execute("'alive'")
                if after.stopped is None:
                    break
            return done, after
        finally:
            await python.close()

    done, after = asyncio.run(play(sandbox.interpreter()))
    assert done.stopped == "timeout"
    assert "ran longer than 0.5 seconds" in (done.error or "")
    assert ("Variables, imports and functions of earlier calls are gone" in (done.error or "")) is done.is_restarted
    assert after.value == "'alive'"


def test_nothing_is_left_running_after_close_or_after_a_call(sandbox: Sandbox) -> None:
    leave = (
        "import os, subprocess, sys\n"
        "for _ in range(3):\n    if os.fork() == 0:\n        os.setpgid(0, 0)\n"
        "        if os.fork() == 0:\n            os.execv('/usr/bin/sleep', ['sleep', '{seconds}'])\n        os._exit(0)\n"
    )

    async def play() -> tuple[bool, int, str | None]:
        python = sandbox.interpreter()
        await python.execute(leave.format(seconds="86391"))
        count = "sum(name.isdigit() for name in os.listdir('/proc'))"
        within = await python.execute(f"import time\nwhile {count} > 2: time.sleep(0.01)\n{count}")
        after_call = await asyncio.to_thread(_eventually, lambda: _running(b"86391") == 0)
        # A thread cannot be killed from outside; it ends with the interpreter.
        await python.execute("import threading, time\nthreading.Thread(target=time.sleep, args=(86392,)).start()")
        pid = python._box._process.pid if python._box else 0
        await python.close()
        return after_call, pid, within.value

    after_call, pid, within = asyncio.run(play())
    assert after_call
    assert within == "2"
    assert _eventually(lambda: not Path(f"/proc/{pid}").exists())
    assert _eventually(lambda: _running(b"86391") == 0)


def test_a_sandbox_dies_with_the_process_that_holds_it() -> None:
    code = (
        "import asyncio, os, sys\nfrom gymrail.sandbox import choose\n"
        "async def main():\n    python = choose('bubblewrap').interpreter()\n"
        '    await python.execute(\'import subprocess; subprocess.Popen(["/usr/bin/sleep", "86393"])\')\n'
        "    print('ready', flush=True)\n"
        '    await python.execute(\'import os; os.execv("/usr/bin/sleep", ["sleep", "86394"])\')\n'
        "asyncio.run(main())"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"ready\n"
        assert _eventually(lambda: _running(b"86394") > 0)
        holder.kill()
    assert _eventually(lambda: _running(b"86394") == 0)


def test_no_thread_is_started_per_sandbox(sandbox: Sandbox) -> None:
    async def threads() -> int:
        pythons = [sandbox.interpreter() for _ in range(6)]
        await asyncio.gather(*(python.execute("1") for python in pythons))
        count = threading.active_count()
        for python in pythons:
            await python.close()
        return count

    before = threading.active_count()
    assert asyncio.run(threads()) <= before + 1


def _running(marker: bytes) -> int:
    """How many processes of the machine have this in their command line."""
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                command = Path(f"/proc/{name}/cmdline").read_bytes()
            except OSError:
                continue
            count += command.startswith(b"sleep\0") and marker in command
    return count


def _eventually(holds: Callable[[], Any], seconds: float = 120.0) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True
