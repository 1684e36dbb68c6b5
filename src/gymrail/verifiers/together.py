"""Several questions at once, none of which outlives who asked them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

T = TypeVar("T")


async def all_of(asked: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """Wait for all; where one fails or the caller is cancelled, none of the others goes on."""
    tasks = [asyncio.ensure_future(one) for one in asked]
    try:
        return list(await asyncio.gather(*tasks))
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
