"""The loop that rollouts run on."""

import asyncio
import builtins
from typing import Any

import pytest

from gymrail.collect.event_loop import new_event_loop, run_async


async def loop_module() -> str:
    return type(asyncio.get_running_loop()).__module__


def test_rollouts_run_on_uvloop_and_no_other_loop_changes() -> None:
    assert run_async(loop_module()).startswith("uvloop")
    assert asyncio.run(loop_module()).startswith("asyncio")


def test_without_uvloop_they_run_on_asyncio_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    original = builtins.__import__

    def refuse(name: str, *arguments: Any, **options: Any) -> Any:
        if name == "uvloop":
            raise ImportError(name)
        return original(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    loop = new_event_loop()
    loop.close()
    assert type(loop).__module__.startswith("asyncio")
