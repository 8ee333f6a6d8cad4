"""What the simulated orchestrator does: its behaviour, its answers, its memory of calls. No I/O."""

from __future__ import annotations

import hashlib
from collections import OrderedDict, deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Final

from msgspec import Meta, Struct

_Amount = Annotated[float, Meta(ge=0, le=1_000_000_000)]
_Status = Annotated[int, Meta(ge=400, le=599)]

#: Seconds that are remembered one by one.
_SECONDS_KEPT: Final = 3600

# fmt: off
_WORDS: Final = (
    "the", "plan", "job", "task", "step", "answer", "result", "summary", "report", "draft", "idea", "note",
    "number", "table", "section", "reason", "example", "source", "shows", "holds", "follows", "explains",
    "compares", "confirms", "suggests", "joins", "orders", "counts", "checks", "keeps", "clear", "short",
    "useful", "likely", "careful", "second", "final", "open", "early",
)
# fmt: on


class Behaviour(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How the simulated orchestrator behaves. May be changed while it runs, and holds for calls that arrive after."""

    #: Milliseconds before the answer begins.
    latency_ms: _Amount = 0.0
    #: Up to so many milliseconds more. How many depends on the seed and the call's number alone.
    jitter_ms: _Amount = 0.0
    #: All times above and below are multiplied by this: 20 is a brown-out.
    slow_factor: _Amount = 1.0
    #: Speed of an answer, streamed or not; 0: all at once.
    tokens_per_second: _Amount = 0.0
    #: Tokens of an answer, unless the caller's `max_tokens` is less.
    answer_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] = 24
    #: Share of calls that fail, 0–1. Which ones depends on the seed and their number alone.
    error_rate: Annotated[float, Meta(ge=0, le=1)] = 0.0
    #: Status of those that fail.
    error_status: _Status = 503
    #: Seconds told as `Retry-After` with 429 and with errors; null: not told.
    retry_after_seconds: _Amount | None = None
    #: Calls a second beyond which the answer is 429; 0: no limit.
    rate_limit_per_second: _Amount = 0.0
    #: Calls at a time beyond which the answer is `overload_status`; 0: no limit.
    max_concurrent_calls: Annotated[int, Meta(ge=0)] = 0
    #: Status of calls beyond `max_concurrent_calls`.
    overload_status: _Status = 503
    #: Models that it lists; calls for others are answered with 404. Empty: it lists one, and takes every name.
    models: Annotated[tuple[str, ...], Meta(max_length=100_000)] = ()
    #: Answer 401, everywhere but here, unless this key is sent; empty: no key is needed.
    api_key: str = ""
    #: Fail health checks, and lists of models, with 503. Calls are answered.
    sick: bool = False
    #: Take calls and do not answer them before this is false again.
    hang: bool = False
    #: Cut the connection instead of answering; a streamed answer, in its middle.
    reset: bool = False
    #: Answer with bytes that are not of the protocol.
    garbage: bool = False
    #: Answer without end.
    endless: bool = False


def chance(seed: int, number: int, of: str = "") -> float:
    """A number in [0, 1) that depends on its arguments alone."""
    digest = hashlib.sha256(f"{seed}:{number}{of}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def tokens(seed: int, prompt: str, count: int, *, in_json: bool = False) -> list[str]:
    """An answer in pieces; joined they are the text, which says that it is simulated.

    With `in_json` the text is a JSON object, however short it was cut.
    """
    digest = hashlib.sha256(f"{seed}:{prompt}".encode("utf-8", "replace")).digest()
    pieces = ["[simulated]"]
    for place in range(count - 1):
        if place and place % len(digest) == 0:
            digest = hashlib.sha256(digest).digest()
        pieces.append(" " + _WORDS[digest[place % len(digest)] % len(_WORDS)])
    if in_json:
        pieces[0] = '{"simulated":true,"text":"' + pieces[0]
        pieces[-1] += '"}'
    return pieces


class RateLimit:
    """A bucket that holds one second of calls."""

    def __init__(self) -> None:
        self._level = 0.0
        self._at = 0.0

    def admits(self, now: float, per_second: float) -> bool:
        """True if a call may pass at `now`, monotonic seconds, at `per_second` calls; 0 is no limit."""
        if not per_second:
            return True
        self._level = max(0.0, self._level - (now - self._at) * per_second)
        self._at = now
        if self._level + 1 > max(1.0, per_second):
            return False
        self._level += 1
        return True


class KeyCalls(Struct):
    """Calls under one idempotency key."""

    calls: int = 0
    #: Answered completely and with success.
    answered: int = 0


class SecondCalls(Struct):
    """Calls within one second."""

    #: Seconds since the simulator began.
    second: int
    calls: int = 0
    #: Answered completely and with success.
    answered: int = 0


class CallLog:
    """Counts calls, in all, by second and by idempotency key.

    Of keys it forgets the oldest beyond `max_keys`, of seconds those before the last hour of them that had calls.
    Times are seconds since the simulator began.
    """

    def __init__(self, max_keys: int) -> None:
        self._max_keys = max_keys
        self.under_way = 0
        self.clear()

    def clear(self) -> None:
        """Forget everything but the calls that are under way."""
        self.calls = 0
        self.answered = 0
        self.forgotten_keys = 0
        self.by_key: OrderedDict[str, KeyCalls] = OrderedDict()
        #: Oldest first; seconds without calls are left out.
        self.by_second: deque[SecondCalls] = deque(maxlen=_SECONDS_KEPT)
        #: Calls under way at a time, at most.
        self.most_under_way = self.under_way

    @contextmanager
    def call(self, key: str, now: float) -> Iterator[KeyCalls]:
        """A call came and is under way within; what is given is where its success is to be counted."""
        self.calls += 1
        self._second(now).calls += 1
        counted = self.by_key.setdefault(key, KeyCalls()) if key else KeyCalls()
        counted.calls += 1
        if len(self.by_key) > self._max_keys:
            self.by_key.popitem(last=False)
            self.forgotten_keys += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        try:
            yield counted
        finally:
            self.under_way -= 1

    def succeeded(self, counted: KeyCalls, now: float) -> None:
        self.answered += 1
        counted.answered += 1
        self._second(now).answered += 1

    def _second(self, now: float) -> SecondCalls:
        if not self.by_second or self.by_second[-1].second < int(now):
            self.by_second.append(SecondCalls(int(now)))
        return self.by_second[-1]
