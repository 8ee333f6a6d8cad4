from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.breaker import (
    Breaker,
    BreakerPolicy,
    BreakerState,
    CallOutcome,
    Counts,
    Opening,
    OpenReason,
    OpenUntil,
    Permit,
    WindowKind,
)

ANSWERED, FAILED, DENIED = CallOutcome.ANSWERED, CallOutcome.FAILED, CallOutcome.DENIED
POLICY = BreakerPolicy()


def state(breaker: Breaker) -> BreakerState:
    """The state, where the type checker would believe that it cannot change."""
    return breaker.state


def why(breaker: Breaker) -> Opening | None:
    """Likewise."""
    return breaker.opened_by


def permitted(breaker: Breaker, now: float) -> Permit:
    permit = breaker.permit(now)
    assert isinstance(permit, Permit)
    return permit


def call(
    breaker: Breaker,
    outcome: CallOutcome,
    *,
    at: float = 0.0,
    seconds: float = 1.0,
    chance: float = 0.0,
    retry_after: float | None = None,
) -> None:
    breaker.record(permitted(breaker, at), outcome, seconds, at, chance=chance, retry_after=retry_after)


def opened(*, chance: float = 0.0, policy: BreakerPolicy = POLICY) -> Breaker:
    """A breaker that opened at 0."""
    breaker = Breaker(policy)
    for _ in range(policy.minimum_calls):
        call(breaker, FAILED, chance=chance)
    assert state(breaker) is BreakerState.OPEN
    return breaker


def open_until(breaker: Breaker, now: float) -> float:
    refusal = breaker.permit(now)
    assert isinstance(refusal, OpenUntil)
    return refusal.until


def test_nothing_is_decided_below_the_minimum_of_calls() -> None:
    breaker = Breaker(POLICY)
    for _ in range(9):
        call(breaker, FAILED)
    assert state(breaker) is BreakerState.CLOSED
    call(breaker, FAILED)
    assert state(breaker) is BreakerState.OPEN


def test_it_opens_at_the_failure_rate_and_not_below() -> None:
    breaker = Breaker(POLICY)
    for outcome in [ANSWERED] * 6 + [FAILED] * 5:
        call(breaker, outcome)
    assert state(breaker) is BreakerState.CLOSED
    call(breaker, FAILED)
    assert state(breaker) is BreakerState.OPEN


@pytest.mark.parametrize(("rate", "calls", "failures"), [(0.55, 20, 11), (0.7, 10, 7), (0.3, 10, 3), (0.29, 100, 29)])
def test_a_rate_is_reached_exactly_where_its_decimal_says(rate: float, calls: int, failures: int) -> None:
    breaker = Breaker(BreakerPolicy(failure_rate=rate, minimum_calls=calls, consecutive_failures=0))
    for number in range(calls):
        call(breaker, ANSWERED if number < calls - failures else FAILED)
    assert state(breaker) is BreakerState.OPEN


def test_so_many_failures_in_a_row_open_it_whatever_was_before() -> None:
    """A minute of answers does not outvote an outage that has just begun."""
    breaker = Breaker(POLICY)
    for outcome in [*[ANSWERED] * 1000, *[FAILED] * 9, ANSWERED, *[FAILED] * 9]:
        call(breaker, outcome)
    assert state(breaker) is BreakerState.CLOSED
    call(breaker, FAILED)
    assert state(breaker) is BreakerState.OPEN
    assert why(breaker) == Opening(OpenReason.CONSECUTIVE_FAILURES, Counts(1020, 19, 0))


def test_an_answer_in_time_never_opens_it() -> None:
    """Failures of an outage that is over may be too few to decide; what comes after it speaks for the endpoint."""
    breaker = Breaker(POLICY)
    for outcome in [FAILED] * 9 + [ANSWERED] * 5:
        call(breaker, outcome)
    assert state(breaker) is BreakerState.CLOSED


