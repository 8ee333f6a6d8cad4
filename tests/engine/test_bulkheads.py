"""Promise 7, seen from the engine: what is sick or slow holds up its own tasks and no others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.events import AttemptStarted, JobStarted, JobSucceeded
from runner.core.plan import Priority, TaskPlan
from runner.core.runs import TaskRun
from runner.engine.slots import Slots, Standing
from runner.ports import Attempt, Bulkhead, Handler, Outcome
from tests.engine.stage import Engine, Stage, forever, kinds, only, task, times

pytestmark = pytest.mark.timeout(30)

SICK = {"task_type": "sick"}
IDLE = {"task_type": "idle"}


class Fenced:
    """A handler behind a bulkhead; takes 10 s, or for ever where it is told to hang."""

    def __init__(self, places: int) -> None:
        self.hangs = False
        self.places = places
        self.inside = 0
        self.most = 0

    def bulkhead(self, _: TaskPlan) -> Bulkhead:
        return Bulkhead("fence", self.places)

    async def run(self, attempt: Attempt) -> Outcome:
        self.inside += 1
        self.most = max(self.most, self.inside)
        try:
            await (forever(attempt) if self.hangs else anyio.sleep(10))
        finally:
            self.inside -= 1
        return Outcome()


class Idle:
    """A handler that needs no slot."""

    needs_slot = False

    async def run(self, _: Attempt) -> Outcome:
        await anyio.sleep(200)
        return Outcome()


class Broken:
    """A handler that cannot even say where its tasks go."""

    def bulkhead(self, _: TaskPlan) -> Bulkhead:
        raise RuntimeError("no idea")

    async def run(self, _: Attempt) -> Outcome:
        await anyio.lowlevel.checkpoint()
        return Outcome()


@asynccontextmanager
async def running(stage: Stage, **handlers: Handler) -> AsyncIterator[Engine]:
    engine = stage.make()
    engine.equipment.handlers = {**engine.equipment.handlers, **handlers}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(engine.live)
        yield engine
        await engine.kill()


async def test_tasks_that_wait_for_a_sick_endpoint_hold_no_slot_and_write_no_event() -> None:
    stage = Stage()
    stage.set(max_concurrent_tasks=8)
    sick = Fenced(4)
    sick.hangs = True
    async with running(stage, sick=sick) as engine:
        waiting = await engine.submit(*(task(f"s{n}", parameters=SICK) for n in range(1_000)))
        await anyio.sleep(60)
        history = await engine.run(task("healthy"))
        assert sick.inside == 4
        assert kinds(await stage.history(waiting)) == ["JobAccepted", "JobStarted"] + ["AttemptStarted"] * 4
    assert times(history, JobSucceeded) == times(history, JobStarted)


async def test_a_job_goes_on_with_what_has_room_while_the_rest_of_it_waits() -> None:
    stage = Stage()
    sick = Fenced(1)
    async with running(stage, sick=sick) as engine:
        tasks = [task(f"s{n}", parameters=SICK) for n in range(3)]
        history = await engine.run(*tasks, task("healthy"))
    started = [event.task_id for event in only(history, AttemptStarted)]
    assert started == ["s0", "healthy", "s1", "s2"]
    assert times(history, AttemptStarted) == [0, 0, 10, 20]
    assert sick.most == 1


async def test_room_goes_from_job_to_job_and_all_is_given_back() -> None:
    stage = Stage()
    stage.set(max_concurrent_tasks=3)
    fenced = Fenced(2)
    async with running(stage, sick=fenced) as engine:
        jobs = [await engine.submit(*(task(f"s{n}", parameters=SICK) for n in range(4))) for _ in range(5)]
        ends = [(await engine.end(job_id))[-1] for job_id in jobs]
        slots = engine.equipment.slots
        assert (slots.free, slots.bulkhead("fence", 2).free) == (3, 2)
    assert all(isinstance(end.event, JobSucceeded) for end in ends)
    assert fenced.most == 2


async def test_a_cancelled_job_leaves_the_line_and_the_room_it_had() -> None:
    stage = Stage()
    fenced = Fenced(2)
    fenced.hangs = True
    async with running(stage, sick=fenced) as engine:
        tasks = [task(f"s{n}", parameters=SICK) for n in range(4)]
        first = await engine.submit(*tasks)
        await anyio.sleep(1)
        second = await engine.submit(*tasks)
        await anyio.sleep(1)
        fenced.hangs = False
        await engine.runner.cancel(first, "enough")
        await engine.end(first)
        assert isinstance((await engine.end(second))[-1].event, JobSucceeded)
        assert engine.equipment.slots.bulkhead("fence", 2).free == 2


async def test_handlers_that_only_wait_take_no_slot() -> None:
    stage = Stage()
    stage.set(max_concurrent_tasks=1)
    async with running(stage, idle=Idle()) as engine:
        idling = await engine.submit(*(task(f"d{n}", parameters=IDLE) for n in range(4)))
        await anyio.sleep(1)
        critical = await engine.run(task("now"), priority=Priority.CRITICAL)
        idled = await engine.end(idling)
    assert times(critical, JobSucceeded) == [1]
    assert times(idled, JobSucceeded) == [200]


async def test_a_handler_that_cannot_tell_its_bulkhead_has_none() -> None:
    stage = Stage()
    async with running(stage, broken=Broken()) as engine:
        history = await engine.run(task("a", parameters={"task_type": "broken"}))
    assert isinstance(history[-1].event, JobSucceeded)


@settings(max_examples=60, deadline=None)
@given(
    places=st.tuples(*[st.integers(1, 3)] * 3),
    jobs=st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=1, max_size=5),
    order=st.randoms(use_true_random=False),
)
def test_no_line_lets_too_many_pass_and_everybody_passes(
    places: tuple[int, int, int], jobs: list[list[int]], order: Any
) -> None:
    """Any jobs before two bulkheads and one pool, woken and ended in any order."""
    pool, left, right = (Slots(total) for total in places)
    ways = [(pool,), (left, pool), (right, pool), ()]
    woken: list[int] = list(range(len(jobs)))
    todo = [{str(n): _task_run(str(n)) for n in range(len(job))} for job in jobs]
    standings = [
        Standing(partial(_way, ways, job), ways, Priority.MEDIUM, partial(woken.append, at))
        for at, job in enumerate(jobs)
    ]
    under_way: list[tuple[int, str]] = []
    while woken or under_way:
        if woken and (not under_way or order.random() < 0.5):
            at = woken.pop(order.randrange(len(woken)))
            for chosen in standings[at].choose(list(todo[at].values())):
                del todo[at][chosen.plan.id]
                under_way.append((at, chosen.plan.id))
        else:
            at, task_id = under_way.pop(order.randrange(len(under_way)))
            standings[at].give_back(task_id)
            woken.append(at)
        assert all(0 <= line.free <= line.total for line in (pool, left, right))
    assert not any(todo)
    assert [line.free for line in (pool, left, right)] == list(places)


def _way(ways: list[tuple[Slots, ...]], job: list[int], task: TaskPlan) -> tuple[Slots, ...]:
    return ways[job[int(task.id)]]


def _task_run(name: str) -> TaskRun:
    return TaskRun(plan=TaskPlan(id=name, description="", kind="k"), index=0, unmet=0)


def test_who_was_called_passes_those_who_stand_before_the_bulkhead() -> None:
    """They wait for what was given to it."""
    pool, fence = Slots(10), Slots(1, is_pool=False)
    standing = Standing(lambda _: (fence, pool), [(fence, pool)], Priority.MEDIUM, lambda: None)
    first, second, called = (_task_run(name) for name in ("1", "2", "3"))
    assert standing.choose([first, second]) == [first]
    standing.let_by(called.plan)
    assert standing.choose([called, second]) == [called]
    assert (fence.free, pool.free) == (0, 8)
    standing.give_back("3")
    assert (fence.free, pool.free) == (0, 9)
    standing.give_back("1")
    assert standing.choose([second]) == [second]


async def test_a_bulkhead_that_comes_while_a_job_goes_on_bounds_its_tasks_from_then_on() -> None:
    """The group of the job's endpoint was empty when the job was claimed: there was nothing to fence."""
    stage = Stage()
    fenced = Fenced(0)
    async with running(stage, sick=fenced) as engine:
        first = task("first")
        rest = [task(f"s{n}", "first", parameters=SICK) for n in range(3)]
        stage.troupe.scripts["first"] = partial(_fence_comes, fenced)
        history = await engine.run(first, *rest)
        assert engine.equipment.slots.bulkhead("fence", 1).free == 1
    assert times(history, AttemptStarted) == [0, 5, 15, 25]
    assert fenced.most == 1


async def _fence_comes(fenced: Fenced, _: Attempt) -> Outcome:
    await anyio.sleep(5)
    fenced.places = 1
    return Outcome()
