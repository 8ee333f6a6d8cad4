"""Jobs that tasks run: found again after a crash, ended with their parents, and never kept from starting by them."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any

import anyio
import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from runner import frames
from runner.core.errors import InvalidRequest
from runner.core.events import (
    AttemptParked,
    AttemptProgressed,
    AttemptStarted,
    Event,
    JobCancelled,
    JobFailed,
    JobReleased,
    JobState,
    JobSucceeded,
    TaskCancelled,
    TaskTimedOut,
)
from runner.core.filters import JobQuery
from runner.core.job import Frame, JobSummary
from runner.engine.again import Retry
from runner.engine.settings import QueueSettings
from runner.engine.submission import Submission
from runner.ports import Attempt, Outcome
from tests.engine.stage import SECOND, START, Engine, Stage, forever, kinds, only, submission, task, times

pytestmark = pytest.mark.timeout(30)

HOUR = 3600.0


def file(*tasks: dict[str, Any]) -> dict[str, Any]:
    return json.loads(submission(*tasks).descriptor)  # type: ignore[no-any-return]  # an object of ours


def running(
    *tasks: dict[str, Any], name: str = "run", after: tuple[str, ...] = (), **parameters: Any
) -> dict[str, Any]:
    """A task that runs these tasks as a job."""
    fields = {key: parameters.pop(key) for key in ("timeout_seconds", "retry_count") if key in parameters}
    return task(name, *after, parameters={"task_type": "job", "descriptor": file(*tasks), **parameters}, **fields)


def sleeping(seconds: float) -> Any:
    async def script(attempt: Attempt) -> Outcome:
        await anyio.sleep(seconds)
        return Outcome(output=attempt.task.id)

    return script


async def all_jobs(stage: Stage) -> list[JobSummary]:
    jobs = await stage.ledger.jobs(JobQuery(limit=100))
    return sorted(jobs, key=lambda job: job.id)


async def child_of(stage: Stage, parent: str) -> JobSummary:
    """The newest."""
    return [job for job in await all_jobs(stage) if job.labels.get("alt-runner/parent") == parent][-1]


async def begun(engine: Engine, job_id: str, kind: type[Event] = AttemptStarted) -> None:
    """Wait until the job has an event of this kind."""
    async with aclosing(engine.runner.watch(job_id, heartbeat=HOUR)) as stream:
        async for piece in stream:
            if isinstance(piece, Frame) and only(frames.decode([piece]), kind):
                return


async def test_a_task_runs_a_job_and_what_waits_for_it_finds_its_outputs() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        job_id = await engine.submit(
            task("a"),
            running(
                task("x", parameters={"task_type": "scripted", "told": "${inputs.told}"}),
                task("y", "x"),
                after=("a",),
                inputs={"told": "${tasks.a.output}"},
            ),
            task("b", "run", parameters={"task_type": "scripted", "got": "${tasks.run.output.outputs.y}"}),
        )
        got: list[Any] = []

        async def look(attempt: Attempt) -> Outcome:
            got.append(attempt.parameters)
            return Outcome(output=attempt.task.id)

        stage.troupe.scripts |= {"x": look, "b": look}
        history = await engine.end(job_id)
    child = await child_of(stage, job_id)
    assert isinstance(history[-1].event, JobSucceeded)
    assert [entry.get("told", entry.get("got")) for entry in got] == ["a", "y"]
    output = (await stage.record(job_id))["task_results"]["run"]["output"]
    assert output == {
        "job_id": child.id, "state": "succeeded", "error": None, "outputs": {"x": "x", "y": "y"}, "large_outputs": {}
    }  # fmt: skip
    assert child.labels == {"alt-runner/parent": job_id, "alt-runner/root": job_id, "alt-runner/depth": "1"}
    assert only(history, AttemptProgressed)[0].message == f"runs job {child.id}"


async def test_each_round_of_a_loop_runs_a_job_of_its_own() -> None:
    stage = Stage()
    parameters = [
        {"name": "descriptor", "value": file(task("x", parameters={"task_type": "scripted", "n": "${inputs.n}"}))},
        {"name": "inputs", "value": {"n": "${variables.n}"}},
    ]
    loop = {"type": "for_range", "variable": "n", "start": 0, "end": 3, "body": ["run"]}
    descriptor = {
        "id": "s", "version": "2.0", "timestamp": "2026-01-01T00:00:00Z", "command": "c",
        "segments": [
            {"id": "loop", "task_type": "loop", "content": "c", "loop": loop},
            {"id": "run", "task_type": "job", "content": "c", "parameters": parameters},
        ],
    }  # fmt: skip
    told: list[Any] = []

    async def tell(attempt: Attempt) -> Outcome:
        told.append(attempt.parameters["n"])
        return Outcome()

    stage.troupe.scripts["x"] = tell
    async with stage.engine() as engine:
        accepted = await engine.runner.submit(Submission(descriptor=json.dumps(descriptor).encode()))
        assert isinstance((await engine.end(accepted.job.id))[-1].event, JobSucceeded)
    assert told == [0, 1, 2]
    assert len(await all_jobs(stage)) == 4


async def test_the_progress_of_a_child_is_that_of_its_task() -> None:
    stage = Stage()
    stage.troupe.scripts = {"x": sleeping(10), "y": sleeping(10)}
    async with stage.engine() as engine:
        history = await engine.run(running(task("x"), task("y", "x")))
    assert 0.5 in [event.fraction for event in only(history, AttemptProgressed)]


async def test_a_child_has_its_parents_deadline_and_queue_unless_told_otherwise() -> None:
    stage = Stage()
    deadline = START + 1000 * SECOND
    async with stage.engine() as engine:
        job_id = await engine.submit(running(task("x")), deadline=deadline, queue="q")
        await engine.end(job_id)
        child = await child_of(stage, job_id)
        assert (child.deadline, child.queue, child.priority.name) == (deadline, "q", "MEDIUM")
        job_id = await engine.submit(running(task("x"), queue="p", priority="high", labels={"team": "a"}))
        await engine.end(job_id)
        child = await child_of(stage, job_id)
        assert (child.deadline, child.queue, child.priority.name) == (None, "p", "HIGH")
        assert child.labels["team"] == "a"


async def test_a_child_that_fails_fails_its_task_and_says_why() -> None:
    stage = Stage()
    stage.troupe.scripts["x"] = failing
    async with stage.engine() as engine:
        job_id = await engine.submit(running(task("x")), running(task("x"), name="on", on_failure="continue"))
        await engine.end(job_id)
    results = (await stage.record(job_id))["task_results"]
    on = results["on"]["output"]
    assert results["run"]["error"].startswith("CHILD_FAILED: job ")
    assert results["run"]["error"].endswith(" failed: HANDLER_ERROR: ValueError: no luck (task `x`)")
    assert (on["state"], on["error"]["task_id"], on["outputs"]) == ("failed", "x", {})


async def failing(_: Attempt) -> Outcome:
    raise ValueError("no luck")


async def test_a_retry_is_a_new_child_and_a_lost_attempt_finds_the_old_one() -> None:
    stage = Stage()
    tries: list[str] = []

    async def second_time(attempt: Attempt) -> Outcome:
        tries.append(attempt.job_id)
        await anyio.sleep(10)
        if len(set(tries)) == 1:
            raise ValueError("no luck")
        return Outcome()

    stage.troupe.scripts["x"] = second_time
    engine = stage.make()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(engine.live)
        job_id = await engine.submit(running(task("x"), retry_count=1))
        await begun(engine, job_id, AttemptProgressed)
        await engine.kill()
    stage.ledger.thaw()
    async with stage.ledger.running(), stage.engine() as again:
        history = await again.end(job_id)
    assert isinstance(history[-1].event, JobSucceeded)
    assert len(await all_jobs(stage)) == 3
    assert kinds(history, of="run").count("AttemptFailed") == 1


async def test_cancelling_goes_down_over_any_depth() -> None:
    stage = Stage()
    stage.troupe.scripts["x"] = forever
    async with stage.engine() as engine:
        job_id = await engine.submit(running(running(running(task("x")))))
        for _ in range(3):
            await begun(engine, (await all_jobs(stage))[-1].id, AttemptProgressed)
        await begun(engine, (await all_jobs(stage))[-1].id)
        await engine.runner.cancel(job_id, "enough")
        history = await engine.end(job_id)
        jobs = await all_jobs(stage)
        for job in jobs:
            assert isinstance((await engine.end(job.id))[-1].event, JobCancelled)
    assert [job.labels.get("alt-runner/depth") for job in jobs] == [None, "1", "2", "3"]
    assert {job.labels.get("alt-runner/root", job_id) for job in jobs} == {job_id}
    assert len(only(history, TaskCancelled)) == 1
    assert stage.troupe.on_stage == []


async def test_a_child_that_somebody_cancels_fails_its_task_for_good() -> None:
    stage = Stage()
    stage.troupe.scripts["x"] = forever
    async with stage.engine() as engine:
        job_id = await engine.submit(running(task("x"), retry_count=3))
        await begun(engine, job_id, AttemptProgressed)
        child = await child_of(stage, job_id)
        await engine.runner.cancel(child.id, "not that one")
        end = (await engine.end(job_id))[-1].event
    assert isinstance(end, JobFailed)
    assert (end.error.reason, end.error.message) == ("CHILD_CANCELLED", f"job {child.id} was cancelled: not that one")


async def test_a_task_that_runs_out_of_time_cancels_its_child() -> None:
    stage = Stage()
    stage.troupe.scripts["x"] = forever
    async with stage.engine() as engine:
        job_id = await engine.submit(running(task("x"), timeout_seconds=60), task("y"))
        history = await engine.end(job_id)
        child = await child_of(stage, job_id)
        end = (await engine.end(child.id))[-1]
    assert times(history, TaskTimedOut) == [pytest.approx(60, abs=1)]
    assert isinstance(end.event, JobCancelled)
    assert (end.time - START) / SECOND == pytest.approx(60, abs=10)


async def test_a_parent_that_was_cancelled_while_nothing_ran_takes_its_child_with_it() -> None:
    """Neither is in anybody's hands when the wish comes: no handler is there to pass it on."""
    stage = Stage()
    stage.troupe.scripts["x"] = forever
    engine = stage.make()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(engine.live)
        job_id = await engine.submit(running(task("x")))
        await begun(engine, job_id, AttemptProgressed)
        child = await child_of(stage, job_id)
        await begun(engine, child.id)
        await engine.kill()
    stage.ledger.thaw()
    async with stage.ledger.running():
        await stage.ledger.request_cancel(job_id, "enough")
        async with stage.engine() as again:
            assert isinstance((await again.end(job_id))[-1].event, JobCancelled)
            assert isinstance((await again.end(child.id))[-1].event, JobCancelled)


