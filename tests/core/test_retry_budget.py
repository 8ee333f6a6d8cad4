"""The retry budget: whatever the callers do, repetitions stay a share of the calls."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.retry_budget import RetryBudget, RetryBudgetPolicy


def test_a_quiet_endpoint_gets_its_retries() -> None:
    budget = RetryBudget(RetryBudgetPolicy())
    assert [budget.take(0.0) for _ in range(11)] == [True] * 10 + [False]


def test_a_busy_endpoint_gets_a_share_more() -> None:
    budget = RetryBudget(RetryBudgetPolicy(per_second=0.0))
    for _ in range(50):
        budget.called(1.0)
    assert [budget.take(1.0) for _ in range(11)] == [True] * 10 + [False]


def test_asking_costs_nothing() -> None:
    budget = RetryBudget(RetryBudgetPolicy(per_second=0.1))
    assert all(budget.permits(0.0) for _ in range(100))
    assert budget.take(0.0)
    assert not budget.permits(0.0)


def test_it_tells_when_enough_is_forgotten() -> None:
    budget = RetryBudget(RetryBudgetPolicy(per_second=0.2))
    assert budget.take(0.0)
    assert budget.take(4.0)
    assert not budget.take(5.0)
    again = budget.again_at(5.0)
    assert 10 < again < 10.6
    assert not budget.permits(again - 0.1)
    assert budget.take(again)
    assert 14 < budget.again_at(again) < 14.6


def test_where_nothing_more_is_allowed_it_is_asked_once_a_window() -> None:
    budget = RetryBudget(RetryBudgetPolicy(share=0.0, per_second=0.0))
    budget.called(7.0)
    assert budget.take(7.0)
    assert not budget.take(7.0)
    assert 17 <= budget.again_at(7.0) < 18


@settings(deadline=None, max_examples=50)
@given(
    st.builds(
        RetryBudgetPolicy,
        share=st.sampled_from([0.0, 0.2, 1.0]),
        per_second=st.sampled_from([0.0, 0.1, 1.0]),
        window_seconds=st.sampled_from([1.0, 10.0, 33.3]),
    ),
    st.lists(st.tuples(st.floats(0, 4), st.sampled_from(["call", "repeat", "repeat", "wait"])), max_size=80),
)
def test_at_each_repetition_those_of_the_window_are_within_the_budget(
    policy: RetryBudgetPolicy, steps: list[tuple[float, str]]
) -> None:
    """Counted anew from plain lists; and time that was told to wait for is in the future, and enough."""
    budget, now = RetryBudget(policy), 0.0
    first: list[float] = []
    repeated: list[float] = []
    for pause, what in steps:
        now += pause
        if what == "call":
            budget.called(now)
            first.append(now)
        elif budget.take(now):
            repeated.append(now)
            begin = now - policy.window_seconds
            allowed = policy.share * sum(call > begin for call in first) + policy.per_second * policy.window_seconds
            assert sum(call > begin for call in repeated) <= max(1, allowed)
        elif what == "wait":
            again = budget.again_at(now)
            assert now < again <= now + policy.window_seconds * 1.1
            now = again
            assert budget.permits(now)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.floats(0, 2), min_size=1, max_size=60))
def test_what_is_within_nine_tenths_of_the_budget_is_permitted(pauses: list[float]) -> None:
    """The border of the window costs a twentieth at most: repetitions of 10.5 seconds count, never older ones."""
    budget, now = RetryBudget(RetryBudgetPolicy(share=0.0, per_second=0.5)), 0.0
    repeated: list[float] = []
    for pause in pauses:
        now += pause
        recent = sum(call > now - 10.5 for call in repeated)
        if budget.take(now):
            repeated.append(now)
        else:
            assert recent >= 5


def test_while_few_calls_fail_nothing_is_held_back() -> None:
    """What waited through an outage comes when it has ended, though nobody makes first calls any more."""
    budget = RetryBudget(RetryBudgetPolicy(share=0.2, per_second=0.1, window_seconds=10.0))
    for number in range(20):
        budget.ended(failed=number % 5 == 0)
    assert all(budget.take(100.0) for _ in range(1000))
    budget.ended(failed=True)
    assert budget.take(100.0)
    budget.ended(failed=True)
    assert not budget.take(100.0)


@pytest.mark.parametrize("per_second", [0.0, 0.01])
def test_one_repetition_a_window_passes_whatever_the_budget_or_a_quiet_endpoint_would_keep_it_for_ever(
    per_second: float,
) -> None:
    budget = RetryBudget(RetryBudgetPolicy(share=0.0, per_second=per_second))
    budget.ended(failed=True)
    assert budget.take(100.0)
    assert not budget.take(100.0)
    assert not budget.take(109.0)
    assert budget.take(budget.again_at(109.0))
