"""Budgets are never exceeded, whatever the order in which calls begin and end."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.budgets import (
    Account,
    Fit,
    LabelBudget,
    Period,
    estimate,
    fit,
    period_end,
    period_of,
    sentence,
    told_in,
)
from runner.core.job import Share

tokens = st.integers(0, 500)
#: Of each call: who makes it, what it may take, what part of that it takes, in percent.
calls = st.lists(st.tuples(st.sampled_from("abcd"), tokens, st.integers(0, 100)), max_size=40)


@given(limit=st.integers(1, 2_000), calls=calls, order=st.data())
def test_what_is_used_never_exceeds_the_budget_whatever_the_interleaving(
    limit: int, calls: list[tuple[str, int, int]], order: st.DataObject
) -> None:
    account = Account(limit)
    under_way: dict[str, int] = {}
    for name, estimated, percent in calls:
        if account.reserve(name, estimated) is Fit.NOW:
            under_way[name] = under_way.get(name, 0) + estimated * percent // 100
        assert account.used + account.reserved <= limit
        ended: str = order.draw(st.sampled_from(["", *sorted(under_way)]))
        if ended:
            account.settle(ended, under_way.pop(ended))
        assert account.used + account.reserved <= limit
        assert account.left == limit - account.used - account.reserved
    for name, used in under_way.items():
        account.settle(name, used)
    assert account.used <= limit
    assert account.reserved == 0


@given(limit=st.integers(1, 1_000), used=tokens, reserved=tokens, wanted=tokens)
def test_a_call_that_only_those_under_way_keep_out_may_come_later(
    limit: int, used: int, reserved: int, wanted: int
) -> None:
    found = fit(limit=limit, used=used, reserved=reserved, tokens=wanted)
    alone = fit(limit=limit, used=used, reserved=0, tokens=wanted)
    assert (found is Fit.NEVER) == (alone is Fit.NEVER)
    assert (found is Fit.NOW) == (used + reserved + wanted <= limit)


def test_tokens_of_a_call_that_is_not_made_are_free_again() -> None:
    account = Account(100)
    assert account.reserve("a", 60) is Fit.NOW
    assert account.reserve("b", 60) is Fit.LATER
    account.give_back("a", 60)
    assert account.reserve("b", 60) is Fit.NOW
    assert account.reserve("c", 101) is Fit.NEVER


def test_more_than_was_estimated_counts_too() -> None:
    account = Account(100)
    account.reserve("a", 10)
    account.settle("a", 150)
    assert (account.used, account.left) == (150, 0)


def test_an_estimate_is_a_third_of_the_characters_rounded_up_and_the_answer() -> None:
    assert [estimate("x" * count, 10) for count in (0, 1, 3, 4)] == [10, 11, 11, 12]


def _instant(*date: int) -> int:
    return round(datetime(*date, tzinfo=UTC).timestamp()) * 1_000_000  # type: ignore[misc,arg-type]


@pytest.mark.parametrize(
    ("per", "moment", "name", "end"),
    [
        (Period.DAY, (2026, 11, 22, 23, 59), "2026-11-22", (2026, 11, 23)),
        (Period.DAY, (2028, 2, 28, 0, 0), "2028-02-28", (2028, 2, 29)),
        (Period.MONTH, (2026, 12, 31, 12, 0), "2026-12", (2027, 1, 1)),
        (Period.MONTH, (2026, 1, 31, 12, 0), "2026-01", (2026, 2, 1)),
        (Period.EVER, (2026, 1, 31, 12, 0), "", None),
    ],
)
def test_periods_are_days_and_months_of_utc(
    per: Period, moment: tuple[int, ...], name: str, end: tuple[int, ...] | None
) -> None:
    assert period_of(per, _instant(*moment)) == name
    assert period_end(per, _instant(*moment)) == (None if end is None else _instant(*end))


@given(st.sampled_from([Period.DAY, Period.MONTH]), st.integers(0, 4 * 10**15))
def test_the_end_of_a_period_is_the_first_moment_of_another(per: Period, now: int) -> None:
    end = period_end(per, now)
    assert end is not None
    assert now < end
    assert period_of(per, end - 1) == period_of(per, now) != period_of(per, end)


def test_a_budget_concerns_the_jobs_that_have_its_label() -> None:
    budget = LabelBudget(label="team", value="research", tokens=7, per=Period.DAY)
    assert budget.concerns({"team": "research", "user": "u"})
    assert not budget.concerns({"team": "sales"})
    assert not budget.concerns({})
    assert budget.share(_instant(2026, 11, 22)) == Share("team=research/day", "2026-11-22", 7)


@pytest.mark.parametrize("wrong", [0, -1, 2**63, "12", 1.5, True, [3]])
def test_a_descriptor_tells_a_whole_positive_number(wrong: object) -> None:
    with pytest.raises(ValueError, match="whole number"):
        told_in({"token_budget": wrong})


def test_a_descriptor_may_tell_no_budget() -> None:
    assert told_in({}) is told_in({"token_budget": None}) is None
    assert told_in({"token_budget": 5}) == 5


def test_the_sentence_names_the_budget_what_is_used_and_what_the_call_would_take() -> None:
    told = sentence("the job's token budget", limit=10_000, used=9_000, reserved=0, tokens=1_100)
    expected = (
        "the job's token budget cannot take the call: 9,000 of 10,000 tokens are used, and it would take up to 1,100"
    )
    assert told == expected
    assert "calls under way may take 50" in sentence("x", limit=1, used=0, reserved=50, tokens=1)
