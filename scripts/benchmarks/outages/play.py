"""Plays outages: simulated orchestrators that fall ill on time, a real daemon, and a load that goes on meanwhile."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any, Final

import anyio
import msgspec

from runner.client import Client
from runner.core.record import ResultStatus, TaskRecord, parse
from runner.orchestrators.simulated import Simulator, SimulatorSettings, serve_simulated
from runner.orchestrators.simulation import Behaviour
from scripts.benchmarks import processes
from scripts.benchmarks.outages.load import LABEL, End, Load, Tally, note_ends, offer, time_of_day, warm_up
from scripts.benchmarks.outages.scenarios import HEALTHY, Scenario, Times

#: Milliseconds that a well endpoint takes, and up to how many more.
_LATENCY: Final = {"latency_ms": 80.0, "jitter_ms": 40.0}
#: Keys are names here: the one that endpoints take at first, and the one that they are changed to.
_FIRST_KEY: Final = "former-key"
_SECOND_KEY: Final = "latter-key"
#: Outcomes of attempts that called in vain.
_IN_VAIN: Final = frozenset({"failed", "timed_out"})


class Sample(msgspec.Struct, frozen=True):
    """What each endpoint had cost in vain by then."""

    #: Seconds since the first job was offered.
    at: float
    #: Calls that failed, as the endpoint saw them.
    failed: Mapping[str, int]
    #: Tries to call it that never reached it, as the daemon counted them.
    unreached: Mapping[str, int] = {}

    def in_vain(self, members: Sequence[str]) -> int:
        """Of some endpoints together: no call is such a try, too."""
        return sum(self.failed[name] + self.unreached.get(name, 0) for name in members)


class Played(msgspec.Struct, frozen=True, kw_only=True):
    """What was seen of one play. Times are seconds since the first job was offered."""

    scenarios: tuple[Scenario, ...]
    times: Times
    #: Jobs a second of each load.
    rate: float
    offered: Mapping[str, int]
    ends: tuple[End, ...]
    samples: tuple[Sample, ...]
    #: By load: when an attempt that had called in vain began.
    in_vain: Mapping[str, tuple[float, ...]]
    #: What the daemon told about its endpoints.
    log: tuple[str, ...]
    #: By scenario: seconds of the breaker's opening that was under way when the trouble ended, where there was one.
    openings: Mapping[str, float] = {}


async def play(
    scenarios: Sequence[Scenario], times: Times, *, rate: float, directory: Path, settings: Mapping[str, Any]
) -> Played:
    """Play scenarios side by side on one daemon, beside a load on an endpoint that is always well.

    `settings` of the daemon are by path, beside its endpoints.
    """
    async with AsyncExitStack() as stack:
        cast: dict[str, Simulator] = {}
        for name in [HEALTHY, *(member for scenario in scenarios for member in scenario.members)]:
            cast[name] = await stack.enter_async_context(
                serve_simulated(SimulatorSettings(behaviour=_well(_FIRST_KEY)))
            )
        desk = _Desk(directory.parent / f"{directory.name}.json", scenarios, cast, settings)
        desk.write(_FIRST_KEY)
        daemon = await stack.enter_async_context(
            processes.daemon(directory, {"file": str(desk.path), "log.level": "info"})
        )
        client = await stack.enter_async_context(Client(daemon.target))
        loads = [Load(name, name, rate) for name in [HEALTHY, *(scenario.name for scenario in scenarios)]]
        await warm_up(client, loads)
        began = time_of_day()
        tally, samples = Tally(), [await _sample(0.0, cast, client)]
        openings: dict[str, float] = {}
        async with anyio.create_task_group() as group:
            group.start_soon(_noting, client, tally, began)
            group.start_soon(_sampling, cast, client, samples, times.open_period / 10)
            for scenario in scenarios:
                trouble = partial(_trouble, daemon=daemon.pid, client=client, openings=openings)
                group.start_soon(trouble, scenario, times, cast[scenario.sick], desk)
            await offer(client, loads, tally, seconds=times.offered_until)
            with anyio.move_on_after(times.patience):
                await tally.complete()
            group.cancel_scope.cancel()
        samples.append(await _sample(time_of_day() - began, cast, client))
        log = tuple((directory / processes.LOG).read_text().splitlines())
        recorded, logged = _in_vain(daemon.directory, began), _logged(log, scenarios, began)
        # Jobs that have not ended have no record, and what an attempt called beside its last call is in no log.
        in_vain = {name: max(recorded.get(name, ()), logged[name], key=len) for name in logged}
    return Played(
        scenarios=tuple(scenarios),
        times=times,
        rate=rate,
        offered=dict(tally.offered),
        ends=tuple(tally.ends),
        samples=tuple(samples),
        in_vain=in_vain,
        log=log,
        openings=openings,
    )


def _well(key: str) -> Behaviour:
    return msgspec.convert({**_LATENCY, "api_key": key}, Behaviour)


class _Desk:
    """Where the operator sits: writes the daemon's settings."""

    def __init__(
        self, path: Path, scenarios: Sequence[Scenario], cast: Mapping[str, Simulator], settings: Mapping[str, Any]
    ) -> None:
        self.path = path
        self._groups = {member: scenario.name for scenario in scenarios for member in scenario.members}
        self._changing = {scenario.sick for scenario in scenarios if scenario.trouble.key}
        self._cast = cast
        self._settings = settings

    def write(self, key: str) -> None:
        """Give the endpoints whose key changes this one."""
        endpoints = [
            {
                "name": name,
                "group": self._groups.get(name, name),
                "url": simulator.url,
                "api_key": key if name in self._changing else _FIRST_KEY,
                **self._settings.get("endpoint", {}),
            }
            for name, simulator in self._cast.items()
        ]
        others = {name: value for name, value in self._settings.items() if name not in {"endpoint", "orchestrator"}}
        orchestrator = {**self._settings.get("orchestrator", {}), "endpoints": endpoints}
        self.path.write_text(json.dumps({**others, "orchestrator": orchestrator}))


