"""The composition root: wires the parts, starts them in order, stops them in order."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import anyio
import anyio.abc
import msgspec
import uuid_utils

from runner import __version__
from runner import settings as settings_module
from runner.core.alt import Kinds
from runner.core.errors import InvalidSettings, RunnerError, first_cause
from runner.core.plan import Instant
from runner.core.redaction import Redaction
from runner.engine.bell import Bell
from runner.engine.broadcast import Broadcast
from runner.engine.children import Children
from runner.engine.equipment import Equipment
from runner.engine.journal import Journal
from runner.engine.runner import Runner
from runner.engine.slots import Slots
from runner.handlers.checks import kinds_of
from runner.handlers.earlier import EarlierAnswers
from runner.handlers.registry import open_handlers
from runner.handlers.work_directories import WorkDirectories
from runner.ledgers.holder import Holder
from runner.ledgers.sql import SqlLedger
from runner.orchestrators.endpoints import open_orchestrators
from runner.orchestrators.fleet import Fleet
from runner.orchestrators.settings import without_certificates
from runner.ports import Handler, Jobs, Observer, Quiet, Sink
from runner.rpc.server import Server, ServerOptions, listening
from runner.settings import Settings, SettingsSecrets
from runner.sinks.directory import DirectorySink, DirectorySinkSettings
from runner.telemetry.logs import Logs
from runner.telemetry.masking import Masking
from runner.telemetry.metrics import Metrics
from runner.telemetry.observer import Telemetry
from runner.telemetry.sampling import sample
from runner.telemetry.traces import Traces
from runner.web.readiness import NotReady, Probes, disk_room, recent

#: Seconds between two looks at our own readiness, which `grpc.health.v1` then tells.
HEALTH_INTERVAL: Final = 2.0
#: Seconds that calls under way have at the very end; watchers have been sent away before.
LAST_CALLS: Final = 1.0
#: Seconds that code which ignores its cancellation has once everything was told; then the process leaves without it.
LAST_TASKS: Final = 3.0


class Addresses(msgspec.Struct, frozen=True):
    """Where a daemon listens."""

    #: `host:port`; `unix:PATH` of one that is embedded.
    grpc: str
    #: `host:port`, or None where the HTTP port is off.
    http: str | None


class Embedded(msgspec.Struct, frozen=True):
    """A daemon within another program, which catches the signals, tells it when to stop, and shows what jobs do."""

    #: Set it, and the daemon drains and ends.
    stopping: anyio.Event
    #: Path of the socket that answers gRPC; no port is opened for it.
    socket: Path
    #: Ends the process, LAST_TASKS after everything was told, beside code that ignores its cancellation.
    leave: Callable[[], None]


#: A clock that was set is followed by a nanosecond in so many, so that no wait is a hundredth longer than it was to be.
_FOLLOWING: Final = 100


def _uptime() -> int:
    """Nanoseconds that passed, those in which the machine slept among them where it can tell."""
    return time.clock_gettime_ns(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


class SystemClock:
    """Wall time that neither jumps nor goes back: the machine's at the start, and from there on what passes.

    Set by an hour, the machine's clock would make a back-off of a second wait an hour, or end every lease at once.
    What it was set by is caught up with over time, 36 s in an hour.
    """

    def __init__(self, wall: Callable[[], int] = time.time_ns, uptime: Callable[[], int] = _uptime) -> None:
        self._wall = wall
        self._uptime = uptime
        self._seen = uptime()
        self._time = wall()

    def now(self) -> Instant:
        uptime = self._uptime()
        passed = uptime - self._seen
        behind = self._wall() - self._time - passed
        most = passed // _FOLLOWING
        self._seen = uptime
        self._time += passed + max(-most, min(behind, most))
        return self._time // 1_000


def run(
    settings: Settings, *, ready: Callable[[Addresses], None], reread: Callable[[], Settings] | None = None
) -> None:
    """`serve`, in an event loop of its own: uvloop's, on which a submission takes a tenth less processor time."""
    # By anyio, which so knows under what it runs and does not look for that in each of its calls.
    anyio.run(partial(serve, settings, ready=ready, reread=reread), backend_options={"use_uvloop": True})