def test_it_opens_when_too_many_calls_are_slow_though_they_succeed() -> None:
    breaker = Breaker(POLICY)
    for seconds in [30.0] * 2 + [30.1] * 7:
        call(breaker, ANSWERED, seconds=seconds)
    assert breaker.counts(0) == Counts(9, 0, 7)
    call(breaker, ANSWERED, seconds=31)
    assert state(breaker) is BreakerState.OPEN


def test_calls_are_forgotten_when_the_window_has_passed() -> None:
    breaker = Breaker(BreakerPolicy(consecutive_failures=0))
    for _ in range(9):
        call(breaker, FAILED, at=0)
    call(breaker, FAILED, at=60)
    assert state(breaker) is BreakerState.CLOSED
    assert breaker.counts(60) == Counts(1, 1, 0)
    assert breaker.counts(119.9) == Counts(1, 1, 0)
    assert breaker.counts(120) == Counts()


def test_an_open_breaker_refuses_until_its_time() -> None:
    breaker = opened()
    assert open_until(breaker, 0) == 15
    assert open_until(breaker, 14.9) == 15
    assert isinstance(breaker.permit(15), Permit)
    assert state(breaker) is BreakerState.HALF_OPEN


def test_an_opening_is_shortened_by_chance_within_its_jitter() -> None:
    assert open_until(opened(chance=0.0), 0) == 15
    assert open_until(opened(chance=0.5), 0) == pytest.approx(13.5)
    assert open_until(opened(chance=0.999999), 0) == pytest.approx(12, abs=1e-3)


def test_each_opening_in_a_row_is_twice_as_long_up_to_the_cap() -> None:
    breaker = opened()
    lengths, now = [], 15.0
    for _ in range(7):
        for _ in range(2):
            call(breaker, FAILED, at=now)
        lengths.append(open_until(breaker, now) - now)
        now += lengths[-1]
    assert lengths == [30, 60, 120, 240, 300, 300, 300]


def test_an_endless_row_of_openings_does_not_overflow() -> None:
    assert POLICY.open_for(10**9, 0.0) == 300


def test_after_a_recovery_the_openings_begin_short_again() -> None:
    breaker = opened()
    call(breaker, FAILED, at=15)
    call(breaker, FAILED, at=15)
    call(breaker, ANSWERED, at=45)
    call(breaker, ANSWERED, at=45)
    assert state(breaker) is BreakerState.CLOSED
    for _ in range(10):
        call(breaker, FAILED, at=46)
    assert open_until(breaker, 46) == 61


def test_a_recovery_ends_the_pause_that_the_endpoint_asked_for() -> None:
    breaker = opened()
    call(breaker, FAILED, at=15, retry_after=100)
    for _ in range(2):
        call(breaker, ANSWERED, at=15)
    for _ in range(10):
        call(breaker, FAILED, at=16)
    assert open_until(breaker, 16) == 31


def test_half_open_lets_so_many_probes_pass_at_a_time_and_no_more() -> None:
    breaker = opened()
    probes = [permitted(breaker, 15) for _ in range(3)]
    assert len({probe.probe for probe in probes}) == 3
    assert open_until(breaker, 15) == 17
    breaker.release(probes[0])
    assert isinstance(breaker.permit(15), Permit)
    assert isinstance(breaker.permit(15), OpenUntil)


@pytest.mark.parametrize("outcomes", list(itertools.product([ANSWERED, FAILED], repeat=3)))
def test_the_rate_of_the_probes_decides(outcomes: tuple[CallOutcome, ...]) -> None:
    breaker = opened()
    probes = [permitted(breaker, 15) for _ in range(3)]
    for probe, outcome in zip(probes, outcomes, strict=True):
        breaker.record(probe, outcome, 1.0, 16, chance=0.0)
    failed = outcomes.count(FAILED) >= 2
    assert state(breaker) is (BreakerState.OPEN if failed else BreakerState.CLOSED)


