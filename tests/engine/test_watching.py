"""Watches: replay, then live, without gap or double, for any number of watchers of any speed."""

from __future__ import annotations

import itertools
import tracemalloc
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any, cast

import anyio
import pytest

from runner import frames
from runner.core.errors import Draining, InvalidRequest, JobNotFound
from runner.core.events import AttemptOutput, AttemptProgressed, JobState, JobSucceeded, Recorded
from runner.core.filters import parse_filter
from runner.core.job import Frame
from runner.engine.broadcast import Broadcast, CaughtUp
from runner.engine.journal import ChangesPage
from runner.ports import Attempt, Ledger, Outcome, Quiet
from tests.engine.stage import START, Engine, Shelf, Stage, forever, submission, task, watched

pytestmark = pytest.mark.timeout(30)


def talking(pieces: int, seconds: float = 0.1, text: str = "x") -> Any:
    async def script(attempt: Attempt) -> Outcome:
        for _ in range(pieces):
            await attempt.output(text)
            await anyio.sleep(seconds)
        return Outcome()

    return script


async def collect(engine: Engine, job_id: str, after: int, into: list[Any], heartbeat: float = 3600) -> None:
    async with aclosing(engine.runner.watch(job_id, after=after, heartbeat=heartbeat)) as stream:
        # One by one: what was seen before the watch is cut off counts.
        async for piece in stream:
            into.append(piece)  # noqa: PERF401  a comprehension gives nothing when it is cancelled


def events_of(pieces: list[Any]) -> list[Recorded]:
    return frames.decode([piece for piece in pieces if isinstance(piece, Frame)])


async def test_a_watch_replays_and_goes_on_live_from_every_number_at_every_moment() -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = talking(5)
    watches: list[tuple[int, list[Any]]] = []
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"), task("b", "a"))
        async with anyio.create_task_group() as tasks:
            while not (job := await stage.ledger.job(job_id)).state.terminal:
                for after in range(job.last_sequence + 1):
                    pieces: list[Any] = []
                    watches.append((after, pieces))
                    tasks.start_soon(collect, engine, job_id, after, pieces)
                await anyio.sleep(0.07)
        history = await stage.history(job_id)
        assert engine.ear.watching == 0
    assert len(watches) > 30
    for after, pieces in watches:
        assert events_of(pieces) == history[after:]
        assert sum(isinstance(piece, CaughtUp) for piece in pieces) <= 1
        assert isinstance(pieces[-1], Frame)
        assert pieces[-1].terminal


async def test_a_watch_of_a_job_that_has_ended_replays_it_and_one_from_its_end_ends_at_once() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        history = await engine.run(task("a"))
        job_id = next(iter(engine.ear.heard))
        for after in range(len(history) + 1):
            assert await watched(engine.runner, job_id, after=after) == history[after:]
        with pytest.raises(InvalidRequest, match="there is no number 99"):
            await watched(engine.runner, job_id, after=99)
        with pytest.raises(JobNotFound):
            await watched(engine.runner, "nobody")
    assert engine.ear.watching == 0


async def test_caught_up_comes_once_and_heartbeats_only_in_silence() -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = talking(4, seconds=10)
    pieces: list[Any] = []
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"))
        await collect(engine, job_id, 0, pieces, 4)
    shape = "".join({"CaughtUp": "C", "Idle": "i", "Frame": "F"}[type(piece).__name__] for piece in pieces)
    assert shape.count("C") == 1
    assert shape[0] == "F"
    assert shape.count("i") == 8
    assert shape.endswith("F")
    assert "iii" not in shape


async def test_a_slow_watcher_reads_thousands_of_events_later_on_without_a_gap() -> None:
    stage = Stage()
    stage.tail_bytes = 20_000
    count = 1_500
    stage.troupe.scripts["hold"] = talking(1, seconds=300)
    async with stage.engine() as engine:
        job_id = await engine.submit(*(task(f"t{index}") for index in range(count)), task("hold"))
        async with aclosing(engine.runner.watch(job_id, after=0, heartbeat=3600)) as stream:
            pieces: list[Any] = [await anext(stream)]
            await anyio.sleep(100)
            assert (await stage.ledger.job(job_id)).last_sequence > 2 * count
            pieces += [piece async for piece in stream]
    seen = events_of(pieces)
    assert [entry.sequence for entry in seen] == list(range(1, len(seen) + 1))
    assert isinstance(seen[-1].event, JobSucceeded)
    assert max(len(piece.data) for piece in pieces if isinstance(piece, Frame)) < 1 << 20


