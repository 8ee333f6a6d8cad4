"""What every call shares: errors become rich statuses, in one place, whatever the call.

Wrapped around the methods once, when the server is built, and not as gRPC interceptors: those cost a coroutine for
each call before the handler is even looked up.
"""

from __future__ import annotations

import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing
from typing import Any, TypeVar

import grpc
import grpc.aio

from runner.core.errors import RunnerError
from runner.ports import Observer
from runner.rpc.status import status_of

Request = TypeVar("Request")
Response = TypeVar("Response")
Context = grpc.aio.ServicerContext[Any, Any]


class Unexpected(RunnerError):
    """A defect of ours; the log has the traceback."""


def unary(
    method: Callable[[Request, Context], Awaitable[Response]], observer: Observer
) -> Callable[[Request, Context], Awaitable[Response]]:
    """The method, with its errors as statuses."""

    async def call(request: Request, context: Context) -> Response:
        async with _Statuses(context, observer):
            return await method(request, context)

    return call


def stream(
    method: Callable[[Request, Context], AsyncGenerator[Response, None]], observer: Observer
) -> Callable[[Request, Context], AsyncIterator[Response]]:
    """The streaming method, with its errors as statuses. A call that is cancelled closes the stream at once."""

    async def call(request: Request, context: Context) -> AsyncIterator[Response]:
        # Without aclosing, what the stream holds would be freed by the garbage collector, some day.
        async with _Statuses(context, observer), aclosing(method(request, context)) as responses:
            async for response in responses:
                yield response

    return call


class _Statuses:
    """Ends a call with the status of what is raised inside. The edge: a defect of ours goes to the log, too."""

    def __init__(self, context: Context, observer: Observer) -> None:
        self._context = context
        self._observer = observer

    async def __aenter__(self) -> None:
        pass

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Exception):
            failed = error if isinstance(error, RunnerError) else _defect(error, self._observer)
            await self._context.abort_with_status(status_of(failed))


def _defect(error: Exception, observer: Observer) -> RunnerError:
    told = "".join(traceback.format_exception(error))
    observer.notice("call_failed", error=f"{type(error).__name__}: {error}", traceback=told)
    return Unexpected("an internal error; the daemon's log tells more")