def test_slow_probes_open_it_again() -> None:
    breaker = opened()
    for probe in [permitted(breaker, 15) for _ in range(3)]:
        breaker.record(probe, ANSWERED, 31.0, 46, chance=0.0)
    assert state(breaker) is BreakerState.OPEN


def test_a_result_of_an_earlier_generation_does_not_count() -> None:
    breaker = Breaker(POLICY)
    early = [permitted(breaker, 0) for _ in range(20)]
    for permit in early[:10]:
        breaker.record(permit, FAILED, 1.0, 0, chance=0.0)
    probe = permitted(breaker, 15)
    for permit in early[10:15]:
        breaker.record(permit, ANSWERED, 1.0, 15, chance=0.0)
        breaker.release(permit)
    assert state(breaker) is BreakerState.HALF_OPEN
    breaker.record(probe, ANSWERED, 1.0, 15, chance=0.0)
    breaker.record(permitted(breaker, 15), ANSWERED, 1.0, 15, chance=0.0)
    assert state(breaker) is BreakerState.CLOSED
    for permit in early[15:]:
        breaker.record(permit, DENIED, 1.0, 16, chance=0.0)
    assert breaker.counts(16) == Counts()
    assert state(breaker) is BreakerState.CLOSED


def test_a_probe_settled_twice_counts_once() -> None:
    breaker = opened()
    probe = permitted(breaker, 15)
    for _ in range(3):
        breaker.record(probe, FAILED, 1.0, 15, chance=0.0)
    assert state(breaker) is BreakerState.HALF_OPEN
    assert breaker.counts(15) == Counts(1, 1, 0)


def test_a_released_call_counts_for_nothing() -> None:
    breaker = Breaker(POLICY)
    for _ in range(20):
        breaker.release(permitted(breaker, 0))
    assert breaker.counts(0) == Counts()


def test_retry_after_prolongs_an_opening_and_never_shortens_it() -> None:
    breaker = Breaker(POLICY)
    late = [permitted(breaker, 0) for _ in range(2)]
    for _ in range(9):
        call(breaker, FAILED)
    call(breaker, FAILED, retry_after=40)
    assert open_until(breaker, 0) == 40
    breaker.record(late[0], FAILED, 1.0, 1, chance=0.0, retry_after=5)
    assert open_until(breaker, 1) == 40
    breaker.record(late[1], FAILED, 1.0, 2, chance=0.0, retry_after=60)
    assert open_until(breaker, 2) == 62


def test_a_retry_after_told_before_the_opening_holds_for_it() -> None:
    breaker = Breaker(POLICY)
    call(breaker, FAILED, retry_after=100)
    for _ in range(9):
        call(breaker, FAILED)
    assert open_until(breaker, 0) == 100


def test_a_retry_after_beyond_all_reason_is_not_believed() -> None:
    breaker = Breaker(POLICY)
    for _ in range(10):
        call(breaker, FAILED, retry_after=1e9)
    assert open_until(breaker, 0) == 3600


def test_a_denied_key_forces_it_open_at_once_and_until_it_is_reset() -> None:
    breaker = Breaker(POLICY)
    call(breaker, DENIED)
    assert state(breaker) is BreakerState.FORCED_OPEN
    assert open_until(breaker, 1e6) == 1e6 + 300
    breaker.force(BreakerState.CLOSED, 1e6)
    assert isinstance(breaker.permit(1e6), Permit)


def test_disabled_permits_everything_and_counts_nothing() -> None:
    breaker = Breaker(POLICY)
    breaker.force(BreakerState.DISABLED, 0)
    for _ in range(50):
        call(breaker, DENIED)
    assert state(breaker) is BreakerState.DISABLED
    assert breaker.counts(0) == Counts()


def test_metrics_only_counts_and_never_refuses() -> None:
    breaker = Breaker(POLICY)
    breaker.force(BreakerState.METRICS_ONLY, 0)
    for outcome in [FAILED] * 20 + [DENIED]:
        call(breaker, outcome, seconds=40)
    assert state(breaker) is BreakerState.METRICS_ONLY
    assert breaker.counts(0) == Counts(21, 21, 21)


