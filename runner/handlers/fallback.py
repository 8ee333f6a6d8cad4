"""What stands in for an AI task's first choice: other endpoints and models, an earlier answer, a given value.

Fallbacks are tried in order, within the same attempt, when the circuit breaker of the first choice is open, or when it
failed for good: in the task's last attempt, or by a fault of the endpoint that no attempt mends. Before that, a failure
is retried like any other. A fallback that is refused or fails is passed over. Where none serves, what became of the
first choice decides: a task whose first choice was refused waits, one whose first choice failed fails.
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Annotated, Any, Final

import anyio
import msgspec
from msgspec import UNSET, Meta

from runner.core.alt import ParameterProblem
from runner.core.errors import AttemptError, AttemptPutOff
from runner.core.events import Failure, FallbackKind, FallbackUsed, Usage, WaitReason
from runner.core.prompt import OnUsage
from runner.core.usage import gathered, named
from runner.ports import Outcome

#: The endpoint takes no calls, for a while or until somebody acts.
_REFUSED: Final = frozenset({WaitReason.BREAKER_OPEN, WaitReason.OUT_OF_SERVICE})

#: Reasons that are not retried, and yet are the endpoint's: another one may do.
_ITS_FAULT: Final = frozenset({"UNAUTHORIZED", "CERTIFICATE_REFUSED", "UNKNOWN_MODEL", "ANSWER_TOO_LARGE"})

#: What is left of an attempt's time for what calls nobody: so many seconds, or this share if it is less.
_RESERVE_SECONDS: Final = 1.0
_RESERVE_SHARE: Final = 0.1


class OnOpen(enum.StrEnum):
    """What a task does when the circuit breaker of its first choice is open."""

    #: It waits.
    PARK = "park"
    #: It fails at once.
    FAIL = "fail"
    #: It goes through its fallbacks, and waits if none of them serves.
    FALLBACK = "fallback"


class Cached(msgspec.Struct, frozen=True, kw_only=True):
    """What the first choice answered to the same request."""

    #: Seconds since then, at most; as long as answers are kept where it is missing.
    max_age_seconds: Annotated[float, Meta(gt=0)] | None = None


class Fallback(msgspec.Struct, frozen=True, kw_only=True):
    """An endpoint, a model or both; or else `cached`; or else `value`."""

    #: The task's own where it is missing.
    endpoint: str | None = None
    #: The task's own where it is missing; empty: the endpoint's own.
    model: str | None = None
    cached: Cached | None = None
    #: Any JSON; the task's output, a text as `{"text": …}`.
    value: Any = UNSET

    @property
    def kind(self) -> FallbackKind:
        if self.value is not UNSET:
            return FallbackKind.VALUE
        return FallbackKind.ENDPOINT if self.cached is None else FallbackKind.CACHED


class Recalled(msgspec.Struct, frozen=True):
    """An earlier answer, and its age in seconds."""

    outcome: Outcome
    age: float


class Trial:
    """One attempt's way through its choices. The first is the task's own, at position 0."""

    def __init__(
        self,
        fallbacks: tuple[Fallback, ...],
        *,
        endpoint: str,
        on_open: OnOpen,
        last: bool,
        ask: Callable[[int, float, OnUsage], Awaitable[Outcome]],
        recall: Callable[[Cached], Awaitable[Recalled | None]],
        may_follow: Callable[[], bool],
        remaining: Callable[[], float],
        consumed: Callable[[Usage], None],
    ) -> None:
        """`endpoint`: the first choice's name. `last`: no attempt follows.

        `ask` calls the choice at a position, within so many seconds, and tells what it had consumed if it is cut off.
        `may_follow`: whether another answer may take the place of what was streamed so far. `consumed` is told what all
        calls have consumed so far, in case that all this is cut off.
        """
        self._fallbacks = fallbacks
        self._endpoint = endpoint
        self._on_open = on_open
        self._last = last
        self._ask = ask
        self._recall = recall
        self._may_follow = may_follow
        self._remaining = remaining
        self._consumed = consumed
        #: By the call that was cut off.
        self._cut_off: Usage | None = None
        self._refusals: list[AttemptPutOff] = []
        self._failures: list[AttemptError] = []
        #: Why the first choice did not serve.
        self._why: AttemptError | None = None
        self._out_of_time = False

    async def outcome(self) -> Outcome:
        """What the first choice that serves gives.

        Raises AttemptPutOff: as the first choice does, if its task is to wait; of several that refuse, the one that may
        be called soonest.
        Raises AttemptError: BREAKER_OPEN, if it is to fail then; else as the first choice does.
        """
        try:
            return await self._outcome()
        except AttemptPutOff as waited_for:
            if waited_for in self._refusals:
                self._refusals.remove(waited_for)
            raise
        finally:
            for refusal in self._refusals:
                _leave(refusal)

    def _note(self, usage: Usage) -> None:
        self._cut_off = usage
        self._tell()

    def _tell(self) -> None:
        usage = self._usage("", "", self._cut_off)
        if usage is not None:
            self._consumed(usage)

    async def _outcome(self) -> Outcome:
        for position in range(len(self._fallbacks) + 1):
            try:
                outcome = await self._try(position)
            except AttemptPutOff as refusal:
                self._refused(position, refusal)
            except AttemptError as failure:
                self._failed(position, failure)
            else:
                if outcome is not None:
                    return self._with_all_usage(outcome)
        raise self._end()

    async def _try(self, position: int) -> Outcome | None:
        """None if there is nothing to be had."""
        if position == 0:
            return await self._call(0)
        fallback = self._fallbacks[position - 1]
        age = 0.0
        if fallback.cached is not None:
            recalled = await self._recall(fallback.cached)
            if recalled is None:
                return None
            outcome, age = recalled.outcome, recalled.age
        elif fallback.value is not UNSET:
            given = fallback.value
            outcome = Outcome(output={"text": given} if isinstance(given, str) else given)
        elif self._out_of_time:
            # What is left is no time for a call, and its failure would be held against an endpoint that is well.
            return None
        else:
            outcome = await self._call(position)
        return msgspec.structs.replace(outcome, fallback=self._used(position, fallback.kind, age))

    async def _call(self, position: int) -> Outcome:
        left = self._remaining()
        calls_nobody = any(each.kind is not FallbackKind.ENDPOINT for each in self._fallbacks[position:])
        if not isinstance(self._why, AttemptPutOff) and not (self._last and calls_nobody):
            return await self._ask(position, left, self._note)
        # An attempt that is cut off has nothing to fall back on, and fails: not even its wait for the first choice.
        left -= min(_RESERVE_SECONDS, _RESERVE_SHARE * left)
        with anyio.move_on_after(left):
            return await self._ask(position, left, self._note)
        self._out_of_time = True
        message = f"there was no answer within the {left:.3g} s that were left of the task's time"
        endpoint, model, usage = ("", "", None) if self._cut_off is None else named(self._cut_off)
        self._cut_off = None
        endpoint = endpoint or (self._endpoint if position == 0 else "")
        raise AttemptError("TIMED_OUT", message, retryable=True, endpoint=endpoint, model=model, usage=usage)

    def _refused(self, position: int, refusal: AttemptPutOff) -> None:
        self._why = self._why or refusal
        if position == 0 and (refusal.wait_reason not in _REFUSED or self._on_open is OnOpen.PARK):
            raise refusal
        self._refusals.append(refusal)
        self._tell()
        if position == 0 and self._on_open is OnOpen.FAIL:
            raise AttemptError(
                WaitReason.BREAKER_OPEN.name,
                refusal.message,
                retryable=False,
                endpoint=refusal.endpoint,
                usage=refusal.usage,
            ) from refusal

    def _failed(self, position: int, failure: AttemptError) -> None:
        self._why = self._why or failure
        self._failures.append(failure)
        self._tell()
        for_good = failure.reason in _ITS_FAULT or (self._last and failure.retryable)
        if (position == 0 and not for_good) or not self._may_follow():
            raise self._end()

    def _used(self, position: int, kind: FallbackKind, age: float) -> FallbackUsed:
        assert self._why is not None  # noqa: S101  nothing stands in before the first choice failed
        why = Failure(self._why.reason, self._why.message)
        return FallbackUsed(kind=kind, position=position, instead_of=self._endpoint, failure=why, age_seconds=age)

    def _with_all_usage(self, outcome: Outcome) -> Outcome:
        """With what calls that failed consumed; where nobody answered, the last of them is the place that is named."""
        if self._failures and not outcome.endpoint:
            last = self._failures[-1]
            outcome = msgspec.structs.replace(outcome, endpoint=last.endpoint, model=last.model)
        if not self._failures and not self._refusals:
            return outcome
        return msgspec.structs.replace(outcome, usage=self._usage(outcome.endpoint, outcome.model, outcome.usage))

    def _usage(self, endpoint: str, model: str, usage: Usage | None = None) -> Usage | None:
        """That of all calls, as it is told beside the endpoint and model at which `usage` was consumed."""
        # One that waits may have called before: a key that is refused forces its breaker open.
        ended: list[AttemptError] = [*self._failures, *self._refusals]
        others = ((each.endpoint, each.model, each.usage) for each in ended)
        return gathered([*others, (endpoint, model, usage)], endpoint, model)

    def _end(self) -> AttemptError:
        """What became of the first choice, and of those that were to stand in."""
        if not isinstance(self._why, AttemptPutOff):
            first, *others = self._failures
        else:
            others = self._failures
            first = min(self._refusals, key=lambda refusal: refusal.until)
        first.usage = self._usage(first.endpoint, first.model)
        if others:
            first.message += "; its fallbacks failed, too: " + "; ".join(other.message for other in others)
        elif len(self._refusals) > 1:
            first.message += "; what could stand in is refused, too"
        return first


def _leave(refusal: AttemptPutOff) -> None:
    if refusal.turn is not None:
        refusal.turn.leave()


# ------------------------------------------------------------------------------------------------------ mistakes


def problems(
    parameters: Mapping[str, Any], not_known: Callable[[str], Iterator[ParameterProblem]], *, longest: float
) -> Iterator[ParameterProblem]:
    """What is wrong in `on_open` and `fallback`, as they are written.

    `not_known` tells what is wrong with an endpoint's name; `longest` is how long answers are kept, in seconds.
    """
    listed = parameters.get("fallback")
    if not listed:
        if parameters.get("on_open") == OnOpen.FALLBACK:
            message = "`on_open: fallback` needs `fallback`, the list of what stands in."
            yield ParameterProblem(name="fallback", message=message, missing=True)
        return
    if not isinstance(listed, list | tuple):
        return
    for place, entry in enumerate(listed):
        if isinstance(entry, Mapping):
            for inside, problem in _entry_problems(entry, not_known, longest):
                yield msgspec.structs.replace(problem, name="fallback", inside=(place, *inside))
    yield from _unreachable(listed)


_Found = Iterator[tuple[tuple[str, ...], ParameterProblem]]


def _entry_problems(
    entry: Mapping[str, Any], not_known: Callable[[str], Iterator[ParameterProblem]], longest: float
) -> _Found:
    names = Fallback.__struct_fields__
    for name in entry:
        if name not in names:
            yield (name,), _unknown("A fallback", name, names)
    said = [name for name in names if entry.get(name) is not None or (name == "value" and name in entry)]
    if not said and all(name in names for name in entry):
        message = "A fallback has `endpoint`, `model` or both, or `cached`, or `value`."
        yield (), ParameterProblem(message=message, missing=True)
    if len(said) > 1 and {*said} != {"endpoint", "model"}:
        alone = "value" if "value" in said else "cached"
        others = " and ".join(f"`{name}`" for name in said if name != alone)
        message = f"`{alone}` stands alone, not beside {others}: make them fallbacks of their own."
        yield (), ParameterProblem(message=message)
    if isinstance(endpoint := entry.get("endpoint"), str):
        for problem in not_known(endpoint):
            yield ("endpoint",), problem
    if isinstance(cached := entry.get("cached"), Mapping):
        yield from _cached_problems(cached, longest)


def _cached_problems(cached: Mapping[str, Any], longest: float) -> _Found:
    names = Cached.__struct_fields__
    for name in cached:
        if name not in names:
            yield ("cached", name), _unknown("`cached`", name, names)
    age = cached.get("max_age_seconds")
    if isinstance(age, int | float) and age > longest:
        message = f"Answers are kept for {longest:g} s (setting `orchestrator.answer_cache.max_age_seconds`)."
        yield ("cached", "max_age_seconds"), ParameterProblem(message=message, by_settings=True)


def _unknown(what: str, name: str, names: tuple[str, ...]) -> ParameterProblem:
    close = difflib.get_close_matches(name[:100], names, n=1)
    listed = ", ".join(f"`{known}`" for known in names)
    message = f"{what} has no such field; there is {listed}."
    return ParameterProblem(message=message, suggestion=close[0] if close else "")


def _unreachable(listed: list[Any] | tuple[Any, ...]) -> Iterator[ParameterProblem]:
    given = [place for place, entry in enumerate(listed) if isinstance(entry, Mapping) and "value" in entry]
    if given and given[0] + 1 < len(listed):
        message = f"A `value` always serves: what stands after fallback {given[0] + 1} is never tried."
        yield ParameterProblem(name="fallback", inside=(given[0] + 1,), message=message)
