"""P7: what a large plan costs a task, from the submission to the terminal event at a watcher who reads every event."""

from __future__ import annotations

import statistics
import time
from contextlib import AsyncExitStack
from typing import Final

import grpc.aio
import msgspec
from altrunner.v1 import job_service_pb2_grpc as services

from scripts.benchmarks import bare, processes, workload
from scripts.benchmarks.latency import follow_job
from scripts.benchmarks.load import Call
from scripts.benchmarks.report import Judged, Row, Side, Target, Unit
from scripts.benchmarks.settings import Bench

LARGE: Final = 10_000
SMALL: Final = 1_000
#: A small plan is over soon: the median of so many counts.
_SMALL_PLANS: Final = 3


class Run(msgspec.Struct, frozen=True):
    """One run of everything."""

    #: Seconds.
    small: float
    large: float
    #: Empty calls a second.
    empty: float


async def measure(bench: Bench) -> list[Row]:
    """Rows P7."""
    async with AsyncExitStack() as stack:
        bare_target = await stack.enter_async_context(processes.bare(bench.directory / "plans-bare"))
        daemon = await stack.enter_async_context(processes.daemon(bench.directory / "plans"))
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(daemon.target))
        stub = services.JobServiceStub(channel)
        await _seconds(stub, 100)
        runs = []
        for _ in range(bench.runs):
            small = statistics.median([await _seconds(stub, SMALL) for _ in range(_SMALL_PLANS)])
            large = await _seconds(stub, LARGE)
            empty = await bench.load.run(
                bench, Call(bare_target, bare.EMPTY), count=bench.sized(24, 8) * 128, in_flight=128
            )
            runs.append(Run(small, large, empty.rate))
    return _rows(runs)


async def _seconds(stub: services.JobServiceAsyncStub, tasks: int) -> float:
    request = workload.submission(tasks)
    began = time.perf_counter()
    await follow_job(stub, request)
    return time.perf_counter() - began


def _rows(runs: list[Run]) -> list[Row]:
    large = tuple(run.large for run in runs)
    return [
        Row(
            number="P7",
            what=f"a plan of {LARGE:,} no-op tasks",
            ours=Side(f"{LARGE:,} tasks", Unit.SECONDS, large),
            other=Side(f"{SMALL:,} tasks", Unit.SECONDS, tuple(run.small for run in runs)),
            target=Target(Judged.RATIO, 11, least=False),
        ),
        Row(
            number="P7",
            what="the same, tasks a second",
            ours=Side("tasks", Unit.TASKS, tuple(LARGE / seconds for seconds in large)),
            other=Side("empty call", Unit.CALLS, tuple(run.empty for run in runs)),
            target=Target(Judged.OURS, 2000, least=True),
        ),
    ]