async def test_a_drain_leaves_the_child_alone_and_the_next_engine_goes_on_with_both() -> None:
    stage = Stage()
    stage.set(drain_grace_seconds=5)
    stage.troupe.scripts["x"] = sleeping(60)
    async with stage.engine() as engine:
        job_id = await engine.submit(running(task("x")))
        await begun(engine, job_id, AttemptProgressed)
        await engine.runner.drain()
    async with stage.engine() as again:
        history = await again.end(job_id)
    assert isinstance(history[-1].event, JobSucceeded)
    assert len(await all_jobs(stage)) == 2
    assert only(history, JobReleased) != []


async def test_a_child_is_not_begun_once_its_parent_has_ended() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"))
        await engine.end(job_id)
        family = {"alt-runner/parent": job_id}
        child = (await engine.runner.submit_child(submission(task("x")), family=family, ahead_of=0)).job.id
        assert kinds(await engine.end(child))[-1] == "JobCancelled"
    assert stage.troupe.calls[f"{child}/x"] == 0


@pytest.mark.parametrize("label", ["alt-runner/parent", "alt-runner/root", "alt-runner/depth"])
async def test_nobody_else_says_that_a_job_is_a_child(label: str) -> None:
    async with Stage().engine() as engine:
        with pytest.raises(InvalidRequest, match="only the runner sets it"):
            await engine.submit(task("x"), labels={label: "1"})


