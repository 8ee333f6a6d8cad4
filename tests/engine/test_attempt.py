"""What handlers may do to us: any outcome, any exception, any nonsense; and what never gets out, whatever they do."""

from __future__ import annotations

import asyncio
import json
import math
import sys
from typing import Any

import anyio
import pytest

from runner import frames
from runner.core.errors import AttemptError, AttemptPutOff, LedgerUnavailable
from runner.core.events import (
    AttemptOutput,
    AttemptParked,
    AttemptProgressed,
    AttemptSucceeded,
    Failure,
    FallbackKind,
    FallbackUsed,
    JobFailed,
    JobSucceeded,
    TaskFailed,
    Usage,
    UsageAt,
    WaitReason,
)
from runner.ledgers.memory import MemoryLedger
from runner.ports import Attempt, FileLeft, Outcome
from tests.engine.stage import SECOND, Script, Shelf, Stage, only, task, watched

pytestmark = pytest.mark.timeout(30)
SECRET = "hunter22-şifre"  # noqa: S105  the secret of these tests
WITH_SECRET = {"task_type": "scripted", "key": "Bearer ${secrets.KEY}"}


def raising(error: BaseException) -> Script:
    async def script(_: Attempt) -> Outcome:
        await anyio.lowlevel.checkpoint()
        raise error

    return script


def giving(outcome: Any) -> Script:
    async def script(_: Attempt) -> Outcome:
        await anyio.lowlevel.checkpoint()
        return outcome  # type: ignore[no-any-return]  # some of these tests give what they must not

    return script


class Strange(Exception):
    """An exception of somebody else's."""