class Reader:
    """The reading half of a ledger, with frames of one job that a test makes durable one by one."""

    def __init__(self) -> None:
        self.stored: list[Frame] = []
        self.ended = False

    async def frames(self, job_id: str, *, after: int, max_bytes: int) -> list[Frame]:
        await anyio.lowlevel.checkpoint()
        return [frame for frame in self.stored if frame.last > after]

    async def job(self, job_id: str) -> Any:
        await anyio.lowlevel.checkpoint()
        return SimpleNamespace(state=JobState.RUNNING, last_sequence=1 << 40)


async def test_a_watcher_that_does_not_read_costs_the_tail_and_nothing_more() -> None:
    """Ten thousand frames of a kilobyte pass by while it does not read; about a hundred are kept."""
    ledger = Reader()
    ledger.stored = [frames.encode([Recorded(1, START, AttemptOutput("a", 1, 0, "x"))])]
    broadcast = Broadcast(cast("Ledger", ledger), Quiet(), tail_bytes=100_000)
    async with aclosing(broadcast.follow("job", after=0, heartbeat=3600)) as stream:
        await anext(stream)
        tracemalloc.start()
        before, _ = tracemalloc.get_traced_memory()
        for number in range(2, 10_002):
            broadcast.publish("job", frames.encode([Recorded(number, START, AttemptOutput("a", 1, 0, "x" * 1_000))]))
        during, _ = tracemalloc.get_traced_memory()
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 90_000 < during - before < 200_000
    assert after - before < 50_000, "the tail went with its last watcher"


async def test_a_thousand_watchers_of_one_job_all_see_all_of_it() -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = talking(20)
    sinks: list[list[Any]] = [[] for _ in range(1_000)]
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"))
        async with anyio.create_task_group() as tasks:
            for pieces in sinks:
                tasks.start_soon(collect, engine, job_id, 0, pieces)
            await anyio.sleep(0.01)
            assert engine.ear.watching == 1_000
        history = await stage.history(job_id)
    data = b"".join(frame.data for frame in await stage.ledger.frames(job_id, after=0, max_bytes=1 << 40))
    for pieces in sinks:
        assert b"".join(piece.data for piece in pieces if isinstance(piece, Frame)) == data
        assert pieces[-1].terminal
    assert len(history) >= 20
    assert engine.ear.watching == 0


async def test_a_watcher_that_leaves_frees_what_it_held() -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = talking(20)
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"))
        for _ in range(3):
            with anyio.move_on_after(0.3):
                await collect(engine, job_id, 0, [])
            async with aclosing(engine.runner.watch(job_id, after=0, heartbeat=1)) as stream:
                await anext(stream)
            assert engine.ear.watching == 0
        await engine.end(job_id)


async def test_a_frame_that_was_committed_and_never_shown_is_not_jumped_over() -> None:
    """Its execution was dropped between the commit and the broadcast; the next frame comes from another execution."""
    stage = Stage()
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"))
        await engine.end(job_id)
    stored = await stage.ledger.frames(job_id, after=0, max_bytes=1 << 40)
    one, two, *rest = [frames.encode([entry]) for entry in frames.decode(stored)]

    ledger = Reader()
    ledger.stored = [one]
    broadcast = Broadcast(cast("Ledger", ledger), Quiet())
    seen: list[Recorded] = []

    async def watch() -> None:
        async with aclosing(broadcast.follow(job_id, after=0, heartbeat=3600)) as stream:
            async for piece in stream:
                if isinstance(piece, Frame):
                    seen.extend(frames.decode([piece]))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(watch)
        await anyio.sleep(1)
        ledger.stored.append(two)
        broadcast.publish(job_id, two)
        await anyio.sleep(1)
        hidden, *shown = rest
        ledger.stored.append(hidden)
        for frame in shown:
            ledger.stored.append(frame)
            broadcast.publish(job_id, frame)
    assert [entry.sequence for entry in seen] == list(range(1, len(seen) + 1))
    assert isinstance(seen[-1].event, JobSucceeded)


async def test_a_commit_by_another_daemon_is_seen_at_the_next_heartbeat() -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = talking(1, seconds=5)
    async with stage.ledger.running(), stage.engine() as worker:
        onlooker = stage.make()
        job_id = await worker.submit(task("a"))
        pieces: list[Any] = []
        with anyio.fail_after(30):
            await collect(onlooker, job_id, 0, pieces, 2)
    assert isinstance(events_of(pieces)[-1].event, JobSucceeded)


