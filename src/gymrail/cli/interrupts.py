"""Ctrl-C and SIGTERM while a run is played: first what is in flight is finished, then it is cancelled."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

import typer

if TYPE_CHECKING:
    from gymrail.cli.playing import Playing


async def interruptible(work: Awaitable[None], playing: Playing) -> bool:
    """Await `work`, which is `playing`; return whether a signal ended it early, in good order.

    The first Ctrl-C requests the drain, the second cancels; SIGTERM cancels at once. A further Ctrl-C is a
    KeyboardInterrupt wherever the program is, for code that never yields.
    """
    loop, task = asyncio.get_running_loop(), asyncio.ensure_future(work)
    received = 0

    def finish() -> None:
        count = playing.in_flight
        what = f"{count} rollout{'' if count == 1 else 's'}" if count else "what is"
        typer.echo(f"Interrupted: finishing {what} in flight. Ctrl-C again cancels.", err=True)
        playing.drain.request("interrupted")

    def cancel() -> None:
        typer.echo("Cancelling what is in flight ...", err=True)
        task.cancel()

    def on_signal(number: int, _: Any) -> None:
        nonlocal received
        received = max(received + 1, 2 if number == signal.SIGTERM else 1)
        if received > 2 and number == signal.SIGINT:
            raise KeyboardInterrupt
        # Not at once: this runs between any two lines of the program.
        loop.call_soon_threadsafe(finish if received == 1 else cancel)

    is_main = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)} if is_main else {}
    try:
        await task
    except asyncio.CancelledError:
        if received < 2:
            task.cancel()
            raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return received > 0