async def test_a_child_that_is_retried_by_hand_is_nobodys_child() -> None:
    stage = Stage()
    stage.troupe.scripts["x"] = failing
    async with stage.engine() as engine:
        job_id = await engine.submit(running(task("x")))
        await engine.end(job_id)
        child = await child_of(stage, job_id)
        del stage.troupe.scripts["x"]
        again = await engine.runner.retry(Retry(job_id=child.id))
        assert isinstance((await engine.end(again.job.id))[-1].event, JobSucceeded)


@pytest.mark.parametrize("depth", [0, 1, 2])
async def test_jobs_run_jobs_only_so_deep(depth: int) -> None:
    """A job that runs what it was itself given would go on for ever."""
    stage = Stage()
    itself = {"task_type": "job", "descriptor": "${inputs.self}", "inputs": "${inputs}"}
    async with stage.engine(max_job_depth=depth) as engine:
        inputs = json.dumps({"self": file(task("run", parameters=itself))}).encode()
        job_id = await engine.submit(task("run", parameters=itself), inputs=inputs)
        end = (await engine.end(job_id))[-1].event
    assert isinstance(end, JobFailed)
    assert "NESTED_TOO_DEEP" in f"{end.error.reason}: {end.error.message}"
    assert "setting `engine.max_job_depth`" in end.error.message
    assert len(await all_jobs(stage)) == depth + 1


