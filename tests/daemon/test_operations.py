"""What an operator sees of a running daemon: metrics, health, traces, logs, reload."""

from __future__ import annotations

import json
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import anyio
import grpc.aio
import pytest
from aiohttp import web
from altrunner.v1 import job_service_pb2, job_service_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from prometheus_client.parser import text_string_to_metric_families

from runner.client import Client

pytestmark = pytest.mark.anyio

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
PARENT_ID = "b7ad6b7169203331"
PROMPT = (
    b'{"id": "a", "version": "1.0", "title": "t", "created_at": "2026-01-01T00:00:00Z",'
    b' "tasks": [{"id": "ask", "description": "one call", "parameters": {"prompt": "${secrets.word}"}}]}'
)


class Collector:
    """An OTLP collector over HTTP."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: dict[str, Span] = {}

    async def export(self, request: web.Request) -> web.Response:
        message = ExportTraceServiceRequest.FromString(await request.read())
        for resource in message.resource_spans:
            for scope in resource.scope_spans:
                self.spans |= {span.name.split()[0]: span for span in scope.spans}
        body = ExportTraceServiceResponse().SerializeToString()
        return web.Response(body=body, content_type="application/x-protobuf")


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    collecting = Collector()
    app = web.Application()
    app.router.add_post("/v1/traces", collecting.export)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    collecting.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield collecting
    await runner.cleanup()


async def submit_and_watch(target: str, **metadata: str) -> str:
    async with grpc.aio.insecure_channel(target) as channel:
        stub: Any = job_service_pb2_grpc.JobServiceStub(channel)
        request = job_service_pb2.SubmitJobRequest(descriptor=PROMPT)
        job_id: str = (await stub.SubmitJob(request, metadata=tuple(metadata.items()))).job.job_id
        async for _ in stub.WatchJob(job_service_pb2.WatchJobRequest(job_id=job_id)):
            pass
        return job_id


async def test_a_trace_goes_from_the_submitter_into_the_outgoing_call(
    launch: Any, orchestrator: Any, collector: Collector
) -> None:
    """Job, task and attempt are spans of the submitter's trace; the call carries the attempt's context."""
    async with launch(**{"traces.otlp_endpoint": collector.url, "secrets.values.word": "hidden-word"}) as daemon:
        job_id = await submit_and_watch(daemon.target, traceparent=f"00-{TRACE_ID}-{PARENT_ID}-01")
        assert await daemon.end(signal.SIGTERM) == 0
    by_id = {span.span_id.hex(): span for span in collector.spans.values()}
    assert {span.trace_id.hex() for span in by_id.values()} == {TRACE_ID}
    _, trace_id, attempt_id, _ = orchestrator.traceparents[0].split("-")
    assert trace_id == TRACE_ID
    chain = [attempt_id]
    while chain[-1] in by_id:
        chain.append(by_id[chain[-1]].parent_span_id.hex())
    assert len(chain) == 4, "attempt, task, job, and the submitter's own"
    assert chain[-1] == PARENT_ID
    told = str(list(by_id.values()))
    assert job_id in told
    assert "hidden-word" not in told


async def test_prometheus_can_scrape_what_a_job_did(launch: Any) -> None:
    async with launch() as daemon:
        await submit_and_watch(daemon.target)
        async with aiohttp.ClientSession(daemon.http) as session:
            async with session.get("/metrics") as response:
                families = {family.name: family for family in text_string_to_metric_families(await response.text())}
            async with session.get("/readyz") as response:
                ready = await response.json()
                assert response.status == 200
        assert all(check["ok"] for check in ready["checks"])
        assert {check["name"] for check in ready["checks"]} == {"accepting", "ledger", "claims", "disk"}
        ours = {name for name in families if name.startswith("alt_runner_")}
        for topic in ("job", "attempt", "queue", "breaker", "ledger_commit", "watch", "frames", "event_loop_lag"):
            assert any(topic in name for name in ours), topic
        assert any(name.startswith("process_") for name in families)
        ended = families["alt_runner_jobs_ended"].samples
        assert sum(sample.value for sample in ended if sample.name.endswith("_total")) == 1
        async with grpc.aio.insecure_channel(daemon.target) as channel:
            stub: Any = health_pb2_grpc.HealthStub(channel)
            answer = await stub.Check(health_pb2.HealthCheckRequest())
            assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_no_secret_reaches_a_log_an_event_or_a_record(launch: Any, tmp_path: Path) -> None:
    """The prompt itself is the secret, and the log is at debug."""
    async with launch(**{"log.level": "debug", "secrets.values.word": "hidden-word"}) as daemon:
        job_id = await submit_and_watch(daemon.target)
        async with Client(daemon.target) as client:
            record = await client.record(job_id)
        assert await daemon.end(signal.SIGTERM) == 0
        assert "hidden-word" not in "".join(daemon.log)
    assert b"hidden-word" not in record
    lines = [json.loads(line) for line in "".join(daemon.log).splitlines()]
    assert any(line.get("job_id") == job_id and line["event"] == "job_succeeded" for line in lines)
    for path in (tmp_path / "var").rglob("*"):
        assert path.is_dir() or b"hidden-word" not in path.read_bytes(), path


async def test_sighup_takes_over_what_may_change_and_tells_what_may_not(launch: Any, tmp_path: Path) -> None:
    file = tmp_path / "alt-runner.toml"
    file.write_text('[log]\nlevel = "info"\n[engine]\ndefault_retries = 0\n')
    async with launch(file=str(file)) as daemon:
        file.write_text('[log]\nlevel = "debug"\n[engine]\ndefault_retries = 3\n[grpc]\nheartbeat_seconds = 3\n')
        daemon.process.send_signal(signal.SIGHUP)
        told = await logged(daemon, "reloaded")
        assert set(told["applied"]) == {"log.level", "engine.default_retries"}
        assert told["restart"] == ["grpc.heartbeat_seconds"]
        file.write_text("[log]\nlevel = 7\n")
        daemon.process.send_signal(signal.SIGHUP)
        assert "log.level" in (await logged(daemon, "reload_failed"))["error"]
        await submit_and_watch(daemon.target)


async def logged(daemon: Any, event: str) -> dict[str, Any]:
    """Wait for a log line."""
    with anyio.fail_after(20):
        while True:
            for line in "".join(daemon.log).splitlines():
                if f'"event":"{event}"' in line:
                    found: dict[str, Any] = json.loads(line)
                    return found
            await daemon.more_log()


async def test_a_corrected_api_key_holds_from_sighup_on(launch: Any, orchestrator: Any, tmp_path: Path) -> None:
    """The refused endpoint is not called until then; all tasks reach it at once afterwards, also the one it refused."""
    orchestrator.key = "right-word"
    file = tmp_path / "alt-runner.toml"

    def write(key: str) -> None:
        file.write_text(f'[[orchestrator.endpoints]]\nurl = "{orchestrator.url}"\napi_key = "{key}"\n')

    write("wrong-word")
    async with launch(file=str(file), **{"orchestrator.endpoints": None, "secrets.values.word": "x"}) as daemon:
        async with Client(daemon.target) as client:
            refused = (await client.submit(PROMPT)).job.job_id
        await logged(daemon, "breaker_forced_open")
        write("right-word")
        daemon.process.send_signal(signal.SIGHUP)
        told = await logged(daemon, "reloaded")
        assert told["applied"] == ["orchestrator.endpoints.0.api_key"]
        job_id = await submit_and_watch(daemon.target)
        async with Client(daemon.target) as client:
            async for _ in client.watch(refused):
                pass
            for each in (refused, job_id):
                assert json.loads(await client.record(each))["status"] == "success"
        assert "right-word" not in "".join(daemon.log)
