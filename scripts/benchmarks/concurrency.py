"""P8: a thousand tasks at a time on an orchestrator that takes 200 ms, as many as it takes."""

from __future__ import annotations

import json
import sys
import time
from contextlib import AsyncExitStack
from typing import Final

import anyio
import msgspec
from altrunner.v1 import job_pb2

from runner.client import Client
from scripts.benchmarks import processes
from scripts.benchmarks.caller import Order
from scripts.benchmarks.report import Judged, Row, Side, Target, Unit
from scripts.benchmarks.settings import Bench

LATENCY_SECONDS: Final = 0.2
CONCURRENT: Final = 1_000
#: Calls at a time that the orchestrator takes where it has a limit of its own.
LIMIT: Final = 100
#: Calls a second that are possible without limit, and within it.
_UNBOUND: Final = CONCURRENT / LATENCY_SECONDS
_LIMITED: Final = LIMIT / LATENCY_SECONDS


class _Run(msgspec.Struct, frozen=True):
    """Rates of one run, tasks or calls a second."""

    bare: float
    ours: float
    bare_limited: float
    ours_limited: float


async def measure(bench: Bench) -> list[Row]:
    """Rows P8."""
    async with AsyncExitStack() as stack:

        async def sides(name: str, limit: int) -> tuple[str, Client]:
            behaviour = {"latency_ms": LATENCY_SECONDS * 1000, "max_concurrent_calls": limit}
            url = await stack.enter_async_context(processes.simulator(bench.directory / f"{name}-simulator", behaviour))
            settings = {
                "engine.max_concurrent_tasks": CONCURRENT,
                "orchestrator.endpoints": [{"url": url, "max_connections": limit or CONCURRENT}],
            }
            daemon = await stack.enter_async_context(processes.daemon(bench.directory / name, settings))
            return url, await stack.enter_async_context(Client(daemon.target))

        url, client = await sides("concurrency", 0)
        limited_url, limited = await sides("concurrency-limited", LIMIT)
        # Connections, and everything that is imported or compiled with the first call.
        await _tasks_a_second(client, CONCURRENT)
        await _tasks_a_second(limited, LIMIT)
        calls, limited_calls = bench.sized(8, 3) * CONCURRENT, bench.sized(20, 5) * LIMIT
        runs = [
            _Run(
                bare=await _bare(url, calls, CONCURRENT),
                ours=await _tasks_a_second(client, calls),
                bare_limited=await _bare(limited_url, limited_calls, LIMIT),
                ours_limited=await _tasks_a_second(limited, limited_calls),
            )
            for _ in range(bench.runs)
        ]
    return _rows(runs)


async def _bare(url: str, count: int, in_flight: int) -> float:
    order = msgspec.json.encode(Order(url, count, in_flight)).decode()
    done = await anyio.run_process([sys.executable, "-m", "scripts.benchmarks.caller", order], stderr=None)
    return float(json.loads(done.stdout))


async def _tasks_a_second(client: Client, count: int) -> float:
    """A job of so many calls, from its submission to its end."""
    tasks = [{"id": f"t{n}", "description": "ask", "parameters": {"prompt": "How are you?"}} for n in range(count)]
    content = {"id": "calls", "version": "1.0", "created_at": "2025-04-26T19:32:00Z", "title": "calls", "tasks": tasks}
    descriptor = msgspec.json.encode(content)
    began = time.perf_counter()
    accepted = await client.submit(descriptor)
    async for response in client.watch_jobs(from_start=True):
        for change in response.changes:
            if change.job.job_id == accepted.job.job_id and change.state >= job_pb2.JOB_STATE_SUCCEEDED:
                assert change.state == job_pb2.JOB_STATE_SUCCEEDED, change.job.error.message
                return count / (time.perf_counter() - began)
    raise AssertionError  # watch_jobs goes on for ever


def _rows(runs: list[_Run]) -> list[Row]:
    return [
        _row(
            f"{CONCURRENT:,} tasks at a time, an orchestrator that takes 200 ms",
            f"aiohttp alone, at most {_UNBOUND:,.0f}",
            ours=tuple(run.ours for run in runs),
            # Two processors are fewer than such a rate takes: what aiohttp alone reaches is what can be had here.
            ideal=tuple(min(run.bare, _UNBOUND) for run in runs),
        ),
        _row(
            f"the same where the orchestrator takes {LIMIT} calls at a time",
            f"aiohttp alone, at most {_LIMITED:,.0f}",
            ours=tuple(run.ours_limited for run in runs),
            ideal=tuple(min(run.bare_limited, _LIMITED) for run in runs),
        ),
    ]


def _row(what: str, other: str, *, ours: tuple[float, ...], ideal: tuple[float, ...]) -> Row:
    return Row(
        number="P8",
        what=what,
        ours=Side("tasks", Unit.TASKS, ours),
        other=Side(other, Unit.CALLS, ideal),
        target=Target(Judged.RATIO, 0.9, least=True),
    )
