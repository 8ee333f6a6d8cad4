"""A task that runs a job: what it submits, and what it makes of the job's end."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import anyio
import msgspec
import pytest

from runner.core.child import ChildEnd, ChildJob
from runner.core.errors import AttemptError
from runner.core.events import Artifact, Failure, JobState, Usage
from runner.core.plan import JobId, Priority
from runner.handlers.checks import kinds_of
from runner.handlers.job import STOPPED, RunJob
from runner.testing import FakeAttempt

SUCCEEDED = ChildEnd(state=JobState.SUCCEEDED, error=None, reason="", outputs={"x": 1}, large_outputs={})


class FakeJobs:
    """Jobs that end as the test says, or never."""

    def __init__(self, end: ChildEnd | None = SUCCEEDED) -> None:
        self.end = end
        self.submitted: list[ChildJob] = []
        self.cancelled: list[tuple[JobId, str]] = []
        self.waiting = anyio.Event()

    async def submit(self, child: ChildJob) -> JobId:
        self.submitted.append(child)
        return "child-1"

    async def wait(self, child: JobId, *, parent: JobId, on_progress: Callable[[float], None]) -> ChildEnd:
        on_progress(0.25)
        self.waiting.set()
        if self.end is None:
            await anyio.sleep_forever()
            raise AssertionError
        return self.end

    async def cancel(self, child: JobId, reason: str) -> None:
        self.cancelled.append((child, reason))


def ended(state: JobState, *, reason: str = "", error: Failure | None = None) -> ChildEnd:
    return msgspec.structs.replace(SUCCEEDED, state=state, reason=reason, error=error)


async def test_what_is_submitted_is_what_the_task_says() -> None:
    jobs = FakeJobs()
    attempt = FakeAttempt(
        {
            "descriptor": {"id": "a", "tasks": []},
            "inputs": {"n": 1},
            "queue": "q",
            "priority": "high",
            "labels": {"team": "a"},
        },
        traceparent="00-1-2-01",
    )
    outcome = await RunJob(jobs).run(attempt)
    [child] = jobs.submitted
    assert (child.parent, child.queue, child.priority, child.traceparent) == ("job-1", "q", Priority.HIGH, "00-1-2-01")
    assert json.loads(child.descriptor) == {"id": "a", "tasks": []}
    assert (child.inputs, child.labels, child.content_type) == (b'{"n":1}', {"team": "a"}, "application/json")
    assert outcome.output == {
        "job_id": "child-1", "state": "succeeded", "error": None, "outputs": {"x": 1}, "large_outputs": {}
    }  # fmt: skip
    assert [(report["fraction"], report["message"]) for report in attempt.reports] == [
        (None, "runs job child-1"),
        (0.25, "runs job child-1"),
    ]


async def test_the_request_id_is_the_same_until_the_task_has_failed() -> None:
    jobs = FakeJobs()
    for number, failures in ((1, 0), (2, 0), (3, 1)):
        await RunJob(jobs).run(FakeAttempt({"descriptor": {}}, number=number, failures=failures))
    first, lost, retried = (child.request_id for child in jobs.submitted)
    assert first == lost != retried
    assert len(first) <= 128


async def test_a_text_is_a_descriptor_of_any_format() -> None:
    jobs = FakeJobs()
    await RunJob(jobs).run(FakeAttempt({"descriptor": "id: ü"}))
    assert (jobs.submitted[0].descriptor, jobs.submitted[0].content_type) == ("id: ü".encode(), "")


@pytest.mark.parametrize(
    ("end", "reason", "message", "retryable"),
    [
        (
            ended(JobState.FAILED, error=Failure("HTTP_STATUS", "it answered 500", "fetch")),
            "CHILD_FAILED",
            "job child-1 failed: HTTP_STATUS: it answered 500 (task `fetch`)",
            True,
        ),
        (
            ended(JobState.PARTIALLY_SUCCEEDED, error=Failure("X", "y")),
            "CHILD_FAILED",
            "job child-1 succeeded in part only: X: y",
            True,
        ),
        (ended(JobState.CANCELLED, reason="no"), "CHILD_CANCELLED", "job child-1 was cancelled: no", False),
        (ended(JobState.CANCELLED), "CHILD_CANCELLED", "job child-1 was cancelled", False),
        (
            ended(JobState.CANCELLED, reason=STOPPED),
            "CHILD_CANCELLED",
            f"job child-1 was cancelled: {STOPPED}",
            True,
        ),
    ],
)
async def test_a_job_that_does_not_succeed_fails_its_task(
    end: ChildEnd, reason: str, message: str, retryable: bool
) -> None:
    with pytest.raises(AttemptError) as caught:
        await RunJob(FakeJobs(end)).run(FakeAttempt({"descriptor": {}}))
    assert (caught.value.reason, caught.value.message, caught.value.retryable) == (reason, message, retryable)


async def test_a_failure_may_be_an_output_like_any_other() -> None:
    end = ended(JobState.FAILED, error=Failure("X", "y", "z"))
    outcome = await RunJob(FakeJobs(end)).run(FakeAttempt({"descriptor": {}, "on_failure": "continue"}))
    assert outcome.output["state"] == "failed"
    assert outcome.output["error"] == {"reason": "X", "message": "y", "task_id": "z"}


async def test_what_our_own_stop_did_is_never_gone_on_from() -> None:
    """The attempt that stopped it was lost; this one finds a job that nobody wanted to be cancelled."""
    end = ended(JobState.CANCELLED, reason=STOPPED)
    with pytest.raises(AttemptError, match="CHILD_CANCELLED"):
        await RunJob(FakeJobs(end)).run(FakeAttempt({"descriptor": {}, "on_failure": "continue"}))


async def test_a_large_output_is_named() -> None:
    artifact = Artifact(
        id="art", name="n", artifact_type="json", task_id="x", mime_type="", size_bytes=9, sha256="s", created_at=0
    )
    end = msgspec.structs.replace(SUCCEEDED, outputs={}, large_outputs={"x": artifact})
    outcome = await RunJob(FakeJobs(end)).run(FakeAttempt({"descriptor": {}}))
    assert outcome.output["large_outputs"] == {"x": {"artifact_id": "art", "size_bytes": 9, "sha256": "s"}}


@pytest.mark.parametrize(("time_left", "cancelled"), [(0.0, [("child-1", STOPPED)]), (60.0, [])])
async def test_a_task_that_is_stopped_cancels_its_job_and_a_daemon_that_goes_does_not(
    time_left: float, cancelled: list[Any]
) -> None:
    jobs = FakeJobs(end=None)
    async with anyio.create_task_group() as group:
        group.start_soon(RunJob(jobs).run, FakeAttempt({"descriptor": {}}, timeout=time_left))
        await jobs.waiting.wait()
        group.cancel_scope.cancel()
    assert jobs.cancelled == cancelled


@pytest.mark.parametrize(
    ("parameters", "named"),
    [
        ({}, "descriptor"),
        ({"descriptor": 5}, "descriptor"),
        ({"descriptor": {}, "on_failure": "maybe"}, "on_failure"),
        ({"descriptor": {}, "priority": "urgent"}, "priority"),
        ({"descriptor": {}, "labels": {"alt-runner/parent": "x"}}, "labels"),
        ({"descriptor": {}, "inputs": {"a": "${secrets.door}"}}, "inputs"),
    ],
)
async def test_wrong_parameters_are_told_by_name(parameters: dict[str, Any], named: str) -> None:
    jobs = FakeJobs()
    with pytest.raises(AttemptError, match=f"parameter `{named}`"):
        await RunJob(jobs).run(FakeAttempt(parameters))
    assert jobs.submitted == []


def test_labels_of_the_runner_are_refused_before_anything_runs() -> None:
    check = kinds_of({"job": RunJob(None)}).checks["job"]
    assert check is not None
    assert check.look is not None
    assert [problem.name for problem in check.look({"labels": {"alt-runner/depth": "-5"}})] == ["labels"]
    assert list(check.look({"labels": {"a": "b"}})) == []


async def test_a_job_has_what_is_left_of_its_parents_tokens_and_tells_what_it_used() -> None:
    end = ChildEnd(
        state=JobState.SUCCEEDED, error=None, reason="", outputs={}, large_outputs={}, usage=Usage(2, total_tokens=9)
    )
    for left, given in ((None, None), (70, 70), (0, 1)):
        jobs, attempt = FakeJobs(end), FakeAttempt({"descriptor": {}})
        attempt.left = left
        assert (await RunJob(jobs).run(attempt)).usage == Usage(2, total_tokens=9)
        assert jobs.submitted[0].token_budget == given
