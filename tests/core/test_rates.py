"""Rates: no minute holds more than it may, what was estimated wrongly is put right, and nobody starves."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.rates import RateBound, RateLimit, Taken, Wait

MINUTE = 60.0


def until(answer: Taken | Wait) -> float:
    assert isinstance(answer, Wait)
    return answer.until


def taken(limit: RateLimit, tokens: float, now: float) -> Taken:
    answer = limit.take(tokens, now)
    assert isinstance(answer, Taken)
    return answer


def test_without_bounds_everything_passes() -> None:
    limit = RateLimit()
    for _ in range(1000):
        limit.correct(taken(limit, 1e9, 0.0), 2e9, 0.0)
    assert limit.owed(0.0) == 0


def test_a_tenth_of_a_minutes_calls_may_come_at_once_and_then_one_by_one() -> None:
    limit = RateLimit(requests_per_minute=60)
    for _ in range(6):
        taken(limit, 0, 100.0)
    refused = limit.take(0, 100.0)
    assert refused == Wait(101.0, RateBound.REQUESTS)
    taken(limit, 0, 101.0)
    assert until(limit.take(0, 101.0)) == 102.0


def test_even_the_lowest_rate_lets_one_call_pass() -> None:
    limit = RateLimit(requests_per_minute=0.5)
    taken(limit, 0, 0.0)
    assert until(limit.take(0, 0.0)) == 120


def test_a_call_larger_than_the_burst_passes_and_the_next_ones_pay_for_it() -> None:
    limit = RateLimit(tokens_per_minute=600)
    taken(limit, 660, 0.0)
    assert limit.owed(0.0) == 660
    assert limit.take(1, 0.0) == Wait(60.0, RateBound.TOKENS)
    taken(limit, 1, 60.0)


def test_what_is_refused_by_one_bound_takes_nothing_of_the_other() -> None:
    limit = RateLimit(requests_per_minute=10, tokens_per_minute=6000)
    taken(limit, 10, 0.0)
    assert until(limit.take(10, 0.0)) == 6
    assert limit.owed(0.0) == 10


def test_a_pause_holds_for_all_and_is_never_shortened() -> None:
    limit = RateLimit(requests_per_minute=60)
    limit.paused_until(30.0)
    limit.paused_until(10.0)
    assert limit.take(1, 29.9) == Wait(30.0, RateBound.RETRY_AFTER)
    taken(limit, 1, 30.0)


def test_a_call_that_used_more_than_estimated_leaves_a_debt() -> None:
    limit = RateLimit(tokens_per_minute=6000)
    limit.correct(taken(limit, 10, 0.0), 1200, 0.0)
    assert until(limit.take(1, 0.0)) == pytest.approx(6.0)


def test_a_call_that_used_less_gives_the_rest_back() -> None:
    limit = RateLimit(tokens_per_minute=6000)
    call = taken(limit, 5000, 0.0)
    assert until(limit.take(1, 1.0)) == 44
    limit.correct(call, 500, 1.0)
    taken(limit, 1, 1.0)


def test_what_comes_back_is_never_more_than_a_burst() -> None:
    limit = RateLimit(tokens_per_minute=600)
    limit.correct(taken(limit, 500, 0.0), 0, 49.0)
    taken(limit, 61, 49.0)
    assert until(limit.take(1, 49.0)) > 49


steps = st.lists(st.tuples(st.floats(0, 10), st.floats(0, 300), st.floats(0, 600)), min_size=1, max_size=60)
rates = st.sampled_from([0.5, 1, 7, 60, 600])


@settings(deadline=None, max_examples=40)
@given(rates, steps)
def test_no_minute_holds_more_calls_than_the_rate_and_the_burst(
    rate: float, steps: list[tuple[float, float, float]]
) -> None:
    """For callers that come at any time, and again as early as they were told."""
    limit, now, calls = RateLimit(requests_per_minute=rate), 0.0, []
    for pause, _, _ in steps:
        now += pause / rate
        for _ in range(3):
            answer = limit.take(0, now)
            if isinstance(answer, Taken):
                calls.append(now)
            else:
                now = until(answer)
    for begin in calls:
        inside = sum(begin <= call < begin + MINUTE for call in calls)
        assert inside <= rate + max(1.0, rate / 10) + 1e-6


@settings(deadline=None, max_examples=40)
@given(st.sampled_from([60.0, 600.0]), steps)
def test_no_minute_holds_more_tokens_than_the_rate_the_burst_and_one_call(
    rate: float, steps: list[tuple[float, float, float]]
) -> None:
    limit, now = RateLimit(tokens_per_minute=rate), 0.0
    calls: list[tuple[float, float]] = []
    for pause, tokens, _ in steps:
        now += pause
        if isinstance(limit.take(tokens, now), Taken):
            calls.append((now, tokens))
    for begin, _ in calls:
        inside = sum(tokens for call, tokens in calls if begin <= call < begin + MINUTE)
        assert inside <= rate * 1.1 + max(tokens for _, tokens in calls) + 1e-6


@settings(deadline=None, max_examples=40)
@given(steps)
def test_corrections_neither_make_nor_lose_tokens(steps: list[tuple[float, float, float]]) -> None:
    """As long as something is owed, what is owed is what was used, less what time paid, whatever was estimated."""
    limit, now = RateLimit(tokens_per_minute=60), 0.0
    used = 10_000.0
    limit.correct(taken(limit, 0, now), used, now)
    for pause, estimate, tokens in steps:
        now += pause
        call = Taken(estimate)
        limit.correct(Taken(0), estimate, now)
        limit.correct(call, tokens, now)
        used += tokens
        assert limit.owed(now) == pytest.approx(used - now)


@settings(deadline=None, max_examples=40)
@given(st.floats(0, 1e6), st.lists(st.floats(0, 100), min_size=1, max_size=20))
def test_a_call_that_comes_back_when_it_was_told_passes_however_large_it_is(large: float, before: list[float]) -> None:
    limit = RateLimit(requests_per_minute=30, tokens_per_minute=600)
    for tokens in before:
        limit.take(tokens, 5.0)
    answer = limit.take(large, 5.0)
    if isinstance(answer, Wait):
        taken(limit, large, answer.until)


def test_a_large_call_waits_no_longer_than_a_small_one() -> None:
    """Beside a stream of small calls that use up all there is."""
    limit = RateLimit(tokens_per_minute=600)
    for step in range(200):
        small = limit.take(10, step / 10)
        if isinstance(small, Wait):
            assert limit.take(5000, step / 10) == small
    assert isinstance(limit.take(5000, small.until if isinstance(small, Wait) else 20.0), Taken)
