"""Threads that work for the event loop: a function goes in, its result comes back.

anyio's own worker threads cost 130 to 210 µs a hop for their limiter, contexts and queues; a lane costs about 50, and
an idle job makes a dozen hops. A lane has one thread for as long as the ledger is open, and so one connection.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from typing import Any, Generic, TypeVar

import anyio
import anyio.lowlevel

Result = TypeVar("Result")


class _Errand(Generic[Result]):
    """One function on its way through a lane, and what it gave or raised, for whoever awaits the result."""

    __slots__ = ("_call_soon", "_error", "_result", "_work", "done")

    def __init__(self, work: Callable[[], Result]) -> None:
        self._work = work
        self._call_soon = _call_soon()
        self._result: Result
        self._error: BaseException | None = None
        self.done = anyio.Event()

    def carry_out(self) -> None:
        with ExitStack() as stack:
            stack.push(self._keep)
            self._result = self._work()
        self._call_soon(self.done.set)

    # Pushed on a stack rather than caught: nothing is judged here, everything is raised again in `result`.
    def _keep(self, _kind: object, error: BaseException | None, _trace: object) -> bool:
        self._error = error
        return True

    def result(self) -> Result:
        if self._error is not None:
            raise self._error
        return self._result


def _call_soon() -> Callable[[Callable[[], None]], object]:
    """How another thread has this event loop call a function, without waiting for it to be called."""
    loop: Any = anyio.lowlevel.current_token().native_token
    found: Callable[[Callable[[], None]], object] = getattr(loop, "call_soon_threadsafe", None) or loop.run_sync_soon
    return found


class Lane:
    """One thread; functions run in it one after the other."""

    def __init__(self) -> None:
        self._errands: SimpleQueue[_Errand[Any] | None] = SimpleQueue()

    @contextmanager
    def open(self, name: str) -> Iterator[None]:
        """Have the thread inside the context."""
        thread = threading.Thread(target=self._work, name=name, daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._errands.put(None)
            thread.join()

    async def run(self, work: Callable[[], Result]) -> Result:
        """Run a function in the thread. Waits for it also when cancelled: it is never left to itself."""
        errand = _Errand(work)
        self._errands.put(errand)
        with anyio.CancelScope(shield=True):
            await errand.done.wait()
        return errand.result()

    def _work(self) -> None:
        while (errand := self._errands.get()) is not None:
            errand.carry_out()
