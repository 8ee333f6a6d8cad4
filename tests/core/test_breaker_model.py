"""The breaker against a naive model that keeps lists of all that ever happened and reckons all anew from them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

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

CLOSED, OPEN, HALF_OPEN = BreakerState.CLOSED, BreakerState.OPEN, BreakerState.HALF_OPEN
FORCED_OPEN, DISABLED, METRICS_ONLY = BreakerState.FORCED_OPEN, BreakerState.DISABLED, BreakerState.METRICS_ONLY

#: Whether a call failed and was slow.
Result = tuple[bool, bool]


class Ticket:
    """A permit that the model gave."""

    def __init__(self, era: int, begun: float) -> None:
        self.era, self.begun, self.settled = era, begun, False


class Model:
    """What the breaker promises, as plainly as it can be said."""

    def __init__(self, policy: BreakerPolicy, now: float) -> None:
        self.policy = policy
        #: Every state and when it was entered; the number of them is the era.
        self.states: list[tuple[BreakerState, float]] = [(CLOSED, now)]
        self.tickets: list[Ticket] = []
        self.results: list[tuple[int, float, Result]] = []
        self.asked: list[float] = []
        self.in_a_row = 0
        self.until = 0.0
        self.why: tuple[OpenReason, Counts] | None = None

    @property
    def state(self) -> BreakerState:
        return self.states[-1][0]

    @property
    def since(self) -> float:
        return self.states[-1][1]

    def seen(self, now: float) -> list[Result]:
        policy, width = self.policy, self.policy.window_seconds / self.policy.buckets
        era = [(at, result) for number, at, result in self.results if number == len(self.states)]
        if self.state is HALF_OPEN:
            return [result for _, result in era]
        if policy.window is WindowKind.CALLS:
            return [result for _, result in era][-policy.window_calls :]
        return [result for at, result in era if now // width - at // width < policy.buckets]

    def permit(self, now: float) -> Ticket | tuple[float, BreakerState]:
        if self.state is OPEN and now >= self.until:
            self.enter(HALF_OPEN, now)
        if self.state is OPEN:
            return self.until, OPEN
        if self.state is FORCED_OPEN:
            return now + self.policy.open_cap_seconds, FORCED_OPEN
        if self.state is HALF_OPEN:
            mine = [ticket for ticket in self.tickets if ticket.era == len(self.states)]
            waited_for = [t for t in mine if not t.settled and now - t.begun < self.policy.half_open_seconds]
            if len(waited_for) + len(self.seen(now)) >= self.policy.probes:
                return now + self.policy.probe_wait_seconds, HALF_OPEN
            unsettled = [ticket for ticket in mine if not ticket.settled]
            for lost in unsettled[: max(0, len(unsettled) + 1 - 4 * self.policy.probes)]:
                lost.settled = True
        ticket = Ticket(len(self.states), now)
        self.tickets.append(ticket)
        return ticket

    def record(
        self,
        ticket: Ticket,
        outcome: CallOutcome,
        now: float,
        *,
        slow: bool,
        chance: float,
        retry_after: float | None,
    ) -> None:
        if retry_after is not None and outcome is CallOutcome.FAILED:
            self.asked.append(now + min(retry_after, self.policy.retry_after_cap_seconds))
            if self.state is OPEN:
                self.until = max(self.until, self.asked[-1])
        current = ticket.era == len(self.states)
        if not current or self.state is DISABLED or (self.state is HALF_OPEN and ticket.settled):
            return
        ticket.settled = True
        self.results.append((ticket.era, now, (outcome is not CallOutcome.ANSWERED, slow)))
        if self.state is METRICS_ONLY:
            return
        if outcome is CallOutcome.DENIED:
            self.open(FORCED_OPEN, OpenReason.DENIED, now)
        elif self.state is HALF_OPEN:
            self.decide_probes(now, chance)
        elif reason := self.last_straw(now):
            self.open(OPEN, reason, now, chance)

    def last_straw(self, now: float) -> OpenReason | None:
        """Why the call that has just ended opens it: failures for failures' sake, slowness for that of slowness."""
        era = [result for number, _, result in self.results if number == len(self.states)]
        failed, slow = era[-1]
        if len(self.seen(now)) >= self.fewest():
            reason = self.verdict([(failed and f, slow and s) for f, s in self.seen(now)])
            if reason is not None:
                return reason
        in_a_row = itertools.takewhile(lambda result: result[0], reversed(era))
        most = self.policy.consecutive_failures
        return OpenReason.CONSECUTIVE_FAILURES if most and len(list(in_a_row)) >= most else None

    def fewest(self) -> int:
        counted = self.policy.window_calls if self.policy.window is WindowKind.CALLS else 10**9
        return min(self.policy.minimum_calls, counted)

    def verdict(self, results: Sequence[Result]) -> OpenReason | None:
        if sum(failed for failed, _ in results) / len(results) >= self.policy.failure_rate:
            return OpenReason.FAILURE_RATE
        if sum(slow for _, slow in results) / len(results) >= self.policy.slow_rate:
            return OpenReason.SLOW_RATE
        return None

    def decide_probes(self, now: float, chance: float) -> None:
        """Whatever may still come is tried."""
        seen = self.seen(now)
        possible: list[Result] = [(False, False), (False, True), (True, False), (True, True)]
        missing = itertools.product(possible, repeat=self.policy.probes - len(seen))
        verdicts = [self.verdict([*seen, *rest]) for rest in missing]
        if all(verdicts):
            self.in_a_row += 1
            self.open(OPEN, verdicts[0] or OpenReason.BY_HAND, now, chance)
        elif not any(verdicts):
            self.enter(CLOSED, now)

    def probe_early(self, now: float) -> bool:
        rest = min(self.policy.open_cap_seconds, self.policy.rest_seconds * 2**self.in_a_row)
        by_hand = self.why is not None and self.why[0] is OpenReason.BY_HAND
        if self.state is not OPEN or by_hand or now < max([self.since + rest, *self.asked]):
            return False
        self.enter(HALF_OPEN, now)
        return True

    def force(self, state: BreakerState, now: float) -> None:
        self.in_a_row = 0
        if state in {OPEN, FORCED_OPEN}:
            self.open(state, OpenReason.BY_HAND, now)
        else:
            self.enter(state, now)

    def open(self, state: BreakerState, reason: OpenReason, now: float, chance: float = 0.0) -> None:
        seen = self.seen(now)
        counts = Counts(len(seen), sum(failed for failed, _ in seen), sum(slow for _, slow in seen))
        self.enter(state, now)
        self.why = (reason, counts)
        lasts = min(self.policy.open_cap_seconds, self.policy.open_seconds * 2**self.in_a_row)
        self.until = max([now + lasts * (1 - self.policy.jitter * chance), *self.asked])

    def enter(self, state: BreakerState, now: float) -> None:
        if state is CLOSED:
            self.in_a_row, self.asked = 0, []
        if state is not HALF_OPEN:
            self.why = None
        self.states.append((state, now))


