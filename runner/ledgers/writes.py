"""The writes of a ledger as values: what waits for the next commit. The type in brackets is what the caller gets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import msgspec

from runner.core.answers import AnswerCachePolicy, KeptAnswer
from runner.core.job import (
    Append,
    Claim,
    Frame,
    JobSummary,
    NewJob,
    ReplayFailure,
    Reservation,
    Shortfall,
    Signal,
    Steered,
    Submitted,
)
from runner.core.plan import Instant, JobId, Sequence

Result = TypeVar("Result")


class Write(msgspec.Struct, Generic[Result], frozen=True):
    """One call of one verb."""

    @property
    def weight(self) -> int:
        """About how many rows it writes: a commit takes in writes up to a bound of it."""
        return 1


class Intake(Write[list[Submitted | Exception]], frozen=True):
    """Accept jobs."""

    jobs: tuple[NewJob, ...]
    max_queued: Mapping[str, int]

    @property
    def weight(self) -> int:
        return len(self.jobs)


class Claiming(Write[list[Claim]], frozen=True):
    """Take jobs to run."""

    runner_id: str
    now: Instant
    lease_until: Instant
    limit: int
    max_bytes: int
    queue_limits: Mapping[str, int]

    @property
    def weight(self) -> int:
        return self.limit


class Appending(Write[None], frozen=True):
    """Commit a frame."""

    append: Append


class SettingBack(Write[bool], frozen=True):
    """Give back a job that could not be replayed."""

    failure: ReplayFailure


class Reserving(Write[Shortfall | None], frozen=True):
    """Take tokens out of budgets for a call."""

    reservation: Reservation


class Renewal(Write[set[JobId]], frozen=True):
    """Extend leases."""

    runner_id: str
    tokens: Mapping[JobId, int]
    until: Instant

    @property
    def weight(self) -> int:
        return len(self.tokens)


class Rescue(Write[int], frozen=True):
    """Make jobs claimable whose lease ended."""

    now: Instant
    limit: int

    @property
    def weight(self) -> int:
        return self.limit


class Wish(Write[JobSummary], frozen=True):
    """Ask for a cancellation."""

    job_id: JobId
    reason: str


class Answering(Write[JobSummary], frozen=True):
    """Note a person's answer to a task."""

    job_id: JobId
    signal: Signal


class Pausing(Write[Steered], frozen=True):
    """Ask for a pause or, without `paused`, to go on. One kind of write, so that of two the later one counts."""

    job_id: JobId
    paused: bool
    #: Encodes JobPaused or JobResumed with the number that the ledger gives it.
    framed: Callable[[Sequence], Frame]


class Delivery(Write[None], frozen=True):
    """Take entries out of the outbox."""

    entries: tuple[int, ...]


class Postponement(Write[None], frozen=True):
    """Try entries of the outbox again later."""

    entries: tuple[int, ...]
    until: Instant


class Keeping(Write[None], frozen=True):
    """Keep an answer, and forget what then is too old or too much."""

    key: bytes
    answer: KeptAnswer
    policy: AnswerCachePolicy


class Proof(Write[None], frozen=True):
    """Write bytes for nothing but to see that it can be done."""

    runner_id: str
    #: None gives the room back.
    content: bytes | None
