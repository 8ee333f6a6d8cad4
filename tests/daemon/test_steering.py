"""Steered, drained and killed in the middle of an outage: hedged calls, fallbacks under way, budgets reserved."""

from __future__ import annotations

import json
import signal
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import anyio
import anyio.lowlevel
import pytest
from aiohttp import ClientSession
from prometheus_client.parser import text_string_to_metric_families

from runner.client import Client
from runner.core.breaker import BreakerState
from runner.core.record import AttemptRecord, LastRecord, parse
from runner.orchestrators.simulated import Simulator, serve_simulated
from runner.orchestrators.simulation import Behaviour
from tests.daemon.conftest import DaemonProcess, Launch

pytestmark = [pytest.mark.anyio, pytest.mark.timeout(120)]

MODEL = "simulated-small"
QUICK, HANGING, SICK = Behaviour(), Behaviour(hang=True), Behaviour(error_rate=1.0)
ENDS = {"job_succeeded", "job_failed", "job_partially_succeeded", "job_cancelled"}
#: Tokens of all calls of these tests together, and more.
PLENTY = 100_000


def file(count: int, **parameters: Any) -> bytes:
    asked = {"prompt": "well?", "max_tokens": 5, **parameters}
    tasks = [
        {"id": f"t{number}", "description": "say it", "parameters": asked, "retry_count": 20} for number in range(count)
    ]
    told = {"id": "a", "version": "1.0", "title": "t", "created_at": "2026-01-01T00:00:00Z", "tasks": tasks}
    return json.dumps(told).encode()


class Played:
    """Simulated endpoints, and a settings file that can be changed."""

    def __init__(self, path: Path, *simulators: Simulator) -> None:
        first, second, broken, spare = self.all = simulators
        self.path = path
        common = (
            f'protocol = "openai"\nmodel = "{MODEL}"\nmax_connections = 4\n'
            "health_interval_seconds = 0.3\nwarm_up_seconds = 0.2\n"
        )
        pool = f'{common}group = "pool"\nhedge = true\nhedge_quantile = 0.5\n'
        self._endpoints = "".join(
            f'[[orchestrator.endpoints]]\nname = "{name}"\nurl = "{simulator.url}"\n{settings}'
            for name, simulator, settings in (
                ("first", first, pool),
                ("second", second, pool),
                ("broken", broken, common),
                ("spare", spare, common),
            )
        )
        self.write()

    def write(self, *, tasks: int = 32, level: str = "info", tokens: int = PLENTY, grace: float = 0.0) -> None:
        self.path.write_text(
            f'[log]\nlevel = "{level}"\n'
            f"[engine]\nmax_concurrent_tasks = {tasks}\ndrain_grace_seconds = {grace}\ncancel_grace_seconds = 0.0\n"
            "lease_seconds = 2.0\npoll_seconds = 0.2\nremembered_descriptor_bytes = " + str(tasks) + "\n"
            "[metrics]\nsample_seconds = 0.05\n"
            "[retry]\nbase_seconds = 0.05\ncap_seconds = 0.3\n"
            "[orchestrator.retry_budget]\nshare = 1.0\n"
            "[orchestrator.breaker]\nminimum_calls = 5\nopen_seconds = 0.3\nopen_cap_seconds = 0.5\n"
            f'[[budgets]]\nlabel = "team"\nvalue = "blue"\ntokens = {tokens}\nper = "month"\non_exceeded = "wait"\n'
            + self._endpoints
        )

    def behave(self, behaviour: Behaviour, *, broken: Behaviour | None = None) -> None:
        for simulator in self.all:
            simulator.behave(behaviour)
        self.all[2].behave(broken or behaviour)

    @property
    def calls(self) -> int:
        return sum(simulator.calls.calls for simulator in self.all)


@pytest.fixture
async def played(tmp_path: Path) -> Any:
    async with AsyncExitStack() as stack:
        simulators = [await stack.enter_async_context(serve_simulated()) for _ in range(4)]
        yield Played(tmp_path / "alt-runner.toml", *simulators)


def settings(played: Played, port: int) -> dict[str, Any]:
    return {"file": str(played.path), "orchestrator.endpoints": None, "grpc.port": port}


async def submitted(client: Client, count: int, tasks: int = 3, **parameters: Any) -> list[str]:
    batch = [client.submit(file(tasks, **parameters), labels={"team": "blue"}) for _ in range(count)]
    return [(await each).job.job_id for each in batch]


async def ends(client: Client, jobs: list[str]) -> list[LastRecord]:
    records = []
    with anyio.fail_after(60):
        for job in jobs:
            kinds = [event.WhichOneof("event") async for event in client.watch(job)]
            assert (
                sum(kind in {"job_succeeded", "job_failed", "job_partially_succeeded"} for kind in kinds if kind) == 1
            )
            records.append(parse(await client.record(job)))
    return records


async def told_of_budget(daemon: DaemonProcess, used: int) -> None:
    """Wait until metrics tell that so many tokens are used."""
    seen = [-1]
    async with ClientSession(daemon.http) as session:
        with anyio.move_on_after(20):
            while seen[-1] != used:
                async with session.get("/metrics") as response:
                    text = await response.text()
                seen += [
                    int(sample.value)
                    for family in text_string_to_metric_families(text)
                    for sample in family.samples
                    if sample.name == "alt_runner_budget_tokens" and sample.labels["kind"] == "used"
                ]
    assert seen[-1] == used


