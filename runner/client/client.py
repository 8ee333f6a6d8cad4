"""One connection to a daemon."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Final, Self, TypeVar

import grpc
import grpc.aio
from altrunner.v1 import event_pb2, job_pb2, job_service_pb2, job_service_pb2_grpc
from google.protobuf.timestamp_pb2 import Timestamp
from tenacity import AsyncRetrying, retry_if_exception, stop_after_delay, wait_random_exponential

from runner.client.errors import CallRefused, ClientError, StreamBroken, Unreachable, refusal, said_why, why_lost

Request = TypeVar("Request")
Response = TypeVar("Response")

#: Statuses after which the same call may be made again: the daemon was not there, or the connection broke.
LOST: Final = frozenset({grpc.StatusCode.UNAVAILABLE})
#: On a stream, more than that: a proxy or a dying process resets it in many ways.
LOST_STREAM: Final = LOST | {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.CANCELLED}
TERMINAL_EVENTS: Final = frozenset({"job_succeeded", "job_partially_succeeded", "job_failed", "job_cancelled"})
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


class Client:
    """Calls a daemon, and keeps at it while the daemon is away: for `patience` seconds, or for ever if None.

    Repeating is harmless: a submission without a request id gets one here, and a watch resumes after the last event
    it has seen. Every method raises Unreachable if no daemon answers in time, and CallRefused if it answers no.
    """

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
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    # ------------------------------------------------------------------------------------------------- submit

    async def submit(
        self,
        descriptor: bytes,
        *,
        content_type: str = "",
        request_id: str = "",
        priority: job_pb2.Priority.ValueType = job_pb2.PRIORITY_UNSPECIFIED,
        queue: str = "",
        labels: Mapping[str, str] | None = None,
        not_before: datetime | None = None,
        deadline: datetime | None = None,
        inputs_json: bytes = b"",
        fail_fast: bool | None = None,
        validate_only: bool = False,
    ) -> job_service_pb2.SubmitJobResponse:
        """Submit a descriptor. When this returns, the job is on the daemon's disk.

        Raises CallRefused: with `findings` if the descriptor is wrong; see the daemon's documentation of errors.
        """
        request = job_service_pb2.SubmitJobRequest(
            descriptor=descriptor,
            content_type=content_type,
            request_id=request_id or str(uuid.uuid4()),
            priority=priority,
            queue=queue,
            labels=labels or {},
            not_before=_timestamp(not_before),
            deadline=_timestamp(deadline),
            inputs_json=inputs_json,
            fail_fast=fail_fast,
            validate_only=validate_only,
        )
        return await self._call(lambda: self._stub.SubmitJob(request, timeout=self.timeout))

    async def submit_batch(
        self, requests: Sequence[job_service_pb2.SubmitJobRequest]
    ) -> list[job_service_pb2.BatchSubmitJobsResult]:
        """Submit up to 1,000 jobs in one commit; a result or an error for each, in order.

        Give each a request id of its own: without one, a batch that is repeated after a lost connection would be
        accepted twice.
        """
        batch = job_service_pb2.BatchSubmitJobsRequest(requests=requests)
        for request in batch.requests:
            request.request_id = request.request_id or str(uuid.uuid4())
        response = await self._call(lambda: self._stub.BatchSubmitJobs(batch, timeout=self.timeout))
        return list(response.results)

    # -------------------------------------------------------------------------------------------------- watch

    async def watch(
        self, job_id: str, *, after: int = 0, on_notice: Callable[[str], None] | None = None
    ) -> AsyncIterator[event_pb2.JobEvent]:
        """Every event after a number, to the terminal one: once each, in order, through any number of reconnects.

        `on_notice` is told in a sentence when the connection is lost, when it is back, when the replay is over, and
        when the daemon no longer has events that were asked for.

        Raises StreamBroken: if the daemon does not keep that promise.
        """
        position = after
        losses = _Losses(self.target, self.patience, on_notice or (lambda _: None))
        while True:
            answered = False
            try:
                async for response in self._frames(job_id, position):
                    answered = True
                    losses.over()
                    _tell_notice(response, losses.tell)
                    position = self._position(response, position)
                    for event in response.events:
                        yield event
                    if response.events and response.events[-1].WhichOneof("event") in TERMINAL_EVENTS:
                        return
            except (grpc.aio.AioRpcError, TimeoutError) as error:
                await asyncio.sleep(losses.wait(error, f"event {position}"))
            else:
                if position == after > 0 and not answered:
                    return  # The daemon ended OK at once: `after` was the terminal event.
                raise StreamBroken(f"the watch of job `{job_id}` ended after event {position} without a terminal event")

    async def _frames(self, job_id: str, position: int) -> AsyncIterator[job_service_pb2.WatchJobResponse]:
        request = job_service_pb2.WatchJobRequest(job_id=job_id, after_sequence=position)
        async for response in self._read(self._stub.WatchJob(request), job_service_pb2.WatchJobResponse):
            yield response

    async def _read(
        self, call: grpc.aio.UnaryStreamCall[Request, Response], kind: type[Response]
    ) -> AsyncIterator[Response]:
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

    @staticmethod
    def _position(response: job_service_pb2.WatchJobResponse, position: int) -> int:
        if response.HasField("gap"):
            return response.gap.oldest_available - 1
        for event in response.events:
            if event.sequence != position + 1:
                raise StreamBroken(f"event {event.sequence} came after event {position}")
            position = event.sequence
        return position

    async def watch_jobs(
        self,
        *,
        where: str = "",
        after_cursor: str = "",
        from_start: bool = False,
        on_notice: Callable[[str], None] | None = None,
    ) -> AsyncIterator[job_service_pb2.WatchJobsResponse]:
        """State changes of all jobs that match: once each, in order, through any number of reconnects.

        Goes on for ever, and ends with Unreachable or CallRefused. `on_notice` is told in a sentence when the
        connection is lost and when it is back.

        Raises StreamBroken: if the daemon ends the stream without an error.
        """
        cursor = after_cursor
        losses = _Losses(self.target, self.patience, on_notice or (lambda _: None))
        while True:
            request = job_service_pb2.WatchJobsRequest(
                filter=where, after_cursor=cursor, from_start=from_start and not cursor
            )
            try:
                async for response in self._read(self._stub.WatchJobs(request), job_service_pb2.WatchJobsResponse):
                    losses.over()
                    cursor = response.cursor or cursor
                    yield response
            except (grpc.aio.AioRpcError, TimeoutError) as error:
                await asyncio.sleep(losses.wait(error, "the last change"))
            else:
                raise StreamBroken("the watch of all jobs ended, which it never does without an error")

    # ------------------------------------------------------------------------------------------- read and steer

    async def get(self, job_id: str, *, full: bool = False) -> job_pb2.Job:
        """One job; with every task if `full`."""
        view = job_service_pb2.JOB_VIEW_FULL if full else job_service_pb2.JOB_VIEW_BASIC
        request = job_service_pb2.GetJobRequest(job_id=job_id, view=view)
        return (await self._call(lambda: self._stub.GetJob(request, timeout=self.timeout))).job

    async def list(
        self,
        *,
        where: str = "",
        order_by: str = "",
        page_size: int = 0,
        page_token: str = "",
    ) -> job_service_pb2.ListJobsResponse:
        """A page of jobs."""
        request = job_service_pb2.ListJobsRequest(
            filter=where, order_by=order_by, page_size=page_size, page_token=page_token
        )
        return await self._call(lambda: self._stub.ListJobs(request, timeout=self.timeout))

    async def cancel(self, job_id: str, *, reason: str = "") -> job_pb2.Job:
        """Ask for a cancellation; harmless to repeat."""
        request = job_service_pb2.CancelJobRequest(job_id=job_id, reason=reason)
        return (await self._call(lambda: self._stub.CancelJob(request, timeout=self.timeout))).job

    async def pause(self, job_id: str) -> job_pb2.Job:
        """Let nothing new of a job start; what runs may finish. Harmless to repeat."""
        request = job_service_pb2.PauseJobRequest(job_id=job_id)
        return (await self._call(lambda: self._stub.PauseJob(request, timeout=self.timeout))).job

    async def resume(self, job_id: str) -> job_pb2.Job:
        """Let a paused job go on. Harmless to repeat."""
        request = job_service_pb2.ResumeJobRequest(job_id=job_id)
        return (await self._call(lambda: self._stub.ResumeJob(request, timeout=self.timeout))).job

    async def signal(
        self,
        job_id: str,
        task_id: str,
        *,
        approved: bool,
        comment: str = "",
        sender: str = "",
        data_json: bytes = b"",
    ) -> job_pb2.Job:
        """Approve or reject what a task asks for. The first answer counts."""
        request = job_service_pb2.SignalJobRequest(
            job_id=job_id, task_id=task_id, approved=approved, comment=comment, sender=sender, data_json=data_json
        )
        return (await self._call(lambda: self._stub.SignalJob(request, timeout=self.timeout))).job

    async def retry(
        self, job_id: str, *, whole: bool = False, request_id: str = ""
    ) -> job_service_pb2.RetryJobResponse:
        """Run a job that has ended once more, as a new job: what did not succeed, or the whole.

        Without a request id one is made up, so that the call can be made again when the connection breaks.
        """
        request = job_service_pb2.RetryJobRequest(
            job_id=job_id, whole=whole, request_id=request_id or str(uuid.uuid4())
        )
        return await self._call(lambda: self._stub.RetryJob(request, timeout=self.timeout))

    async def record(self, job_id: str) -> bytes:
        """The `.last` of a job that has ended, as JSON."""
        request = job_service_pb2.GetLastRecordRequest(job_id=job_id)

        async def read() -> bytes:
            pieces = self._stub.GetLastRecord(request, timeout=self.timeout)
            return b"".join([piece.record_json async for piece in pieces])

        return await self._call(read)

    async def result(self, job_id: str) -> bytes:
        """Wait until the job has ended, then its `.last`."""
        async for _ in self.watch(job_id):
            pass
        return await self.record(job_id)

    async def artifact(self, job_id: str, artifact_id: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        """The bytes of an artifact, in chunks."""
        request = job_service_pb2.ReadArtifactRequest(job_id=job_id, artifact_id=artifact_id, offset=offset)
        try:
            async for response in self._stub.ReadArtifact(request):
                yield response.chunk
        except grpc.aio.AioRpcError as error:
            raise self._translated(error) from error

    # --------------------------------------------------------------------------------------------------- calls

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
        except grpc.aio.AioRpcError as error:
            raise self._translated(error) from error
        raise AssertionError  # tenacity returns or raises

    def _translated(self, error: grpc.aio.AioRpcError) -> ClientError:
        return _final(self.target, error) if _is_lost(error) else refusal(error)


class _Losses:
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


def _tell_notice(response: job_service_pb2.WatchJobResponse, tell: Callable[[str], None]) -> None:
    if response.HasField("caught_up"):
        tell("caught up")
    if response.HasField("gap"):
        tell(f"events before number {response.gap.oldest_available} are no longer kept")


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
