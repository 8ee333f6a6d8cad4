"""The outputs of a job's tasks together are bounded: what stands in events, and what is kept at all."""

from __future__ import annotations

import anyio
import pytest

from runner.core.events import AttemptSucceeded, JobFailed, JobSucceeded, TaskFailed
from runner.ports import Attempt, FileLeft, Outcome
from tests.engine.stage import Script, Stage, forever, only, task

pytestmark = pytest.mark.timeout(30)


def leaving(size: int, *, file: int = 0) -> Script:
    """An output of `size` bytes as JSON, and perhaps a file."""

    async def leave(_: Attempt) -> Outcome:
        await anyio.lowlevel.checkpoint()
        return Outcome(output="x" * (size - 2), files=(FileLeft("left", bytes(file)),) if file else ())

    return leave


def chain(*names: str) -> list[dict[str, object]]:
    return [task(name, *names[:place][-1:]) for place, name in enumerate(names)]


async def test_once_the_inline_outputs_of_a_job_are_too_much_together_further_ones_become_artifacts() -> None:
    """All but those that are hardly larger than an artifact's own description."""
    stage = Stage()
    stage.troupe.scripts = {name: leaving(2_000) for name in "abc"} | {"small": leaving(1_024), "d": leaving(2_000)}
    async with stage.engine(inline_job_bytes=5_000) as engine:
        history = await engine.run(*chain("a", "b", "c", "small", "d"))
    assert isinstance(history[-1].event, JobSucceeded)
    inline = {event.task_id: len(event.output) for event in only(history, AttemptSucceeded)}
    assert inline == {"a": 2_000, "b": 2_000, "c": 0, "small": 1_024, "d": 0}
    assert [event.artifacts[0].size_bytes for event in only(history, AttemptSucceeded) if not event.output] == [
        2_000
    ] * 2


async def test_what_a_job_left_before_a_crash_counts_afterwards() -> None:
    stage = Stage()
    begun = anyio.Event()

    async def never(attempt: Attempt) -> Outcome:
        begun.set()
        return await forever(attempt)

    stage.troupe.scripts = {"a": leaving(2_000, file=1_000), "b": never}
    async with stage.engine() as engine:
        job_id = await engine.submit(*chain("a", "b", "c"))
        await begun.wait()
    stage.troupe.scripts = {"b": leaving(2_000), "c": leaving(2_000)}
    stage.set(inline_output_bytes=2_000, inline_job_bytes=3_000, max_output_bytes=5_500, max_job_output_bytes=6_000)
    async with stage.ledger.running(), stage.engine() as engine:
        history = await engine.end(job_id)
    assert [len(event.output) for event in only(history, AttemptSucceeded)] == [2_000, 0]
    (failed,) = only(history, TaskFailed)
    assert failed.task_id == "c"


async def test_an_attempt_that_leaves_more_than_its_job_may_keep_fails_and_names_the_setting() -> None:
    stage = Stage()
    stage.troupe.scripts = {"a": leaving(2_000), "b": leaving(10, file=2_000), "c": leaving(1_000)}
    async with stage.engine(inline_output_bytes=500, max_output_bytes=3_000, max_job_output_bytes=4_000) as engine:
        history = await engine.run(task("a"), task("b", "a", retry_count=3), task("c", "a"), fail_fast=True)
    (failed,) = only(history, TaskFailed)
    assert (failed.task_id, failed.failure.reason) == ("b", "OUTPUT_TOO_LARGE")
    assert "engine.max_job_output_bytes" in failed.failure.message
    assert only(history, JobFailed)
