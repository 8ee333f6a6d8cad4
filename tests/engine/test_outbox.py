"""Records reach their sinks at least once, for as long as it takes, and nothing that a sink does harms anybody else."""

from __future__ import annotations

import json
from collections.abc import Sequence

import anyio
import pytest

from runner.core.job import OutboxEntry
from runner.ports import Outcome
from tests.engine.stage import Shelf, Stage, task

pytestmark = pytest.mark.timeout(30)


async def test_each_sink_has_each_record_once_and_it_is_the_ledger_s() -> None:
    stage, one, two = Stage(), Shelf("one"), Shelf("two")
    async with stage.engine(one, two) as engine:
        ids = [await engine.submit(task("a")) for _ in range(5)]
        for job_id in ids:
            await engine.end(job_id)
        await anyio.sleep(60)
        for shelf in (one, two):
            assert sorted(entry.job_id for entry in shelf.deliveries) == sorted(ids)
            for entry in shelf.deliveries:
                assert entry.record == await stage.ledger.record(entry.job_id)
                assert json.loads(entry.record)["execution_id"] == entry.execution_id


async def test_a_sink_that_fails_is_tried_again_ever_more_slowly_and_holds_up_nobody() -> None:
    stage, sick, sound = Stage(), Shelf("sick"), Shelf("sound")
    sick.failures = 8
    async with stage.engine(sick, sound, poll_seconds=1) as engine:
        await engine.run(task("a"))
        await sound.arrived.wait()
        assert anyio.current_time() < 1
        await engine.run(task("b"))
        while len(sick.deliveries) < 2:
            await sick.arrived.wait()
        assert engine.ear.said("sink_failed") == 8
        assert 20 < anyio.current_time() < 600
    assert len(sound.deliveries) == 2


async def test_a_delivery_that_could_not_be_marked_is_made_again_with_the_same_execution_id() -> None:
    stage = Stage()

    class Forgetful(Shelf):
        async def deliver(self, entries: Sequence[OutboxEntry]) -> None:
            await super().deliver(entries)
            if len(self.deliveries) == 1:
                stage.ledger.freeze()

    shelf = Forgetful()
    async with stage.engine(shelf, poll_seconds=1) as engine:
        await engine.run(task("a"))
        await anyio.sleep(5)
        stage.ledger.thaw()
        await anyio.sleep(60)
    assert len(shelf.deliveries) == 2
    assert len({entry.execution_id for entry in shelf.deliveries}) == 1


async def test_a_record_that_an_engine_left_undelivered_is_delivered_by_the_next() -> None:
    stage, shelf = Stage(), Shelf()
    shelf.failures = 1_000
    async with stage.engine(shelf) as engine:
        await engine.run(task("a"))
        await anyio.sleep(5)
    shelf.failures = 0
    async with stage.ledger.running(), stage.engine(shelf):
        await shelf.arrived.wait()
    assert len(shelf.deliveries) == 1
    assert shelf.deliveries[0].attempts > 0


async def test_a_drain_delivers_what_is_due_and_waits_for_no_sink_that_hangs() -> None:
    stage, sound = Stage(), Shelf("sound")

    class Hanging(Shelf):
        async def deliver(self, entries: Sequence[OutboxEntry]) -> None:
            await anyio.sleep_forever()

    async with stage.engine(Hanging("hanging"), sound) as engine:
        await engine.submit(task("a"))
        await engine.runner.drain()
        assert anyio.current_time() <= 10
        assert len(sound.deliveries) <= 1


async def test_more_records_than_a_page_are_all_delivered_in_order() -> None:
    stage, shelf = Stage(), Shelf()

    async def quick(_: object) -> Outcome:
        await anyio.lowlevel.checkpoint()
        return Outcome()

    stage.troupe.scripts["a"] = quick
    shelf.failures = 1
    async with stage.engine(shelf, poll_seconds=1) as engine:
        ids = [await engine.submit(task("a")) for _ in range(450)]
        for job_id in ids:
            await engine.end(job_id)
        while len(shelf.deliveries) < 450:
            await shelf.arrived.wait()
    delivered: list[OutboxEntry] = shelf.deliveries
    assert len({entry.id for entry in delivered}) == 450


async def test_a_delivery_takes_in_no_more_than_its_bytes_and_the_rest_follows_at_once() -> None:
    stage = Stage()
    sizes: list[int] = []

    class Weighing(Shelf):
        async def deliver(self, entries: Sequence[OutboxEntry]) -> None:
            sizes.append(len(entries))
            await super().deliver(entries)

    async def large(_: object) -> Outcome:
        await anyio.lowlevel.checkpoint()
        return Outcome(output="x" * 400_000)

    tasks = {str(number): large for number in range(15)}
    stage.troupe.scripts = dict(tasks)
    stage.set(inline_output_bytes=500_000, inline_job_bytes=16 * 1024 * 1024)
    shelf = Weighing()
    shelf.failures = 1
    async with stage.engine(shelf, poll_seconds=100) as engine:
        stage.clock.skew = 0
        ids = [await engine.submit(*map(task, tasks)) for _ in range(6)]
        for job_id in ids:
            await engine.end(job_id)
        while len(shelf.deliveries) < 6:
            await shelf.arrived.wait()
    assert max(sizes) <= 3
