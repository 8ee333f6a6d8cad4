"""Follows what an operator watches: everything first, then what changes."""

from __future__ import annotations

import operator
from collections.abc import AsyncGenerator, Awaitable, Callable, Hashable, Mapping
from typing import Generic, TypeVar

import anyio
import msgspec

from runner.core.errors import Draining

Key = TypeVar("Key", bound=Hashable)
View = TypeVar("View")

#: Seconds between two looks at everything, so that a storm of changes is told in portions.
PAUSE = 0.05


class Told(msgspec.Struct, Generic[Key, View], frozen=True):
    """What changed since the last time; nothing at all in a heartbeat."""

    changed: tuple[View, ...] = ()
    removed: tuple[Key, ...] = ()
    #: It is the first: `changed` is all that there is.
    first: bool = False


class Waits:
    """Waits of several followers, which can all be ended."""

    def __init__(self) -> None:
        self.closed = False
        self._scopes: set[anyio.CancelScope] = set()

    def close(self) -> None:
        """End all waits; there will be no more."""
        self.closed = True
        for scope in self._scopes:
            scope.cancel()

    async def wait(self, what: Callable[[], Awaitable[None]], seconds: float) -> None:
        """Wait for it, for so many seconds, or until closed. What happens before this first gives way is not missed."""
        with anyio.move_on_after(seconds) as scope:
            self._scopes.add(scope)
            try:
                await what()
            finally:
                self._scopes.discard(scope)


async def follow(
    look: Callable[[], Mapping[Key, View]],
    alike: Callable[[View, View], bool],
    *,
    changed: Callable[[], Awaitable[None]],
    waits: Waits,
    heartbeat: float,
    figures: float | None,
) -> AsyncGenerator[Told[Key, View], None]:
    """What `look` sees, then what of it changes, until closed. Never ends without an error.

    A view that is not `alike` the one that was told is told at once, any other that changed each `figures` seconds, or
    not at all if that is None.

    Raises Draining: once `waits` are closed.
    """
    known = dict(look())
    yield Told(tuple(known.values()), first=True)
    told_at = figures_at = anyio.current_time()
    while not waits.closed:
        now = anyio.current_time()
        same = alike
        if figures is not None and now - figures_at >= figures:
            same, figures_at = operator.eq, now
        seen = look()
        fresh = {key: view for key, view in seen.items() if key not in known or not same(known[key], view)}
        removed = tuple(key for key in known if key not in seen)
        if fresh or removed or now - told_at >= heartbeat:
            known.update(fresh)
            for key in removed:
                del known[key]
            told_at = now
            yield Told(tuple(fresh.values()), removed)
            await anyio.sleep(PAUSE)
            continue
        due = told_at + heartbeat if figures is None else min(told_at + heartbeat, figures_at + figures)
        # Nothing gives way between the look and this wait, so no change falls between them.
        await waits.wait(changed, max(0.0, due - now))
    raise Draining
