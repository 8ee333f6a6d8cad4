"""A wake-up for one listener. Rings coalesce: any number of them before the listener waits are one."""

from __future__ import annotations

import anyio


class Bell:
    """Rung by anyone, waited for by one."""

    def __init__(self) -> None:
        self._rung = anyio.Event()

    def ring(self) -> None:
        """Wake the listener, now or at its next wait."""
        self._rung.set()

    async def wait(self, seconds: float | None = None) -> bool:
        """Wait for a ring, at most so long (None: for ever). Answers whether there was one; it is used up."""
        with anyio.move_on_after(seconds if seconds is None else max(0.0, seconds)):
            await self._rung.wait()
        rung = self._rung.is_set()
        if rung:
            self._rung = anyio.Event()
        return rung

    @property
    def rung(self) -> bool:
        """Whether a wait would return at once."""
        return self._rung.is_set()
