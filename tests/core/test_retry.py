"""When to try again: within bounds for any policy and any answer of the other side, and never past the deadline."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.retry import LONGEST_RETRY_AFTER, RetryPolicy, retry_at

SECOND = 1_000_000
NOW = 1_767_225_600 * SECOND
chances = st.floats(0, 1, exclude_max=True)
policies = st.builds(
    RetryPolicy,
    base_seconds=st.floats(0.001, 100),
    multiplier=st.floats(1, 1e9),
    cap_seconds=st.floats(0.001, 1e6),
)


@given(policies, st.integers(1, 10_000), chances)
def test_a_wait_lies_between_nothing_and_its_bound(policy: RetryPolicy, failures: int, chance: float) -> None:
    wait = policy.delay(failures, chance=chance)
    assert 0 <= wait <= policy.cap_seconds
    if failures == 1:
        assert wait <= policy.base_seconds


@given(policies, st.integers(1, 300), st.floats(0, LONGEST_RETRY_AFTER), chances)
def test_retry_after_is_obeyed_and_a_little_jitter_comes_on_top(
    policy: RetryPolicy, failures: int, retry_after: float, chance: float
) -> None:
    wait = policy.delay(failures, chance=chance, retry_after=retry_after)
    assert retry_after <= wait <= (retry_after * 1.1 + policy.base_seconds) * (1 + 1e-9)


def test_the_bound_doubles_until_it_is_capped() -> None:
    policy = RetryPolicy(base_seconds=1, multiplier=2, cap_seconds=10)
    assert [policy.delay(failures, chance=0.5) for failures in range(1, 7)] == [0.5, 1, 2, 4, 5, 5]


@pytest.mark.parametrize("asked", [-1.0, -math.inf, math.nan])
def test_a_retry_after_that_makes_no_sense_is_as_good_as_none(asked: float) -> None:
    policy = RetryPolicy()
    assert policy.delay(3, chance=0.5, retry_after=asked) == policy.delay(3, chance=0.5)


@pytest.mark.parametrize("asked", [math.inf, 1e308, 10 * LONGEST_RETRY_AFTER])
def test_nobody_can_make_us_wait_for_ever(asked: float) -> None:
    assert RetryPolicy().delay(1, chance=0.0, retry_after=asked) == LONGEST_RETRY_AFTER


@given(
    policies,
    st.tuples(st.integers(1, 300), st.integers(0, 255)),
    chances,
    st.none() | st.floats(),
    st.none() | st.integers(0, 10),
)
def test_the_next_attempt_is_due_before_the_deadline_or_there_is_none(
    policy: RetryPolicy, tries: tuple[int, int], chance: float, retry_after: float | None, within: int | None
) -> None:
    failures, retries = tries
    deadline = None if within is None else NOW + within * SECOND
    due = retry_at(
        policy, failures=failures, retries=retries, now=NOW, chance=chance, retry_after=retry_after, deadline=deadline
    )
    if failures > retries:
        assert due is None
    elif deadline is None:
        assert due is not None
    if due is not None:
        assert due >= NOW
        assert deadline is None or due < deadline


@given(policy=policies, chance=chances, every=st.floats(0, 86_400), asked=st.none() | st.floats(0, 86_400))
def test_a_wait_of_the_tasks_own_counts_unless_the_other_side_asks_for_more(
    policy: RetryPolicy, chance: float, every: float, asked: float | None
) -> None:
    due = retry_at(policy, failures=3, retries=5, now=NOW, chance=chance, every=every, retry_after=asked)
    assert due == NOW + round(max(every, asked or 0.0) * SECOND)
