"""Calls in killable processes: bounded in CPU time and memory, off the event loop, replaced when they die."""

import asyncio
import gc
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gymrail.errors import VerifierError
from gymrail.verifiers.answer import last_match
from gymrail.verifiers.workers import TooCostly, Workers

HOSTILE = r"(a+)+$"
LONG = "a" * 64 + "!"


def work_forever() -> None:
    while True:
        pass


def use_memory(count: int) -> int:
    return len(bytearray(count))


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def fail() -> None:
    raise LookupError("nothing there")


def environment_names() -> list[str]:
    return sorted(os.environ)


def chatter() -> str:
    print("not an answer")
    sys.stderr.write("noise " * 100_000)
    return "said"


def process_id() -> int:
    return os.getpid()


def test_a_hostile_regular_expression_ends_at_its_cpu_time_and_the_loop_stays_responsive() -> None:
    async def main() -> int:
        workers = Workers(1, cpu_seconds=1)
        ticks = 0
        asked = asyncio.ensure_future(workers.call(last_match, HOSTILE, LONG))
        while not asked.done():  # a blocked loop would come here once, at the end
            await asyncio.sleep(0.01)
            ticks += 1
        with pytest.raises(TooCostly, match="CPU time"):
            await asked
        assert await workers.call(last_match, "a", "banana") == "a"
        assert workers.started == 2
        await workers.aclose()
        return ticks

    # Again where the whole process was held up that second.
    assert any(asyncio.run(main()) >= 10 for _ in range(4))


def test_a_hung_call_does_not_hold_up_its_neighbours() -> None:
    async def main() -> list[str | None]:
        workers = Workers(2, cpu_seconds=600)
        hung = asyncio.ensure_future(workers.call(last_match, HOSTILE, LONG))
        others = await asyncio.gather(*(workers.call(last_match, r"\d+", f"no {n}") for n in range(200)))
        assert not hung.done()
        hung.cancel()
        with pytest.raises(asyncio.CancelledError):
            await hung
        await workers.aclose()
        return others

    assert asyncio.run(main()) == [str(number) for number in range(200)]


def test_a_call_that_wants_too_much_memory_is_too_costly() -> None:
    async def main() -> None:
        workers = Workers(1, memory_bytes=1 << 30)
        with pytest.raises(TooCostly, match="MemoryError"):
            await workers.call(use_memory, 1 << 34)
        assert await workers.call(use_memory, 1 << 20) == 1 << 20
        assert workers.started == 1
        await workers.aclose()

    asyncio.run(main())


def test_a_worker_that_is_killed_from_outside_is_replaced_once_then_a_failure() -> None:
    async def main() -> int:
        workers = Workers(1)
        os.kill(await workers.call(process_id), signal.SIGKILL)
        assert await workers.call(process_id) > 0
        with pytest.raises(VerifierError, match="ended by SIGKILL"):
            await workers.call(die, int(signal.SIGKILL))
        with pytest.raises(TooCostly, match="SIGSEGV"):
            await workers.call(die, int(signal.SIGSEGV))
        assert await workers.call(last_match, "a", "a") == "a"
        await workers.aclose()
        return workers.started

    assert asyncio.run(main()) >= 4


def test_an_error_in_the_function_is_a_failure_that_names_it() -> None:
    async def main() -> None:
        workers = Workers(1)
        with pytest.raises(VerifierError, match="fail: LookupError: nothing there"):
            await workers.call(fail)
        await workers.aclose()

    asyncio.run(main())


def test_a_worker_that_cannot_start_is_a_failure_with_its_last_words() -> None:
    async def main() -> None:
        workers = Workers(1, imports=["no_such_module_at_all"])
        with pytest.raises(VerifierError, match=r"could be started.*no_such_module_at_all"):
            await workers.call(process_id)
        await workers.aclose()

    asyncio.run(main())


def test_what_a_function_prints_is_no_answer_and_fills_no_pipe() -> None:
    async def main() -> str:
        workers = Workers(1)
        said = [await workers.call(chatter) for _ in range(3)]
        await workers.aclose()
        return said[-1]

    assert asyncio.run(main()) == "said"


def test_a_worker_gets_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "secret")

    async def main() -> list[str]:
        workers = Workers(1)
        names = await workers.call(environment_names)
        await workers.aclose()
        return names

    assert "OPENAI_API_KEY" not in asyncio.run(main())


def test_workers_are_used_from_one_event_loop_after_another_and_after_closing() -> None:
    workers = Workers(1)
    first = asyncio.run(workers.call(process_id))
    assert asyncio.run(workers.call(process_id)) == first
    asyncio.run(workers.aclose())
    assert asyncio.run(workers.call(process_id)) != first
    asyncio.run(workers.aclose())


def test_a_cancelled_call_leaves_a_worker_that_goes_on() -> None:
    async def main() -> None:
        workers = Workers(1, cpu_seconds=1)
        asked = asyncio.ensure_future(workers.call(work_forever))
        await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        assert await asyncio.wait_for(workers.call(last_match, "a", "a"), 120) == "a"
        await workers.aclose()

    asyncio.run(main())


def test_workers_that_nobody_closed_end_with_their_owner() -> None:
    workers = Workers(1)
    number = asyncio.run(workers.call(process_id))
    del workers
    deadline = time.monotonic() + 60
    while Path(f"/proc/{number}").exists() and time.monotonic() < deadline:
        gc.collect()  # the thread that made the call lets go of its owner a moment after it answered
        time.sleep(0.01)
    with pytest.raises(ProcessLookupError):
        os.kill(number, 0)


def test_workers_end_with_the_process_that_started_them_even_where_it_is_killed() -> None:
    code = (
        "import asyncio, os, signal; from gymrail.verifiers.workers import Workers; from os import getpid\n"
        "from tests.core.verifiers.test_workers import process_id\n"
        "print(asyncio.run(Workers(1).call(process_id)), flush=True); os.kill(getpid(), signal.SIGKILL)"
    )
    root = str(Path(__file__).parents[3])
    environment = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=120, cwd=root, env=environment)
    number = int(done.stdout)

    async def wait() -> None:
        while _is_alive(number):  # it is nobody's child any more, so there is nothing to wait on
            await asyncio.to_thread(time.sleep, 0.01)

    asyncio.run(asyncio.wait_for(wait(), 300))


def _is_alive(number: int) -> bool:
    status = Path(f"/proc/{number}/status")
    return status.exists() and not re.search(r"^State:\s+[ZX]", status.read_text(encoding="utf-8"), re.MULTILINE)
