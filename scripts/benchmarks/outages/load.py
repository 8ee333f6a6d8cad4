"""A constant load: jobs come at a rate that does not ask how they fare, and their ends are noted."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

import anyio
import msgspec
from altrunner.v1 import job_pb2
from altrunner.v1 import job_service_pb2 as messages

from runner.client import Client

#: Seconds between two batches of submissions.
_TICK: Final = 0.1
#: Attempts after the first: a job is to outlive what its endpoint does now and then.
_RETRIES: Final = 12
#: The label that tells to which load a job belongs.
LABEL: Final = "load"


class Load(msgspec.Struct, frozen=True):
    """Jobs of one AI call each."""

    name: str
    #: An endpoint or a group.
    endpoint: str
    #: Jobs a second.
    rate: float

    def submission(self) -> messages.SubmitJobRequest:
        parameters = {"prompt": "How are you?", "endpoint": self.endpoint}
        task = {"id": "ask", "description": "ask", "parameters": parameters, "retry_count": _RETRIES}
        content = {"id": self.name, "version": "1.0", "created_at": "2025-04-26T19:32:00Z", "title": self.name}
        descriptor = msgspec.json.encode({**content, "tasks": [task]})
        return messages.SubmitJobRequest(
            descriptor=descriptor, content_type="application/json", labels={LABEL: self.name}
        )


class End(msgspec.Struct, frozen=True):
    """A job that ended."""

    load: str
    #: Seconds since the first job was offered.
    at: float
    succeeded: bool


class Tally:
    """What became of the jobs so far."""

    def __init__(self) -> None:
        self.offered: Counter[str] = Counter()
        self.ends: list[End] = []
        self._complete = anyio.Event()
        self._closed = False

    def accepted(self, load: str) -> None:
        self.offered[load] += 1

    def ended(self, end: End) -> None:
        self.ends.append(end)
        self._look()

    def close(self) -> None:
        """No further jobs are offered."""
        self._closed = True
        self._look()

    async def complete(self) -> None:
        """Wait until every job has ended."""
        await self._complete.wait()

    def _look(self) -> None:
        if self._closed and len(self.ends) == self.offered.total():
            self._complete.set()


async def warm_up(client: Client, loads: Sequence[Load]) -> None:
    """One job of each load, which counts for nothing: the first ones pay for what is loaded with them."""
    requests = [load.submission() for load in loads]
    for request in requests:
        request.ClearField("labels")
    for result in await client.submit_batch(requests):
        async for _ in client.watch(result.accepted.job.job_id):
            pass


async def offer(client: Client, loads: Sequence[Load], tally: Tally, *, seconds: float) -> None:
    """Submit at each load's rate for so many seconds, in batches.

    Raises AssertionError: if a job is refused.
    """
    began = anyio.current_time()
    templates = [(load, load.submission()) for load in loads]
    passed = 0.0
    while passed < seconds:
        await anyio.sleep_until(began + passed + _TICK)
        passed = min(seconds, anyio.current_time() - began)
        due = [
            (load.name, request)
            for load, request in templates
            for _ in range(round(load.rate * passed) - tally.offered[load.name])
        ]
        requests = [messages.SubmitJobRequest.FromString(request.SerializeToString()) for _, request in due]
        for (name, _), result in zip(due, await client.submit_batch(requests), strict=True):
            assert result.HasField("accepted"), result.error.message
            tally.accepted(name)
    tally.close()


async def note_ends(client: Client, tally: Tally, *, began: float) -> None:
    """Note every job's end, as the daemon tells it, until cancelled. `began` is the time of day, in seconds."""
    async for response in client.watch_jobs(from_start=True):
        for change in response.changes:
            job = change.job
            if change.state >= job_pb2.JOB_STATE_SUCCEEDED and LABEL in job.labels:
                at = job.end_time.ToNanoseconds() / 1e9 - began
                tally.ended(End(job.labels[LABEL], at, change.state == job_pb2.JOB_STATE_SUCCEEDED))


def time_of_day() -> float:
    """What `note_ends` counts from."""
    return time.time()
