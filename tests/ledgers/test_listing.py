"""Lists: filters mean in every ledger what they mean in the core, and pages neither repeat nor skip."""

from __future__ import annotations

from typing import Final

import pytest

from runner.core.events import JobState
from runner.core.filters import ANY, And, Comparison, Filter, JobQuery, Not, Or, matches
from runner.core.plan import Priority
from runner.ports import Ledger
from tests.ledgers.jobs import T0, claimed, ending, found, job, submitted


async def _some_jobs(ledger: Ledger) -> None:
    await submitted(
        ledger,
        job(1, queue="a", labels={"team": "blue", 'a "b".c': "x"}, title="Weekly DIGEST", created_at=T0 + 1),
        job(2, queue="b", labels={"team": "Red"}, priority=Priority.HIGH, created_at=T0 + 2),
        job(3, queue="b", labels={"100%": "_"}, title="100% İŞ ığü", request_id="r-3", created_at=T0 + 3),
        job(4, queue="a", alt_id="alt_7", priority=Priority.LOW, created_at=T0 + 4),
    )
    first, second, *_ = await claimed(ledger, 2)
    await ledger.append(ending(first, 2, ended_at=T0 + 10))
    await ledger.append(ending(second, 2, state=JobState.FAILED, ended_at=T0 + 20))


def _is(field: str, operator: str, value: str | int, key: str = "") -> Comparison:
    return Comparison(field, key, operator, value)


#: Filters, and the numbers of the jobs that meet them.
CASES: Final[list[tuple[Filter, list[int]]]] = [
    (_is("state", "=", JobState.FAILED), [2]),
    (_is("state", "!=", JobState.FAILED), [1, 3, 4]),
    (_is("queue", "=", "a"), [1, 4]),
    (_is("queue", "!=", "a"), [2, 3]),
    (_is("priority", ">=", Priority.MEDIUM), [1, 2, 3]),
    (_is("priority", "<", Priority.MEDIUM), [4]),
    (_is("title", ":", "digest"), [1, 2, 4]),
    (_is("title", ":", "100%"), [3]),
    (_is("title", ":", "iş"), []),
    (_is("title", ":", "İŞ"), [3]),
    (_is("title", ":", "_"), []),
    (_is("title", ":", ""), [1, 2, 3, 4]),
    (_is("alt_id", "=", "alt_7"), [4]),
    (_is("request_id", "=", "r-3"), [3]),
    (_is("created_at", ">", T0 + 2), [3, 4]),
    (_is("created_at", "<=", T0 + 2), [1, 2]),
    (_is("ended_at", ">", T0), [1, 2]),
    (_is("ended_at", "=", T0 + 10), [1]),
    (_is("ended_at", "!=", T0 + 10), [2, 3, 4]),
    (Not(_is("ended_at", ">", T0)), [3, 4]),
    (_is("labels", "=", "blue", "team"), [1]),
    (_is("labels", "!=", "blue", "team"), [2, 3, 4]),
    (_is("labels", ":", "RE", "team"), [2]),
    (_is("labels", ":", ANY, "team"), [1, 2]),
    (Not(_is("labels", ":", ANY, "team")), [3, 4]),
    (Not(_is("labels", "=", "blue", "team")), [2, 3, 4]),
    (_is("labels", "=", "x", 'a "b".c'), [1]),
    (_is("labels", "=", "_", "100%"), [3]),
    (And((_is("queue", "=", "a"), Not(_is("state", "=", JobState.QUEUED)))), [1]),
    (Or((_is("queue", "=", "a"), _is("state", "=", JobState.FAILED))), [1, 2, 4]),
    (And((Or((_is("queue", "=", "a"), _is("queue", "=", "b"))), _is("priority", "=", Priority.HIGH))), [2]),
]


async def test_a_filter_finds_what_it_means(ledger: Ledger) -> None:
    await _some_jobs(ledger)
    everything = await ledger.jobs(JobQuery(ascending=True))
    for restriction, numbers in CASES:
        expected = [f"job-{n:06d}" for n in numbers]
        assert [job.id for job in everything if matches(restriction, job)] == expected, restriction
        assert await found(ledger, restriction, ascending=True) == expected, restriction


async def test_lists_are_newest_first_unless_told_otherwise(ledger: Ledger) -> None:
    await submitted(ledger, job(2, created_at=T0), job(1, created_at=T0), job(3, created_at=T0 - 1))
    assert await found(ledger) == ["job-000002", "job-000001", "job-000003"]
    assert await found(ledger, ascending=True) == ["job-000003", "job-000001", "job-000002"]


@pytest.mark.parametrize("ascending", [False, True])
async def test_pages_neither_repeat_nor_skip(ledger: Ledger, ascending: bool) -> None:
    await submitted(ledger, *(job(n, created_at=T0 + n // 3, queue="ab"[n % 2]) for n in range(20)))
    only_a = _is("queue", "=", "a")
    seen: list[str] = []
    place: tuple[int, str] | None = None
    while page := await ledger.jobs(JobQuery(filter=only_a, ascending=ascending, after=place, limit=3)):
        assert len(page) <= 3
        seen += [job.id for job in page]
        place = (page[-1].created_at, page[-1].id)
    assert seen == await found(ledger, only_a, ascending=ascending, limit=99)
    assert len(seen) == 10
