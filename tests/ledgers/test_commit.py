"""Group commit: one transaction for all that waits, an answer for each, and no caller left without one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import chain

import anyio
import anyio.from_thread
import anyio.lowlevel
import pytest

from runner.core.errors import LedgerFull, LedgerUnavailable
from runner.ledgers.commit import GroupCommit
from tests.ledgers.jobs import Ear


class Store:
    """Commits numbers: answers ten times as much, refuses negative ones. Can be held up in the midst of a commit."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.errors: list[Exception] = []
        self.threads: set[int] = set()
        self.open = threading.Event()
        self.open.set()
        self.entered = anyio.Event()
        self.token = anyio.lowlevel.current_token()

    def apply(self, writes: list[int]) -> list[int | Exception]:
        anyio.from_thread.run_sync(self.entered.set, token=self.token)
        assert self.open.wait(10)
        self.threads.add(threading.get_ident())
        if self.errors:
            raise self.errors.pop(0)
        self.batches.append(writes)
        return [LookupError(write) if write < 0 else write * 10 for write in writes]


def _commits(
    store: Store,
    *,
    max_batch: int = 100,
    max_pending: int = 100,
    ear: Ear | None = None,
    weigh: Callable[[int], int] = lambda _: 1,
    calm_seconds: float = 0.0,
) -> GroupCommit[int, int]:
    return GroupCommit(
        store.apply,
        max_batch=max_batch,
        max_pending=max_pending,
        observer=ear or Ear(),
        weigh=weigh,
        calm_seconds=calm_seconds,
    )


async def _while_committing(store: Store, commits: GroupCommit[int, int], writes: list[int]) -> dict[int, object]:
    """Submit writes while another commit is under way, so that they wait together, in order. Their answers."""
    answers: dict[int, object] = {}
    store.open.clear()

    async def submit(write: int, before: anyio.Event, after: anyio.Event) -> None:
        await before.wait()
        after.set()
        try:
            answers[write] = await commits.submit(write)
        except (LookupError, LedgerUnavailable) as error:
            answers[write] = error

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(commits.submit, 0)
        await store.entered.wait()
        turns = [anyio.Event() for _ in range(len(writes) + 1)]
        for index, write in enumerate(writes):
            tasks.start_soon(submit, write, turns[index], turns[index + 1])
        turns[0].set()
        await turns[-1].wait()
        await anyio.wait_all_tasks_blocked()
        store.open.set()
    return answers


async def test_an_idle_store_commits_at_once() -> None:
    store, ear = Store(), Ear()
    commits = _commits(store, ear=ear)
    async with commits.running():
        assert await commits.submit(1) == 10
        assert await commits.submit(2) == 20
    assert store.batches == [[1], [2]]
    assert ear.commits == [1, 1]


async def test_what_waits_goes_into_one_commit_in_order_of_arrival() -> None:
    store, ear = Store(), Ear()
    commits = _commits(store, ear=ear)
    async with commits.running():
        answers = await _while_committing(store, commits, [3, 1, 2])
    assert answers == {3: 30, 1: 10, 2: 20}
    assert store.batches == [[0], [3, 1, 2]]
    assert ear.commits == [1, 3]


async def test_what_a_busy_loop_brings_shares_commits() -> None:
    store = Store()
    commits = _commits(store)
    async with commits.running(), anyio.create_task_group() as callers:
        await _while_committing(store, commits, [1, 2, 3, 4])
        before = len(store.batches)
        for write in range(10, 50):
            callers.start_soon(commits.submit, write)
            _work(0.004)
            await anyio.lowlevel.checkpoint()
    later = store.batches[before:]
    assert list(chain.from_iterable(later)) == list(range(10, 50))
    assert len(later) < 20, later


def _work(seconds: float) -> None:
    """Take the processor for so long."""
    until = time.thread_time() + seconds
    while time.thread_time() < until:
        pass


async def test_a_commit_takes_in_no_more_than_its_bound() -> None:
    store, ear = Store(), Ear()
    commits = _commits(store, max_batch=4, weigh=lambda write: write, ear=ear)
    async with commits.running():
        await _while_committing(store, commits, [1, 2, 3, 4, 9, 1])
    assert store.batches == [[0], [1, 2, 3], [4], [9], [1]]
    assert ear.commits == [0, 6, 4, 9, 1]


async def test_a_full_line_makes_callers_wait_and_loses_none() -> None:
    store = Store()
    commits = _commits(store, max_pending=2)
    async with commits.running():
        answers = await _while_committing(store, commits, list(range(1, 9)))
    assert answers == {write: write * 10 for write in range(1, 9)}


