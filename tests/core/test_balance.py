"""Balancing: the less loaded of two, and shares after their weights."""

from __future__ import annotations

from collections import deque
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.balance import Candidate, choose, warmth

chances = st.floats(0, 1, exclude_max=True)
candidates = st.lists(
    st.builds(
        Candidate, outstanding=st.integers(0, 30), weight=st.sampled_from([0.1, 1.0, 3.0]), warmth=st.floats(0.1, 1)
    ),
    min_size=1,
    max_size=6,
)


def shares(
    weights: list[float], *, in_flight: int, calls: int = 3000, warm: dict[int, float] | None = None
) -> list[float]:
    """Of calls of equal length, so many of them under way at a time."""
    random = Random(7)  # noqa: S311 -- no secret
    outstanding, chosen = [0] * len(weights), [0] * len(weights)
    under_way: deque[int] = deque()
    for _ in range(calls):
        if len(under_way) >= in_flight:
            outstanding[under_way.popleft()] -= 1
        index = choose(
            [
                Candidate(calls, weight, (warm or {}).get(number, 1.0))
                for number, (calls, weight) in enumerate(zip(outstanding, weights, strict=True))
            ],
            random.random(),
            random.random(),
        )
        outstanding[index] += 1
        chosen[index] += 1
        under_way.append(index)
    return [count / calls for count in chosen]


@pytest.mark.parametrize("in_flight", [1, 2, 10, 200])
@pytest.mark.parametrize("weights", [[1.0, 1.0], [1.0, 3.0], [1.0, 2.0, 5.0], [1.0, 1.01, 1.0]])
def test_shares_follow_the_weights_however_many_calls_are_under_way(weights: list[float], in_flight: int) -> None:
    expected = [weight / sum(weights) for weight in weights]
    assert shares(weights, in_flight=in_flight) == pytest.approx(expected, rel=0.25, abs=0.03)


@pytest.mark.parametrize("in_flight", [1, 3, 100])
def test_a_cold_endpoint_is_not_filled_up(in_flight: int) -> None:
    assert shares([1.0, 1.0, 1.0], in_flight=in_flight, warm={2: 0.1})[2] == pytest.approx(0.1 / 2.1, abs=0.03)


def test_an_endpoint_that_is_slow_to_answer_gets_no_more_calls() -> None:
    stuck = [Candidate(50), Candidate(0)]
    assert {choose(stuck, chance / 10, 0.0) for chance in range(10)} == {1}


@settings(deadline=None, max_examples=60)
@given(candidates, chances, chances)
def test_whoever_is_better_off_is_not_beaten_by_the_other_of_its_pair(
    candidates: list[Candidate], first: float, second: float
) -> None:
    """Of two candidates both are drawn; the one that is less loaded by both measures wins, whichever comes first."""
    index = choose(candidates, first, second)
    assert 0 <= index < len(candidates)
    if len(candidates) == 2:
        one, other = candidates[index], candidates[1 - index]
        less_before = other.outstanding / other.strength < one.outstanding / one.strength * (1 - 1e-9)
        less_after = (other.outstanding + 1) / other.strength < (one.outstanding + 1) / one.strength * (1 - 1e-9)
        assert not (less_before and less_after)


@settings(deadline=None, max_examples=50)
@given(st.tuples(st.integers(0, 9), st.integers(0, 9)), chances, chances)
def test_of_equals_the_one_with_fewer_calls_wins(outstanding: tuple[int, int], first: float, second: float) -> None:
    index = choose([Candidate(calls) for calls in outstanding], first, second)
    assert outstanding[index] == min(outstanding)


def test_an_endpoint_warms_up_on_a_line() -> None:
    assert [warmth(seconds, 10.0) for seconds in (-1.0, 0.0, 5.0, 10.0, 99.0)] == pytest.approx([0.1, 0.1, 0.55, 1, 1])
    assert warmth(0.0, 0.0) == 1