async def serve(
    settings: Settings,
    *,
    ready: Callable[[Addresses], None],
    reread: Callable[[], Settings] | None = None,
    embedded: Embedded | None = None,
) -> None:
    """Run a daemon until SIGTERM or SIGINT, then drain it. A second signal ends it at once, which loses nothing.

    One that is `embedded` obeys no signals, but its owner.

    `ready` is called once, when calls are answered. On SIGHUP `reread` reads the settings again, from the same sources
    as before; without it they stay as they are.

    Raises InvalidSettings, LedgerHeld, LedgerDamaged, LedgerUnavailable, PortTaken: if it cannot start.
    """
    try:
        await _serve(settings, ready, reread, embedded)
    except BaseExceptionGroup as group:
        known, others = group.split(RunnerError)
        if known is None or others is not None:
            raise
        raise first_cause(known) from group


def _equipment(
    settings: Settings,
    telemetry: Telemetry,
    clock: SystemClock,
    *,
    runner_id: str,
    ledger: SqlLedger,
    handlers: Mapping[str, Handler],
    sinks: Sequence[Sink],
    children: Children,
    work: WorkDirectories,
) -> Equipment:
    """What the engine works with."""
    return Equipment(
        runner_id=runner_id,
        ledger=ledger,
        handlers=handlers,
        observer=telemetry,
        clock=clock,
        secrets=SettingsSecrets(settings.secrets),
        redaction=Redaction(settings_module.known_secrets(settings)),
        settings=settings.engine,
        retry=settings.retry,
        slots=Slots(settings.engine.max_concurrent_tasks),
        broadcast=Broadcast(ledger, telemetry),
        journal=Journal(ledger, poll_seconds=settings.engine.poll_seconds),
        chance=random.random,
        new_id=_new_id,
        sinks={sink.name: Bell() for sink in sinks},
        children=children,
        budgets=settings.budgets,
        job_ended=work.remove,
    )


async def _serve(
    settings: Settings,
    ready: Callable[[Addresses], None],
    reread: Callable[[], Settings] | None,
    embedded: Embedded | None,
) -> None:
    masking = Masking(settings_module.known_secrets(settings))
    async with _telemetry(settings, masking, jobs_logged=embedded is None) as telemetry, AsyncExitStack() as stack:
        clock = SystemClock()
        holder = Holder(str(uuid_utils.uuid7()), os.getpid(), socket.gethostname(), clock.now())
        ledger = SqlLedger(settings.ledger_url, holder=holder, observer=telemetry, settings=settings.ledger)
        await stack.enter_async_context(ledger.running())
        fleet = await stack.enter_async_context(_orchestrators(settings, clock, telemetry, looked_after=True))
        children = Children()
        earlier = EarlierAnswers(settings.orchestrator.answer_cache, ledger, clock.now)
        handlers = await stack.enter_async_context(_handlers(settings, fleet, earlier, telemetry, children))
        work = WorkDirectories(settings.work_root, telemetry)
        sinks: list[Sink] = [DirectorySink(DirectorySinkSettings(path=str(settings.record_directory)))]
        equipment = _equipment(
            settings,
            telemetry,
            clock,
            runner_id=holder.runner_id,
            ledger=ledger,
            handlers=handlers,
            sinks=sinks,
            children=children,
            work=work,
        )
        runner = Runner(
            equipment,
            queues=settings.queues,
            descriptor_limits=settings.descriptors,
            kinds=kinds_of(handlers),
            sinks=sinks,
        )
        async with anyio.create_task_group() as loops:
            loops.start_soon(runner.run)
            loops.start_soon(work.sweep, ledger)
            sampling = partial(sample, telemetry.metrics, ledger, clock, fleet=fleet, budgets=lambda: equipment.budgets)
            loops.start_soon(partial(sampling, interval=settings.metrics.sample_seconds))
            reload = partial(_reload, _Reached(equipment, runner, fleet, telemetry, masking), reread=reread)
            await _listen(settings, runner, fleet, equipment, telemetry, ready=ready, reload=reload, embedded=embedded)
            # Of the loop, which this outlasts: asyncio.run, too, waits for tasks without end.
            leave = partial(_leave, telemetry) if embedded is None else embedded.leave
            asyncio.get_running_loop().call_later(LAST_TASKS, leave)
            loops.cancel_scope.cancel()
        telemetry.notice("stopped", runner_id=holder.runner_id)


async def kinds_known(settings: Settings) -> Kinds:
    """What a daemon with these settings knows of its handlers' parameters. Connects to nothing. Needs asyncio.

    Raises InvalidSettings: as `open_handlers` and `kinds_of`.
    """
    orchestrator = without_certificates(settings.orchestrator)
    settings = msgspec.structs.replace(settings, orchestrator=orchestrator)
    endpoints = _orchestrators(settings, SystemClock(), Quiet(), looked_after=False)
    earlier = EarlierAnswers(settings.orchestrator.answer_cache)
    async with endpoints as fleet, _handlers(settings, fleet, earlier, None, None) as handlers:
        return kinds_of(handlers)


def _orchestrators(
    settings: Settings, clock: SystemClock, observer: Observer, *, looked_after: bool
) -> AbstractAsyncContextManager[Fleet]:
    return open_orchestrators(
        settings.orchestrator,
        clock=clock,
        observer=observer,
        chance=random.random,
        new_id=_new_id,
        looked_after=looked_after,
    )


def _new_id() -> str:
    return str(uuid_utils.uuid7())


def _handlers(
    settings: Settings,
    fleet: Fleet,
    earlier: EarlierAnswers,
    telemetry: Telemetry | None,
    jobs: Jobs | None,
) -> AbstractAsyncContextManager[dict[str, Handler]]:
    return open_handlers(
        fleet.directory,
        http_request=settings.http_request,
        python=settings.python,
        data_processing=settings.data_processing,
        file_operation=settings.file_operation,
        system_command=settings.system_command,
        code_executor=settings.code_executor,
        work_root=settings.work_root,
        observer=telemetry,
        jobs=jobs,
        earlier=earlier,
    )


@asynccontextmanager
async def _telemetry(settings: Settings, masking: Masking, *, jobs_logged: bool) -> AsyncIterator[Telemetry]:
    metrics = Metrics(settings.metrics, masking=masking)
    logs = Logs(settings.log, masking, dropped=metrics.log_line_dropped)
    traces = Traces(settings.traces, masking=masking)
    with logs.listening():
        try:
            yield Telemetry(logs, metrics, traces, jobs_logged=jobs_logged)
        finally:
            await traces.aclose()


async def _listen(
    settings: Settings,
    runner: Runner,
    fleet: Fleet,
    equipment: Equipment,
    telemetry: Telemetry,
    *,
    ready: Callable[[Addresses], None],
    reload: Callable[[Settings], Settings],
    embedded: Embedded | None,
) -> None:
    """Open the ports, serve until told to stop, drain."""
    stopping = anyio.Event() if embedded is None else embedded.stopping
    probes = _probes(settings, runner, equipment, stopping)
    listening_at = {} if embedded is None else {"socket": str(embedded.socket)}
    options = msgspec.convert(msgspec.structs.asdict(settings.grpc) | listening_at, ServerOptions)
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(
            listening(runner, options, clock=equipment.clock, observer=telemetry, fleet=fleet)
        )
        http_port = None
        if settings.http.enabled:
            # A third of a second, which `alt-runner run` need not wait.
            from runner.web.app import create_app
            from runner.web.server import serve_http

            app = create_app(exposition=telemetry.metrics.exposition, readiness=probes)
            http_port = await stack.enter_async_context(serve_http(settings.http, app))
        addresses = Addresses(
            server.address,
            None if http_port is None else f"{settings.http.host}:{http_port}",
        )
        async with anyio.create_task_group() as background:
            if embedded is None:
                # Before anyone is told that we are ready: whoever starts us may send a signal at once.
                await background.start(_obey_signals, settings, reload, stopping)
            await server.set_serving(serving=True)
            background.start_soon(_tell_health, server, probes, stopping)
            telemetry.notice(
                "ready", version=__version__, grpc=addresses.grpc, http=addresses.http, runner_id=equipment.runner_id
            )
            ready(addresses)
            _spare_collector()
            await stopping.wait()
            telemetry.notice("draining", grace_seconds=equipment.settings.drain_grace_seconds)
            await server.set_serving(serving=False)
            await runner.drain()
            await server.stop(grace=LAST_CALLS)
            background.cancel_scope.cancel()


