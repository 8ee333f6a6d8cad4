"""One connection to a daemon."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import datetime
from typing import Final

import grpc.aio
from altrunner.v1 import event_pb2, job_pb2, job_service_pb2
from google.protobuf.timestamp_pb2 import Timestamp

from runner.client.admin import AdminCalls
from runner.client.connection import Losses
from runner.client.errors import StreamBroken

TERMINAL_EVENTS: Final = frozenset({"job_succeeded", "job_partially_succeeded", "job_failed", "job_cancelled"})


class Client(AdminCalls):
    """Calls a daemon, and keeps at it while the daemon is away: for `patience` seconds, or for ever if None.

    Repeating is harmless: a submission without a request id gets one here, and a watch resumes after the last event
    it has seen. Every method raises Unreachable if no daemon answers in time, and CallRefused if it answers no.
    """

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
        token_budget: int = 0,
        validate_only: bool = False,
    ) -> job_service_pb2.SubmitJobResponse:
        """Submit a descriptor. When this returns, the job is on the daemon's disk.

        `token_budget` bounds the tokens of all its AI calls; 0 for what the descriptor says, or the daemon's settings.

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
            token_budget=token_budget,
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
        losses = Losses(self.target, self.patience, on_notice or (lambda _: None))
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
                told = f"the watch of job `{job_id}` ended after event {position} without a terminal event"
                raise StreamBroken(f"{told}; the events after it may be damaged, which the job's `error` would say")

    async def _frames(self, job_id: str, position: int) -> AsyncIterator[job_service_pb2.WatchJobResponse]:
        request = job_service_pb2.WatchJobRequest(job_id=job_id, after_sequence=position)
        async for response in self._read(self._stub.WatchJob(request), job_service_pb2.WatchJobResponse):
            yield response

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
        losses = Losses(self.target, self.patience, on_notice or (lambda _: None))
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
