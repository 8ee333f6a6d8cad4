"""P1 and P2: how fast jobs are accepted, durably, beside calls that do nothing.

The jobs are held back by a `not_before` far in the future. So submissions pay all that they pay in an idle daemon, the
look for work after each commit too, and no execution competes with them for the processor.

All calls send the same descriptor, which a daemon remembers decoded. One beside it is told to remember none: there each
call costs what a descriptor does that was never seen before.
"""

from __future__ import annotations

import sys
from contextlib import AsyncExitStack
from typing import Final

import grpc.aio
import msgspec
from altrunner.v1 import job_service_pb2 as messages
from altrunner.v1 import job_service_pb2_grpc as services

from scripts.benchmarks import bare, processes, workload
from scripts.benchmarks.load import Burst, Call
from scripts.benchmarks.report import Judged, Row, Side, Target, Unit
from scripts.benchmarks.settings import Bench

#: Tasks of one job: a descriptor of about 1 kB.
TASKS: Final = 10
IN_FLIGHT: Final = 128
#: Batches on their way: one is decoded while the other is committed.
BATCHES_IN_FLIGHT: Final = 2
#: Short rounds for each run that is asked for, every second one backwards: a shared machine changes its speed within
#: seconds, and which side it favours must not depend on who comes first.
_ROUNDS: Final = 4


class Calls(msgspec.Struct, frozen=True):
    """The calls of one run."""

    empty: Call
    submit: Call
    #: To the daemon that remembers none.
    unseen: Call
    batch: Call


class Run(msgspec.Struct, frozen=True):
    """One run of everything."""

    empty: Burst
    submit: Burst
    unseen: Burst
    batch: Burst
    empty_alone: Burst
    submit_alone: Burst


async def measure(bench: Bench) -> list[Row]:
    """Rows P1 and P2."""
    async with AsyncExitStack() as stack:
        bare_target = await stack.enter_async_context(processes.bare(bench.directory / "submission-bare"))
        daemon = await stack.enter_async_context(processes.daemon(bench.directory / "submission"))
        forgetful = await stack.enter_async_context(
            processes.daemon(bench.directory / "forgetful", {"engine.remembered_descriptor_bytes": 0})
        )
        calls = Calls(
            Call(bare_target, bare.EMPTY),
            Call(daemon.target, workload.SUBMIT, workload.held(TASKS).SerializeToString()),
            Call(forgetful.target, workload.SUBMIT, workload.held(TASKS).SerializeToString()),
            Call(daemon.target, workload.BATCH, workload.batch(TASKS).SerializeToString()),
        )
        await _warm_up(bench, daemon, calls)
        runs = [
            await _run(bench, daemon, forgetful, calls, backwards=number % 2 == 1)
            for number in range(_ROUNDS * bench.runs)
        ]
    return _rows(runs)


async def _warm_up(bench: Bench, daemon: processes.Daemon, calls: Calls) -> None:
    """A few of each; and a real client sees that the bytes are accepted, which h2load cannot tell."""
    async with grpc.aio.insecure_channel(daemon.target) as channel:
        stub = services.JobServiceStub(channel)
        single = await stub.SubmitJob(messages.SubmitJobRequest.FromString(calls.submit.body))
        assert single.job.job_id
        many = await stub.BatchSubmitJobs(messages.BatchSubmitJobsRequest.FromString(calls.batch.body))
        assert [result.WhichOneof("result") for result in many.results] == ["accepted"] * workload.BATCH_SIZE
    for call in (calls.empty, calls.submit, calls.unseen):
        await bench.load.run(bench, call, count=4 * IN_FLIGHT, in_flight=IN_FLIGHT)


async def _run(
    bench: Bench, daemon: processes.Daemon, forgetful: processes.Daemon, calls: Calls, *, backwards: bool
) -> Run:
    before, before_forgetful = daemon.jobs(), forgetful.jobs()
    many, alone, batches = bench.sized(24, 12) * IN_FLIGHT, bench.sized(400, 200), bench.sized(8, 6)
    orders = {
        "empty": (calls.empty, many, IN_FLIGHT),
        "submit": (calls.submit, many, IN_FLIGHT),
        "unseen": (calls.unseen, many, IN_FLIGHT),
        "batch": (calls.batch, batches, BATCHES_IN_FLIGHT),
        "empty_alone": (calls.empty, alone, 1),
        "submit_alone": (calls.submit, alone, 1),
    }
    bursts = {}
    for name in reversed(orders) if backwards else orders:
        call, count, in_flight = orders[name]
        bursts[name] = await bench.load.run(bench, call, count=count, in_flight=in_flight)
    _expect(many + alone + batches * workload.BATCH_SIZE, daemon.jobs() - before)
    _expect(many, forgetful.jobs() - before_forgetful)
    return Run(**bursts)


def _expect(submitted: int, found: int) -> None:
    if found != submitted:
        sys.exit(f"{submitted} jobs were submitted and {found} are in the ledger: the figures would mean nothing")


def _rows(runs: list[Run]) -> list[Row]:
    submit = tuple(run.submit.rate for run in runs)
    unseen = tuple(run.unseen.rate for run in runs)
    empty = tuple(run.empty.rate for run in runs)
    return [
        Row(
            number="P1",
            what=f"SubmitJob, {IN_FLIGHT} in flight",
            ours=Side("SubmitJob", Unit.CALLS, submit),
            other=Side("empty call", Unit.CALLS, empty),
            target=Target(Judged.RATIO, 0.8, least=True),
        ),
        Row(
            number="P1",
            what="the same, each descriptor never seen before",
            ours=Side("SubmitJob", Unit.CALLS, unseen),
            other=Side("empty call", Unit.CALLS, empty),
            target=Target(Judged.RATIO, 0.8, least=True),
        ),
        Row(
            number="P1",
            what="SubmitJob, one in flight, p50",
            ours=Side("SubmitJob", Unit.MILLISECONDS, tuple(run.submit_alone.p50_ms for run in runs)),
            other=Side("empty call", Unit.MILLISECONDS, tuple(run.empty_alone.p50_ms for run in runs)),
            target=Target(Judged.ADDED, 2, least=False),
        ),
        Row(
            number="P2",
            what=f"BatchSubmitJobs by {workload.BATCH_SIZE}",
            ours=Side("BatchSubmitJobs", Unit.JOBS, tuple(run.batch.rate * workload.BATCH_SIZE for run in runs)),
            other=Side("SubmitJob (P1)", Unit.JOBS, submit),
            target=Target(Judged.RATIO, 8, least=True),
        ),
    ]
