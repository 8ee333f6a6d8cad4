"""The ledger on SQL: SQLite in WAL mode, every commit synced, one writer with group commit and readers beside it.

Checkpoints are the writer's own. A second connection that checkpoints or writes beside it may corrupt the file with any
SQLite before 3.51.3 (sqlite.org/wal.html, "the WAL-reset bug"), and those are what Python ships with for years to come.
"""

from __future__ import annotations

import threading
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar, cast

import anyio
import anyio.to_thread
import sqlalchemy as sa
from sqlalchemy.engine import Engine, make_url

from runner.core.answers import AnswerCachePolicy, KeptAnswer
from runner.core.errors import InvalidSettings, LedgerUnavailable
from runner.core.events import Artifact
from runner.core.filters import JobQuery
from runner.core.job import (
    Append,
    Body,
    Change,
    Claim,
    Frame,
    JobSummary,
    NewJob,
    OutboxEntry,
    ReplayFailure,
    Reservation,
    Shortfall,
    Signal,
    Steered,
    Submitted,
)
from runner.core.plan import Instant, JobId
from runner.ledgers import (
    answers,
    budgets,
    claims,
    journal,
    outbox,
    pauses,
    queries,
    replays,
    signals,
    submissions,
    tallies,
)
from runner.ledgers.commit import GroupCommit
from runner.ledgers.driver import Connection
from runner.ledgers.faults import UNFIT, translated
from runner.ledgers.holder import Holder, held
from runner.ledgers.lanes import Lane
from runner.ledgers.migration import HEAD, bring_up_to_date, migrating
from runner.ledgers.schema import runners
from runner.ledgers.settings import LedgerSettings
from runner.ledgers.writes import (
    Answering,
    Appending,
    Claiming,
    Delivery,
    Intake,
    Keeping,
    Pausing,
    Postponement,
    Proof,
    Renewal,
    Rescue,
    Reserving,
    SettingBack,
    Wish,
    Write,
)
from runner.ports import Observer

Result = TypeVar("Result")
Arguments = ParamSpec("Arguments")
Outcomes = Sequence[Any]

_PROVE: Final = sa.update(runners).where(runners.c.id == sa.bindparam("runner")).values(proof=sa.bindparam("content"))
#: Seconds between two tries to interrupt what opens the database: one that meets no statement has no effect.
_INTERRUPTION: Final = 0.05
#: Bytes of a page of the file, SQLite's default.
_PAGE: Final = 4096
#: Bytes that a health check writes: several pages, so that a full disk shows.
_PROOF: Final = bytes(32 * 1024)


def _prove(connection: Connection, writes: Sequence[Proof]) -> Outcomes:
    for write in writes:
        connection.execute(_PROVE, {"runner": write.runner_id, "content": write.content})
    return [None for _ in writes]


#: The kinds of writes, in the order in which a commit applies them: finished work and renewals before anything may be
#: taken away, and claims last, so that they find what was submitted, released, rescued or cancelled a moment ago.
PHASES: Final[Mapping[type[Write[Any]], Callable[[Connection, Sequence[Any]], Outcomes]]] = {
    Renewal: claims.renew,
    # Before appends: one that was under way when its attempt was cancelled is settled with that.
    Reserving: budgets.reserve,
    Appending: journal.append,
    SettingBack: replays.set_back,
    Rescue: claims.rescue,
    Wish: claims.wish,
    Answering: signals.answer,
    Pausing: pauses.steer,
    Intake: submissions.accept,
    Claiming: claims.claim,
    Delivery: outbox.deliver,
    Postponement: outbox.put_off,
    Keeping: answers.keep,
    Proof: _prove,
}


