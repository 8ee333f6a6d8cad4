"""References into the JSON files that tasks leave."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from runner.core.events import AttemptSucceeded, JobFailed, JobSucceeded, TaskFailed
from runner.ports import Attempt, FileLeft, Outcome
from tests.engine.stage import Script, Stage, only, task

pytestmark = pytest.mark.timeout(30)


def leaving(**files: bytes) -> Script:
    async def leave(_: Attempt) -> Outcome:
        await anyio.lowlevel.checkpoint()
        return Outcome(output=None, files=tuple(FileLeft(name, content) for name, content in files.items()))

    return leave


async def answered(stage: Stage, *references: str, **settings: Any) -> Any:
    """What a task is given for these references to the task `a`, or the failure."""
    seen: list[Any] = []

    async def look(attempt: Attempt) -> Outcome:
        await anyio.lowlevel.checkpoint()
        seen.append(attempt.parameters["given"])
        return Outcome()

    stage.troupe.scripts["b"] = look
    parameters = {"task_type": "scripted", "given": list(references)}
    async with stage.engine(**settings) as engine:
        history = await engine.run(task("a"), task("b", "a", parameters=parameters))
    if isinstance(history[-1].event, JobSucceeded):
        return seen[0]
    return only(history, TaskFailed)[0].failure


async def test_a_reference_reaches_into_a_json_file() -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = leaving(**{"report.json": b'{"items": [{"n": "\xc5\x9f"}], "of": 3}', "list": b"[1]"})
    given = await answered(
        stage,
        '${tasks.a.artifacts."report.json".items[0].n}',
        '${tasks."a".artifacts."report.json".of} of ${tasks.a.artifacts."report.json".of}',
        "${tasks.a.artifacts.list}",
        "${tasks.a.artifacts.list | length(@)}",
    )
    assert given == ["ş", "3 of 3", [1], 1]


async def test_of_several_files_of_a_name_the_last_is_meant() -> None:
    stage = Stage()

    async def leave(_: Attempt) -> Outcome:
        await anyio.lowlevel.checkpoint()
        return Outcome(files=(FileLeft("x", b"1"), FileLeft("x", b"2")))

    stage.troupe.scripts["a"] = leave
    assert await answered(stage, "${tasks.a.artifacts.x}") == [2]


async def test_an_output_that_became_an_artifact_is_reached_by_its_own_reference_and_by_its_files() -> None:
    stage = Stage()

    async def leave(_: Attempt) -> Outcome:
        await anyio.lowlevel.checkpoint()
        return Outcome(output={"x": ["y" * 3_000]})

    stage.troupe.scripts["a"] = leave
    one, other = await answered(
        stage,
        "${tasks.a.output.x[0]}",
        '${tasks.a.artifacts."a.output.json".x[0]}',
        inline_output_bytes=1_000,
    )
    assert one == other == "y" * 3_000


@pytest.mark.parametrize(
    ("reference", "told"),
    [
        ("${tasks.a.artifacts.other}", "task `a` left no artifact `other`; it left `text`, `large`"),
        ("${tasks.a.artifacts.text.x}", "the artifact `text` of task `a` is no JSON: "),
        ("${tasks.a.artifacts.large}", "the artifact `large` of task `a` has 2002 bytes; the references of one task"),
    ],
)
async def test_what_cannot_be_reached_is_told(reference: str, told: str) -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = leaving(text=b"no", large=json.dumps("x" * 2_000).encode())
    failure = await answered(stage, reference, max_referenced_bytes=2_000)
    assert failure.reason == "UNRESOLVED_REFERENCE"
    assert failure.message.startswith(told)
    if "large" in reference:
        assert "engine.max_referenced_bytes" in failure.message


async def test_the_files_of_one_task_are_bounded_together_each_counted_once() -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = leaving(one=b"1" * 15, two=b"2" * 15)
    both = ("${tasks.a.artifacts.one}", "${tasks.a.artifacts.one}", "${tasks.a.artifacts.two}")
    assert len(await answered(stage, *both, max_referenced_bytes=30)) == 3
    assert (await answered(stage, *both, max_referenced_bytes=29)).reason == "UNRESOLVED_REFERENCE"


async def test_a_file_is_reached_after_a_crash_as_well() -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = leaving(x=b"[5]")
    begun = anyio.Event()

    async def never(_: Attempt) -> Outcome:
        begun.set()
        await anyio.sleep_forever()
        return Outcome()

    stage.troupe.scripts["b"] = never
    parameters = {"task_type": "scripted", "given": "${tasks.a.artifacts.x[0]}"}
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"), task("b", "a", parameters=parameters))
        await begun.wait()

    async def look(attempt: Attempt) -> Outcome:
        await anyio.lowlevel.checkpoint()
        return Outcome(output=attempt.parameters["given"])

    stage.troupe.scripts["b"] = look
    async with stage.ledger.running(), stage.engine() as engine:
        history = await engine.end(job_id)
    assert not isinstance(history[-1].event, JobFailed)
    assert only(history, AttemptSucceeded)[-1].output == b"5"