@pytest.mark.parametrize("places", [(1, 1), (1, 3), (2, 1)], ids=str)
async def test_parents_that_wait_do_not_keep_their_children_from_running(places: tuple[int, int]) -> None:
    """More parents than places, each with a child and a grandchild, all in one queue that is as narrow."""
    stage = Stage()
    running_jobs, waiting_jobs = places
    stage.queues = {"narrow": QueueSettings(concurrency=running_jobs)}
    stage.troupe.scripts["x"] = sleeping(5)
    async with stage.engine(
        max_running_jobs=running_jobs, max_waiting_jobs=waiting_jobs, max_concurrent_tasks=1
    ) as engine:
        parents = [await engine.submit(running(running(task("x"))), queue="narrow") for _ in range(12)]
        held: list[int] = []

        async def look(_: Attempt) -> Outcome:
            held.append(len(engine.runner.dispatcher.executions))
            await anyio.sleep(5)
            return Outcome()

        stage.troupe.scripts["x"] = look
        with anyio.fail_after(HOUR):
            for parent in parents:
                assert isinstance((await engine.end(parent))[-1].event, JobSucceeded)
    assert len(held) == 12
    # What is waited for goes first: each that runs has two above it, and no others were begun meanwhile.
    assert max(held) <= 3 * running_jobs


Family = list["Family"]
FAMILIES: st.SearchStrategy[Any] = st.recursive(st.just([]), lambda inner: st.lists(inner, max_size=3), max_leaves=6)


@settings(max_examples=40, deadline=None)
@given(
    families=st.lists(FAMILIES, min_size=1, max_size=5),
    queues=st.lists(st.integers(0, 1), min_size=8, max_size=8),
    bounds=st.tuples(*[st.integers(1, 2)] * 4),
)
def test_families_of_any_shape_end_however_few_places_there_are(
    families: list[Family], queues: list[int], bounds: tuple[int, int, int, int]
) -> None:
    """Parents with several children at a time, over narrow queues, with fewer places than members of a family."""

    async def play() -> None:
        stage = Stage()
        running_jobs, waiting_jobs, first, second = bounds
        stage.queues = {"q0": QueueSettings(concurrency=first), "q1": QueueSettings(concurrency=second)}
        stage.troupe.scripts["x"] = sleeping(3)
        async with stage.engine(max_running_jobs=running_jobs, max_waiting_jobs=waiting_jobs) as engine:
            parents = [await engine.submit(*members(family, queues, 1), queue=f"q{queues[0]}") for family in families]
            with anyio.fail_after(HOUR):
                for parent in parents:
                    assert isinstance((await engine.end(parent))[-1].event, JobSucceeded)

    trio.run(play, clock=trio.testing.MockClock(autojump_threshold=0))