async def test_a_drain_sends_watchers_away_after_they_saw_their_job_given_back() -> None:
    stage = Stage()
    stage.troupe.scripts["a"] = forever
    pieces: list[Any] = []
    pages: list[ChangesPage] = []

    async def watch(engine: Engine, job_id: str) -> None:
        with pytest.raises(Draining):
            await collect(engine, job_id, 0, pieces)

    async def follow(engine: Engine) -> None:
        async with aclosing(engine.runner.watch_jobs(None, after=0, heartbeat=3600)) as stream:
            while page := await anext(stream):
                pages.append(page)

    async def sent_away(engine: Engine) -> None:
        with pytest.raises(Draining):
            await follow(engine)

    async with stage.engine(drain_grace_seconds=5) as engine, anyio.create_task_group() as tasks:
        job_id = await engine.submit(task("a"))
        tasks.start_soon(watch, engine, job_id)
        tasks.start_soon(sent_away, engine)
        await anyio.sleep(1)
        await engine.runner.drain()
    assert events_of(pieces)[-1].sequence == (await stage.ledger.job(job_id)).last_sequence
    assert [change.state for page in pages for change in page.changes][-1] is JobState.QUEUED


async def test_progress_and_text_are_coalesced_and_the_last_word_is_never_lost() -> None:
    stage = Stage()

    async def script(attempt: Attempt) -> Outcome:
        for step in range(1_000):
            attempt.progress(step / 1_000)
            await attempt.output(f"{step} ")
            await anyio.sleep(0.001)
        return Outcome()

    stage.troupe.scripts["a"] = script
    async with stage.engine() as engine:
        history = await engine.run(task("a"))
    pieces = [entry.event for entry in history if isinstance(entry.event, AttemptOutput)]
    reports = [entry.event for entry in history if isinstance(entry.event, AttemptProgressed)]
    assert "".join(piece.text for piece in pieces) == "".join(f"{step} " for step in range(1_000))
    assert 10 <= len(pieces) <= 25
    assert reports[-1].fraction == 0.999


# ------------------------------------------------------------------------------------------------------ journal


async def test_the_journal_tells_every_change_of_every_job_in_order_from_any_cursor() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        for _ in range(5):
            await engine.run(task("a"))
        newest = await stage.ledger.newest_cursor()
        for after in range(newest):
            seen: list[int] = []
            stream = engine.runner.watch_jobs(None, after=after, heartbeat=3600)
            async for page in stream:
                seen += [change.cursor for change in page.changes]
                if page.cursor == newest:
                    break
            await stream.aclose()
            assert seen == list(range(after + 1, newest + 1))


async def test_the_journal_from_now_on_filters_and_beats_under_a_load_that_does_not_match() -> None:
    stage = Stage()
    pages: list[tuple[float, ChangesPage]] = []

    async def follow(engine: Engine) -> None:
        wanted = parse_filter('queue = "mine"')
        async with aclosing(engine.runner.watch_jobs(wanted, after=None, heartbeat=2)) as stream:
            async for page in stream:
                pages.append((anyio.current_time(), page))
                if page.changes and page.changes[-1].state.terminal:
                    return

    async with stage.engine() as engine:
        await engine.run(task("before"), queue="mine")
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(follow, engine)
            for _ in range(20):
                await engine.runner.submit(submission(task("a"), queue="other"))
                await anyio.sleep(0.5)
            await engine.run(task("b"), queue="mine")
    states = [change.state for _, page in pages for change in page.changes]
    assert states == [JobState.QUEUED, JobState.RUNNING, JobState.SUCCEEDED]
    beats = [moment for moment, page in pages if not page.changes]
    assert len(beats) >= 5
    assert all(later - earlier <= 2.6 for earlier, later in itertools.pairwise(beats))


async def test_the_journal_hears_of_other_daemons_by_its_poll() -> None:
    stage = Stage()
    async with stage.ledger.running(), stage.engine(Shelf()) as worker:
        onlooker = stage.make()
        stream = onlooker.runner.watch_jobs(None, after=None, heartbeat=3600)
        assert (await anext(stream)).changes == ()
        await worker.run(task("a"))
        with anyio.fail_after(60):
            assert (await anext(stream)).changes
        await stream.aclose()
