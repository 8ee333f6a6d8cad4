"""What tasks ask: an orchestrator of one or several endpoints, of which the one that is best off gets each call."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Final, Protocol

import anyio
import msgspec

from runner.core.balance import choose
from runner.core.errors import AttemptError, AttemptPutOff
from runner.core.events import Usage, WaitReason
from runner.core.fleet import EndpointHealth
from runner.core.prompt import Answer, Prompt
from runner.core.record import tokens_of
from runner.core.usage import gathered
from runner.orchestrators.breakers import MICROS
from runner.orchestrators.call import Call
from runner.orchestrators.connection import UNAUTHORIZED
from runner.orchestrators.endpoint import Endpoint, Refusal
from runner.orchestrators.hedge import OnText, hedged
from runner.orchestrators.room import Room, Waiter, Wanted
from runner.orchestrators.surroundings import Surroundings
from runner.ports import Bulkhead

#: A parked task is called; should the call be lost, it comes so many seconds after its time, and by chance up to twice
#: as many.
_PATIENCE_SECONDS: Final = 60.0

#: Who is not called comes over this share of its wait, and at least over so many seconds, after its end.
_SPREAD_SHARE: Final = 0.25
_SPREAD_SECONDS: Final = 1.0

#: Seconds between what those in line were told and what is, so that it is worth telling them anew.
_NEWS_SECONDS: Final = 1.0

#: Of an attempt's time, the share in which it may wait in line.
_LINE_SHARE: Final = 0.25

#: Seconds after which a call that found no room is tried again.
_NO_ROOM_SECONDS: Final = 5.0

#: Seconds after which it is looked again whether a drained endpoint gets calls.
_DRAINED_SECONDS: Final = 30.0

#: Of several reasons not to call, the first tells when it is worth coming back.
_HARDNESS: Final = {WaitReason.RATE_LIMITED: 0, WaitReason.BREAKER_OPEN: 1, WaitReason.OUT_OF_SERVICE: 2}

#: Of a line of several models: how many are tried at a time.
_MOST_TRIED: Final = 16

#: Models that a sentence lists.
_MOST_SHOWN: Final = 10

#: An endpoint, and its own name for the model.
Target = tuple[Endpoint, str]


class Members(Protocol):
    """The endpoints there are at this moment."""

    def of(self, name: str) -> Sequence[Endpoint]:
        """Those of a group, or the one of that name."""

    def knowing(self, wanted: str) -> Sequence[Endpoint]:
        """Those of all groups that are known to serve a model, by its name, an alias or a label."""


class Router:
    """An Orchestrator: all endpoints of a group, or one endpoint by its name.

    A call goes to the better of two endpoints that are drawn, among those that serve its model and may take it. Where
    none may, it waits a little in line, and then its task is parked, in line still: it is called when there is room.
    """

    def __init__(
        self,
        name: str,
        members: Members,
        surroundings: Surroundings,
        *,
        max_models: int,
        joined: Callable[[], None],
    ) -> None:
        self.name = name
        self._members = members
        self._with = surroundings
        self._max_models = max_models
        #: By what is asked for; of None, whatever is beyond `max_models`.
        self._rooms: dict[Wanted | None, Room] = {}
        #: Called when somebody has joined a line.
        self._joined = joined
        #: They are looked up for every call.
        self._found: dict[Wanted, list[Target]] = {}

    @property
    def bulkhead(self) -> Bulkhead | None:
        """The engine keeps to it, so that nobody comes in vain but those who learned late where they go."""
        places = sum(endpoint.attempts for endpoint in self._members.of(self.name))
        return Bulkhead(f"orchestrator.endpoints[{self.name}]", places) if places else None

    async def ask(self, prompt: Prompt, on_text: Callable[[str], Awaitable[None]]) -> Answer:
        """Ask the endpoint that is best off, and another one if it cannot be reached.

        Raises AttemptPutOff: BREAKER_OPEN, with the time to come back and a place in line, or OUT_OF_SERVICE where an
        operator has to act; RATE_LIMITED where there is no room, or rates or the retry budget hold it up.
        Raises AttemptError: UNKNOWN_MODEL if no endpoint serves the model; else as the endpoint's protocol does.
        """
        now = self._with.time()
        ends_at = now + prompt.timeout
        call = await self._admitted(prompt, ends_at, now)
        failed: list[Call] = []
        while True:
            calls = [call]
            try:
                answer = await self._made(calls, prompt, failed, ends_at, on_text)
            except AttemptError as error:
                failed += [each for each in calls if each.made]
                other = self._elsewhere(prompt, failed, ends_at) if _unreached(calls, error) else None
                if other is None:
                    error.usage = _consumed(failed, error.endpoint, error.model)
                    if error.reason == UNAUTHORIZED:
                        self._await_key(prompt, error)
                    raise
                call = other
            except anyio.get_cancelled_exc_class():
                if prompt.used is not None:
                    prompt.used(_consumed([*failed, *calls]) or Usage())
                raise
            else:
                return _costing(answer, [*failed, *calls]) if failed or len(calls) > 1 else answer

    def _await_key(self, prompt: Prompt, error: AttemptError) -> None:
        """Raises AttemptPutOff: if its breaker is forced open now; with another key, the task goes on."""
        now = anyio.current_time()
        refusal = self._look(self._targets(_wanted(prompt)), now)
        if refusal.reason is WaitReason.OUT_OF_SERVICE and self._with.settings.wait_for_operators:
            put_off = self._put_off(refusal, prompt, self._room(_wanted(prompt)), now)
            put_off.usage = gathered([(error.endpoint, error.model, error.usage)], put_off.endpoint)
            raise put_off from error

    async def _made(
        self, calls: list[Call], prompt: Prompt, failed: Sequence[Call], ends_at: float, on_text: OnText
    ) -> Answer:
        """Make the call that is in `calls`; a second one that is made beside it is put there, too."""
        [first] = calls
        after = first.endpoint.hedge_after()
        if after is None:
            return await first.make(on_text)
        second = partial(self._elsewhere, prompt, [*failed, first], ends_at)
        try:
            return await hedged(calls, second, after, on_text)
        finally:
            for other in calls[1:]:
                other.endpoint.hedges += other.made

    async def health(self) -> None:
        """Raises AttemptError: if none of its endpoints answers its health check."""
        last: AttemptError | None = None
        for endpoint in self._members.of(self.name):
            try:
                await endpoint.speaker.health()
            except AttemptError as error:
                last = error
            else:
                return
        if last is not None:
            raise last

    # -------------------------------------------------------------------------------------------------- turns

    def waiting(self, endpoint: Endpoint, model: str | None = None) -> int:
        """Those in line for an endpoint, and for one of its models."""
        return sum(
            number
            for room in self._rooms.values()
            for wanted, number in room.wanted.items()
            if any(each is endpoint and model in (None, name) for each, name in self._targets(wanted))
        )

    def stir(self, now: float) -> bool:
        """Call as many as may begin now. Answers whether somebody waits still."""
        waiting = False
        for wanted, room in self._rooms.items():
            if not len(room):
                continue
            if wanted is None:
                self._stir_mixed(room, now)
            else:
                targets = _live(self._targets(wanted), now)
                places = _places(targets, now) - room.expected(now)
                for _ in range(min(places, len(room))):
                    room.call(now)
                if places <= 0 and len(room):
                    self._tell_anew(room, targets, now)
            waiting = waiting or len(room) > 0
        return waiting

    def _stir_mixed(self, room: Room, now: float) -> None:
        """As `stir`, where not all in line want the same."""
        for _ in range(min(len(room), _MOST_TRIED)):
            # Calling somebody may have called others.
            if not len(room):
                return
            if _places(_live(self._targets(room.next.wanted), now), now) > room.expected(now):
                room.call(now)
            else:
                room.pass_by()

    def _tell_anew(self, room: Room, targets: Sequence[Target], now: float) -> None:
        """Those who wait for a breaker come to hear of it when it has opened again for longer."""
        untils = [endpoint.breakers.guard(model).breaker.open_until for endpoint, model in targets]
        known = [until for until in untils if until is not None]
        if known and len(known) == len(untils):
            if min(known) > room.told_until + _NEWS_SECONDS:
                room.tell(min(known))
            room.recall(now)

    def forget_targets(self) -> None:
        """The endpoints there are, or the models that they serve, have changed."""
        self._found.clear()

    def _room(self, wanted: Wanted) -> Room:
        kept = None if wanted not in self._rooms and len(self._rooms) >= self._max_models else wanted
        room = self._rooms.get(kept)
        if room is None:
            room = self._rooms[kept] = Room(self._joined)
        return room

    # ---------------------------------------------------------------------------------------------- admission

    async def _admitted(self, prompt: Prompt, ends_at: float, now: float) -> Call:
        """A call that may be made, perhaps after a while in line."""
        wanted = _wanted(prompt)
        if not self._targets(wanted) and self._members.of(self.name):
            # Before it has a room: such names come from jobs, and never end.
            raise self._unknown(wanted[0])
        room = self._room(wanted)
        called = room.arrived(prompt.request_id, now)
        patience_ends: float | None = None
        while True:
            targets = self._targets(wanted)
            if not targets and self._members.of(self.name):
                raise self._unknown(wanted[0])
            if patience_ends is None:
                patience = max((each.settings.max_wait_seconds for each, _ in targets), default=0.0)
                # Its time is for the call: one that is cut short would count against an endpoint that is well.
                patience_ends = now + min(patience, _LINE_SHARE * prompt.timeout)
            begun = self._begin(prompt, targets, ends_at, now) if called or not len(room) else self._look(targets, now)
            if isinstance(begun, Call):
                self._with.stir(now)
                return begun
            if begun.reason is not WaitReason.RATE_LIMITED or not begun.in_line or now >= patience_ends:
                raise self._put_off(begun, prompt, room, now)
            called = await _stand_in_line(room, prompt, patience_ends - now)
            now = anyio.current_time()

    def _elsewhere(self, prompt: Prompt, failed: Sequence[Call], ends_at: float) -> Call | None:
        """A call at an endpoint that has not failed, if one may begin at once. It is a repetition."""
        targets = self._targets(_wanted(prompt))
        tried = {call.endpoint for call in failed}
        others = [target for target in targets if target[0] not in tried]
        again = msgspec.structs.replace(prompt, retry=True)
        begun = self._begin(again, others, ends_at, anyio.current_time())
        return begun if isinstance(begun, Call) else None

    def _targets(self, wanted: Wanted) -> list[Target]:
        """Who serves the model: those that are known to, here or else anywhere; or else those here that may."""
        found = self._found.get(wanted)
        if found is None:
            if len(self._found) >= self._max_models:
                self._found.clear()
            found = self._found[wanted] = self._find(*wanted)
        return found

    def _find(self, wanted: str, anywhere: bool) -> list[Target]:
        own = self._members.of(self.name)
        known = [(endpoint, model) for endpoint in own for model in endpoint.catalogue.known(wanted)]
        if not known and anywhere:
            others = self._members.knowing(wanted)
            known = [(endpoint, model) for endpoint in others for model in endpoint.catalogue.known(wanted)]
        return known or [(endpoint, wanted) for endpoint in own if not endpoint.catalogue.complete]

    def _begin(self, prompt: Prompt, targets: Sequence[Target], ends_at: float, now: float) -> Call | Refusal:
        """A call at the endpoint that is best off, or why none may begin."""
        left = _live(targets, now)
        seconds = max(0.0, ends_at - now)
        refusals = []
        while left:
            endpoint, model = left.pop(self._draw(left, now))
            begun = endpoint.begin(prompt, model, seconds, now)
            if isinstance(begun, Call):
                return begun
            refusals.append(begun)
        return self._softest(refusals, now)

    def _draw(self, targets: Sequence[Target], now: float) -> int:
        if len(targets) == 1:
            return 0
        return choose([endpoint.candidate(now) for endpoint, _ in targets], self._with.chance(), self._with.chance())

    def _look(self, targets: Sequence[Target], now: float) -> Refusal:
        """Why a call that comes after others in line may not begin."""
        refusals = [endpoint.refusal(model, now) for endpoint, model in _live(targets, now)]
        refused = [refusal for refusal in refusals if refusal is not None]
        if len(refused) < len(refusals):
            message = f"other calls wait for orchestrator `{self.name}`"
            return Refusal(reason=WaitReason.RATE_LIMITED, until=now, message=message, endpoint=self.name)
        return self._softest(refused, now)

    def _softest(self, refusals: Sequence[Refusal], now: float) -> Refusal:
        """Of the reasons, the softest, and of these the one that ends first."""
        if not refusals:
            drained = f"`{self.name}` is drained: it gets no calls until an operator lets it"
            message = f"orchestrator {drained if self._members.of(self.name) else f'`{self.name}` has no endpoint now'}"
            until = now + _DRAINED_SECONDS
            return Refusal(reason=WaitReason.OUT_OF_SERVICE, until=until, message=message, endpoint=self.name)
        return min(refusals, key=lambda refusal: (_HARDNESS[refusal.reason], refusal.until))

    def _put_off(self, refusal: Refusal, prompt: Prompt, room: Room, now: float) -> AttemptError:
        if refusal.reason is WaitReason.OUT_OF_SERVICE and not self._with.settings.wait_for_operators:
            return AttemptError(refusal.reason.name, refusal.message, retryable=False, endpoint=refusal.endpoint)
        wait = max(0.0, refusal.until - now)
        if refusal.reason is WaitReason.RATE_LIMITED and refusal.in_line:
            wait = max(wait + refusal.pace * len(room), _NO_ROOM_SECONDS)
        if not len(room):
            room.tell(refusal.until)
        patience = _PATIENCE_SECONDS * (1 + self._with.chance())
        turn = Waiter(room, _wanted(prompt), prompt.job_id, prompt.request_id, patience) if refusal.in_line else None
        if turn is None:
            # Or all would come in one instant.
            wait += max(_SPREAD_SECONDS, _SPREAD_SHARE * wait) * self._with.chance()
        return AttemptPutOff(
            refusal.reason,
            refusal.message,
            until=self._with.clock.now() + round(wait * MICROS),
            endpoint=refusal.endpoint,
            turn=turn,
        )

    def _unknown(self, wanted: str) -> AttemptError:
        models = dict.fromkeys(name for endpoint in self._members.of(self.name) for name in endpoint.catalogue.names)
        shown = ", ".join(f"`{name}`" for name in list(models)[:_MOST_SHOWN])
        message = f"orchestrator `{self.name}` serves no model `{wanted}`; it serves {shown}"
        return AttemptError("UNKNOWN_MODEL", message, retryable=False, endpoint=self.name, model=wanted)


def _wanted(prompt: Prompt) -> Wanted:
    return prompt.model or "", not prompt.endpoint


def _places(targets: Sequence[Target], now: float) -> int:
    return sum(endpoint.places(model, now) for endpoint, model in targets)


def _unreached(calls: Sequence[Call], error: AttemptError) -> bool:
    """Nothing was done, or what was is known by its Idempotency-Key: another endpoint may be asked."""
    if error.reason not in {"CONNECTION_FAILED", UNAUTHORIZED}:
        return False
    return not any(call.heard or (call.usage and tokens_of(call.usage)) for call in calls)


def _costing(answer: Answer, calls: Sequence[Call]) -> Answer:
    """With what was consumed by the calls beside the one that was answered."""
    return msgspec.structs.replace(answer, usage=_consumed(calls, answer.endpoint, answer.model))


def _consumed(calls: Sequence[Call], endpoint: str = "", model: str = "") -> Usage | None:
    """What calls consumed, as it is told beside the endpoint and model of one of them."""
    return gathered(((*call.place, call.usage) for call in calls), endpoint, model)


def _live(targets: Sequence[Target], now: float) -> list[Target]:
    """Without those that are drained, and without those that are sick, unless nobody else may be called either."""
    if len(targets) == 1 and not targets[0][0].draining:
        return [*targets]
    taking = [target for target in targets if not target[0].draining]
    well = [target for target in taking if target[0].health is not EndpointHealth.UNHEALTHY]
    return well if any(not endpoint.breakers.shut(model, now) for endpoint, model in well) else taking


async def _stand_in_line(room: Room, prompt: Prompt, seconds: float) -> bool:
    """Wait for our turn, so long at most. True if it came."""
    turn = anyio.Event()
    waiter = Waiter(room, _wanted(prompt), prompt.job_id, prompt.request_id, 0.0)
    waiter.call(turn.set)
    try:
        with anyio.move_on_after(seconds):
            await turn.wait()
    finally:
        waiter.leave()
    return room.arrived(prompt.request_id, anyio.current_time())