#: Seconds before it, and what is done.
Deed = tuple[float, str]
#: What comes of a call: whether it is slow, and what the endpoint asks for.
End = tuple[CallOutcome, bool, float | None]
#: Which permit, which chance, which state to force.
Choice = tuple[int, float, BreakerState]
Step = tuple[Deed, End, Choice]

policies = st.builds(
    BreakerPolicy,
    window=st.sampled_from(WindowKind),
    window_seconds=st.just(16.0),
    buckets=st.sampled_from([1, 4]),
    window_calls=st.integers(1, 6),
    minimum_calls=st.integers(1, 5),
    consecutive_failures=st.sampled_from([0, 2, 3]),
    failure_rate=st.sampled_from([0.3, 0.5, 1.0]),
    slow_rate=st.sampled_from([0.5, 0.8]),
    open_seconds=st.just(4.0),
    open_cap_seconds=st.sampled_from([4.0, 20.0]),
    rest_seconds=st.sampled_from([0.0, 1.0, 2.0]),
    retry_after_cap_seconds=st.just(40.0),
    probes=st.integers(1, 3),
    half_open_seconds=st.sampled_from([2.0, 8.0]),
)
pauses = [0.0, 0.0, 0.0, 0.25, 1.0, 2.0, 2.0, 4.0, 8.0, 17.0]
acts = ["call"] * 5 + ["ask"] * 6 + ["settle"] * 4 + ["release", "check", "check", "check", "force"]
outcomes = [CallOutcome.ANSWERED] * 7 + [CallOutcome.FAILED] * 5 + [CallOutcome.DENIED]
forced = [CLOSED, OPEN, OPEN, HALF_OPEN, *BreakerState]
# Three draws a step instead of eight: the drawing takes the time.
deeds: list[Deed] = list(itertools.product(pauses, acts))
ends: list[End] = list(itertools.product(outcomes, [False, False, True], [None, None, None, 3.0, 90.0]))
choices: list[Choice] = list(itertools.product(range(8), [0.0, 0.5], forced))
steps = st.lists(
    st.tuples(st.sampled_from(deeds), st.sampled_from(ends), st.sampled_from(choices)), min_size=20, max_size=70
)