async def _trouble(
    scenario: Scenario,
    times: Times,
    sick: Simulator,
    desk: _Desk,
    *,
    daemon: int,
    client: Client,
    openings: dict[str, float],
) -> None:
    """What happens to one endpoint."""
    began = anyio.current_time()
    trouble = scenario.trouble
    key = _SECOND_KEY if trouble.key else _FIRST_KEY
    for come, go in scenario.stretches(times):
        await anyio.sleep_until(began + come)
        if trouble.down:
            await sick.go_down()
        sick.behave(msgspec.convert({**_LATENCY, "api_key": key, **trouble.changes(times)}, Behaviour))
        await anyio.sleep_until(began + go)
        openings[scenario.name] = await _opening(client, scenario.sick)
        sick.behave(_well(key))
        await sick.come_back()
    if trouble.key:
        desk.write(key)
        os.kill(daemon, signal.SIGHUP)


async def _opening(client: Client, endpoint: str) -> float:
    """Seconds that the breaker's opening lasts which is under way; 0 if none is."""
    openings = [
        (breaker.open_until.ToMicroseconds() - breaker.since.ToMicroseconds()) / 1e6
        for breaker in await client.breakers([endpoint])
        if breaker.HasField("open_until")
    ]
    return max(openings, default=0.0)


async def _noting(client: Client, tally: Tally, began: float) -> None:
    await note_ends(client, tally, began=began)


async def _sampling(cast: Mapping[str, Simulator], client: Client, samples: list[Sample], every: float) -> None:
    began = anyio.current_time()
    while True:
        await anyio.sleep(every)
        samples.append(await _sample(anyio.current_time() - began, cast, client))


async def _sample(at: float, cast: Mapping[str, Simulator], client: Client) -> Sample:
    unreached = {endpoint.name: endpoint.unreached_tries for endpoint in await client.endpoints()}
    logs = {name: simulator.calls for name, simulator in cast.items()}
    return Sample(at, {name: log.calls - log.answered - log.under_way for name, log in logs.items()}, unreached)


def _in_vain(directory: Path, began: float) -> dict[str, tuple[float, ...]]:
    """Read from the records in the ledger."""
    found: dict[str, list[float]] = {}
    with contextlib.closing(sqlite3.connect(f"file:{directory / 'ledger.db'}?mode=ro", uri=True)) as ledger:
        for (content,) in ledger.execute("SELECT record FROM records"):
            record = parse(content)
            times = found.setdefault(record.metadata.get("labels", {}).get(LABEL, ""), [])
            times += [at.timestamp() - began for task in record.task_results.values() for at in _in_vain_of(task)]
    return {load: tuple(sorted(times)) for load, times in found.items()}


def _logged(log: Sequence[str], scenarios: Sequence[Scenario], began: float) -> dict[str, tuple[float, ...]]:
    """Read from the daemon's log."""
    lines = [line for line in map(json.loads, log) if line["event"] == "attempt_failed"]
    return {
        scenario.name: tuple(
            datetime.fromisoformat(line["timestamp"]).timestamp() - began
            for line in lines
            if line.get("endpoint") in scenario.members
        )
        for scenario in scenarios
    }


def _in_vain_of(task: TaskRecord) -> list[datetime]:
    """When the calls of a task that failed were made, or about when: an attempt may make several."""
    failed = [attempt.started for attempt in task.attempts if attempt.outcome in _IN_VAIN]
    calls = 0 if task.usage is None else task.usage.calls
    others = calls - len(failed) - (task.status is ResultStatus.COMPLETED)
    return failed + [attempt.started for attempt in task.attempts[-1:] for _ in range(others)]
