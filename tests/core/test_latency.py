"""Latencies: the quantile of the last calls, and of no others."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.latency import Latency


def test_under_twenty_calls_nothing_is_said() -> None:
    latency = Latency()
    for _ in range(19):
        latency.add(1.0)
    assert latency.quantile(0.95) is None
    latency.add(1.0)
    assert latency.quantile(0.95) == 1.0


@pytest.mark.parametrize(("q", "seconds"), [(0.0, 1), (0.5, 50), (0.95, 95), (0.951, 96), (1.0, 100)])
def test_a_quantile_is_the_duration_within_which_its_share_was_answered(q: float, seconds: float) -> None:
    latency = Latency()
    for number in range(100, 0, -1):
        latency.add(number)
    assert latency.quantile(q) == seconds


@settings(deadline=None, max_examples=30)
@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=40), st.integers(1, 60), st.floats(0, 1))
def test_only_the_last_calls_count(durations: list[float], times: int, q: float) -> None:
    latency = Latency()
    every = (durations * times)[:1200]
    for seconds in every:
        latency.add(seconds)
    last = sorted(every[-512:])
    quantile = latency.quantile(q)
    if len(last) < 20:
        assert quantile is None
    else:
        assert quantile is not None
        assert sum(seconds <= quantile for seconds in last) >= q * len(last)
        assert sum(seconds < quantile for seconds in last) <= q * len(last)
