"""The places of jobs that only wait: others may have them meanwhile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from runner.core.job import JobSummary
from runner.core.plan import JobId


class Lending:
    """Jobs in which nothing runs but waiting, for jobs of their own or for what their tasks are parked for."""

    def __init__(self) -> None:
        #: By queue: so many places are lent.
        self.lent: Counter[str] = Counter()
        #: Attempts that wait for a job of theirs, which must find a place though all others are taken.
        self.parents = 0
        #: Called when a place is lent.
        self.wake: Callable[[], None] = lambda: None
        #: Reasons to wait, by job.
        self._reasons: Counter[JobId] = Counter()

    def lend(self, job: JobSummary) -> None:
        """The job waits; it may have several reasons at a time."""
        self._reasons[job.id] += 1
        if self._reasons[job.id] == 1:
            self.lent[job.queue] += 1
        self.wake()

    def take_back(self, job: JobSummary) -> None:
        """One of its reasons to wait is gone."""
        self._reasons[job.id] -= 1
        if not self._reasons[job.id]:
            del self._reasons[job.id]
            self.lent[job.queue] -= 1


class Loan:
    """What one job does with its place."""

    def __init__(self, lending: Lending, job: JobSummary) -> None:
        self._lending = lending
        self._job = job
        self._lent = False

    def set(self, *, waits: bool) -> None:
        """Lend the place if nothing of the job does anything but wait, or take it back."""
        if waits and not self._lent:
            self._lent = True
            self._lending.lend(self._job)
        elif self._lent and not waits:
            self.end()

    def end(self) -> None:
        """Take the place back, if it is lent."""
        if self._lent:
            self._lent = False
            self._lending.take_back(self._job)
