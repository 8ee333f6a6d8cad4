"""What every call shares: errors become rich statuses, in one place, whatever the call.

Wrapped around the methods once, when the server is built, and not as gRPC interceptors: those cost a coroutine for
each call before the handler is even looked up.
"""

from __future__ import annotations

import traceback
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager
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
        async with _statuses(context, observer):
            return await method(request, context)

    return call


def stream(
    method: Callable[[Request, Context], AsyncGenerator[Response, None]], observer: Observer
) -> Callable[[Request, Context], AsyncIterator[Response]]:
    """The streaming method, with its errors as statuses. A call that is cancelled closes the stream at once."""

    async def call(request: Request, context: Context) -> AsyncIterator[Response]:
        # Without aclosing, what the stream holds would be freed by the garbage collector, some day.
        async with _statuses(context, observer), aclosing(method(request, context)) as responses:
            async for response in responses:
                yield response

    return call


@asynccontextmanager
async def _statuses(context: Context, observer: Observer) -> AsyncIterator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001  the edge: the caller gets a status, and the log a defect's traceback
        failed = error if isinstance(error, RunnerError) else _defect(error, observer)
    else:
        return
    await context.abort_with_status(status_of(failed))


def _defect(error: Exception, observer: Observer) -> RunnerError:
    observer.notice("call_failed", error=f"{type(error).__name__}: {error}", traceback=traceback.format_exc())
    return Unexpected("an internal error; the daemon's log tells more")
