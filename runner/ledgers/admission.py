"""Who is accepted: the one rule of all ledgers, over what they know."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from runner.core.errors import QueueFull, RequestIdReused
from runner.core.job import JobSummary, NewJob, Submitted

#: Seconds after which it is worth submitting to a full queue again.
RETRY_AFTER: Final = 1.0


class Admission:
    """Decides, job by job in order of arrival, who is accepted; writes nothing."""

    def __init__(self, known: Mapping[str, tuple[JobSummary, bytes]], queued: Mapping[str, int]) -> None:
        #: Request ids that are taken: whose they are, and the hash of the request.
        self._known = dict(known)
        self._queued = dict(queued)
        self.accepted: list[NewJob] = []

    def decide(self, new: NewJob, max_queued: Mapping[str, int]) -> Submitted | Exception:
        job = new.summary
        if job.request_id and job.request_id in self._known:
            earlier, digest = self._known[job.request_id]
            if digest == new.request_sha256:
                return Submitted(earlier, replayed=True)
            return RequestIdReused(job.request_id, earlier.id)
        if new.refusal is not None:
            return new.refusal
        limit = max_queued.get(job.queue)
        waiting = self._queued.get(job.queue, 0)
        if limit is not None and waiting >= limit:
            return QueueFull(job.queue, limit, RETRY_AFTER)
        self._queued[job.queue] = waiting + 1
        if job.request_id:
            self._known[job.request_id] = (job, new.request_sha256)
        self.accepted.append(new)
        return Submitted(job, replayed=False)
