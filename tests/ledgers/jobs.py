"""Jobs and appends for tests of ledgers: short to write, with times counted from one moment."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from runner.core.events import Artifact, Failure, JobState
from runner.core.filters import Filter, JobQuery
from runner.core.job import Append, Claim, Ending, Frame, JobSummary, NewJob, ReplayFailure, StoredArtifact, Submitted
from runner.core.plan import Instant, Priority
from runner.ports import Ledger, Quiet

SECOND: Final = 1_000_000
#: The moment at which jobs of these tests are accepted.
T0: Final = 1_750_000_000 * SECOND
RUNNER: Final = "runner-1"

#: Above the numbers that tests give.
_numbers = itertools.count(100_001)


def job(number: int | None = None, *, rank: int = 0, body: bytes = b"sha", **summary: Any) -> NewJob:
    """A submission; accepted at T0, ranked `rank` after it."""
    number = next(_numbers) if number is None else number
    accepted = JobSummary(
        id=f"job-{number:06d}",
        alt_id="alt_0042",
        title="Weekly digest",
        state=JobState.QUEUED,
        priority=Priority.MEDIUM,
        queue="default",
        labels={},
        request_id="",
        created_at=T0,
        started_at=None,
        ended_at=None,
        not_before=None,
        deadline=None,
        progress=0.0,
        last_sequence=1,
        error=None,
        cancel_requested=False,
        task_count=2,
        descriptor_sha256="ab" * 32,
    )
    return NewJob(
        summary=msgspec.structs.replace(accepted, **summary),
        rank=T0 + rank,
        request_sha256=body,
        descriptor=b"{}",
        content_type="application/json",
        plan=b"plan of %d" % number,
        inputs=b'{"n":1}',
        traceparent="00-trace",
        frames=(Frame(1, 1, terminal=False, data=b"accepted"),),
    )


async def submitted(ledger: Ledger, *jobs: NewJob, max_queued: Mapping[str, int] | None = None) -> list[JobSummary]:
    """Submit jobs that must all be accepted."""
    answers = await ledger.submit(jobs, max_queued=max_queued or {})
    accepted = [answer.job for answer in answers if isinstance(answer, Submitted) and not answer.replayed]
    assert len(accepted) == len(jobs), answers
    return accepted


async def claimed(
    ledger: Ledger,
    limit: int = 10,
    *,
    now: Instant = T0,
    runner: str = RUNNER,
    lease: Instant = T0 + 15 * SECOND,
    queues: Mapping[str, int] | None = None,
    max_bytes: int = 1 << 30,
) -> list[Claim]:
    return await ledger.claim(
        runner, now=now, lease_until=lease, limit=limit, max_bytes=max_bytes, queue_limits=queues or {}
    )


async def running(ledger: Ledger, **options: Any) -> Claim:
    """A job, submitted and claimed."""
    await submitted(ledger, job(**options))
    (claim,) = await claimed(ledger)
    return claim


def append(claim: Claim, first: int, last: int | None = None, **changes: Any) -> Append:
    """A frame of events `first` to `last`, told by its bytes."""
    last = first if last is None else last
    data = changes.pop("data", f"events {first}-{last}".encode())
    terminal = "ending" in changes
    values: dict[str, Any] = {"progress": 0.5, "frame": Frame(first, last, terminal, data)} | changes
    return Append(job_id=claim.summary.id, token=claim.token, **values)


def ending(claim: Claim, first: int, last: int | None = None, **changes: Any) -> Append:
    """The frame with which a job ends."""
    state = changes.pop("state", JobState.SUCCEEDED)
    sinks: Sequence[str] = changes.pop("sinks", ("directory",))
    error: Failure | None = changes.pop("error", None)
    ended_at: Instant = changes.pop("ended_at", T0 + SECOND)
    name = claim.summary.id
    end = Ending(state, error, f"execution of {name}", f"record of {name}".encode(), ended_at, tuple(sinks))
    return append(claim, first, last, ending=end, entered=state, **({"progress": 1.0} | changes))


def release(claim: Claim, first: int, last: int | None = None) -> Append:
    """The frame with which a runner gives a job back."""
    return append(claim, first, last, release=True, entered=JobState.QUEUED)


UNREAD: Final = Failure("REPLAY_FAILED", "event 2 is of a kind that this version does not know")


def unread(claim: Claim, *, retry_at: Instant = T0, max_failures: int = 3) -> ReplayFailure:
    """A claim in vain."""
    return ReplayFailure(
        job_id=claim.summary.id, token=claim.token, error=UNREAD, retry_at=retry_at, max_failures=max_failures
    )


def steering(number: int) -> Frame:
    """The frame of an event that the ledger itself numbers."""
    return Frame(number, number, terminal=False, data=f"steered {number}".encode())


def artifact(artifact_id: str = "a1", content: bytes = b"0123456789") -> StoredArtifact:
    return StoredArtifact(
        Artifact(
            id=artifact_id,
            name="digest.txt",
            artifact_type="text",
            task_id="digest",
            mime_type="text/plain",
            size_bytes=len(content),
            sha256="cd" * 32,
            created_at=T0,
        ),
        content,
    )


async def found(ledger: Ledger, restriction: Filter | None = None, **query: Any) -> list[str]:
    """The ids of the jobs that a query finds."""
    return [each.id for each in await ledger.jobs(JobQuery(filter=restriction, **query))]


def ids(claims: Sequence[Claim]) -> list[str]:
    return [claim.summary.id for claim in claims]


class Ear(Quiet):
    """An observer that remembers what a ledger tells."""

    def __init__(self) -> None:
        self.commits: list[int] = []
        self.notices: list[str] = []

    def ledger_commit(self, *, size: int, seconds: float) -> None:
        assert seconds > 0
        self.commits.append(size)

    def notice(self, event: str, **fields: Any) -> None:
        self.notices.append(event)