def _leave(telemetry: Telemetry) -> None:
    """End the process beside tasks that do not end. For the ledger it is what kill -9 is, with all jobs given back."""
    telemetry.notice("tasks_left_behind", error="code that ignores its cancellation was still running")
    os._exit(0)


def _spare_collector() -> None:
    """Take what was loaded out of the garbage collector's sight, and let it look less often.

    Jobs make many small objects that are freed by their counts. With Python's defaults the collector walked every
    module again and again: a plan of 10,000 tasks took a fifth more CPU.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 100)


def _probes(settings: Settings, runner: Runner, equipment: Equipment, stopping: anyio.Event) -> Probes:
    async def ledger() -> str:
        await equipment.ledger.check()
        return "a write was committed"

    async def accepting() -> str:
        if stopping.is_set():
            raise NotReady("the daemon is shutting down")
        return "jobs are taken"

    return Probes(
        {
            "accepting": accepting,
            "ledger": ledger,
            "claims": recent("the claim loop", lambda: runner.dispatcher.ticked_at, settings.health.stall_seconds),
            "disk": disk_room(Path(settings.data_dir), settings.health.min_free_bytes),
        },
        timeout=settings.http.check_timeout_seconds,
    )


async def _tell_health(server: Server, probes: Probes, stopping: anyio.Event) -> None:
    while not stopping.is_set():
        checks = await probes()
        if not stopping.is_set():
            await server.set_serving(serving=all(check.ok for check in checks))
        await anyio.sleep(HEALTH_INTERVAL)


async def _obey_signals(
    settings: Settings,
    reload: Callable[[Settings], Settings],
    stopping: anyio.Event,
    *,
    task_status: anyio.abc.TaskStatus[None],
) -> None:
    """The first SIGTERM or SIGINT drains, a second one ends the process; SIGHUP reloads."""
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as received:
        task_status.started()
        async for number in received:
            if number == signal.SIGHUP:
                settings = reload(settings)
            elif stopping.is_set():
                # Exactly what kill -9 does, which every part is built to survive.
                os._exit(128 + number)
            else:
                stopping.set()


class _Reached(NamedTuple):
    """What a reload reaches."""

    equipment: Equipment
    runner: Runner
    fleet: Fleet
    telemetry: Telemetry
    masking: Masking


def _reload(parts: _Reached, settings: Settings, *, reread: Callable[[], Settings] | None) -> Settings:
    """Take over what may change while running; keep everything if anything is wrong. Answers what holds now."""
    equipment, runner, fleet, telemetry, masking = parts
    try:
        result = settings_module.reload(settings, settings if reread is None else reread())
    except InvalidSettings as error:
        telemetry.notice("reload_failed", error=str(error))
        return settings
    held = result.settings
    telemetry.logs.set_level(held.log.level)
    equipment.settings, equipment.retry = held.engine, held.retry
    equipment.take_budgets(held.budgets)
    equipment.secrets = SettingsSecrets(held.secrets)
    # What was replaced is told no more than what replaces it: calls under way may have been made with either.
    equipment.redaction = equipment.redaction.knowing(settings_module.known_secrets(held))
    masking.learn(settings_module.known_secrets(held))
    fleet.renew_keys(held.orchestrator)
    equipment.slots.resize(held.engine.max_concurrent_tasks)
    runner.limit_queues(held.queues)
    runner.descriptors.resize(held.engine.remembered_descriptor_bytes)
    telemetry.notice("reloaded", applied=result.applied, restart=result.restart)
    return held
