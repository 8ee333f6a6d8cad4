"""Functions in worker processes, which are killed with their task."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from typing import Any, TypeVarTuple

import anyio
import anyio.to_process
import msgspec

from runner.core.errors import AttemptError
from runner.handlers.worker import Answered, Raised, answer, end_group

_Arguments = TypeVarTuple("_Arguments")

#: Numbers the calls of this process: workers are shared by all its WorkerProcesses.
_numbers = count(1)
#: Seconds for a worker to end that answered to another call.
_ENDING = 5.0


class WorkerProcesses:
    """Up to `size` processes, started when they are first needed and used again."""

    def __init__(self, size: int) -> None:
        self._places = anyio.CapacityLimiter(size)

    async def run(self, function: Callable[[*_Arguments], bytes | Raised], *arguments: *_Arguments, what: str) -> Any:
        """The JSON value of what the function gives. Waits for a process; being cancelled kills it.

        Raises AttemptError: what the function Raised; PROCESS_DIED if its process ended under it.
        """
        call = next(_numbers)
        try:
            answered = await anyio.to_process.run_sync(
                answer, os.getpid(), call, function, *arguments, cancellable=True, limiter=self._places
            )
        # anyio kills a worker that ended before it was ready, and does not expect that there is none to be killed.
        except (anyio.BrokenWorkerProcess, ProcessLookupError) as error:
            message = f"the worker process ended while it ran {what}; it may have run out of memory"
            raise AttemptError("PROCESS_DIED", message, retryable=True) from error
        if not isinstance(answered, Answered) or answered.call != call:
            # Something wrote in the worker's place: whatever it says from now on belongs to some earlier call.
            await self._end_worker()
            message = f"the worker process gave another call's answer while it ran {what}, and was ended"
            raise AttemptError("PROCESS_DIED", message, retryable=True)
        given = answered.given
        if isinstance(given, Raised):
            raise AttemptError(given.reason, given.message, retryable=given.retryable, retry_after=given.retry_after)
        return msgspec.json.decode(given)

    async def _end_worker(self) -> None:
        """End the worker that was used last. Should another one be hit, it was idle, and the next call finds this."""
        with anyio.move_on_after(_ENDING), suppress(anyio.BrokenWorkerProcess):
            # What it answers now may be the answer that is still under way; it has ended when the pipe breaks.
            while True:
                await anyio.to_process.run_sync(end_group, os.getpid(), cancellable=True, limiter=self._places)
