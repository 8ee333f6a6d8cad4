"""The JobService: each method decodes, calls the Runner, encodes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any, Final

from altrunner.v1 import job_service_pb2 as messages

from runner import frames
from runner.core.errors import InvalidRequest
from runner.core.filters import JobQuery, page_token, parse_filter, parse_order, parse_page_token
from runner.core.findings import Finding
from runner.core.job import Frame, Signal
from runner.engine.again import Retry
from runner.engine.broadcast import CaughtUp
from runner.engine.runner import Runner
from runner.ports import Clock
from runner.rpc import wire
from runner.rpc.calls import Context

DEFAULT_PAGE: Final = 50
MAX_PAGE: Final = 1_000
#: What a ledger can count to.
MAX_SEQUENCE: Final = 2**63 - 1
ARTIFACT_CHUNK: Final = 64 * 1024
RECORD_CHUNK: Final = 256 * 1024


class JobServicer:
    """All of it speaks of the call: a job that failed is data in the job."""

    def __init__(self, runner: Runner, clock: Clock, *, heartbeat: float) -> None:
        self._runner = runner
        self._clock = clock
        #: Seconds.
        self._heartbeat = heartbeat

    async def submit_job(self, request: messages.SubmitJobRequest, context: Context) -> messages.SubmitJobResponse:
        submission = wire.submission(request, traceparent=_traceparent(context))
        if request.validate_only:
            warnings = await self._runner.validate(submission)
            return messages.SubmitJobResponse(warnings=map(frames.finding_message, warnings))
        return wire.accepted(await self._runner.submit(submission))

    async def batch_submit_jobs(
        self, request: messages.BatchSubmitJobsRequest, context: Context
    ) -> messages.BatchSubmitJobsResponse:
        traceparent = _traceparent(context)
        submissions = [wire.submission(entry, traceparent=traceparent, in_batch=True) for entry in request.requests]
        results = await self._runner.submit_batch(submissions)
        return messages.BatchSubmitJobsResponse(results=map(wire.batch_result, results))

    async def watch_job(self, request: messages.WatchJobRequest, context: Context) -> AsyncGenerator[bytes, None]:
        """Frames go out as the bytes they are stored as."""
        if not 0 <= request.after_sequence < MAX_SEQUENCE:
            raise InvalidRequest(Finding("OUT_OF_RANGE", "after_sequence", "no event has such a number"))
        entries = self._runner.watch(request.job_id, after=request.after_sequence, heartbeat=self._heartbeat)
        try:
            async for entry in entries:
                if isinstance(entry, Frame):
                    yield entry.data
                elif isinstance(entry, CaughtUp):
                    notice = messages.CaughtUp(last_sequence=entry.last_sequence)
                    yield messages.WatchJobResponse(caught_up=notice).SerializeToString()
                else:
                    beat = messages.Heartbeat(time=frames.timestamp(self._clock.now()))
                    yield messages.WatchJobResponse(heartbeat=beat).SerializeToString()
        finally:
            await entries.aclose()

    async def watch_jobs(
        self, request: messages.WatchJobsRequest, context: Context
    ) -> AsyncGenerator[messages.WatchJobsResponse, None]:
        pages = self._runner.watch_jobs(parse_filter(request.filter), after=_cursor(request), heartbeat=self._heartbeat)
        try:
            async for page in pages:
                for response in wire.changes(page.changes, page.cursor):
                    yield response
        finally:
            await pages.aclose()

    async def get_job(self, request: messages.GetJobRequest, context: Context) -> messages.GetJobResponse:
        if request.view not in messages.JobView.values():
            raise InvalidRequest(Finding("OUT_OF_RANGE", "view", f"there is no view {request.view}"))
        if request.view == messages.JOB_VIEW_FULL:
            return messages.GetJobResponse(job=wire.full_job(*await self._runner.job_shown(request.job_id)))
        return messages.GetJobResponse(job=wire.job(await self._runner.job(request.job_id)))

    async def list_jobs(self, request: messages.ListJobsRequest, context: Context) -> messages.ListJobsResponse:
        if not 0 <= request.page_size <= MAX_PAGE:
            raise InvalidRequest(Finding("OUT_OF_RANGE", "page_size", f"0 to {MAX_PAGE}"))
        size = request.page_size or DEFAULT_PAGE
        after = parse_page_token(request.page_token, filter_text=request.filter, order_text=request.order_by)
        if after is not None and not -MAX_SEQUENCE < after[0] < MAX_SEQUENCE:
            raise InvalidRequest(Finding("BAD_PAGE_TOKEN", "page_token", "this is no page token of ours"))
        query = JobQuery(
            filter=parse_filter(request.filter),
            ascending=parse_order(request.order_by),
            after=after,
            limit=size + 1,
        )
        found = await self._runner.jobs(query)
        jobs = wire.page(found[:size])
        token = ""
        if len(found) > len(jobs):
            last = found[len(jobs) - 1]
            token = page_token((last.created_at, last.id), filter_text=request.filter, order_text=request.order_by)
        return messages.ListJobsResponse(jobs=jobs, next_page_token=token)

    async def cancel_job(self, request: messages.CancelJobRequest, context: Context) -> messages.CancelJobResponse:
        return messages.CancelJobResponse(job=wire.job(await self._runner.cancel(request.job_id, request.reason)))

    async def pause_job(self, request: messages.PauseJobRequest, context: Context) -> messages.PauseJobResponse:
        return messages.PauseJobResponse(job=wire.job(await self._runner.pause(request.job_id)))

    async def resume_job(self, request: messages.ResumeJobRequest, context: Context) -> messages.ResumeJobResponse:
        return messages.ResumeJobResponse(job=wire.job(await self._runner.resume(request.job_id)))

    async def signal_job(self, request: messages.SignalJobRequest, context: Context) -> messages.SignalJobResponse:
        signal = Signal(request.task_id, request.approved, request.comment, request.sender, request.data_json)
        return messages.SignalJobResponse(job=wire.job(await self._runner.signal(request.job_id, signal)))

    async def retry_job(self, request: messages.RetryJobRequest, context: Context) -> messages.RetryJobResponse:
        retry = Retry(
            job_id=request.job_id,
            whole=request.whole,
            request_id=request.request_id,
            traceparent=_traceparent(context),
        )
        result = await self._runner.retry(retry)
        return messages.RetryJobResponse(job=wire.job(result.job), replayed=result.replayed)

    async def get_last_record(
        self, request: messages.GetLastRecordRequest, context: Context
    ) -> AsyncGenerator[messages.GetLastRecordResponse, None]:
        record = await self._runner.record(request.job_id)
        for start in range(0, len(record), RECORD_CHUNK):
            yield messages.GetLastRecordResponse(record_json=record[start : start + RECORD_CHUNK])

    async def read_artifact(
        self, request: messages.ReadArtifactRequest, context: Context
    ) -> AsyncGenerator[messages.ReadArtifactResponse, None]:
        artifact = await self._runner.artifact(request.job_id, request.artifact_id)
        if not 0 <= request.offset <= artifact.size_bytes:
            raise InvalidRequest(Finding("OUT_OF_RANGE", "offset", f"the artifact has {artifact.size_bytes} bytes"))
        offset = request.offset
        first = messages.ReadArtifactResponse(artifact=frames.artifact_message(artifact))
        while True:
            chunk = await self._runner.artifact_bytes(
                request.job_id, request.artifact_id, offset=offset, size=ARTIFACT_CHUNK
            )
            if not chunk and offset > request.offset:
                return
            first.chunk = chunk
            yield first
            if not chunk:
                return
            offset += len(chunk)
            first = messages.ReadArtifactResponse()


def _cursor(request: messages.WatchJobsRequest) -> int | None:
    if not request.after_cursor:
        return 0 if request.from_start else None
    if not request.after_cursor.isascii() or not request.after_cursor.isdigit() or len(request.after_cursor) > 18:  # noqa: PLR2004  digits that fit 64 bits
        raise InvalidRequest(Finding("BAD_CURSOR", "after_cursor", "pass the cursor of an earlier response"))
    return int(request.after_cursor)


def _traceparent(context: Context) -> str:
    metadata: Any = context.invocation_metadata() or ()
    for key, value in metadata:
        if key == "traceparent":
            return str(value)
    return ""
