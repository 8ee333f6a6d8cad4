"""Earlier answers of AI orchestrators, kept so that they may stand in when none can be had."""

from __future__ import annotations

import hashlib
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from runner.core.events import Json
from runner.core.plan import Instant

#: Part of every key: what it is made of may change.
_FORM: Final = "1"

Count = Annotated[int, Meta(ge=1)]


class AnswerCachePolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How many answers are kept for tasks that list `cached` among their fallbacks; the oldest go first."""

    #: Answers.
    max_answers: Count = 10_000
    #: Bytes of all answers together. An answer of more than a tenth of that is not kept.
    max_bytes: Count = 256 * 1024 * 1024
    #: Seconds that an answer is kept; tasks may demand a younger one (`cached.max_age_seconds`).
    max_age_seconds: Annotated[float, Meta(gt=0)] = 604_800.0

    @property
    def max_answer_bytes(self) -> int:
        """Of one answer."""
        return max(1, self.max_bytes // 10)


class KeptAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a task's first choice answered; without secrets."""

    #: The task's output, as JSON.
    output: bytes
    #: Who answered.
    endpoint: str
    model: str
    #: When.
    given_at: Instant


def request_key(request: Json) -> bytes:
    """A digest (SHA-256, 32 bytes) by which the same request is found again.

    `request` is all that the answer depends on, as JSON, in which secrets were masked: a digest of a short secret
    could be guessed. The order of an object's keys means nothing.
    """
    form = msgspec.json.encode([_FORM, request], order="sorted")
    return hashlib.sha256(form).digest()
