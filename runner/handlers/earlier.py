"""Earlier answers of AI orchestrators: kept for tasks that list `cached` among their fallbacks, and found again."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from runner.core.answers import AnswerCachePolicy, KeptAnswer, request_key
from runner.core.errors import LedgerUnavailable
from runner.core.events import Json
from runner.core.plan import Instant
from runner.handlers.fallback import Cached, Recalled
from runner.ports import Answers, Attempt, Outcome

_MICROS = 1_000_000


class EarlierAnswers:
    """What first choices answered before, by their requests. Secrets are masked in what is kept and in its key."""

    def __init__(
        self, policy: AnswerCachePolicy, answers: Answers | None = None, now: Callable[[], Instant] = lambda: 0
    ) -> None:
        """Without `answers`, none is kept."""
        self.policy = policy
        self._answers = answers
        self._now = now

    async def recall(self, attempt: Attempt, request: Json, cached: Cached) -> Recalled | None:
        """The answer to the same request, if there is one that is young enough."""
        if self._answers is None:
            return None
        age = min(cached.max_age_seconds or self.policy.max_age_seconds, self.policy.max_age_seconds)
        now = self._now()
        try:
            found = await self._answers.answer(_key(attempt, request), since=now - round(age * _MICROS))
        except LedgerUnavailable:
            # As good as none: the task has further fallbacks, or waits; the ledger tells of its troubles itself.
            return None
        if found is None:
            return None
        outcome = Outcome(output=msgspec.json.decode(found.output), endpoint=found.endpoint, model=found.model)
        return Recalled(outcome, max(0, now - found.given_at) / _MICROS)

    async def keep(self, attempt: Attempt, request: Json, outcome: Outcome) -> None:
        """Keep what was answered. That it cannot be kept does not make it a worse answer."""
        output = msgspec.json.encode(attempt.redacted(msgspec.to_builtins(outcome.output)))
        if self._answers is None or len(output) > self.policy.max_answer_bytes:
            return
        endpoint, model = attempt.redacted([outcome.endpoint, outcome.model])
        kept = KeptAnswer(output=output, endpoint=endpoint, model=model, given_at=self._now())
        try:
            await self._answers.keep_answer(_key(attempt, request), kept, policy=self.policy)
        except LedgerUnavailable:
            # The attempt's own end has to be written next, and waits until it can be.
            return


def _key(attempt: Attempt, request: Json) -> bytes:
    return request_key(attempt.redacted(request))
