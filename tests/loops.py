"""The event loop of tests that speak gRPC in their own process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final, TypeVarTuple

Args = TypeVarTuple("Args")


class GrpcLoop(asyncio.SelectorEventLoop):
    """One that lets gRPC speak to it after its end.

    gRPC keeps one queue of completed operations for all loops of a process, and the loop that runs hands each
    to the loop it belongs to. The last ones of a test may come when its loop is closed: the test after it,
    whose loop hands them on, would fail for it.
    """

    def call_soon_threadsafe(
        self, callback: Callable[[*Args], object], *args: *Args, context: Context | None = None
    ) -> asyncio.Handle:
        if self.is_closed() and callback.__module__ == "grpc._cython.cygrpc":
            return asyncio.Handle(callback, args, self, context)
        return super().call_soon_threadsafe(callback, *args, context=context)


#: What an `anyio_backend` returns.
GRPC_BACKEND: Final[tuple[str, dict[str, Any]]] = ("asyncio", {"loop_factory": GrpcLoop})