async def logged(daemon: DaemonProcess, event: str, times: int = 1) -> None:
    with anyio.fail_after(20):
        while "".join(daemon.log).count(f'"event":"{event}"') < times:
            await daemon.more_log()


async def under_way(client: Client, calls: int, *endpoints: str) -> None:
    """Wait until so many calls are under way there."""
    with anyio.fail_after(20):
        while sum(endpoint.calls for endpoint in await client.endpoints(endpoints)) < calls:
            await anyio.lowlevel.checkpoint()


def attempts_of(*records: LastRecord) -> list[AttemptRecord]:
    return [attempt for record in records for task in record.task_results.values() for attempt in task.attempts]


def judged(records: list[LastRecord], played: Played) -> int:
    """Nothing lost, everything told; answers the tokens."""
    lost = told = tokens = 0
    for record in records:
        assert record.status == "success", record.summary
        lost += sum(attempt.outcome == "lost" for attempt in attempts_of(record))
        usage = record.usage
        assert usage is not None
        assert sum(row.calls for row in record.usage_by) == usage.calls
        assert sum(row.total_tokens for row in record.usage_by) == usage.total_tokens
        told += usage.calls
        tokens += usage.total_tokens
    assert told <= played.calls <= told + 2 * lost, (told, played.calls, lost)
    return tokens


async def test_steered_in_the_middle_of_an_outage_everything_comes_through_and_is_told(
    launch: Launch, played: Played, free_port: int
) -> None:
    async with launch(**settings(played, free_port)) as daemon, Client(daemon.target) as client:
        jobs = await submitted(client, 2, tasks=30, endpoint="pool")
        await ends(client, jobs)
        played.behave(SICK)
        jobs += await submitted(client, 6, endpoint="pool")
        jobs += await submitted(client, 3, endpoint="broken", fallback=[{"endpoint": "spare"}])
        for round_number in range(1, 4):
            played.write(tasks=1, level="debug", tokens=10 * round_number)
            daemon.process.send_signal(signal.SIGHUP)
            await logged(daemon, "reloaded", 2 * round_number - 1)
            await client.set_breaker("first", BreakerState.FORCED_OPEN)
            await client.drain("second")
            played.behave(HANGING if round_number % 2 else SICK)
            played.write()
            daemon.process.send_signal(signal.SIGHUP)
            await logged(daemon, "reloaded", 2 * round_number)
            await client.undrain("second")
            await client.set_breaker("first", BreakerState.CLOSED)
        played.behave(QUICK)
        await told_of_budget(daemon, judged(await ends(client, jobs), played))
        assert await daemon.end(signal.SIGTERM) == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
async def test_whoever_goes_while_calls_are_hedged_and_fallbacks_under_way_loses_nothing_and_holds_no_tokens(
    launch: Launch, played: Played, free_port: int, how: signal.Signals
) -> None:
    jobs: list[str] = []
    for _ in range(2):
        async with launch(**settings(played, free_port)) as daemon, Client(daemon.target) as client:
            played.behave(QUICK)
            # A daemon has to learn how long a call takes before it makes a second one.
            jobs += (learnt := await submitted(client, 2, tasks=30, endpoint="pool"))
            await ends(client, learnt)
            played.behave(HANGING, broken=SICK)
            jobs += await submitted(client, 2, tasks=2, endpoint="pool")
            jobs += await submitted(client, 1, tasks=2, endpoint="broken", fallback=[{"endpoint": "spare"}])
            await under_way(client, 5, "first", "second")
            await under_way(client, 2, "spare")
            await daemon.end(how)
    played.behave(QUICK)
    async with launch(**settings(played, free_port)) as daemon, Client(daemon.target) as client:
        records = await ends(client, jobs)
        tokens = judged(records, played)
        await told_of_budget(daemon, tokens)
        # Had somebody's reservation outlived its daemon, there would be no room for this one.
        played.write(tokens=tokens + 7)
        daemon.process.send_signal(signal.SIGHUP)
        await logged(daemon, "reloaded")
        [last] = await ends(client, await submitted(client, 1, tasks=1))
        assert last.status == "success"
        assert await daemon.end(signal.SIGTERM) == 0
    assert sum(attempt.outcome == "lost" for attempt in attempts_of(*records)) >= 6


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=lambda how: how.name)
async def test_a_job_that_names_a_server_that_had_registered_goes_on_once_it_registers_anew(
    launch: Launch, played: Played, free_port: int, how: signal.Signals
) -> None:
    played.path.write_text(played.path.read_text() + "takes_registrations = true\n")
    async with Client(f"127.0.0.1:{free_port}") as server, AsyncExitStack() as registered:
        async with launch(**settings(played, free_port)) as daemon, Client(daemon.target) as client:
            await registered.enter_async_context(
                server.register("new", group="spare", url=played.all[0].url, lease_seconds=3)
            )
            played.behave(HANGING)
            jobs = await submitted(client, 2, tasks=2, endpoint="new")
            await under_way(client, 4, "new")
            await daemon.end(how)
        played.behave(QUICK)
        async with launch(**settings(played, free_port)) as daemon, Client(daemon.target) as client:
            judged(await ends(client, jobs), played)
            assert await daemon.end(signal.SIGTERM) == 0
