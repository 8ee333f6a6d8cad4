"""Other people's coroutines, which may not heed their cancellation."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

import anyio

Value = TypeVar("Value")

#: Abandoned tasks. The loop itself holds tasks weakly, and one that is collected while it runs is told as a defect.
_abandoned: Final[set[asyncio.Task[Any]]] = set()


async def in_own_task(work: Coroutine[Any, Any, Value], *, patience: float, abandoned: Callable[[], None]) -> Value:
    """What the coroutine gives or raises. Needs asyncio.

    Being cancelled, it cancels the coroutine once and gives it `patience` seconds to end. One that goes on after that
    is left alone, once `abandoned` was called. anyio would cancel it anew at every turn of the loop, for ever.
    """
    task = asyncio.get_running_loop().create_task(work)
    try:
        await asyncio.wait([task])
    finally:
        if not task.done():
            await _give_up(task, patience, abandoned)
    return task.result()


async def _give_up(task: asyncio.Task[Any], patience: float, abandoned: Callable[[], None]) -> None:
    task.cancel()
    with anyio.CancelScope(shield=True):
        await asyncio.wait([task], timeout=patience)
    _abandoned.add(task)
    task.add_done_callback(_forget)
    if not task.done():
        abandoned()


def _forget(task: asyncio.Task[Any]) -> None:
    _abandoned.discard(task)
    if not task.cancelled():
        # Looked at, so that asyncio does not tell it as one that nobody asked for: the attempt has ended before.
        task.exception()
