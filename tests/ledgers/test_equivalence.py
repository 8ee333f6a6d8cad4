"""The SQLite ledger and the one in memory answer alike, whatever is asked of them and in whatever order.

The engine's tests run on the ledger in memory; this is what makes them say something about the real one.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from anyio.from_thread import BlockingPortal, start_blocking_portal
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from runner.core.answers import AnswerCachePolicy, KeptAnswer
from runner.core.errors import RunnerError
from runner.core.events import Failure, JobState
from runner.core.filters import ANY, And, Comparison, Filter, JobQuery, Not, Or
from runner.core.job import Claim, NewJob, Reservation, Share, Spending
from runner.core.plan import Priority
from runner.ledgers.memory import MemoryLedger
from runner.ports import Ledger
from tests.ledgers.conftest import open_sql
from tests.ledgers.jobs import T0, append, artifact, ending, job, release, steering, unread

_QUEUES = st.sampled_from(["a", "b", "c"])
_MOMENTS = st.integers(T0 - 3, T0 + 12)
_LIMITS = st.dictionaries(_QUEUES, st.integers(0, 3))
_LABELS = st.dictionaries(st.sampled_from(["team", 'x"y']), st.sampled_from(["", "Blue", "blue", "*", "%"]), max_size=2)
_TITLES = st.sampled_from(["Weekly digest", "haftalık ÖZET", "100%", ""])
_TASKS = st.sampled_from(["fetch", "ask"])
_SLIPS = st.sampled_from([0, 0, 0, 0, 1])
_SHARES = st.sampled_from(
    [Share("team=blue/day", "2026-11-22", 100), Share("team=blue/day", "2026-11-23", 100), Share("all/ever", "", 150)]
)
_ENDINGS = st.sampled_from([state for state in JobState if state.terminal])

_COMPARISONS: st.SearchStrategy[Comparison] = st.one_of(
    st.builds(Comparison, st.just("state"), st.just(""), st.sampled_from(["=", "!="]), st.sampled_from(list(JobState))),
    st.builds(Comparison, st.just("queue"), st.just(""), st.sampled_from(["=", "!=", ":"]), _QUEUES),
    st.builds(
        Comparison,
        st.just("priority"),
        st.just(""),
        st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
        st.sampled_from(list(Priority)),
    ),
    st.builds(
        Comparison,
        st.sampled_from(["created_at", "ended_at"]),
        st.just(""),
        st.sampled_from(["=", "!=", "<", "<=", ">", ">="]),
        _MOMENTS,
    ),
    st.builds(Comparison, st.just("title"), st.just(""), st.sampled_from(["=", "!=", ":"]), _TITLES),
    st.builds(
        Comparison,
        st.just("labels"),
        st.sampled_from(["team", 'x"y', "none"]),
        st.sampled_from(["=", "!=", ":"]),
        st.sampled_from(["", "BLUE", "blue", ANY, "%"]),
    ),
)
_FILTERS: st.SearchStrategy[Filter] = st.recursive(
    _COMPARISONS,
    lambda parts: st.one_of(
        parts.map(Not),
        st.lists(parts, max_size=3).map(lambda parts: And(tuple(parts))),
        st.lists(parts, max_size=3).map(lambda parts: Or(tuple(parts))),
    ),
    max_leaves=5,
)


class Twins(RuleBasedStateMachine):
    """Every call is made on both ledgers; their answers, and what they raise, must be equal."""

    template: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self._exit = ExitStack()
        self.portal: BlockingPortal = self._exit.enter_context(start_blocking_portal())
        folder = Path(self._exit.enter_context(tempfile.TemporaryDirectory()))
        self.path = Path(shutil.copy(self.template, folder / "ledger.db"))
        self.memory = MemoryLedger()
        self.number = 0
        self.claims: list[Claim] = []
        self.last: dict[str, int] = {}

    @initialize()
    def start(self) -> None:
        self.runs = ExitStack()
        self.sql = open_sql(self.path)
        runs: Sequence[AbstractContextManager[None]] = [
            self.portal.wrap_async_context_manager(ledger.running()) for ledger in (self.sql, self.memory)
        ]
        for run in runs:
            self.runs.enter_context(run)

    def teardown(self) -> None:
        self.runs.close()
        self._exit.close()

    def both(self, call: Callable[[Ledger], Awaitable[Any]]) -> Any:
        """What both answer."""

        async def told(ledger: Ledger) -> Any:
            try:
                return await call(ledger)
            except RunnerError as error:
                return error

        ours, theirs = (self.portal.call(told, ledger) for ledger in (self.sql, self.memory))
        assert _comparable(ours) == _comparable(theirs)
        return ours

    def a_claim(self, data: st.DataObject) -> Claim | None:
        return data.draw(st.sampled_from(self.claims)) if self.claims else None

    # ------------------------------------------------------------------------------------------------- writing

    @rule(
        specs=st.lists(
            st.fixed_dictionaries(
                {
                    "queue": _QUEUES,
                    "rank": st.integers(-5, 5),
                    "labels": _LABELS,
                    "title": _TITLES,
                    "priority": st.sampled_from(list(Priority)),
                    "request_id": st.sampled_from(["", "", "r-1", "r-2", "r-3"]),
                    "body": st.sampled_from([b"one", b"one", b"other"]),
                    "created_at": _MOMENTS,
                    "not_before": st.none() | _MOMENTS,
                    "deadline": st.none() | _MOMENTS,
                }
            ),
            max_size=4,
        ),
        max_queued=_LIMITS,
    )
    def submit(self, specs: list[dict[str, Any]], max_queued: dict[str, int]) -> None:
        jobs: list[NewJob] = []
        for spec in specs:
            self.number += 1
            jobs.append(job(self.number, **spec))
        self.both(lambda ledger: ledger.submit(jobs, max_queued=max_queued))

    # Time may stand still but does not go back: SQLite lets go of a held job for good once its time has come.
    @rule(later=st.integers(0, 3), lease=st.integers(0, 4), limit=st.integers(0, 4), queue_limits=_LIMITS)
    def claim(self, later: int, lease: int, limit: int, queue_limits: dict[str, int]) -> None:
        self.now = now = getattr(self, "now", T0) + later
        claims = self.both(
            lambda ledger: ledger.claim(
                "runner-1", now=now, lease_until=now + lease, limit=limit, max_bytes=20, queue_limits=queue_limits
            )
        )
        for claim in claims:
            self.claims.append(claim)
            self.last[claim.summary.id] = claim.frames[-1].last

    @rule(data=st.data(), events=st.integers(1, 3), slip=st.sampled_from([0, 0, 0, 0, -1, 1]), started=st.booleans())
    def append(self, data: st.DataObject, events: int, slip: int, started: bool) -> None:
        if claim := self.a_claim(data):
            first = max(1, self.last[claim.summary.id] + 1 + slip)
            change = append(
                claim,
                first,
                first + events - 1,
                progress=data.draw(st.sampled_from([0.0, 0.25, 1.0])),
                started_at=T0 + 7 if started else None,
                entered=JobState.RUNNING if started else None,
                artifacts=(artifact(f"a{first}"),) if started else (),
            )
            if self.both(lambda ledger: ledger.append(change)) is None and slip == 0:
                self.last[claim.summary.id] = change.frame.last

    @rule(data=st.data(), state=_ENDINGS, sinks=st.sets(st.sampled_from(["directory", "nats"])), ended_at=_MOMENTS)
    def end(self, data: st.DataObject, state: JobState, sinks: set[str], ended_at: int) -> None:
        if claim := self.a_claim(data):
            error = None if state is JobState.SUCCEEDED else Failure("HTTP_STATUS", "503 — hata", "fetch")
            first = self.last[claim.summary.id] + 1
            change = ending(claim, first, state=state, error=error, sinks=sorted(sinks), ended_at=ended_at)
            if self.both(lambda ledger: ledger.append(change)) is None:
                self.last[claim.summary.id] = change.frame.last

    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        if claim := self.a_claim(data):
            change = release(claim, self.last[claim.summary.id] + 1)
            if self.both(lambda ledger: ledger.append(change)) is None:
                self.last[claim.summary.id] = change.frame.last

    @rule(data=st.data(), later=st.integers(0, 3), most=st.integers(1, 3))
    def set_back(self, data: st.DataObject, later: int, most: int) -> None:
        if claim := self.a_claim(data):
            failure = unread(claim, retry_at=getattr(self, "now", T0) + later, max_failures=most)
            self.both(lambda ledger: ledger.set_back(failure))

    @rule(
        data=st.data(),
        until=_MOMENTS,
        slip=st.sampled_from([0, 0, 1]),
        runner=st.sampled_from(["runner-1", "runner-2"]),
    )
    def renew(self, data: st.DataObject, until: int, slip: int, runner: str) -> None:
        chosen = data.draw(st.lists(st.sampled_from(self.claims), max_size=3)) if self.claims else []
        tokens = {claim.summary.id: claim.token + slip for claim in chosen}
        self.both(lambda ledger: ledger.renew(runner, tokens=tokens, until=until))

    @rule(now=_MOMENTS)
    def rescue(self, now: int) -> None:
        self.both(lambda ledger: ledger.rescue(now=now, limit=1000))

    @rule(data=st.data(), reason=st.sampled_from(["", "no longer needed"]))
    def request_cancel(self, data: st.DataObject, reason: str) -> None:
        name = f"job-{data.draw(st.integers(1, self.number + 1)):06d}"
        self.both(lambda ledger: ledger.request_cancel(name, reason))

    @rule(data=st.data(), paused=st.booleans())
    def steer(self, data: st.DataObject, paused: bool) -> None:
        name = f"job-{data.draw(st.integers(1, self.number + 1)):06d}"
        self.both(lambda ledger: (ledger.request_pause if paused else ledger.request_resume)(name, framed=steering))

    @rule(data=st.data(), state=st.sampled_from([JobState.PAUSED, JobState.RUNNING]))
    def heed(self, data: st.DataObject, state: JobState) -> None:
        """The holder writes that it paused, or went on."""
        if claim := self.a_claim(data):
            change = append(claim, self.last[claim.summary.id] + 1, entered=state)
            if self.both(lambda ledger: ledger.append(change)) is None:
                self.last[claim.summary.id] = change.frame.last

    @rule(data=st.data(), task=_TASKS, tokens=st.integers(0, 60), shares=st.lists(_SHARES, unique=True), slip=_SLIPS)
    def reserve(self, data: st.DataObject, task: str, tokens: int, shares: list[Share], slip: int) -> None:
        if claim := self.a_claim(data):
            asked = Reservation(
                job_id=claim.summary.id,
                token=claim.token + slip,
                task_id=task,
                tokens=tokens,
                shares=tuple(shares),
            )
            self.both(lambda ledger: ledger.reserve_tokens(asked))

    @rule(data=st.data(), settled=st.sets(_TASKS), share=_SHARES, tokens=st.integers(0, 30), repeated=st.booleans())
    def spend(self, data: st.DataObject, settled: set[str], share: Share, tokens: int, repeated: bool) -> None:
        if claim := self.a_claim(data):
            spent = (Spending(share.budget, share.period, tokens),)
            change = append(claim, self.last[claim.summary.id] + 1, settled=tuple(settled), spent=spent)
            for _ in range(1 + repeated):
                if self.both(lambda ledger: ledger.append(change)) is None:
                    self.last[claim.summary.id] = change.frame.last
        self.both(lambda ledger: ledger.spent_tokens(share.budget, share.period))

    @rule(number=st.integers(1, 4), at=_MOMENTS, size=st.integers(2, 40), most=st.integers(1, 3))
    def keep_an_answer(self, number: int, at: int, size: int, most: int) -> None:
        policy = AnswerCachePolicy(max_answers=most, max_bytes=50, max_age_seconds=5e-6)
        given = KeptAnswer(output=b"x" * size, endpoint="e", model="m", given_at=at)
        self.both(lambda ledger: ledger.keep_answer(bytes([number]), given, policy=policy))

    @rule(number=st.integers(1, 4), since=_MOMENTS)
    def find_an_answer(self, number: int, since: int) -> None:
        self.both(lambda ledger: ledger.answer(bytes([number]), since=since))

    @rule(data=st.data(), now=_MOMENTS, until=_MOMENTS)
    def deliver(self, data: st.DataObject, now: int, until: int) -> None:
        entries = self.both(lambda ledger: ledger.due("directory", now=now, limit=3, max_bytes=1 << 30))
        if entries:
            some = [data.draw(st.sampled_from(entries)).id]
            if data.draw(st.booleans()):
                self.both(lambda ledger: ledger.delivered(some))
            else:
                self.both(lambda ledger: ledger.put_off(some, until=until))

    @rule()
    def die_and_start_again(self) -> None:
        self.runs.close()
        self.path.with_name("ledger.db.lock").write_text("")
        self.start_as("runner-2")

    def start_as(self, runner: str) -> None:
        self.runs = ExitStack()
        self.sql = open_sql(self.path, runner=runner)
        for ledger in (self.sql, self.memory):
            self.runs.enter_context(self.portal.wrap_async_context_manager(ledger.running()))

    # ------------------------------------------------------------------------------------------------- reading

    @rule(restriction=st.none() | _FILTERS, ascending=st.booleans(), limit=st.integers(1, 9), data=st.data())
    def list_jobs(self, restriction: Filter | None, ascending: bool, limit: int, data: st.DataObject) -> None:
        query = JobQuery(filter=restriction, ascending=ascending, limit=limit)
        page = self.both(lambda ledger: ledger.jobs(query))
        if page:
            place = data.draw(st.sampled_from(page))
            after = msgspec.structs.replace(query, after=(place.created_at, place.id))
            self.both(lambda ledger: ledger.jobs(after))

    @rule(data=st.data(), after=st.integers(0, 9), max_bytes=st.integers(1, 40))
    def read(self, data: st.DataObject, after: int, max_bytes: int) -> None:
        name = f"job-{data.draw(st.integers(1, self.number + 1)):06d}"
        self.both(lambda ledger: ledger.job(name))
        self.both(lambda ledger: ledger.frames(name, after=after, max_bytes=max_bytes))
        self.both(lambda ledger: ledger.record(name))
        self.both(lambda ledger: ledger.artifact_bytes(name, "a2", offset=after, size=4))

    @invariant()
    def what_the_daemon_watches_agrees(self) -> None:
        self.both(lambda ledger: ledger.depths())
        self.both(lambda ledger: ledger.oldest_queued())
        self.both(lambda ledger: ledger.set_aside())
        self.both(_changes)

    @rule(now=_MOMENTS)
    def look_ahead(self, now: int) -> None:
        # A job that was held is due once; after that SQLite no longer looks at its time.
        self.both(lambda ledger: ledger.next_due(now=max(now, getattr(self, "now", T0))))


async def _changes(ledger: Ledger) -> list[tuple[JobState, int, str]]:
    """The journal but for its cursors: both grow, each in its own steps."""
    changes = await ledger.changes(after=0, limit=10_000)
    assert (await ledger.newest_cursor()) == (changes[-1].cursor if changes else 0)
    return [(change.state, change.sequence, change.job.id) for change in changes]


def _comparable(answer: Any) -> Any:
    if isinstance(answer, Exception):
        return type(answer), str(answer)
    if isinstance(answer, list):
        return [_comparable(each) for each in answer]
    return answer


def test_both_ledgers_answer_alike(migrated: Path) -> None:
    Twins.template = migrated
    run_state_machine_as_test(
        Twins,
        settings=settings(
            max_examples=6,
            stateful_step_count=40,
            deadline=None,
            # Shrinking a failure by reopening databases takes minutes; the first one is told as it was found.
            phases=(Phase.explicit, Phase.reuse, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )
