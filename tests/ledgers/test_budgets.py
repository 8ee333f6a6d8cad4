"""Token budgets: reserved before a call, spent with the frame that tells it, on every ledger alike."""

from __future__ import annotations

from pathlib import Path

import anyio
import pytest

from runner.core.errors import LeaseLost
from runner.core.job import Claim, Reservation, Share, Shortfall, Spending
from runner.ports import Ledger
from tests.ledgers.conftest import open_sql
from tests.ledgers.jobs import SECOND, T0, append, claimed, ending, job, release, running, submitted

DAY = Share("team=blue/day", "2026-11-22", 100)
EVER = Share("team=blue/ever", "", 150)


def asking(claim: Claim, tokens: int, *shares: Share, task: str = "a") -> Reservation:
    chosen = shares or (DAY,)
    return Reservation(job_id=claim.summary.id, token=claim.token, task_id=task, tokens=tokens, shares=chosen)


async def test_a_call_reserves_until_its_attempt_has_ended_and_then_counts_what_it_took(ledger: Ledger) -> None:
    claim = await running(ledger)
    assert await ledger.reserve_tokens(asking(claim, 60)) is None
    assert await ledger.reserve_tokens(asking(claim, 50, task="b")) == Shortfall(DAY, 0, 60)
    assert await ledger.spent_tokens(DAY.budget, DAY.period) == 0
    await ledger.append(append(claim, 2, settled=("a",), spent=(Spending(DAY.budget, DAY.period, 45),)))
    assert await ledger.spent_tokens(DAY.budget, DAY.period) == 45
    assert await ledger.reserve_tokens(asking(claim, 50, task="b")) is None
    assert await ledger.reserve_tokens(asking(claim, 6, task="c")) == Shortfall(DAY, 45, 50)


async def test_a_call_takes_of_all_its_budgets_or_of_none(ledger: Ledger) -> None:
    claim = await running(ledger)
    assert await ledger.reserve_tokens(asking(claim, 100, EVER)) is None
    assert await ledger.reserve_tokens(asking(claim, 60, DAY, EVER, task="b")) == Shortfall(EVER, 0, 100)
    assert await ledger.reserve_tokens(asking(claim, 100, DAY, task="c")) is None


async def test_calls_of_one_attempt_add_up(ledger: Ledger) -> None:
    claim = await running(ledger)
    assert await ledger.reserve_tokens(asking(claim, 60)) is None
    assert await ledger.reserve_tokens(asking(claim, 40)) is None
    assert await ledger.reserve_tokens(asking(claim, 1)) == Shortfall(DAY, 0, 100)


async def test_all_jobs_share_a_budget_and_periods_do_not(ledger: Ledger) -> None:
    await submitted(ledger, job(), job())
    first, second = await claimed(ledger)
    assert await ledger.reserve_tokens(asking(first, 80)) is None
    assert await ledger.reserve_tokens(asking(second, 30)) == Shortfall(DAY, 0, 80)
    tomorrow = Share(DAY.budget, "2026-11-23", 100)
    assert await ledger.reserve_tokens(asking(second, 30, tomorrow)) is None


async def test_of_many_calls_at_once_only_as_many_are_let_through_as_fit(ledger: Ledger) -> None:
    await submitted(ledger, *(job() for _ in range(20)))
    answers: list[Shortfall | None] = []

    async def ask(claim: Claim) -> None:
        answers.append(await ledger.reserve_tokens(asking(claim, 30)))

    async with anyio.create_task_group() as tasks:
        for claim in await claimed(ledger, 20):
            tasks.start_soon(ask, claim)
    assert answers.count(None) == 3
    assert len(answers) == 20


async def test_repeating_an_append_spends_once(ledger: Ledger) -> None:
    claim = await running(ledger)
    change = append(claim, 2, spent=(Spending(EVER.budget, "", 7), Spending(DAY.budget, DAY.period, 7)))
    await ledger.append(change)
    await ledger.append(change)
    assert [await ledger.spent_tokens(*place) for place in ((EVER.budget, ""), (DAY.budget, DAY.period))] == [7, 7]


async def test_an_append_that_is_refused_spends_nothing(ledger: Ledger) -> None:
    claim = await running(ledger)
    with pytest.raises(LeaseLost):
        await ledger.append(append(claim, 3, spent=(Spending(DAY.budget, DAY.period, 7),)))
    assert await ledger.spent_tokens(DAY.budget, DAY.period) == 0


async def test_only_the_holder_of_a_job_reserves(ledger: Ledger) -> None:
    claim = await running(ledger)
    await ledger.append(release(claim, 2))
    with pytest.raises(LeaseLost):
        await ledger.reserve_tokens(asking(claim, 1))
    (again,) = await claimed(ledger)
    with pytest.raises(LeaseLost):
        await ledger.reserve_tokens(asking(claim, 1))
    assert await ledger.reserve_tokens(asking(again, 1)) is None
    await ledger.append(ending(again, 3))
    with pytest.raises(LeaseLost):
        await ledger.reserve_tokens(asking(again, 1))


async def test_what_a_lost_runner_had_reserved_is_free_again(ledger: Ledger) -> None:
    """Neither while its job waits for the next runner, nor when it has one, even if that asks for the same task."""
    await submitted(ledger, job(), job(rank=1))
    first, other = await claimed(ledger)
    assert await ledger.reserve_tokens(asking(first, 90)) is None
    assert await ledger.renew("runner-1", tokens={other.summary.id: other.token}, until=T0 + 99 * SECOND)
    assert await ledger.rescue(now=T0 + 20 * SECOND, limit=9) == 1
    assert await ledger.reserve_tokens(asking(other, 90)) is None
    await ledger.append(append(other, 2, settled=("a",)))
    (again,) = await claimed(ledger, runner="runner-2")
    assert await ledger.reserve_tokens(asking(again, 95)) is None


async def test_what_was_spent_outlives_the_process_and_reservations_do_not(database: Path) -> None:
    async with open_sql(database).running():
        pass
    first = open_sql(database)
    async with first.running():
        claim = await running(first)
        await first.append(append(claim, 2, spent=(Spending(DAY.budget, DAY.period, 30),)))
        assert await first.reserve_tokens(asking(claim, 70)) is None
    second = open_sql(database, runner="runner-2")
    async with second.running():
        (again,) = await claimed(second, runner="runner-2")
        assert await second.reserve_tokens(asking(again, 71)) == Shortfall(DAY, 30, 0)
        assert await second.reserve_tokens(asking(again, 70)) is None
