"""What AI calls cost, by endpoint: in the records and metrics of a real daemon, beside what the endpoints counted."""

from __future__ import annotations

import json
import socket
from collections import Counter
from typing import Any

import anyio
import pytest
from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from runner.client import Client
from runner.core.record import LastRecord, parse
from runner.orchestrators.simulated import Simulator, serve_simulated
from runner.orchestrators.simulation import Behaviour
from tests.daemon.conftest import DaemonProcess, Launch

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(90)]

MODEL = "simulated-small"


def endpoint(name: str, url: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "url": url, "protocol": "openai", "model": MODEL, "health_interval_seconds": 0, **more}


def file(*tasks: dict[str, Any]) -> dict[str, Any]:
    common = {"description": "say it", "retry_count": 0}
    return {
        "id": "a",
        "version": "1.0",
        "title": "t",
        "created_at": "2026-01-01T00:00:00Z",
        "tasks": [{"id": f"t{number}", **common, **task} for number, task in enumerate(tasks)],
    }


def asking(**parameters: Any) -> dict[str, Any]:
    return {"parameters": {"prompt": "well?", "max_tokens": 5, **parameters}}


async def asked(client: Client, *tasks: dict[str, Any]) -> LastRecord:
    job = (await client.submit(json.dumps(file(*tasks)).encode())).job
    async for _ in client.watch(job.job_id):
        pass
    return parse(await client.record(job.job_id))


def calls_in(record: LastRecord) -> dict[str, int]:
    assert all(row.model == MODEL for row in record.usage_by)
    assert record.usage is not None
    assert sum(row.calls for row in record.usage_by) == record.usage.calls
    return {row.endpoint: row.calls for row in record.usage_by}


async def calls_counted(daemon: DaemonProcess) -> dict[str, int]:
    return await counted(daemon, "alt_runner_model_calls_total")


async def counted(daemon: DaemonProcess, name: str) -> dict[str, int]:
    """What a counter says of each endpoint that it has something to say of."""
    async with ClientSession(daemon.http) as session, session.get("/metrics") as response:
        text = await response.text()
    return {
        sample.labels["endpoint"]: int(sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name and sample.value
    }


def behave(simulator: Simulator, **behaviour: Any) -> None:
    simulator.behaviour = Behaviour(**behaviour)


async def test_a_call_that_failed_before_another_endpoint_answered_is_told_and_counted_where_it_was_made(
    launch: Launch,
) -> None:
    """Also where it was a child that made it, whose calls its parent's record tells, and metrics count once."""
    async with serve_simulated() as first, serve_simulated() as second:
        settings = {"orchestrator.endpoints": [endpoint("first", first.url), endpoint("second", second.url)]}
        stood_in = asking(endpoint="first", fallback=[{"endpoint": "second"}])
        async with launch(**settings) as daemon, Client(daemon.target) as client:
            behave(first, error_rate=1.0, error_status=500)
            record = await asked(client, stood_in)
            assert calls_in(record) == {"first": 1, "second": 1}
            assert record.usage_by[0].endpoint == "second", "whose tokens are known"
            [attempt] = record.task_results["t0"].attempts
            assert (attempt.endpoint, [(part.endpoint, part.calls) for part in attempt.elsewhere]) == (
                "second",
                [("first", 1)],
            )
            behave(first, garbage=True)
            record = await asked(client, {"parameters": {"task_type": "job", "descriptor": file(stood_in)}})
            assert calls_in(record) == {"first": 1, "second": 1}
            assert record.task_results["t0"].attempts[0].endpoint == ""
            assert await calls_counted(daemon) == {"first": first.calls.calls, "second": second.calls.calls}
            assert (first.calls.calls, second.calls.calls) == (2, 2)


async def test_an_endpoint_that_cannot_be_connected_to_is_told_no_call_but_how_often_it_was_tried(
    launch: Launch,
) -> None:
    """Be it that another endpoint of its group made that good, or that the attempt failed."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        gone = f"http://127.0.0.1:{closed.getsockname()[1]}"
        async with serve_simulated() as there:
            # So heavy that each call goes there first.
            group = [endpoint("gone", gone, group="pool", weight=1e6), endpoint("there", there.url, group="pool")]
            alone = endpoint("alone", gone)
            settings = {"orchestrator.endpoints": [*group, alone], "metrics.sample_seconds": 0.01}
            async with launch(**settings) as daemon, Client(daemon.target) as client:
                record = await asked(client, *[asking(endpoint="pool")] * 6)
                assert calls_in(record) == {"there": 6}
                record = await asked(client, asking(endpoint="alone"))
                assert record.task_results["t0"].error is not None
                assert "CONNECTION_FAILED" in record.task_results["t0"].error
                assert (record.usage, record.usage_by) == (None, ())
                assert await calls_counted(daemon) == {"there": 6}
                tries = {each.name: each.unreached_tries for each in await client.endpoints()}
                assert tries == {"gone": 6, "there": 0, "alone": 1}
                told: dict[str, int] = {}
                with anyio.fail_after(20):
                    while told != {"gone": 6, "alone": 1}:
                        told = await counted(daemon, "alt_runner_endpoint_unreached_total")


async def test_each_call_of_a_hedge_is_told_and_counted_at_its_own_endpoint(launch: Launch) -> None:
    async with serve_simulated() as slow, serve_simulated() as quick:
        hedged = {"group": "pool", "hedge": True}
        settings = {
            "orchestrator.endpoints": [endpoint("slow", slow.url, **hedged), endpoint("quick", quick.url, **hedged)],
            "orchestrator.retry_budget.share": 1.0,
        }
        async with launch(**settings) as daemon, Client(daemon.target) as client:
            # So that only those that hang are called again, and have long been counted when they are cut off.
            behave(slow, latency_ms=200)
            behave(quick, latency_ms=200)
            learnt = [asking(endpoint=name) for name in ("slow", "quick")] * 25
            before = Counter(calls_in(await asked(client, *learnt)))
            assert before == {"slow": 25, "quick": 25}
            behave(slow, hang=True)
            behave(quick)
            record = await asked(client, *[asking(endpoint="pool")] * 8)
            told = Counter(calls_in(record))
            twice = [task for task in record.task_results.values() if task.attempts[0].elsewhere]
            assert told == {"quick": 8, "slow": len(twice)}
            assert len(twice) >= 1
            assert before + told == {"slow": slow.calls.calls, "quick": quick.calls.calls}
            assert await calls_counted(daemon) == dict(before + told)


async def test_a_call_that_a_time_out_cuts_off_is_told_and_counted(launch: Launch) -> None:
    """By the task's own time; and by what is left of it where something else can stand in."""
    async with serve_simulated() as first:
        behave(first, hang=True)
        settings = {"orchestrator.endpoints": [endpoint("first", first.url)]}
        stood_in = asking(fallback=[{"value": "nobody"}])
        async with launch(**settings) as daemon, Client(daemon.target) as client:
            record = await asked(client, asking() | {"timeout_seconds": 1}, stood_in | {"timeout_seconds": 1})
            late, given = (task.attempts[0] for task in record.task_results.values())
            assert (late.outcome, late.endpoint, late.model) == ("timed_out", "first", MODEL)
            assert (given.outcome, given.endpoint, given.model) == ("succeeded", "first", MODEL)
            assert calls_in(record) == {"first": 2}
            assert await calls_counted(daemon) == {"first": 2}