def test_opened_by_hand_it_lasts_as_long_as_a_first_opening() -> None:
    breaker = Breaker(POLICY)
    breaker.force(BreakerState.OPEN, 100)
    assert open_until(breaker, 100) == 115


def test_a_window_of_calls_forgets_the_oldest_call_and_none_by_time() -> None:
    breaker = Breaker(BreakerPolicy(window=WindowKind.CALLS, window_calls=4, minimum_calls=4))
    for outcome in [FAILED, ANSWERED, ANSWERED, ANSWERED]:
        call(breaker, outcome, at=0, seconds=40 if outcome is FAILED else 1)
    assert breaker.counts(1e6) == Counts(4, 1, 1)
    call(breaker, FAILED, at=1e6)
    assert breaker.counts(1e6) == Counts(4, 1, 0)
    call(breaker, FAILED, at=1e6)
    assert state(breaker) is BreakerState.OPEN


def test_a_window_of_fewer_calls_than_the_minimum_decides_when_it_is_full() -> None:
    breaker = Breaker(BreakerPolicy(window=WindowKind.CALLS, window_calls=4, minimum_calls=10))
    for _ in range(3):
        call(breaker, FAILED)
    assert state(breaker) is BreakerState.CLOSED
    call(breaker, FAILED)
    assert state(breaker) is BreakerState.OPEN


def test_it_tells_why_and_since_when_it_is_open() -> None:
    breaker = Breaker(POLICY, 5.0)
    assert (breaker.since, breaker.open_until, breaker.opened_by) == (5.0, None, None)
    call(breaker, ANSWERED, at=7)
    for _ in range(9):
        call(breaker, ANSWERED, at=8, seconds=40)
    assert (breaker.since, breaker.open_until) == (8, 23)
    assert why(breaker) == Opening(OpenReason.SLOW_RATE, Counts(10, 0, 9))
    assert isinstance(breaker.permit(24), Permit)
    assert (breaker.since, breaker.open_until) == (24, None)
    assert why(breaker) == Opening(OpenReason.SLOW_RATE, Counts(10, 0, 9))
    breaker.force(BreakerState.CLOSED, 25)
    assert breaker.since == 25
    assert why(breaker) is None


def test_why_it_is_open_tells_the_pause_that_the_endpoint_asked_for() -> None:
    breaker = Breaker(POLICY)
    late = permitted(breaker, 0)
    for _ in range(10):
        call(breaker, FAILED)
    assert why(breaker) == Opening(OpenReason.FAILURE_RATE, Counts(10, 10, 0))
    breaker.record(late, FAILED, 1.0, 2, chance=0.0, retry_after=60)
    assert why(breaker) == Opening(OpenReason.FAILURE_RATE, Counts(10, 10, 0), 62)


def test_a_denied_key_and_a_hand_are_told_from_failures() -> None:
    breaker = Breaker(POLICY)
    call(breaker, DENIED, at=3)
    assert (breaker.since, breaker.open_until) == (3, None)
    assert why(breaker) == Opening(OpenReason.DENIED, Counts(1, 1, 0))
    for forced in (BreakerState.OPEN, BreakerState.FORCED_OPEN):
        breaker.force(forced, 4)
        assert why(breaker) == Opening(OpenReason.BY_HAND, Counts())


def test_a_health_check_lets_it_probe_before_its_time_but_not_at_once() -> None:
    breaker = opened()
    assert not breaker.probe_early(4.9)
    assert breaker.probe_early(5)
    assert state(breaker) is BreakerState.HALF_OPEN
    assert not breaker.probe_early(5)
    assert isinstance(breaker.permit(5), Permit)