async def test_a_refused_write_is_refused_alone() -> None:
    store = Store()
    commits = _commits(store)
    async with commits.running():
        answers = await _while_committing(store, commits, [1, -2, 3])
    assert (answers[1], answers[3]) == (10, 30)
    assert isinstance(answers[-2], LookupError)


async def test_a_failed_commit_fails_for_all_of_it_and_the_next_goes_on() -> None:
    store, ear = Store(), Ear()
    commits = _commits(store, ear=ear)
    async with commits.running():
        store.errors = [LedgerFull("full")] * 2
        for _ in range(2):
            with pytest.raises(LedgerFull, match="full"):
                await commits.submit(1)
        assert await commits.submit(1) == 10
    assert ear.notices == ["ledger_failing", "ledger_recovered"]


async def test_a_ledger_that_takes_some_writes_and_not_others_is_one_failing_ledger() -> None:
    store, ear = Store(), Ear()
    commits = _commits(store, ear=ear, calm_seconds=60)
    async with commits.running():
        for _ in range(3):
            store.errors = [LedgerFull("full")]
            with pytest.raises(LedgerFull):
                await commits.submit(1)
            assert await commits.submit(1) == 10
    assert ear.notices == ["ledger_failing"]


async def test_callers_of_a_failed_commit_get_an_exception_each() -> None:
    store = Store()
    commits = _commits(store)

    async with commits.running():

        async def fail() -> None:
            await store.entered.wait()
            store.errors = [LedgerUnavailable("away")] * 2

        store.open.clear()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fail)
            answers = await _while_committing_failing(store, commits)
    assert len({id(answer) for answer in answers}) == 2


async def _while_committing_failing(store: Store, commits: GroupCommit[int, int]) -> list[Exception]:
    errors: list[Exception] = []

    async def submit(write: int) -> None:
        try:
            await commits.submit(write)
        except LedgerUnavailable as error:
            errors.append(error)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(submit, 1)
        tasks.start_soon(submit, 2)
        await store.entered.wait()
        await anyio.wait_all_tasks_blocked()
        store.open.set()
    return errors


async def test_a_caller_that_leaves_before_its_commit_leaves_no_trace() -> None:
    store = Store()
    commits = _commits(store)
    async with commits.running():
        store.open.clear()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(commits.submit, 1)
            await store.entered.wait()
            with anyio.move_on_after(0):
                await commits.submit(2)
            store.open.set()
        assert await commits.submit(3) == 30
    assert store.batches == [[1], [3]]


async def test_what_waits_at_the_end_is_committed_first() -> None:
    store = Store()
    commits = _commits(store)
    answers: list[int] = []

    async def submit(write: int) -> None:
        answers.append(await commits.submit(write))

    async with anyio.create_task_group() as tasks, commits.running():
        store.open.clear()
        for write in (1, 2, 3):
            tasks.start_soon(submit, write)
        await store.entered.wait()
        await anyio.wait_all_tasks_blocked()
        store.open.set()
    assert sorted(answers) == [10, 20, 30]


async def test_whoever_cleans_up_under_cancellation_still_commits() -> None:
    store = Store()
    commits = _commits(store)
    with anyio.CancelScope() as scope:
        async with commits.running():
            scope.cancel()
            with anyio.CancelScope(shield=True):
                assert await commits.submit(1) == 10
    assert store.batches == [[1]]


async def test_a_closed_store_says_so() -> None:
    commits = _commits(Store())
    with pytest.raises(LedgerUnavailable, match="shutting down"):
        await commits.submit(1)
    async with commits.running():
        pass
    with pytest.raises(LedgerUnavailable, match="shutting down"):
        await commits.submit(1)


async def test_a_fault_of_ours_leaves_nobody_waiting() -> None:
    store = Store()
    store.errors = [ZeroDivisionError("a fault of ours")]
    commits = _commits(store)
    answers: list[Exception] = []

    async def submit() -> None:
        try:
            await commits.submit(1)
        except LedgerUnavailable as error:
            answers.append(error)

    async def run() -> None:
        async with commits.running():
            with anyio.CancelScope(shield=True):
                await submit()
            await anyio.sleep_forever()

    with pytest.raises(BaseExceptionGroup) as caught:
        await run()
    assert caught.group_contains(ZeroDivisionError)
    assert "restart the daemon" in str(answers[0])
