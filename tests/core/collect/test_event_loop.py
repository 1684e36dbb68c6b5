"""The loop that rollouts run on."""

import asyncio
import builtins
import gc
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


async def collection_threshold() -> int:
    return gc.get_threshold()[0]


def test_cycles_are_looked_for_less_often_while_rollouts_run_and_as_before_afterwards() -> None:
    before = gc.get_threshold()
    try:
        gc.set_threshold(700, 10, 10)
        assert run_async(collection_threshold()) > 10_000
        assert gc.get_threshold() == (700, 10, 10)
        for own in (0, 10**6):  # switched off, or rarer already
            gc.set_threshold(own, 10, 10)
            assert run_async(collection_threshold()) == own
    finally:
        gc.set_threshold(*before)
