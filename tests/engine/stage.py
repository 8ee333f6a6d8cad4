"""A stage for the engine: a ledger in memory, a clock that jumps, and handlers that do as each test tells them."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final

import anyio
import msgspec

from runner import frames
from runner.core.alt import DescriptorLimits
from runner.core.budgets import LabelBudget
from runner.core.errors import SinkUnavailable
from runner.core.events import Event, Recorded
from runner.core.job import Frame, JobSummary, OutboxEntry
from runner.core.plan import Instant
from runner.core.redaction import Redaction
from runner.core.retry import RetryPolicy
from runner.engine.bell import Bell
from runner.engine.broadcast import Broadcast
from runner.engine.children import Children
from runner.engine.equipment import FALLBACK_HANDLER, Equipment
from runner.engine.journal import Journal
from runner.engine.runner import Runner
from runner.engine.settings import EngineSettings, QueueSettings
from runner.engine.slots import Slots
from runner.engine.submission import Submission
from runner.handlers.approval import Approval
from runner.handlers.job import RunJob
from runner.ledgers.memory import MemoryLedger
from runner.ports import Attempt, Ledger, Outcome, Quiet, Sink

SECOND: Final = 1_000_000
START: Final = 1_767_225_600 * SECOND

Script = Callable[[Attempt], Awaitable[Outcome]]


class JumpingClock:
    """Wall time that goes with the event loop's, plus what a test set it forward or back by."""

    def __init__(self) -> None:
        self.skew = 0

    def now(self) -> Instant:
        return START + self.skew + round(anyio.current_time() * SECOND)


async def succeed(attempt: Attempt) -> Outcome:
    """What a task does that no test speaks about: it gives its own id, after a moment."""
    await anyio.lowlevel.checkpoint()
    return Outcome(output=attempt.task.id)


class Troupe:
    """The handler of all tasks. Remembers who was called, how often, and how many at a time."""

    def __init__(self) -> None:
        #: Whether its tasks have a grace time when they are to stop.
        self.stops_when_asked = True
        self.scripts: dict[str, Script] = {}
        #: Calls by idempotency key: `<job>/<task>`.
        self.calls: Counter[str] = Counter()
        #: Tasks in the order in which they were called.
        self.order: list[str] = []
        self.finished: Counter[str] = Counter()
        self.on_stage: list[str] = []
        self.most_on_stage = 0

    async def run(self, attempt: Attempt) -> Outcome:
        key = attempt.idempotency_key
        assert key not in self.on_stage, f"{key} runs twice at a time"
        self.calls[key] += 1
        self.order.append(attempt.task.id)
        self.on_stage.append(key)
        self.most_on_stage = max(self.most_on_stage, len(self.on_stage))
        try:
            outcome = await self.scripts.get(attempt.task.id, succeed)(attempt)
            self.finished[key] += 1
            return outcome
        finally:
            self.on_stage.remove(key)


class Ear(Quiet):
    """An Observer that remembers, and checks that a job's events come once and in order."""

    def __init__(self) -> None:
        self.notices: list[tuple[str, dict[str, Any]]] = []
        self.heard: dict[str, list[Recorded]] = {}
        self.watching = 0

    def committed(self, job: JobSummary, events: Sequence[Recorded], *, traceparent: str) -> None:
        self.heard.setdefault(job.id, []).extend(events)
        assert job.last_sequence == events[-1].sequence

    def watchers(self, change: int) -> None:
        self.watching += change

    def notice(self, event: str, **fields: Any) -> None:
        self.notices.append((event, fields))

    def said(self, event: str) -> int:
        return sum(name == event for name, _ in self.notices)


class Shelf:
    """A Sink that keeps what it is given, or fails as often as it is told."""

    def __init__(self, name: str = "shelf") -> None:
        self.name = name
        self.failures = 0
        self.error: Callable[[], Exception] = lambda: SinkUnavailable("the shelf is full")
        self.deliveries: list[OutboxEntry] = []
        self.arrived = Bell()

    async def deliver(self, entries: Sequence[OutboxEntry]) -> None:
        await anyio.lowlevel.checkpoint()
        if self.failures:
            self.failures -= 1
            raise self.error()
        self.deliveries += entries
        self.arrived.ring()


class Vault(dict[str, str]):
    """Secrets."""


class Engine:
    """A running engine and the ways to watch, steer and kill it."""

    def __init__(self, runner: Runner, equipment: Equipment, ear: Ear) -> None:
        self.runner = runner
        self.equipment = equipment
        self.ear = ear
        self.scope = anyio.CancelScope()
        self.dead = anyio.Event()

    async def live(self) -> None:
        with self.scope:
            await self.runner.run()
        self.dead.set()

    async def kill(self) -> None:
        """Stop without a word: nothing more is written."""
        self.scope.cancel()
        with anyio.CancelScope(shield=True):
            await self.dead.wait()

    async def submit(self, *tasks: dict[str, Any], **fields: Any) -> str:
        return (await self.runner.submit(submission(*tasks, **fields))).job.id

    async def end(self, job_id: str) -> list[Recorded]:
        """Watch a job to its end."""
        return await watched(self.runner, job_id)

    async def run(self, *tasks: dict[str, Any], **fields: Any) -> list[Recorded]:
        return await self.end(await self.submit(*tasks, **fields))