@pytest.mark.parametrize(
    ("error", "reason", "words"),
    [
        (Strange("what"), "HANDLER_ERROR", "Strange: what"),
        (Strange(), "HANDLER_ERROR", "Strange"),
        (SystemExit(3), "HANDLER_ERROR", "SystemExit: 3"),
        (KeyboardInterrupt(), "HANDLER_ERROR", "KeyboardInterrupt"),
        (RecursionError("deep"), "HANDLER_ERROR", "RecursionError: deep"),
        (ExceptionGroup("many", [Strange("a"), Strange("b")]), "HANDLER_ERROR", "ExceptionGroup: many"),
        (UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"), "HANDLER_ERROR", "UnicodeDecodeError"),
        (Strange("half a pair: \ud83d"), "HANDLER_ERROR", "half a pair: ?"),
        (AttemptError("X" * 9, "m" * 100_000, retryable=False), "XXXXXXXXX", "96000 more characters"),
        (AttemptError("X", "m", retryable=False, usage=Usage(calls=-1)), "X", "m"),
    ],
)
async def test_whatever_a_handler_raises_fails_its_task_and_nothing_else(
    error: BaseException, reason: str, words: str
) -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = raising(error)
    async with stage.engine() as engine:
        history = await engine.run(task("a", retry_count=3), task("b"))
        again = await engine.run(task("b"))
    failed = only(history, TaskFailed)[0]
    assert failed.failure.reason == reason
    assert words in failed.failure.message
    assert stage.troupe.order.count("a") == 1
    assert isinstance(again[-1].event, JobSucceeded)
    assert not engine.ear.said("job_dropped")


@pytest.mark.parametrize(
    ("outcome", "reason"),
    [
        (None, "HANDLER_ERROR"),
        ("text", "HANDLER_ERROR"),
        (Outcome(output=object()), "BAD_OUTPUT"),
        (Outcome(output={"x": {1: object}}), "BAD_OUTPUT"),
        (Outcome(output="\ud83d"), "BAD_OUTPUT"),
        (Outcome(usage=Usage(calls=2**70)), "HANDLER_ERROR"),
        (Outcome(usage=Usage(calls=1.5)), "HANDLER_ERROR"),  # type: ignore[arg-type]
        (Outcome(endpoint=None), "HANDLER_ERROR"),  # type: ignore[arg-type]
        (Outcome(files=(FileLeft("f", "text"),)), "HANDLER_ERROR"),  # type: ignore[arg-type]
    ],
    ids=map(str, range(9)),
)
async def test_an_outcome_that_is_none_fails_its_task_and_the_job_ends(outcome: Any, reason: str) -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = giving(outcome)
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"))
        history = await engine.end(job_id)
    assert only(history, JobFailed)[0].error.reason == reason
    assert (await stage.record(job_id))["status"] == "failure"
    assert stage.troupe.order == ["a"]


async def test_a_file_of_a_kind_nobody_knows_is_kept_as_another_one() -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = giving(Outcome(files=(FileLeft("f", b"x", artifact_type="banana"),)))
    async with stage.engine() as engine:
        history = await engine.run(task("a"))
    assert only(history, AttemptSucceeded)[0].artifacts[0].artifact_type == "other"


async def test_a_loop_in_the_output_fails_the_task() -> None:
    loop: list[Any] = []
    loop.append(loop)
    stage = Stage()
    stage.troupe.scripts["a"] = giving(Outcome(output=loop))
    async with stage.engine() as engine:
        history = await engine.run(task("a"))
    assert only(history, JobFailed)[0].error.reason == "BAD_OUTPUT"


@pytest.mark.parametrize(
    "report",
    [
        {"fraction": "half"},
        {"fraction": math.nan},
        {"completed": 10**400},
        {"total": math.inf},
        {"completed": 2**70},
        {"completed": -1},
        {"completed": 1.5},
        {"message": 7},
        {"message": None},
    ],
    ids=lambda report: str(report)[:30],
)
async def test_progress_that_makes_no_sense_is_refused_to_the_handler_s_face(report: dict[str, Any]) -> None:
    stage = Stage()

    async def script(attempt: Attempt) -> Outcome:
        with pytest.raises((TypeError, ValueError)):
            attempt.progress(**report)
        with pytest.raises(TypeError):
            await attempt.output(b"bytes")  # type: ignore[arg-type]
        return Outcome(output="went on")

    stage.troupe.scripts["a"] = script
    async with stage.engine() as engine:
        history = await engine.run(task("a"))
    assert isinstance(history[-1].event, JobSucceeded)


@pytest.mark.parametrize(
    ("fraction", "told"),
    [
        (10**400, 1.0),
        (-(10**400), 0.0),
        (math.inf, 1.0),
        (-math.inf, 0.0),
        (-0.5, 0.0),
        (7, 1.0),
        (True, 1.0),
        (0.25, 0.25),
    ],
    ids=lambda value: str(value)[:10],
)
async def test_a_fraction_out_of_range_is_brought_to_the_nearer_end(fraction: float, told: float) -> None:
    stage = Stage()

    async def script(attempt: Attempt) -> Outcome:
        attempt.progress(fraction)
        await anyio.sleep(1)
        return Outcome()

    stage.troupe.scripts["a"] = script
    async with stage.engine() as engine:
        history = await engine.run(task("a"))
    assert [report.fraction for report in only(history, AttemptProgressed)] == [told]


@pytest.mark.parametrize("report", [{"fraction": math.nan}, {"completed": -(10**400)}], ids=["nan", "vast"])
async def test_a_handler_that_reports_garbage_fails_its_own_task_only(report: dict[str, Any]) -> None:
    stage = Stage()

    async def script(attempt: Attempt) -> Outcome:
        attempt.progress(**report)
        await anyio.lowlevel.checkpoint()
        return Outcome()

    stage.troupe.scripts["a"] = script
    async with stage.engine() as engine:
        history = await engine.run(task("a"), task("b"))
    assert [event.failure.reason for event in only(history, TaskFailed)] == ["HANDLER_ERROR"]
    assert [event.task_id for event in only(history, AttemptSucceeded)] == ["b"]
    assert not engine.ear.said("job_dropped")


@pytest.mark.parametrize("until", [10**400, math.inf], ids=["vast", "infinite"])
async def test_a_time_beyond_all_calendars_is_waited_for_in_vain_and_breaks_nothing(until: Any) -> None:
    stage = Stage()

    async def script(_: Attempt) -> Outcome:
        await anyio.lowlevel.checkpoint()
        raise AttemptPutOff(WaitReason.RATE_LIMITED, "later", until=until)

    stage.troupe.scripts["a"] = script
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"))
        await anyio.sleep(60)
        await engine.runner.cancel(job_id, "enough")
        history = await engine.end(job_id)
    assert len(only(history, AttemptParked)) == 1
    assert not engine.ear.said("job_dropped")


async def test_a_failure_that_cannot_be_told_is_a_failure_all_the_same() -> None:
    stage = Stage()

    async def put_off(_: Attempt) -> Outcome:
        await anyio.lowlevel.checkpoint()
        raise AttemptPutOff(WaitReason.RATE_LIMITED, "later", until=math.nan)  # type: ignore[arg-type]

    async def fail(_: Attempt) -> Outcome:
        await anyio.lowlevel.checkpoint()
        raise AttemptError(7, None, retryable=False)  # type: ignore[arg-type]

    stage.troupe.scripts = {"a": put_off, "b": fail}
    async with stage.engine() as engine:
        history = await engine.run(task("a"), task("b"))
    assert [event.failure.reason for event in only(history, TaskFailed)] == ["HANDLER_ERROR"] * 2
    assert not engine.ear.said("job_dropped")


async def test_streamed_text_arrives_whole_and_in_pieces_that_a_response_can_hold() -> None:
    stage = Stage()
    text = "çok uzun \ud83d " * 100_000

    async def script(attempt: Attempt) -> Outcome:
        await attempt.output(text)
        for letter in "abc":
            await attempt.output(letter)
            attempt.progress(0.5, message="m" * 10_000)
            await anyio.sleep(0.001)
        return Outcome()

    stage.troupe.scripts["a"] = script
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"))
        history = await engine.end(job_id)
    pieces = only(history, AttemptOutput)
    assert "".join(piece.text for piece in pieces) == text.replace("\ud83d", "?") + "abc"
    assert [piece.offset for piece in pieces] == [
        sum(len(earlier.text) for earlier in pieces[:place]) for place in range(len(pieces))
    ]
    assert max(len(frame.data) for frame in await stage.ledger.frames(job_id, after=0, max_bytes=1 << 40)) < 1 << 20
    assert all(len(report.message) < 5_000 for report in only(history, AttemptProgressed))


async def test_a_handler_that_streams_faster_than_the_ledger_waits() -> None:
    stage = Stage()
    written = 0

    async def script(attempt: Attempt) -> Outcome:
        nonlocal written
        stage.ledger.freeze()
        for _ in range(1_000):
            await attempt.output("x" * 1_000)
            written += 1_000
        return Outcome()

    stage.troupe.scripts["a"] = script
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"))
        await anyio.sleep(60)
        held = written
        stage.ledger.thaw()
        history = await engine.end(job_id)
    assert held <= 64 * 1024 + 64 * 1024
    assert sum(len(piece.text) for piece in only(history, AttemptOutput)) == 1_000_000


async def test_a_large_output_becomes_an_artifact_and_references_to_it_resolve() -> None:
    stage = Stage()
    seen: list[Any] = []

    async def look(attempt: Attempt) -> Outcome:
        await anyio.lowlevel.checkpoint()
        seen.append(attempt.parameters["first"])
        return Outcome()

    stage.troupe.scripts = {"a": giving(Outcome(output={"words": ["şeker", "x" * 2_000]})), "b": look}
    parameters = {"task_type": "scripted", "first": "${tasks.a.output.words[0]}"}
    async with stage.engine(inline_output_bytes=1_000) as engine:
        job_id = await engine.submit(task("a"), task("b", "a", parameters=parameters))
        history = await engine.end(job_id)
        succeeded = only(history, AttemptSucceeded)[0]
        artifact = await engine.runner.artifact(job_id, succeeded.output_artifact_id)
        content = await engine.runner.artifact_bytes(job_id, artifact.id, offset=0, size=10_000)
    assert seen == ["şeker"]
    assert succeeded.output == b""
    assert json.loads(content)["words"][0] == "şeker"
    assert (artifact.artifact_type, artifact.size_bytes) == ("json", len(content))
    assert (await stage.record(job_id))["artifacts"][0]["id"] == artifact.id


class Absent(MemoryLedger):
    """A ledger that is away whenever an artifact is read, three times."""

    absences = 3

    async def artifact_bytes(self, job_id: str, artifact_id: str, *, offset: int, size: int) -> bytes:
        if self.absences:
            self.absences -= 1
            raise LedgerUnavailable("away")
        return await super().artifact_bytes(job_id, artifact_id, offset=offset, size=size)


async def test_a_ledger_that_is_away_when_a_large_output_is_needed_is_waited_for() -> None:
    stage = Stage(Absent())
    stage.troupe.scripts["a"] = giving(Outcome(output="x" * 2_000))
    parameters = {"task_type": "scripted", "text": "${tasks.a.output}"}
    async with stage.engine(inline_output_bytes=1_000) as engine:
        history = await engine.run(task("a"), task("b", "a", parameters=parameters))
    assert isinstance(history[-1].event, JobSucceeded)
    assert stage.troupe.order == ["a", "b"]
    assert not engine.ear.said("job_dropped")


async def test_an_output_that_is_too_large_fails_and_tells_what_it_cost() -> None:
    stage = Stage()
    outcome = Outcome(output="x" * 3_000, usage=Usage(calls=1, total_tokens=9), endpoint="e", model="m")
    stage.troupe.scripts["a"] = giving(outcome)
    async with stage.engine(inline_output_bytes=1_000, max_output_bytes=2_000) as engine:
        history = await engine.run(task("a", retry_count=3))
    failed = only(history, TaskFailed)[0]
    assert failed.failure.reason == "OUTPUT_TOO_LARGE"
    assert "engine.max_output_bytes" in failed.failure.message
    assert (failed.usage, failed.endpoint, failed.model) == (Usage(calls=1, total_tokens=9), "e", "m")
    assert stage.troupe.order == ["a"]


def leaking(secret: str) -> list[tuple[str, Script]]:
    """Every way in which a handler can tell what it was given."""

    async def stream(attempt: Attempt) -> Outcome:
        assert attempt.parameters["key"] == f"Bearer {secret}"
        for letter in f"the key is {secret}, {secret}{secret}; {secret[:-1]}!":
            await attempt.output(letter)
            await anyio.sleep(0.06)
        return Outcome()

    async def progress(attempt: Attempt) -> Outcome:
        for step in range(3):
            attempt.progress(step / 3, message=f"calling with {secret}")
            await anyio.sleep(0.1)
        return Outcome()

    outcome = Outcome(
        output={secret: [secret, f"a{secret}b", {"n": secret}], "note": "kept"},
        files=(FileLeft(f"{secret}.txt", f"x{secret}x".encode(), mime_type=f"text/{secret}"),),
        endpoint=f"https://h/?key={secret}",
        usage=Usage(1, elsewhere=(UsageAt(f"https://g/?key={secret}", f"m-{secret}", 1),)),
        model=f"m-{secret}",
    )
    why = Failure(f"R-{secret}", f"refused {secret}")
    fell_back = Outcome(
        fallback=FallbackUsed(kind=FallbackKind.VALUE, position=1, instead_of=f"https://{secret}", failure=why)
    )

    async def keeping(attempt: Attempt) -> Outcome:
        return Outcome(output=attempt.redacted({"kept": [f"Bearer {secret}"]}))

    late = AttemptError("X", f"401 for {secret}", retryable=True, endpoint=f"https://{secret}", model=secret)
    put_off = AttemptPutOff(WaitReason.RATE_LIMITED, f"busy {secret}", until=0, endpoint=secret)
    return [
        ("stream", stream),
        ("progress", progress),
        ("outcome", giving(outcome)),
        ("fallback", giving(fell_back)),
        ("kept", keeping),
        ("retried", raising(late)),
        ("error", raising(Strange(f"bad key {secret}"))),
        ("chained", raising(KeyError({"headers": f"Bearer {secret}"}))),
        ("reason", raising(AttemptError(secret, "x", retryable=False))),
        ("parked", raising(put_off)),
    ]


@pytest.mark.parametrize(("way", "script"), leaking(SECRET), ids=[way for way, _ in leaking(SECRET)])
async def test_a_secret_gets_into_no_frame_no_record_no_artifact_and_no_notice(way: str, script: Script) -> None:
    stage, shelf = Stage(), Shelf()
    stage.vault["KEY"] = SECRET
    stage.troupe.scripts["a"] = script
    async with stage.engine(shelf, inline_output_bytes=64) as engine:
        job_id = await engine.submit(
            task("a", parameters=WITH_SECRET, retry_count=1), deadline=stage.clock.now() + 20 * SECOND
        )
        history = await engine.end(job_id)
        await shelf.arrived.wait()
    stored = b"".join(frame.data for frame in await stage.ledger.frames(job_id, after=0, max_bytes=1 << 40))
    stored += await stage.ledger.record(job_id) + shelf.deliveries[0].record
    for succeeded in only(history, AttemptSucceeded):
        for artifact in succeeded.artifacts:
            stored += await stage.ledger.artifact_bytes(job_id, artifact.id, offset=0, size=10_000)
    told = stored.decode("utf-8", "replace") + repr(engine.ear.notices) + repr(engine.ear.heard)
    assert SECRET not in told
    assert SECRET not in json.loads(json.dumps(told))
    assert "[secret KEY]" in told, way


async def test_a_secret_of_the_daemon_s_own_that_is_echoed_gets_nowhere_though_no_task_refers_to_it() -> None:
    stage = Stage()
    stage.known["endpoints.0.api_key"] = SECRET

    async def echo(attempt: Attempt) -> Outcome:
        attempt.progress(message=f"called with {SECRET}")
        await attempt.output(f"Bearer {SECRET}")
        return Outcome(output={"text": SECRET}, model=f"Bearer {SECRET}", endpoint=SECRET)

    stage.troupe.scripts = {"a": echo, "b": raising(AttemptError("HTTP_STATUS", SECRET, retryable=False, model=SECRET))}
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"), task("b"))
        history = await engine.end(job_id)
    told = repr(history) + repr(await stage.record(job_id))
    assert SECRET not in told
    assert only(history, AttemptSucceeded)[0].model == "Bearer [secret endpoints.0.api_key]"


async def test_a_secret_that_a_later_reference_s_failure_would_tell_stays_secret() -> None:
    stage = Stage()
    stage.vault["KEY"] = SECRET
    parameters = {"task_type": "scripted", "key": "${secrets.KEY}", "other": "${secrets.MISSING}"}
    async with stage.engine() as engine:
        history = await engine.run(task("a", parameters=parameters))
    assert only(history, JobFailed)[0].error == Failure("UNRESOLVED_REFERENCE", "there is no secret `MISSING`", "a")
    assert not stage.troupe.order


async def test_a_parked_attempt_s_time_may_be_any_number() -> None:
    stage = Stage()
    error = AttemptPutOff(WaitReason.BREAKER_OPEN, "open", until=stage.clock.now() + 1.5)  # type: ignore[arg-type]
    stage.troupe.scripts["a"] = raising(error)
    async with stage.engine() as engine:
        history = await engine.run(task("a"), deadline=stage.clock.now() + SECOND)
    assert only(history, AttemptParked)


on_asyncio = pytest.mark.parametrize("anyio_backend", ["asyncio"])


@on_asyncio
@pytest.mark.usefixtures("anyio_backend")
async def test_on_asyncio_a_stray_cancellation_fails_the_task_instead_of_hanging_the_job() -> None:
    """A handler that awaits what others have cancelled gets CancelledError though nobody cancelled it."""
    stage = Stage()

    async def stray(_: Attempt) -> Outcome:
        future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
        future.cancel()
        return await future

    stage.troupe.scripts["a"] = stray
    with anyio.fail_after(20):
        async with stage.engine() as engine:
            history = await engine.run(task("a"))
    assert only(history, JobFailed)[0].error.reason == "HANDLER_ERROR"
    assert sys.exc_info() == (None, None, None)


@on_asyncio
@pytest.mark.usefixtures("anyio_backend")
async def test_on_asyncio_a_job_runs_from_end_to_end_as_on_trio() -> None:
    stage = Stage()
    with anyio.fail_after(20):
        async with stage.engine() as engine:
            job_id = await engine.submit(task("a"), task("b", "a"))
            history = await watched(engine.runner, job_id)
    assert isinstance(history[-1].event, JobSucceeded)
    assert frames.encode(history) == frames.join([frames.encode(history[:3]), frames.encode(history[3:])])
