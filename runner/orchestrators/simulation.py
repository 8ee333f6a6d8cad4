"""What the simulated orchestrator does: its behaviour, its answers, its memory of calls. No I/O."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Annotated, Final

from msgspec import Meta, Struct

_Amount = Annotated[float, Meta(ge=0, le=1_000_000_000)]

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
    #: Speed of an answer, streamed or not; 0: all at once.
    tokens_per_second: _Amount = 0.0
    #: Tokens of an answer, unless the caller's `max_tokens` is less.
    answer_tokens: Annotated[int, Meta(ge=1, le=1_000_000)] = 24
    #: Share of calls that fail, 0–1. Which ones depends on the seed and their number alone.
    error_rate: Annotated[float, Meta(ge=0, le=1)] = 0.0
    #: Status of those that fail.
    error_status: Annotated[int, Meta(ge=400, le=599)] = 503
    #: Seconds told as `Retry-After` with 429 and with errors; null: not told.
    retry_after_seconds: _Amount | None = None
    #: Calls a second beyond which the answer is 429; 0: no limit.
    rate_limit_per_second: _Amount = 0.0
    #: Take calls and do not answer them before this is false again.
    hang: bool = False
    #: Cut the connection instead of answering; a streamed answer, in its middle.
    reset: bool = False
    #: Answer with bytes that are not of the protocol.
    garbage: bool = False
    #: Answer without end.
    endless: bool = False


def chance(seed: int, number: int) -> float:
    """A number in [0, 1) that depends on its arguments alone."""
    digest = hashlib.sha256(f"{seed}:{number}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48


def tokens(seed: int, prompt: str, count: int) -> list[str]:
    """An answer in pieces; joined they are the text, which says that it is simulated."""
    digest = hashlib.sha256(f"{seed}:{prompt}".encode("utf-8", "replace")).digest()
    pieces = ["[simulated]"]
    for place in range(count - 1):
        if place and place % len(digest) == 0:
            digest = hashlib.sha256(digest).digest()
        pieces.append(" " + _WORDS[digest[place % len(digest)] % len(_WORDS)])
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


class CallLog:
    """Counts calls, in all and by idempotency key; of keys it forgets the oldest beyond `max_keys`."""

    def __init__(self, max_keys: int) -> None:
        self._max_keys = max_keys
        self.calls = 0
        self.answered = 0
        self.forgotten_keys = 0
        self.by_key: OrderedDict[str, KeyCalls] = OrderedDict()

    def arrived(self, key: str) -> KeyCalls:
        """A call came; what is given back is where its success is to be counted."""
        self.calls += 1
        counted = self.by_key.setdefault(key, KeyCalls()) if key else KeyCalls()
        counted.calls += 1
        if len(self.by_key) > self._max_keys:
            self.by_key.popitem(last=False)
            self.forgotten_keys += 1
        return counted

    def succeeded(self, counted: KeyCalls) -> None:
        self.answered += 1
        counted.answered += 1

    def clear(self) -> None:
        self.calls = self.answered = self.forgotten_keys = 0
        self.by_key.clear()
