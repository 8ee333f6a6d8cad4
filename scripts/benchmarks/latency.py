"""P4: one job on an idle daemon, from the submission to the terminal event at a watcher."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Final

import anyio
import grpc.aio
import msgspec
from altrunner.v1 import job_service_pb2 as messages
from altrunner.v1 import job_service_pb2_grpc as services

from scripts.benchmarks import bare, processes, workload
from scripts.benchmarks.report import Judged, Row, Side, Target, Unit
from scripts.benchmarks.settings import Bench

#: Seconds between two jobs: the daemon is idle again, its record delivered.
_REST: Final = 0.02


class Spread(msgspec.Struct, frozen=True):
    """Latencies of one run, milliseconds."""

    p50: float
    p99: float


async def measure(bench: Bench) -> list[Row]:
    """Rows P4."""
    jobs = bench.sized(400, 100)
    async with AsyncExitStack() as stack:
        bare_target = await stack.enter_async_context(processes.bare(bench.directory / "latency-bare"))
        daemon = await stack.enter_async_context(processes.daemon(bench.directory / "latency"))
        bare_channel = await stack.enter_async_context(grpc.aio.insecure_channel(bare_target))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(daemon.target))
        stub = services.JobServiceStub(channel)
        commit: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = bare_channel.unary_unary(bare.COMMIT)
        one: grpc.aio.UnaryStreamMultiCallable[bytes, bytes] = bare_channel.unary_stream(bare.ONE)

        async def ours() -> None:
            await follow_job(stub, workload.submission(1))

        async def other() -> None:
            await commit(b"")
            async for _ in one(b""):
                pass

        for each in (ours, other):
            await _latencies(each, 20)
        runs = [(await _latencies(other, jobs), await _latencies(ours, jobs)) for _ in range(bench.runs)]
    return _rows(runs)


async def follow_job(stub: services.JobServiceAsyncStub, request: messages.SubmitJobRequest) -> None:
    """Submit a job and read its events to the last one, as a service would. The job must succeed."""
    accepted = await stub.SubmitJob(request)
    last = None
    async for response in stub.WatchJob(messages.WatchJobRequest(job_id=accepted.job.job_id)):
        if response.events:
            last = response.events[-1]
    assert last is not None
    assert last.WhichOneof("event") == "job_succeeded", last


async def _latencies(once: Callable[[], Awaitable[None]], count: int) -> Spread:
    took = []
    for _ in range(count):
        began = time.perf_counter()
        await once()
        took.append((time.perf_counter() - began) * 1000)
        await anyio.sleep(_REST)
    percentiles = statistics.quantiles(took, n=100, method="inclusive")
    return Spread(percentiles[49], percentiles[98])


def _rows(runs: list[tuple[Spread, Spread]]) -> list[Row]:
    name = "a call with one commit, a stream of one"
    return [
        Row(
            number="P4",
            what="one idle job, submit to terminal event, p50",
            ours=Side("job", Unit.MILLISECONDS, tuple(ours.p50 for _, ours in runs)),
            other=Side(name, Unit.MILLISECONDS, tuple(other.p50 for other, _ in runs)),
            target=Target(Judged.OURS, 5, least=False),
        ),
        Row(
            number="P4",
            what="the same, p99",
            ours=Side("job", Unit.MILLISECONDS, tuple(ours.p99 for _, ours in runs)),
            other=Side(name, Unit.MILLISECONDS, tuple(other.p99 for other, _ in runs)),
            target=Target(Judged.OURS, 15, least=False),
        ),
    ]
