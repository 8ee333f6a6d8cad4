"""Which of several endpoints gets the next call: the better of two that are drawn.

Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", 1996: two are nearly as good as looking
at all, and callers that know the same do not all run to the same one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec import Struct

#: The part of its weight with which an endpoint comes back.
_COLD: Final = 0.1


class Candidate(Struct, frozen=True):
    """An endpoint that may get the call."""

    #: Calls under way.
    outstanding: int
    #: Its share beside the others', above 0.
    weight: float = 1.0
    #: The part of its weight that it has while it is warmed up, above 0 and at most 1.
    warmth: float = 1.0

    @property
    def strength(self) -> float:
        return self.weight * self.warmth


def warmth(since_return: float, warm_up_seconds: float) -> float:
    """0.1 when an endpoint comes back, 1 after `warm_up_seconds`, and on a line between. Seconds."""
    if since_return >= warm_up_seconds:
        return 1.0
    return _COLD + (1.0 - _COLD) * max(0.0, since_return) / warm_up_seconds


def choose(candidates: Sequence[Candidate], first: float, second: float) -> int:
    """The index of the one that gets the call. `first` and `second` are chances in [0, 1). There is a candidate.

    Two are drawn, in proportion to what they may bear. The one drawn first gets the call, unless the other is less
    loaded for what it may bear both before and after it takes the call.
    """
    strengths = [candidate.strength for candidate in candidates]
    one = _drawn(strengths, first)
    if len(candidates) == 1:
        return one
    strengths[one] = 0.0
    other = _drawn(strengths, second)
    return other if _better(candidates[other], candidates[one]) else one


def _drawn(strengths: Sequence[float], chance: float) -> int:
    left = chance * sum(strengths)
    drawn = 0
    for index, strength in enumerate(strengths):
        if strength:
            drawn = index
            if left < strength:
                break
            left -= strength
    return drawn


def _better(other: Candidate, one: Candidate) -> bool:
    # Load after the call alone would give the heavier of two idle ones every call; load before it alone would fill a
    # cold one as soon as each of the others has a call.
    return (
        other.outstanding * one.strength < one.outstanding * other.strength
        and (other.outstanding + 1) * one.strength < (one.outstanding + 1) * other.strength
    )