class Pair:
    """A breaker and its model, told the same and asked the same."""

    def __init__(self, policy: BreakerPolicy) -> None:
        self.breaker, self.model = Breaker(policy, 1.0), Model(policy, 1.0)
        self.held: list[tuple[Permit, Ticket]] = []

    def do(self, step: Step, now: float) -> None:
        (_, what), (outcome, slow, retry_after), (which, chance, state) = step
        if what in {"call", "ask"}:
            self.ask(now)
        if what in {"call", "settle"} and self.held:
            # The newest where a call is made at once; some are settled more than once.
            permit, ticket = self.held[-1 if what == "call" else which % len(self.held)]
            duration = self.breaker.policy.slow_seconds + (0.5 if slow else 0.0)
            self.breaker.record(permit, outcome, duration, now, chance=chance, retry_after=retry_after)
            self.model.record(ticket, outcome, now, slow=slow, chance=chance, retry_after=retry_after)
        elif what == "release" and self.held:
            permit, ticket = self.held.pop(which % len(self.held))
            self.breaker.release(permit)
            ticket.settled = True
        elif what == "check":
            assert self.breaker.probe_early(now) == self.model.probe_early(now)
        elif what == "force":
            self.breaker.force(state, now)
            self.model.force(state, now)

    def ask(self, now: float) -> None:
        answer, expected = self.breaker.permit(now), self.model.permit(now)
        if isinstance(answer, OpenUntil):
            assert (answer.until, answer.state) == expected
        else:
            assert isinstance(expected, Ticket)
            self.held.append((answer, expected))

    def compare(self, now: float) -> None:
        breaker, model = self.breaker, self.model
        assert (breaker.state, breaker.since) == (model.state, model.since)
        seen = model.seen(now)
        assert breaker.counts(now) == Counts(
            len(seen), sum(failed for failed, _ in seen), sum(slow for _, slow in seen)
        )
        assert breaker.open_until == (model.until if model.state is OPEN else None)
        opening: Opening | None = breaker.opened_by
        assert (opening and (opening.reason, opening.counts)) == model.why
        if model.state is OPEN and opening is not None:
            later = [until for until in model.asked if until > model.since]
            assert opening.asked_until == max(later, default=None)


@settings(deadline=None, max_examples=60)
@given(policies, steps, st.sampled_from([True, True, False]))
def test_the_breaker_does_what_the_model_does(policy: BreakerPolicy, steps: list[Step], opened: bool) -> None:
    pair, now = Pair(policy), 1.0
    for _ in range(5 if opened else 0):
        pair.do(((0.0, "call"), (CallOutcome.FAILED, False, None), (0, 0.0, CLOSED)), now)
    for step in steps:
        now += step[0][0]
        pair.do(step, now)
        pair.compare(now)
