"""One endpoint of an AI orchestrator, fenced: circuit breakers, room, rates, a retry budget, health."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Final

import msgspec

from runner.core.balance import Candidate, warmth
from runner.core.breaker import BreakerState, CallOutcome, OpenUntil, Permit
from runner.core.errors import AttemptError
from runner.core.events import WaitReason
from runner.core.fleet import EndpointHealth, EndpointSource, EndpointView, Lease
from runner.core.latency import Latency
from runner.core.prompt import Prompt
from runner.core.rates import RateBound, RateLimit, Wait
from runner.core.retry_budget import RetryBudget
from runner.core.secret import Secret
from runner.orchestrators.breakers import Breakers
from runner.orchestrators.call import Call, outcome_of
from runner.orchestrators.catalogue import Catalogue
from runner.orchestrators.model_lists import Speaker
from runner.orchestrators.settings import EndpointSettings
from runner.orchestrators.surroundings import Surroundings

#: Tokens of an answer whose length nobody bounds, as far as rates are concerned, until its usage is known.
_ANSWER_TOKENS: Final = 1024
_CHARACTERS_PER_TOKEN: Final = 3

#: Seconds from the decision that an attempt begins to its call, at most, where nothing holds it up.
_BEGINNING_SECONDS: Final = 0.05

#: Health checks that fail in a row before an endpoint counts as sick.
_SICK_AFTER: Final = 2


class Refusal(msgspec.Struct, frozen=True, kw_only=True):
    """No call may begin now."""

    reason: WaitReason
    #: When it is worth asking again, monotonic seconds.
    until: float
    #: Why, for a person.
    message: str
    endpoint: str
    #: Whether somebody may be called as soon as there is room; else only time helps.
    in_line: bool = True
    #: Seconds between two calls, where a rate holds them up.
    pace: float = 0.0


class Endpoint:
    """Everything but the calls themselves is synchronous and happens on the event loop. `now` is monotonic seconds."""

    def __init__(
        self,
        speaker: Speaker,
        settings: EndpointSettings,
        surroundings: Surroundings,
        *,
        origin: str,
        source: EndpointSource = EndpointSource.CONFIGURED,
        take_key: Callable[[Secret], None] = lambda _: None,
    ) -> None:
        self.speaker = speaker
        self.settings = settings
        self.name = settings.name
        self.group = settings.group_name
        self.source = source
        #: The configured endpoint whose settings it has, be it this one.
        self.origin = origin
        self.catalogue = Catalogue(settings)
        self.breakers = Breakers(settings.name, settings.max_models, surroundings, recovered=self.warm_up)
        #: Of one that registered itself.
        self.lease: Lease | None = None
        #: It gets no new calls.
        self.draining = False
        self.health = EndpointHealth.UNKNOWN
        self.time = surroundings.time
        #: Calls under way.
        self.calls = 0
        #: Calls that were made beside one that took long elsewhere.
        self.hedges = 0
        #: Tries to make a call that never reached it.
        self._unreached = 0
        #: Repetitions that the retry budget did not allow at once.
        self._repetitions_refused = 0
        self._latency = Latency()
        self._take_key = take_key
        self._with = surroundings
        #: Tokens of the last call whose tokens are known.
        self._usual_tokens = 0.0
        self._rates = RateLimit(
            requests_per_minute=settings.requests_per_minute, tokens_per_minute=settings.tokens_per_minute
        )
        self._repetitions = RetryBudget(surroundings.settings.retry_budget)
        self._health_error = ""
        self._sick = 0
        #: It is well again, by its health checks, and has breakers that are too young to believe it.
        self.recovering = False
        self._back_at = -math.inf

    def take_key(self, key: Secret, now: float) -> None:
        """Call with this API key from now on; breakers that were forced open because a key was refused are reset."""
        self._take_key(key)
        self.breakers.reset_denied(now)

    def warm_up(self, now: float) -> None:
        """It comes back: it gets few calls at first, and all that it may have after `warm_up_seconds`."""
        self._back_at = now

    @property
    def attempts(self) -> int:
        """How many attempts are to be here: one for each call that may be under way, and some that stand by.

        An attempt begins with a commit, and for so long a place would be empty between two calls. So as many stand by
        as there are calls in that time (Little's law).
        """
        calls, median = self.settings.max_connections, self._latency.quantile(0.5)
        return calls if median is None else calls + math.ceil(calls * min(1.0, _BEGINNING_SECONDS / max(median, 1e-3)))

    def hedge_after(self) -> float | None:
        """Seconds after which a second call is worth its price; None where it never is."""
        return self._latency.quantile(self.settings.hedge_quantile) if self.settings.hedge else None

    # ------------------------------------------------------------------------------------------------- calls

    def candidate(self, now: float) -> Candidate:
        """What balancing looks at."""
        return Candidate(self.calls, self.settings.weight, self._warmth(now))

    def begin(self, prompt: Prompt, model: str, seconds: float, now: float) -> Call | Refusal:
        """Take all that a call of at most so many seconds needs."""
        guard = self.breakers.guard(model)
        permit = self.breakers.permit(guard, now)
        if isinstance(permit, OpenUntil):
            return self._open(permit, guard.why)
        taken = self._crowded(now) or self._held_back(prompt, now) or self._rates.take(self._estimated(prompt), now)
        if isinstance(taken, Wait):
            taken = self._paced(taken)
        if isinstance(taken, Refusal):
            guard.breaker.release(permit)
            return taken
        if prompt.retry:
            self._repetitions.take(now)
        else:
            self._repetitions.called(now)
        self.calls += 1
        self._usual_tokens = self._usual_tokens or taken.tokens
        named = msgspec.structs.replace(prompt, model=model or None, timeout=seconds)
        return Call(self, named, guard=guard, permit=permit, taken=taken, began=now)

    def refusal(self, model: str, now: float) -> Refusal | None:
        """Why no call could begin now, if so; nothing is taken."""
        guard = self.breakers.guard(model)
        permit = self.breakers.permit(guard, now)
        if isinstance(permit, Permit):
            guard.breaker.release(permit)
            wait = self._rates.wait(now)
            return self._crowded(now) or (None if wait is None else self._paced(wait))
        return self._open(permit, guard.why)

    def places(self, model: str, now: float) -> int:
        """How many calls could begin now; 1 where each of them decides about the next."""
        if self.refusal(model, now) is not None:
            return 0
        paced = self.settings.requests_per_minute or self.settings.tokens_per_minute
        if paced or self.breakers.guard(model).breaker.state is BreakerState.HALF_OPEN:
            return 1
        return self._capacity(now) - self.calls

    def ended(
        self,
        call: Call,
        outcome: CallOutcome | None,
        *,
        seconds: float,
        now: float,
        tokens: int | None,
        retry_after: float | None,
    ) -> None:
        """A call gives back what it had taken. `tokens` None: what it used is not known."""
        self.calls -= 1
        self._unreached += not call.reached
        if tokens is not None:
            self._rates.correct(call.taken, tokens, now)
            self._usual_tokens = tokens or self._usual_tokens
        if outcome is not None:
            self._repetitions.ended(failed=outcome is not CallOutcome.ANSWERED)
        if outcome is CallOutcome.ANSWERED:
            self._latency.add(seconds)
        if retry_after is not None and outcome is CallOutcome.FAILED:
            longest = self._with.settings.breaker.retry_after_cap_seconds
            pause = min(retry_after, longest)
            self._rates.paused_until(now + pause)
            # Those who waited for its end must not come all at once: it may ask for another one.
            self._back_at = max(self._back_at, now + pause)
        self.breakers.settle(call.guard, call.permit, outcome, seconds, now, retry_after=retry_after)
        self._with.stir(now)

    def _open(self, refusal: OpenUntil, why: str) -> Refusal:
        message = f"the circuit breaker of orchestrator `{self.name}` is {refusal.state.value}"
        if refusal.state is BreakerState.HALF_OPEN:
            message = f"calls that probe orchestrator `{self.name}` are under way"
        elif why:
            message += f": {why}"
        if refusal.state is BreakerState.FORCED_OPEN:
            message += (
                "; set a valid `api_key` and send the daemon SIGHUP if its key was refused, or reset it:"
                f" alt-runner breakers reset {self.name}"
            )
        forced = refusal.state is BreakerState.FORCED_OPEN
        reason = WaitReason.OUT_OF_SERVICE if forced else WaitReason.BREAKER_OPEN
        return Refusal(reason=reason, until=refusal.until, message=message, endpoint=self.name)

    def _crowded(self, now: float) -> Refusal | None:
        if self.calls < self._capacity(now):
            return None
        message = (
            f"{self.calls} calls to orchestrator `{self.name}` are under way, as many as may be"
            f" (setting `orchestrator.endpoints[{self.name}].max_connections`)"
        )
        return Refusal(reason=WaitReason.RATE_LIMITED, until=now, message=message, endpoint=self.name)

    def _paced(self, wait: Wait) -> Refusal:
        rate, tokens = self.settings.requests_per_minute, self.settings.tokens_per_minute
        pace = max(60 / rate if rate else 0.0, 60 * self._usual_tokens / tokens if tokens else 0.0)
        return Refusal(
            reason=WaitReason.RATE_LIMITED,
            until=wait.until,
            message=self._pace(wait),
            endpoint=self.name,
            pace=pace,
        )

    def _estimated(self, prompt: Prompt) -> float:
        # A minute's worth at most: of a call that was cut off nobody learns what it did use.
        return min(_estimated(prompt), self.settings.tokens_per_minute or math.inf)

    def _pace(self, wait: Wait) -> str:
        if wait.bound is RateBound.RETRY_AFTER:
            return f"orchestrator `{self.name}` asked for a pause (Retry-After)"
        setting = f"orchestrator.endpoints[{self.name}].{wait.bound.value}"
        return f"orchestrator `{self.name}` gets as many calls as it may (setting `{setting}`)"

    def _held_back(self, prompt: Prompt, now: float) -> Refusal | None:
        if not prompt.retry or self._repetitions.permits(now):
            return None
        self._repetitions_refused += 1
        return Refusal(
            reason=WaitReason.RATE_LIMITED,
            until=self._repetitions.again_at(now),
            message=(
                f"retries at orchestrator `{self.name}` are held back: they are to be few beside first calls (setting"
                " `orchestrator.retry_budget`)"
            ),
            endpoint=self.name,
            in_line=False,
        )

    def _capacity(self, now: float) -> int:
        share = self._warmth(now)
        return self.settings.max_connections if share == 1.0 else max(1, int(self.settings.max_connections * share))

    def _warmth(self, now: float) -> float:
        # While a pause lasts, it has not come back yet.
        since = max(0.0, now - self._back_at)
        return 1.0 if since >= self.settings.warm_up_seconds else warmth(since, self.settings.warm_up_seconds)

    # ------------------------------------------------------------------------------------------------- health

    def checked(self, error: AttemptError | None, now: float) -> None:
        """A health check was answered, or was not. An endpoint that refuses the request is alive, too."""
        if error is None or outcome_of(error) is not CallOutcome.FAILED:
            self._sick = 0
            self._enter_health(EndpointHealth.HEALTHY, now)
            if self.recovering:
                self.recovering = not self.breakers.probe_early(now)
            return
        self._sick += 1
        self._health_error = error.message
        if self._sick >= _SICK_AFTER:
            self._enter_health(EndpointHealth.UNHEALTHY, now)

    def _enter_health(self, health: EndpointHealth, now: float) -> None:
        previous, self.health = self.health, health
        if health is previous:
            return
        sick = health is EndpointHealth.UNHEALTHY
        told = {"error": self._health_error} if sick else {}
        self._with.observer.notice("endpoint_health", endpoint=self.name, health=health.value, **told)
        if previous is EndpointHealth.UNHEALTHY:
            self.warm_up(now)
        self.recovering = previous is EndpointHealth.UNHEALTHY
        self._with.changed()
        self._with.stir(now)

    def view(self, now: float, waiting: int) -> EndpointView:
        """As an operator sees it."""
        return EndpointView(
            name=self.name,
            group=self.group,
            url=self.settings.url,
            protocol=self.settings.protocol.value,
            source=self.source,
            health=self.health,
            health_error=self._health_error if self.health is EndpointHealth.UNHEALTHY else "",
            draining=self.draining,
            weight=self.settings.weight,
            warmth=self._warmth(now),
            calls=self.calls,
            max_calls=self.settings.max_connections,
            waiting=waiting,
            hedges=self.hedges,
            held_back=self._repetitions_refused,
            unreached=self._unreached,
            models=self.catalogue.models,
            lease_until=None if self.lease is None else self.lease.until,
        )


def _estimated(prompt: Prompt) -> float:
    """Tokens that a call may take, for want of better knowledge."""
    most = prompt.parameters.get("max_tokens")
    answer = most if isinstance(most, int) and most > 0 else _ANSWER_TOKENS
    return len(prompt.text) / _CHARACTERS_PER_TOKEN + answer
