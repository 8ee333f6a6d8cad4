"""What all calls share: the channel, patience, and what becomes of errors."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from types import TracebackType
from typing import Final, Self, TypeVar

import grpc
import grpc.aio
from altrunner.v1 import admin_service_pb2_grpc, job_service_pb2_grpc
from anyio.lowlevel import checkpoint_if_cancelled
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

from runner.client.errors import CallRefused, ClientError, Unreachable, refusal, said_why, why_lost

Request = TypeVar("Request")
Response = TypeVar("Response")

#: Statuses after which the same call may be made again: the daemon was not there, or the connection broke.
LOST: Final = frozenset({grpc.StatusCode.UNAVAILABLE})
#: On a stream, more than that: a proxy or a dying process resets it in many ways.
LOST_STREAM: Final = LOST | {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED}
#: Seconds between two tries: at first, and at most.
FIRST_WAIT: Final = 0.1
LONGEST_WAIT: Final = 2.0

_CHANNEL_OPTIONS: Final = [
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    # A peer that vanished without a word is noticed within half a minute.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]


class Connection:
    """One channel, and the calls through it."""

    def __init__(
        self, target: str = "127.0.0.1:50051", *, timeout: float = 30.0, patience: float | None = 30.0
    ) -> None:
        self.target = target
        #: Seconds for one call that is not a stream.
        self.timeout = timeout
        self.patience = patience
        #: Seconds of silence on a watch after which the connection is given up; the daemon's heartbeat is 15.
        self.silence = 60.0

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(self.target, options=_CHANNEL_OPTIONS)
        self._stub = job_service_pb2_grpc.JobServiceStub(self._channel)
        self._admin = admin_service_pb2_grpc.AdminServiceStub(self._channel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    async def _read(
        self, call: grpc.aio.UnaryStreamCall[Request, Response], kind: type[Response]
    ) -> AsyncGenerator[Response, None]:
        """Raises TimeoutError: after a silence."""
        try:
            while True:
                async with asyncio.timeout(self.silence):
                    response = await call.read()
                if not isinstance(response, kind):
                    return  # grpc.aio.EOF
                yield response
        finally:
            call.cancel()

    async def _call(self, call: Callable[[], Awaitable[Response]]) -> Response:
        try:
            async for attempt in AsyncRetrying(
                retry=retry_if_exception(_is_lost),
                wait=wait_random_exponential(multiplier=FIRST_WAIT, max=LONGEST_WAIT),
                stop=stop_after_delay(self.patience) if self.patience is not None else lambda _: False,
                reraise=True,
            ):
                with attempt:
                    return await call()
        except asyncio.CancelledError:
            # gRPC raises one of its own, which no scope of anyio takes for its own: whoever set a time-out would end.
            await checkpoint_if_cancelled()
            raise
        except grpc.aio.AioRpcError as error:
            raise self._translated(error) from error
        raise AssertionError  # tenacity returns or raises

    def _translated(self, error: grpc.aio.AioRpcError) -> ClientError:
        return _final(self.target, error) if _is_lost(error) else refusal(error)


class Losses:
    """Losses of one watch's connection, one after the other, until the connection holds again."""

    def __init__(self, target: str, patience: float | None, tell: Callable[[str], None]) -> None:
        self._target = target
        self._patience = patience
        self.tell = tell
        self._count = 0
        self._since = 0.0

    def over(self) -> None:
        if self._count:
            self.tell("connected again")
        self._count = 0

    def wait(self, error: grpc.aio.AioRpcError | TimeoutError, position: str) -> float:
        """Seconds to wait before the next try. Raises CallRefused or Unreachable if there should be none."""
        # Only a status without the daemon's own reasons may be the connection's; a defect is not waited for.
        if (
            isinstance(error, grpc.aio.AioRpcError)
            and error.code() not in LOST
            and (error.code() not in LOST_STREAM or said_why(error))
        ):
            raise refusal(error) from error
        now = asyncio.get_running_loop().time()
        self._since = self._since if self._count else now
        self._count += 1
        if self._patience is not None and now - self._since > self._patience:
            raise _final(self._target, error) from error
        self.tell(f"connection lost ({why_lost(error)}); resuming after {position}")
        return min(LONGEST_WAIT, FIRST_WAIT * 2.0 ** min(self._count, 10))


def _is_lost(error: BaseException) -> bool:
    return isinstance(error, grpc.aio.AioRpcError) and error.code() in LOST


def _final(target: str, error: grpc.aio.AioRpcError | TimeoutError) -> CallRefused | Unreachable:
    """What a loss is once patience has ended: a daemon that gave its reasons was there, and said no."""
    if isinstance(error, grpc.aio.AioRpcError) and said_why(error):
        return refusal(error)
    return Unreachable(target, why_lost(error))