def members(family: Family, queues: list[int], depth: int) -> list[dict[str, Any]]:
    queue = f"q{queues[depth]}"
    return [task("x")] + [
        running(*members(inner, queues, depth + 1), name=f"run{n}", queue=queue) for n, inner in enumerate(family)
    ]


async def test_what_a_waiting_job_lends_is_a_place_and_not_more() -> None:
    stage = Stage()
    stage.troupe.scripts["x"] = sleeping(60)
    stage.troupe.scripts["y"] = sleeping(60)
    async with stage.engine(max_running_jobs=2) as engine:
        parents = [await engine.submit(running(task("x"))) for _ in range(2)]
        for parent in parents:
            await begun(engine, parent, AttemptProgressed)
        plain = await engine.submit(task("y"))
        history = await engine.end(plain)
    assert times(history, AttemptStarted) == [pytest.approx(60, abs=1)]


async def test_a_full_queue_puts_the_task_off_and_consumes_no_attempt() -> None:
    stage = Stage()
    stage.queues = {"full": QueueSettings(concurrency=1, max_queued=1)}
    stage.troupe.scripts["hold"] = sleeping(100)
    async with stage.engine() as engine:
        hold = await engine.submit(task("hold"), queue="full")
        await begun(engine, hold)
        await engine.submit(task("y"), queue="full")
        history = await engine.run(running(task("x"), queue="full"))
    assert isinstance(history[-1].event, JobSucceeded)
    assert only(history, AttemptParked)[0].message.startswith("the child job waits: queue `full` is full")


async def test_a_descriptor_may_come_from_a_task_and_is_checked_then() -> None:
    stage = Stage()
    made = ["id: a\nversion: '1.0'\ntitle: t\ncreated_at: 2026-01-01T00:00:00Z\ntasks: [{id: x, description: d}]", "no"]

    async def make(_: Attempt) -> Outcome:
        return Outcome(output=made.pop(0))

    stage.troupe.scripts["make"] = make
    run = task("run", "make", parameters={"task_type": "job", "descriptor": "${tasks.make.output}"})
    async with stage.engine() as engine:
        assert isinstance((await engine.run(task("make"), run))[-1].event, JobSucceeded)
        job_id = await engine.submit(task("make"), run)
        await engine.end(job_id)
    error = (await stage.record(job_id))["task_results"]["run"]["error"]
    assert error.startswith("CHILD_REFUSED: the child job was refused: the descriptor is not valid")


async def test_secrets_reach_the_child_and_are_stored_nowhere() -> None:
    stage = Stage()
    stage.vault["door"] = value = "hush-hush"
    seen: list[Any] = []

    async def look(attempt: Attempt) -> Outcome:
        seen.append(attempt.parameters["key"])
        return Outcome()

    stage.troupe.scripts["x"] = look
    async with stage.engine() as engine:
        job_id = await engine.submit(running(task("x", parameters={"task_type": "scripted", "key": "${secrets.door}"})))
        await engine.end(job_id)
    child = await child_of(stage, job_id)
    assert seen == [value]
    assert value.encode() not in (await stage.ledger.body(child.id)).descriptor
    assert child.state is JobState.SUCCEEDED


async def test_an_output_too_large_for_events_is_named_by_its_artifact() -> None:
    stage = Stage()

    async def much(_: Attempt) -> Outcome:
        return Outcome(output="x" * 5000)

    stage.troupe.scripts["x"] = much
    async with stage.engine(inline_output_bytes=4000) as engine:
        job_id = await engine.submit(running(task("x"), task("y")))
        await engine.end(job_id)
    output = (await stage.record(job_id))["task_results"]["run"]["output"]
    child = await child_of(stage, job_id)
    assert output["outputs"] == {"y": "y"}
    named = output["large_outputs"]["x"]
    content = await stage.ledger.artifact_bytes(child.id, named["artifact_id"], offset=0, size=10_000)
    assert (len(content), named["size_bytes"]) == (5002, 5002)
