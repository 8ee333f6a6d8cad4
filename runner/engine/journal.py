"""Follows the state changes of all jobs: what panels and schedulers watch."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import anyio
import msgspec

from runner.core.errors import Draining
from runner.core.filters import Filter, matches
from runner.core.job import Change
from runner.ports import Ledger

PAGE = 500


class ChangesPage(msgspec.Struct, frozen=True):
    """Matching changes, perhaps none, and where to go on after them."""

    changes: tuple[Change, ...]
    cursor: int


class Journal:
    """The global journal, replayed and then live."""

    def __init__(self, ledger: Ledger, *, poll_seconds: float) -> None:
        self._ledger = ledger
        self._poll_seconds = poll_seconds
        #: None while nobody waits: a change is too common to make an event that nobody hears.
        self._changed: anyio.Event | None = None
        self._closed = False

    def wake(self) -> None:
        """A state change was committed here."""
        if self._changed is not None:
            self._changed.set()
            self._changed = None

    def close(self) -> None:
        """Send every follower away with Draining."""
        self._closed = True
        self.wake()

    async def follow(
        self, filter_: Filter | None, *, after: int | None, heartbeat: float
    ) -> AsyncGenerator[ChangesPage, None]:
        """Changes after a cursor (None: from now on), in commit order, without gaps or doubles, until closed.

        A page without changes is a heartbeat; it comes after every `heartbeat` seconds without a match and moves
        the cursor past what did not match.

        Raises Draining: when the daemon shuts down.
        """
        cursor = await self._ledger.newest_cursor() if after is None else after
        silent_since = anyio.current_time()
        if after is None:
            yield ChangesPage((), cursor)
        while not self._closed:
            changed = self._changed = self._changed or anyio.Event()
            page = await self._ledger.changes(after=cursor, limit=PAGE)
            if page:
                cursor = page[-1].cursor
                found = tuple(change for change in page if filter_ is None or matches(filter_, change.job))
                if found:
                    silent_since = anyio.current_time()
                    yield ChangesPage(found, cursor)
            # Looked at after every page: changes without end that do not match are silence, too.
            silence = anyio.current_time() - silent_since
            if silence >= heartbeat:
                silent_since, silence = anyio.current_time(), 0.0
                yield ChangesPage((), cursor)
            if not page:
                # Other daemons' changes come without a notice: hence the poll.
                with anyio.move_on_after(max(0.001, min(self._poll_seconds, heartbeat - silence))):
                    await changed.wait()
        raise Draining
