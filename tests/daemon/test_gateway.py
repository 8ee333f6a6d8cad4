"""A real gateway between a daemon and its models: LiteLLM's proxy, which answers with what its settings say.

Optional: it needs `litellm` on the path, from an environment of its own (docs/decisions.md tells why and how). Nothing
leaves this machine: there is no model behind it, and its telemetry is off.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import anyio
import msgspec
import pytest
from aiohttp import web

from runner.client import Client
from tests.daemon.conftest import Launch

_PLACES: Final = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
LITELLM: Final = shutil.which("litellm", path=_PLACES)

pytestmark = pytest.mark.skipif(LITELLM is None, reason="`litellm` is not on the path (docs/decisions.md)")

ANSWER: Final = "Mocked by the gateway, word by word."
SETTINGS: Final = {
    "model_list": [
        {"model_name": name, "litellm_params": {"model": f"openai/{name}", "api_key": "none", "mock_response": said}}
        for name, said in {"mocked": ANSWER, "limited": "litellm.RateLimitError"}.items()
    ],
    "litellm_settings": {"telemetry": False, "num_retries": 0},
    "router_settings": {"num_retries": 0, "disable_cooldowns": True},
}
#: Seconds that the proxy has to start: it imports a great deal.
PATIENCE: Final = 100


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running proxy."""
    assert LITELLM is not None
    directory = tmp_path_factory.mktemp("gateway")
    (directory / "settings.yaml").write_bytes(msgspec.json.encode(SETTINGS))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [LITELLM, "--config", "settings.yaml", "--host", "127.0.0.1", "--port", str(port), "--telemetry", "False"]
    # Without the environment of whoever runs the tests: a gateway looks there for keys and for where to report to.
    environment = {
        "PATH": f"{Path(LITELLM).parent}:/usr/bin:/bin",
        "HOME": str(directory),
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "DISABLE_ADMIN_UI": "True",
        # Since 1.106 it does not start without a key of its own; it listens to this machine alone.
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    }
    with (
        (directory / "log").open("w") as log,
        subprocess.Popen(command, cwd=directory, env=environment, stdout=log, stderr=subprocess.STDOUT) as process,
    ):
        try:
            anyio.run(_until_it_answers, f"http://127.0.0.1:{port}", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


async def _until_it_answers(url: str, process: subprocess.Popen[bytes]) -> None:
    with anyio.fail_after(PATIENCE):
        async with aiohttp.ClientSession() as session:
            while process.poll() is None:
                try:
                    async with session.get(f"{url}/health/liveliness"):
                        return
                except aiohttp.ClientConnectionError:
                    # It does not listen, and nothing else tells when it will.
                    await anyio.sleep(0.2)
    raise AssertionError("the gateway did not start; its log stands in its directory")


@pytest.fixture
async def unstreamed(gateway: str) -> AsyncIterator[str]:
    """The same gateway, which is asked for whole answers whatever is asked for here."""
    async with aiohttp.ClientSession() as session:

        async def ask(request: web.Request) -> web.Response:
            question = await request.json()
            question.pop("stream_options", None)
            async with session.post(f"{gateway}{request.path}", json={**question, "stream": False}) as answer:
                return web.Response(
                    body=await answer.read(), status=answer.status, content_type=answer.content_type or ""
                )

        application = web.Application()
        application.router.add_post("/v1/chat/completions", ask)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        await runner.cleanup()


async def asked(launch: Launch, url: str, *, protocol: str = "openai", model: str = "mocked") -> tuple[Any, list[Any]]:
    """The record of a job of one question, and its events, once it has ended."""
    endpoint = {"name": "gateway", "protocol": protocol, "url": url, "model": model, "health_interval_seconds": 0}
    task = {"id": "ask", "description": "How are you?", "parameters": {"task_type": "ai_prompt", "max_tokens": 50}}
    content = {"id": "a", "version": "1.0", "created_at": "2026-01-05T08:00:00Z", "title": "a", "tasks": [task]}
    async with launch(**{"orchestrator.endpoints": [endpoint]}) as daemon, Client(daemon.target) as client:
        job_id = (await client.submit(msgspec.json.encode(content))).job.job_id
        events = [event async for event in client.watch(job_id)]
        return msgspec.json.decode(await client.record(job_id))["task_results"]["ask"], events


def streamed(events: list[Any]) -> list[str]:
    return [event.attempt_output.text for event in events if event.WhichOneof("event") == "attempt_output"]


async def test_a_gateways_answer_streams_to_watchers_and_its_usage_is_recorded(launch: Launch, gateway: str) -> None:
    task, events = await asked(launch, gateway)
    assert task["status"] == "completed", task
    assert task["output"]["text"] == ANSWER
    assert task["output"]["finish_reason"] == "stop"
    assert "".join(streamed(events)) == ANSWER
    assert task["attempts"][0]["endpoint"] == "gateway"
    assert task["usage"]["calls"] == 1
    assert task["usage"]["total_tokens"] > 0


async def test_a_gateways_whole_answer_is_taken_too(launch: Launch, unstreamed: str) -> None:
    task, _ = await asked(launch, unstreamed)
    assert task["status"] == "completed", task
    assert task["output"]["text"] == ANSWER
    assert task["usage"]["total_tokens"] > 0


async def test_a_gateway_speaks_anthropic_too(launch: Launch, gateway: str) -> None:
    task, events = await asked(launch, gateway, protocol="anthropic")
    assert task["status"] == "completed", task
    assert task["output"]["text"] == ANSWER
    assert "".join(streamed(events)) == ANSWER


async def test_a_gateways_429_is_a_failure_that_may_pass(launch: Launch, gateway: str) -> None:
    task, _ = await asked(launch, gateway, model="limited")
    assert task["status"] == "failed"
    assert "HTTP 429" in task["error"]


async def test_a_model_that_a_gateway_does_not_have_is_named_in_the_error(launch: Launch, gateway: str) -> None:
    task, _ = await asked(launch, gateway, model="missing")
    assert task["status"] == "failed"
    assert "missing" in task["error"]
    assert len(task["attempts"]) == 1