def test_a_health_check_that_was_wrong_is_believed_later_the_next_time() -> None:
    """An endpoint that is well by its own account, and fails every call, is not probed every few seconds."""
    breaker, now, rests = opened(), 0.0, []
    for _ in range(7):
        began = now
        while not breaker.probe_early(now):
            now += 1.0
        rests.append(now - began)
        for _ in range(2):
            call(breaker, FAILED, at=now)
    assert rests == [5, 10, 20, 40, 80, 160, 300]


def test_no_health_check_shortens_what_the_endpoint_asked_for_or_a_hand_set() -> None:
    breaker = Breaker(POLICY)
    for _ in range(10):
        call(breaker, FAILED, retry_after=12)
    assert not breaker.probe_early(11.9)
    assert breaker.probe_early(12)
    breaker.force(BreakerState.OPEN, 20)
    assert not breaker.probe_early(34.9)
    for other in set(BreakerState) - {BreakerState.OPEN}:
        breaker.force(other, 40)
        assert not breaker.probe_early(1e6)
        assert state(breaker) is other


def test_probes_that_are_never_settled_do_not_keep_it_half_open_for_ever() -> None:
    breaker = opened()
    for _ in range(3):
        permitted(breaker, 15)
    assert open_until(breaker, 74.9) == pytest.approx(76.9)
    for _ in range(2):
        call(breaker, ANSWERED, at=75)
    assert state(breaker) is BreakerState.CLOSED


def test_the_result_of_a_probe_counts_though_its_place_was_given_away() -> None:
    breaker = opened()
    slow = [permitted(breaker, 15) for _ in range(3)]
    again = permitted(breaker, 75)
    breaker.record(slow[0], FAILED, 61.0, 76, chance=0.0)
    breaker.record(again, FAILED, 1.0, 76, chance=0.0)
    assert state(breaker) is BreakerState.OPEN


def test_of_probes_that_are_never_settled_only_so_many_are_remembered() -> None:
    breaker = opened(policy=BreakerPolicy(probes=1))
    lost = [permitted(breaker, 15 + 60 * number) for number in range(5)]
    breaker.record(lost[0], ANSWERED, 1.0, 300, chance=0.0)
    assert state(breaker) is BreakerState.HALF_OPEN
    breaker.record(lost[1], ANSWERED, 1.0, 300, chance=0.0)
    assert state(breaker) is BreakerState.CLOSED


@settings(deadline=None, max_examples=30)
@given(
    st.lists(
        st.tuples(
            st.floats(0, 20),
            st.sampled_from(["ask", *CallOutcome, "release"]),
            st.floats(0, 60),
            st.integers(0, 10),
            st.none() | st.floats(0, 100),
        ),
        max_size=120,
    ),
    st.floats(0, 1, exclude_max=True),
)
def test_whatever_happens_it_recovers_and_never_probes_more_than_it_may(
    steps: list[tuple[float, str | CallOutcome, float, int, float | None]], chance: float
) -> None:
    """Without denials, time and answers alone bring every breaker back to CLOSED."""
    policy = BreakerPolicy(minimum_calls=3)
    breaker = Breaker(policy)
    held: list[Permit] = []
    now = 0.0
    for pause, what, seconds, which, retry_after in steps:
        now += pause
        if what == "ask":
            permit = breaker.permit(now)
            if isinstance(permit, Permit):
                held.append(permit)
            else:
                assert permit.until > now
        elif held:
            permit = held.pop(which % len(held))
            if isinstance(what, CallOutcome) and what is not DENIED:
                breaker.record(permit, what, seconds, now, chance=chance, retry_after=retry_after)
            else:
                breaker.release(permit)
        newest = max((permit.generation for permit in held), default=0)
        probing = [permit for permit in held if permit.generation == newest and permit.probe]
        assert len(probing) <= policy.probes
    for permit in held:
        breaker.release(permit)
    for _ in range(policy.probes * 100):
        now += policy.retry_after_cap_seconds
        call(breaker, ANSWERED, at=now)
    assert state(breaker) is BreakerState.CLOSED
