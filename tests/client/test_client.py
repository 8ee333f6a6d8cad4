"""The client against a real gRPC server that does as each test scripts it: calm when the connection is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Final

import anyio
import grpc
import grpc.aio
import pytest
from altrunner.v1 import event_pb2, job_service_pb2, job_service_pb2_grpc
from google.protobuf import any_pb2
from google.protobuf.duration_pb2 import Duration
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from runner.client import CallRefused, Client, StreamBroken, Unreachable
from runner.core.findings import Finding

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(30)]

Watched = job_service_pb2.WatchJobResponse
Changed = job_service_pb2.WatchJobsResponse
#: One connection's script: responses, then a status to break it with; None is an end that is OK.
Script = tuple[Sequence[Any], grpc.StatusCode | grpc.Status | None]
LAST: Final = 6
LOST: Final = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN)


class HangUp:
    """In a script: say nothing more, and do not end."""


class Daemon(job_service_pb2_grpc.JobServiceServicer):
    """Plays its scripts, one for each connection, and remembers the requests."""

    def __init__(self) -> None:
        self.scripts: list[Script] = []
        self.requests: list[Any] = []
        self.record = b"{}"

    async def _play(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.requests.append(request)
        responses, end = self.scripts.pop(0)
        for response in responses:
            if isinstance(response, HangUp):
                await asyncio.Event().wait()
            yield response
        if isinstance(end, grpc.StatusCode):
            await context.abort(end, "Connection reset by peer")
        elif end is not None:
            await context.abort_with_status(end)

    async def _submit(self, request: Any, context: Any) -> Any:
        return await anext(self._play(request, context))

    async def _last(self, request: Any, context: Any) -> AsyncIterator[Any]:
        self.requests.append(request)
        yield job_service_pb2.GetLastRecordResponse(record_json=self.record)

    WatchJob = _play
    WatchJobs = _play
    SubmitJob = _submit
    GetLastRecord = _last


@asynccontextmanager
async def connected(*scripts: Script, patience: float | None = 10.0) -> AsyncIterator[tuple[Daemon, Client]]:
    daemon, server = Daemon(), grpc.aio.server()  # type: ignore[abstract]  # other calls are refused
    daemon.scripts = list(scripts)
    job_service_pb2_grpc.add_JobServiceServicer_to_server(daemon, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with Client(f"127.0.0.1:{port}", patience=patience) as client:
            yield daemon, client
    finally:
        await server.stop(None)


def event(number: int) -> event_pb2.JobEvent:
    made = event_pb2.JobEvent(sequence=number)
    (made.job_succeeded if number == LAST else made.job_started).SetInParent()
    return made


def told(*numbers: int) -> Watched:
    return Watched(events=map(event, numbers))


def caught_up(number: int) -> Watched:
    return Watched(caught_up=job_service_pb2.CaughtUp(last_sequence=number))


async def seen(client: Client, *, after: int = 0, on_notice: Callable[[str], None] | None = None) -> list[int]:
    return [each.sequence async for each in client.watch("j", after=after, on_notice=on_notice)]


def status(code: grpc.StatusCode, sentence: str, *details: Any) -> grpc.Status:
    packed = []
    for detail in details:
        packed.append(any_pb2.Any())
        packed[-1].Pack(detail)
    return rpc_status.to_status(
        status_pb2.Status(code=code_pb2.Code.Value(code.name), message=sentence, details=packed)
    )


def reason(name: str) -> error_details_pb2.ErrorInfo:
    return error_details_pb2.ErrorInfo(reason=name, domain="alt-runner")


@pytest.mark.parametrize("at", range(LAST))
@pytest.mark.parametrize("code", LOST, ids=str)
async def test_a_watch_that_breaks_anywhere_goes_on_where_it_was(at: int, code: grpc.StatusCode) -> None:
    before = [told(number) for number in range(1, at + 1)]
    async with connected((before, code), ([told(*range(at + 1, LAST + 1))], None)) as (daemon, client):
        assert await seen(client) == list(range(1, LAST + 1))
    assert [request.after_sequence for request in daemon.requests] == [0, at]


async def test_a_watch_tells_what_happens_to_it() -> None:
    notices: list[str] = []
    scripts: list[Script] = [
        ([told(1, 2), caught_up(2)], grpc.StatusCode.UNAVAILABLE),
        ([told(*range(3, LAST + 1))], None),
    ]
    async with connected(*scripts) as (_, client):
        await seen(client, on_notice=notices.append)
    assert notices == [
        "caught up",
        "connection lost (the connection broke); resuming after event 2",
        "connected again",
    ]


@pytest.mark.parametrize("responses", [[told(1), told(3)], [told(1, 3)], [told(1), told(1)]], ids=str)
async def test_a_number_skipped_or_doubled_is_a_broken_stream(responses: list[Watched]) -> None:
    async with connected((responses, None)) as (_, client):
        with pytest.raises(StreamBroken, match="came after event 1"):
            await seen(client)


@pytest.mark.parametrize(("responses", "after"), [([], 0), ([told(1)], 0), ([caught_up(2)], 2)], ids=str)
async def test_an_end_without_the_terminal_event_is_a_broken_stream(responses: list[Watched], after: int) -> None:
    async with connected((responses, None)) as (_, client):
        with pytest.raises(StreamBroken, match="without a terminal event"):
            await seen(client, after=after)


async def test_a_watch_after_the_terminal_event_is_over_at_once() -> None:
    async with connected(([], None)) as (_, client):
        assert await seen(client, after=LAST) == []


async def test_events_that_are_no_longer_kept_are_told_and_passed_over() -> None:
    notices: list[str] = []
    gap = Watched(gap=job_service_pb2.Gap(oldest_available=4))
    async with connected(([gap, told(4, 5, LAST)], None)) as (_, client):
        assert await seen(client, on_notice=notices.append) == [4, 5, LAST]
    assert notices == ["events before number 4 are no longer kept"]


async def test_silence_is_a_lost_connection() -> None:
    notices: list[str] = []
    async with connected(([told(1), HangUp()], None), ([told(*range(2, LAST + 1))], None)) as (_, client):
        client.silence = 0.2
        assert await seen(client, on_notice=notices.append) == list(range(1, LAST + 1))
    assert notices[0] == "connection lost (it fell silent); resuming after event 1"


async def test_a_daemon_that_stays_away_is_unreachable_and_a_sentence_says_so() -> None:
    async with connected() as (_, client):
        target = client.target
    async with Client(target, patience=0.3) as client:
        sentence = f"no daemon answers at {target}: nothing listens there; start one with `alt-runner serve`"
        with pytest.raises(Unreachable) as watching:
            await seen(client)
        with pytest.raises(Unreachable) as calling:
            await client.get("j")
    assert (str(watching.value), str(calling.value)) == (sentence, sentence)


async def test_a_defect_of_the_daemon_is_not_taken_for_a_lost_connection() -> None:
    defect = status(grpc.StatusCode.INTERNAL, "an internal error", reason("INTERNAL"))
    async with connected(([told(1)], defect)) as (_, client):
        with pytest.raises(CallRefused, match="an internal error"):
            await seen(client)


async def test_a_submission_is_repeated_under_one_request_id() -> None:
    accepted = job_service_pb2.SubmitJobResponse(replayed=True)
    lost: Script = ([], grpc.StatusCode.UNAVAILABLE)
    async with connected(lost, lost, ([accepted], None)) as (daemon, client):
        assert await client.submit(b"{}") == accepted
    (request_id,) = {request.request_id for request in daemon.requests}
    assert len(daemon.requests) == 3
    assert request_id


async def test_a_call_is_cut_off_by_the_time_out_of_whoever_makes_it_and_by_nothing_else() -> None:
    """By a scope of anyio, too, which does not take any CancelledError for its own: it would end the whole task."""
    hangs: Script = ((HangUp(),), None)
    async with connected(*[hangs] * 6) as (daemon, client):
        for _ in range(2):  # the second on a connection that is there
            with anyio.move_on_after(0.1) as scope:
                await client.submit(b"")
            assert scope.cancelled_caught
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.submit(b""), 0.1)
            with anyio.move_on_after(0.1) as scope:
                async for _ in client.watch("j"):
                    pass
            assert scope.cancelled_caught
        assert len(daemon.requests) == 6


async def test_a_refusal_carries_all_that_the_daemon_said() -> None:
    violation = error_details_pb2.BadRequest.FieldViolation
    bad = error_details_pb2.BadRequest(
        field_violations=[
            violation(field="mode", reason="BAD", description="1:9: `nomal` is no mode. Did you mean `normal`?"),
            violation(field="queue", reason="BAD", description="at 1:9 is nothing"),
        ]
    )
    refused = status(grpc.StatusCode.INVALID_ARGUMENT, "no", reason("INVALID_DESCRIPTOR"), bad)
    full = status(
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "full",
        reason("QUEUE_FULL"),
        error_details_pb2.RetryInfo(retry_delay=Duration(seconds=2, nanos=500_000_000)),
    )
    async with connected(([], refused), ([], full)) as (_, client):
        with pytest.raises(CallRefused, match="no") as caught:
            await client.submit(b"{}")
        assert (caught.value.code, caught.value.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_DESCRIPTOR")
        assert caught.value.findings == (
            Finding("BAD", "mode", "`nomal` is no mode.", "normal", 1, 9),
            Finding("BAD", "queue", "at 1:9 is nothing"),
        )
        with pytest.raises(CallRefused, match="full") as caught:
            await client.submit(b"{}")
        assert (caught.value.reason, caught.value.retry_after) == ("QUEUE_FULL", 2.5)


async def test_a_result_is_read_after_the_terminal_event() -> None:
    async with connected(([told(1, 2)], grpc.StatusCode.UNAVAILABLE), ([told(3, 4, 5, LAST)], None)) as (
        daemon,
        client,
    ):
        daemon.record = b'{"id": "x"}'
        assert await client.result("j") == daemon.record
    assert [type(request).__name__ for request in daemon.requests] == [
        "WatchJobRequest",
        "WatchJobRequest",
        "GetLastRecordRequest",
    ]


async def test_a_watch_of_all_jobs_resumes_from_its_cursor() -> None:
    notices: list[str] = []
    lost = grpc.StatusCode.UNAVAILABLE
    cursors: list[str] = []
    refused = status(grpc.StatusCode.INVALID_ARGUMENT, "enough", reason("INVALID_REQUEST"))
    scripts: list[Script] = [
        ([], lost),
        ([Changed(cursor="a"), Changed(cursor="b")], lost),
        ([Changed(cursor="c"), HangUp()], None),
        ([], refused),
    ]
    async with connected(*scripts) as (daemon, client):
        client.silence = 0.2

        async def watch() -> None:
            changes = client.watch_jobs(where="x", from_start=True, on_notice=notices.append)
            async for response in changes:
                cursors.append(response.cursor)  # noqa: PERF401  it ends by an error, and what came before counts

        with pytest.raises(CallRefused, match="enough"):
            await watch()
    assert cursors == ["a", "b", "c"]
    asked = [(request.filter, request.after_cursor, request.from_start) for request in daemon.requests]
    assert asked == [("x", "", True), ("x", "", True), ("x", "b", False), ("x", "c", False)]
    assert notices.count("connected again") == 2


async def test_a_watch_of_all_jobs_that_just_ends_is_broken() -> None:
    async with connected(([Changed(cursor="a")], None)) as (_, client):
        changes = client.watch_jobs()
        assert (await anext(changes)).cursor == "a"
        with pytest.raises(StreamBroken, match="never"):
            await anext(changes)