class Stage:
    """What outlives an engine: the ledger, the handlers, the clock, the ids."""

    def __init__(self, ledger: MemoryLedger | None = None) -> None:
        self.ledger: MemoryLedger = ledger or MemoryLedger()
        self.troupe = Troupe()
        self.clock = JumpingClock()
        self.vault = Vault()
        #: The daemon's own secrets, by path.
        self.known: dict[str, str] = {}
        self.retry = RetryPolicy(base_seconds=1, multiplier=2, cap_seconds=3600)
        self.settings = EngineSettings(default_task_timeout_seconds=600, lease_seconds=120, poll_seconds=30)
        self.queues: dict[str, QueueSettings] = {}
        self.budgets: tuple[LabelBudget, ...] = ()
        self.chance = 0.5
        self.tail_bytes = 1024 * 1024
        self._ids = itertools.count(1)
        self._runners = itertools.count(1)

    def set(self, **changes: Any) -> None:
        """Change settings for engines made from now on."""
        self.settings = msgspec.structs.replace(self.settings, **changes)

    def new_id(self) -> str:
        return f"{next(self._ids):032x}"

    def make(self, *sinks: Sink, ledger: Ledger | None = None, **changes: Any) -> Engine:
        """An engine that does not run yet."""
        ledger = ledger or self.ledger
        ear = Ear()
        settings = msgspec.structs.replace(self.settings, **changes)
        children = Children()
        equipment = Equipment(
            runner_id=f"runner-{next(self._runners)}",
            ledger=ledger,
            handlers={FALLBACK_HANDLER: self.troupe, "approval": Approval(), "job": RunJob(children)},
            observer=ear,
            clock=self.clock,
            secrets=self.vault,
            redaction=Redaction(self.known),
            settings=settings,
            retry=self.retry,
            slots=Slots(settings.max_concurrent_tasks),
            broadcast=Broadcast(ledger, ear, tail_bytes=self.tail_bytes),
            journal=Journal(ledger, poll_seconds=settings.poll_seconds),
            chance=lambda: self.chance,
            new_id=self.new_id,
            sinks={sink.name: Bell() for sink in sinks},
            children=children,
            budgets=self.budgets,
        )
        runner = Runner(equipment, queues=self.queues, descriptor_limits=DescriptorLimits(), sinks=sinks)
        return Engine(runner, equipment, ear)

    @asynccontextmanager
    async def engine(self, *sinks: Sink, ledger: Ledger | None = None, **changes: Any) -> AsyncIterator[Engine]:
        """A running engine, killed at the end of the context."""
        engine = self.make(*sinks, ledger=ledger, **changes)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(engine.live)
            yield engine
            await engine.kill()

    async def history(self, job_id: str) -> list[Recorded]:
        """A job's events, as committed: dense, and with one end."""
        stored = await self.ledger.frames(job_id, after=0, max_bytes=1 << 40)
        recorded = frames.decode(stored)
        assert [entry.sequence for entry in recorded] == list(range(1, len(recorded) + 1))
        assert [frame.terminal for frame in stored[:-1]] == [False] * (len(stored) - 1)
        return recorded

    async def record(self, job_id: str) -> dict[str, Any]:
        return dict(json.loads(await self.ledger.record(job_id)))


def task(name: str, *dependencies: str, **fields: Any) -> dict[str, Any]:
    parameters = fields.pop("parameters", {"task_type": "scripted"})
    row = {"id": name, "description": f"do {name}", "dependencies": list(dependencies), "parameters": parameters}
    return row | fields


def submission(*tasks: dict[str, Any], **fields: Any) -> Submission:
    descriptor = {
        "id": "alt",
        "version": "1.0",
        "title": "Özet",
        "created_at": "2026-01-01T00:00:00Z",
        "tasks": list(tasks),
    }
    return Submission(descriptor=json.dumps(descriptor).encode(), **fields)


async def watched(runner: Runner, job_id: str, *, after: int = 0) -> list[Recorded]:
    """Watch a job from a number to its end; there must be no gap and no double."""
    seen: list[Recorded] = []
    async with aclosing(runner.watch(job_id, after=after, heartbeat=3600)) as stream:
        async for piece in stream:
            if isinstance(piece, Frame):
                seen += frames.decode([piece])
                assert piece.last == seen[-1].sequence
    assert [entry.sequence for entry in seen] == list(range(after + 1, after + 1 + len(seen)))
    return seen


def kinds(history: Sequence[Recorded], *, of: str | None = None) -> list[str]:
    """The names of events; those of one task only, if told."""
    events = [entry.event for entry in history]
    return [type(event).__name__ for event in events if of is None or getattr(event, "task_id", None) == of]


def only(history: Sequence[Recorded], kind: type[Event]) -> list[Any]:
    return [entry.event for entry in history if isinstance(entry.event, kind)]


def times(history: Sequence[Recorded], kind: type[Event]) -> list[float]:
    """When, in seconds since the start, events of a kind happened."""
    return [(entry.time - START) / SECOND for entry in history if isinstance(entry.event, kind)]


async def forever(_: Attempt) -> Outcome:
    """Until somebody stops it."""
    await anyio.sleep_forever()
    raise AssertionError