class SqlLedger:
    """A Ledger in one SQLite file, held by one process at a time."""

    def __init__(self, url: str | Path, *, holder: Holder, observer: Observer, settings: LedgerSettings) -> None:
        """`url` is SQLAlchemy's (`sqlite:///var/ledger.db`) or the file's path.

        Raises InvalidSettings: if it names no SQLite file.
        """
        self._path = _database_path(url)
        self._holder = holder
        self._settings = settings
        self._observer = observer
        self._writer: Connection | None = None
        #: The driver's connection while the database is opened.
        self._interruptible: list[Any] = []
        self._verify: Callable[[], None] = lambda: None
        #: Reading lanes that are idle, each with its connection.
        self._readers: deque[tuple[Lane, Connection]] = deque()
        #: How many are idle; None while the ledger is closed.
        self._idle: anyio.Semaphore | None = None
        self._commits: GroupCommit[Write[Any], Any] = GroupCommit(
            self._apply,
            max_batch=settings.max_batch,
            max_pending=settings.max_pending,
            observer=observer,
            weigh=lambda write: write.weight,
        )

    # ---------------------------------------------------------------------------------------- opening and closing

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Hold, migrate and open the database; make the jobs of dead runners claimable.

        Raises LedgerHeld, LedgerDamaged, LedgerUnavailable: each says what to do.
        """
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise LedgerUnavailable(
                f"`{self._path.parent}` cannot be made ({error.strerror}); make it, or set `data_dir`"
            ) from error
        with held(self._path, self._holder) as hold, ExitStack() as connections:
            with self._opening() as opening:
                orphans, forgiven = await anyio.to_thread.run_sync(self._open, connections, opening)
            hold.watch(*(self._path.with_name(self._path.name + suffix) for suffix in ("", "-wal", "-shm")))
            self._verify = hold.verify
            if orphans:
                self._observer.notice("jobs_adopted", count=orphans)
            if forgiven:
                self._observer.notice("jobs_tried_again", count=forgiven)
            idle = self._idle = anyio.Semaphore(self._settings.readers)
            try:
                async with self._commits.running():
                    yield
            finally:
                self._idle = self._writer = None
                with anyio.CancelScope(shield=True):
                    # Reads under way come back first: they use the connections that are closed next.
                    for _ in range(self._settings.readers):
                        await idle.acquire()
                self._readers.clear()

    @contextmanager
    def _opening(self) -> Iterator[threading.Lock]:
        """Gives what a thread holds that opens the database; at the end of the context it has finished or given up.

        Ctrl-C lets asyncio cancel whoever waits for the thread, past all shields. What was closed then, while a
        migration used it, ended the process with a segmentation fault.
        """
        opening = threading.Lock()
        try:
            yield opening
        finally:
            while not opening.acquire(timeout=_INTERRUPTION):
                for driver in self._interruptible:
                    driver.interrupt()
            self._interruptible.clear()

    def _open(self, connections: ExitStack, opening: threading.Lock) -> tuple[int, int]:
        """Open everything; `connections` closes it again.

        Answers how many jobs dead runners left, and how many were set aside.
        """
        with opening, translated(str(self._path)):
            writer = self._connect(connections, begin="BEGIN IMMEDIATE")
            self._interruptible.append(writer.connection.driver_connection)
            with migrating(writer), writer.begin():
                bring_up_to_date(writer, str(self._path), begin=self._tell_migration)
            self._writer = Connection(writer, begin="BEGIN IMMEDIATE")
            with self._writer.transaction():
                orphans = claims.adopt(self._writer, self._holder.runner_id)
                forgiven = replays.forgive(self._writer)
                self._register(self._writer)
            for number in range(self._settings.readers):
                reader = Connection(self._connect(connections, begin="BEGIN"), begin="BEGIN")
                lane = Lane()
                connections.enter_context(lane.open(f"ledger-reader-{number}"))
                self._readers.append((lane, reader))
        return orphans, forgiven

    def _tell_migration(self, revision: str) -> None:
        """From the worker thread: the event loop may wait for that."""
        self._observer.notice("ledger_migrating", path=str(self._path), schema=revision, to=HEAD)

    def _connect(self, connections: ExitStack, *, begin: str) -> sa.Connection:
        engine = _engine(self._path, self._settings, begin=begin)
        connections.callback(engine.dispose)
        return connections.enter_context(engine.connect())

    def _register(self, connection: Connection) -> None:
        connection.execute(sa.delete(runners))
        connection.execute(
            sa.insert(runners),
            {
                "id": self._holder.runner_id,
                "host": self._holder.host,
                "pid": self._holder.pid,
                "started_at": self._holder.started,
            },
        )

    # -------------------------------------------------------------------------------------------------- plumbing

    def _write(self, write: Write[Result]) -> Awaitable[Result]:
        return cast("Awaitable[Result]", self._commits.submit(write))

    async def _read(
        self,
        query: Callable[Concatenate[Connection, Arguments], Result],
        *args: Arguments.args,
        **kwargs: Arguments.kwargs,
    ) -> Result:
        """Run a query, with its several statements, in one thread and on one snapshot."""
        if self._idle is None:
            raise LedgerUnavailable("the ledger is closed; the daemon is shutting down")

        def work() -> Result:
            with translated(str(self._path)), connection.transaction():
                return query(connection, *args, **kwargs)

        async with self._idle:
            lane, connection = self._readers.popleft()
            try:
                return await lane.run(work)
            finally:
                self._readers.append((lane, connection))

    def _apply(self, writes: list[Write[Any]]) -> Outcomes:
        """Commit a batch. A write that does not fit the schema is answered alone, and the others are committed."""
        with translated(str(self._path)):
            try:
                return self._transact(writes)
            except UNFIT as error:
                if len(writes) == 1:
                    return [error]
        return [outcome for write in writes for outcome in self._apply([write])]

    def _transact(self, writes: list[Write[Any]]) -> Outcomes:
        assert self._writer is not None  # noqa: S101  commits run only between opening and closing
        kinds: defaultdict[type[Write[Any]], list[int]] = defaultdict(list)
        for place, write in enumerate(writes):
            kinds[type(write)].append(place)
        outcomes: list[Any] = [None] * len(writes)
        with self._writer.transaction():
            for kind, apply in PHASES.items():
                places = kinds.get(kind)
                if places:
                    answers = apply(self._writer, [writes[place] for place in places])
                    for place, answer in zip(places, answers, strict=True):
                        outcomes[place] = answer
            # Last: a commit into files without a name would be answered, and lost.
            self._verify()
        return outcomes

    # ---------------------------------------------------------------------------------------------------- writing

    async def submit(self, jobs: Sequence[NewJob], *, max_queued: Mapping[str, int]) -> list[Submitted | Exception]:
        return await self._write(Intake(tuple(jobs), max_queued))

    async def claim(
        self,
        runner_id: str,
        *,
        now: Instant,
        lease_until: Instant,
        limit: int,
        max_bytes: int,
        queue_limits: Mapping[str, int],
    ) -> list[Claim]:
        return await self._write(Claiming(runner_id, now, lease_until, limit, max_bytes, queue_limits))

    async def append(self, change: Append) -> None:
        await self._write(Appending(change))

    async def set_back(self, failure: ReplayFailure) -> bool:
        return await self._write(SettingBack(failure))

    async def reserve_tokens(self, reservation: Reservation) -> Shortfall | None:
        return await self._write(Reserving(reservation))

    async def renew(self, runner_id: str, *, tokens: Mapping[JobId, int], until: Instant) -> set[JobId]:
        return await self._write(Renewal(runner_id, tokens, until))

    async def rescue(self, *, now: Instant, limit: int) -> int:
        return await self._write(Rescue(now, limit))

    async def request_cancel(self, job_id: JobId, reason: str) -> JobSummary:
        return await self._write(Wish(job_id, reason))

    async def signal(self, job_id: JobId, signal: Signal) -> JobSummary:
        return await self._write(Answering(job_id, signal))

    async def request_pause(self, job_id: JobId, *, framed: Callable[[int], Frame]) -> Steered:
        return await self._write(Pausing(job_id, True, framed))

    async def request_resume(self, job_id: JobId, *, framed: Callable[[int], Frame]) -> Steered:
        return await self._write(Pausing(job_id, False, framed))

    async def delivered(self, entries: Collection[int]) -> None:
        await self._write(Delivery(tuple(entries)))

    async def put_off(self, entries: Collection[int], *, until: Instant) -> None:
        await self._write(Postponement(tuple(entries), until))

    async def keep_answer(self, key: bytes, answer: KeptAnswer, *, policy: AnswerCachePolicy) -> None:
        await self._write(Keeping(key, answer, policy))

    async def check(self) -> None:
        for content in (_PROOF, None):
            await self._write(Proof(self._holder.runner_id, content))

    # ---------------------------------------------------------------------------------------------------- reading

    async def job(self, job_id: JobId) -> JobSummary:
        return await self._read(queries.job, job_id)

    async def jobs(self, query: JobQuery) -> list[JobSummary]:
        return await self._read(queries.page, query)

    async def body(self, job_id: JobId) -> Body:
        return await self._read(queries.body, job_id)

    async def frames(self, job_id: JobId, *, after: int, max_bytes: int) -> list[Frame]:
        return await self._read(journal.frames_after, job_id, after, max_bytes)

    async def changes(self, *, after: int, limit: int) -> list[Change]:
        return await self._read(journal.changes_after, after, limit)

    async def newest_cursor(self) -> int:
        return await self._read(journal.newest_cursor)

    async def record(self, job_id: JobId) -> bytes:
        return await self._read(queries.record, job_id)

    async def artifact(self, job_id: JobId, artifact_id: str) -> Artifact:
        return await self._read(queries.artifact, job_id, artifact_id)

    async def artifact_bytes(self, job_id: JobId, artifact_id: str, *, offset: int, size: int) -> bytes:
        return await self._read(queries.artifact_bytes, job_id, artifact_id, offset, size)

    async def spent_tokens(self, budget: str, period: str) -> int:
        return await self._read(budgets.spent, budget, period)

    async def depths(self) -> dict[tuple[str, int], int]:
        return await self._read(tallies.depths)

    async def set_aside(self) -> int:
        return await self._read(replays.set_aside)

    async def oldest_queued(self) -> dict[str, Instant]:
        return await self._read(queries.oldest_queued)

    async def answer(self, key: bytes, *, since: Instant) -> KeptAnswer | None:
        return await self._read(answers.answer, key, since)

    async def due(self, sink: str, *, now: Instant, limit: int, max_bytes: int) -> list[OutboxEntry]:
        return await self._read(outbox.due, sink, now, limit, max_bytes)

    async def next_due(self, *, now: Instant) -> Instant | None:
        return await self._read(queries.next_due, now)


def _database_path(url: str | Path) -> Path:
    if isinstance(url, Path):
        return url
    parsed = make_url(url) if "://" in url or url.startswith("sqlite:") else make_url(f"sqlite:///{url}")
    if parsed.get_backend_name() != "sqlite" or not parsed.database or parsed.database == ":memory:":
        raise InvalidSettings([f"`ledger.url` is `{parsed}`; it must name a SQLite file: `sqlite:///var/ledger.db`"])
    return Path(parsed.database)


def _engine(path: Path, settings: LedgerSettings, *, begin: str) -> Engine:
    engine = sa.create_engine(
        sa.URL.create("sqlite", database=str(path)),
        poolclass=sa.NullPool,
        connect_args={
            "timeout": settings.busy_timeout_seconds,
            "check_same_thread": False,
            # Transactions are begun below: sqlite3 itself would begin them late, and only for some statements.
            "isolation_level": None,
        },
    )
    pragmas = [
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "cache_size = -16384",
        # An INSERT of many rows keeps a journal of its own, which would be a file made and removed for each.
        "temp_store = MEMORY",
        # A job alone writes 37 pages of log; one in 27 would meet a checkpoint at the default of 1000, and set the p99.
        # Now one in 108 does, and 8 % less is written.
        "wal_autocheckpoint = 4000",
        "journal_size_limit = 67108864",
        *(["query_only = ON"] if begin == "BEGIN" else []),
        *([f"max_page_count = {settings.max_file_bytes // _PAGE}"] if settings.max_file_bytes else []),
    ]

    def prepare(connection: Any, _: object) -> None:
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    sa.event.listen(engine, "connect", prepare)
    sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql(begin))
    return engine
