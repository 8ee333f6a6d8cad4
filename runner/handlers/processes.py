"""Functions in worker processes, which are killed with their task."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVarTuple

import anyio
import anyio.to_process
import msgspec

from runner.core.errors import AttemptError
from runner.handlers.worker import Raised

_Arguments = TypeVarTuple("_Arguments")


class WorkerProcesses:
    """Up to `size` processes, started when they are first needed and used again."""

    def __init__(self, size: int) -> None:
        self._places = anyio.CapacityLimiter(size)

    async def run(self, function: Callable[[*_Arguments], bytes | Raised], *arguments: *_Arguments, what: str) -> Any:
        """The JSON value of what the function gives. Waits for a process; being cancelled kills it.

        Raises AttemptError: what the function Raised; PROCESS_DIED if its process ended under it.
        """
        try:
            given = await anyio.to_process.run_sync(function, *arguments, cancellable=True, limiter=self._places)
        except anyio.BrokenWorkerProcess as error:
            message = f"the worker process ended while it ran {what}; it may have run out of memory"
            raise AttemptError("PROCESS_DIED", message, retryable=True) from error
        if isinstance(given, Raised):
            raise AttemptError(given.reason, given.message, retryable=given.retryable, retry_after=given.retry_after)
        return msgspec.json.decode(given)
