"""Token budgets: whether a call to an AI model may be made, decided before it is, so that no budget is exceeded.

A call reserves what it may take at most; with its end, what it did take comes in place of that. So the sum of what was
used never exceeds a budget as long as no call takes more than was estimated, whatever the order in which calls begin
and end.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from runner.core.job import Share
from runner.core.plan import Instant, TaskId

#: The reason of an attempt whose call a budget cannot take.
TOKEN_BUDGET_EXCEEDED: Final = "TOKEN_BUDGET_EXCEEDED"  # noqa: S105  a reason
#: Under this key a descriptor's metadata tells the budget of its job.
TOKEN_BUDGET: Final = "token_budget"  # noqa: S105  a key
#: Counts are 64-bit on the wire.
MOST_TOKENS: Final = 2**63 - 1
#: Characters of a token, fewer than most texts have: an estimate is to be too high.
CHARACTERS: Final = 3

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Period(enum.StrEnum):
    """How long a budget lasts, before it is whole again; days and months are those of UTC."""

    DAY = "day"
    MONTH = "month"
    EVER = "ever"


class OnExceeded(enum.StrEnum):
    """What becomes of a task whose call the budget cannot take."""

    #: It fails.
    FAIL = "fail"
    #: It waits until the budget is whole again. One that never will be, or is smaller than the call, fails it.
    WAIT = "wait"


class LabelBudget(Struct, frozen=True, kw_only=True):
    """Tokens that all jobs with a label may take together."""

    #: The label's key: `team`.
    label: str
    #: Its value: `research`.
    value: str
    #: Tokens in each period.
    tokens: Annotated[int, Meta(ge=1, le=MOST_TOKENS)]
    #: When the budget is whole again; days and months are those of UTC.
    per: Period = Period.MONTH
    #: What becomes of a task whose call does not fit.
    on_exceeded: OnExceeded = OnExceeded.FAIL

    @property
    def name(self) -> str:
        """What the ledger and sentences call it: `team=research/month`. Its size is not part of it, and may change."""
        return f"{self.label}={self.value}/{self.per.value}"

    def concerns(self, labels: Mapping[str, str]) -> bool:
        """Whether a job with these labels takes of it."""
        return labels.get(self.label) == self.value

    def share(self, now: Instant) -> Share:
        """This budget, in the period of a moment."""
        return Share(self.name, period_of(self.per, now), self.tokens)


class Fit(enum.Enum):
    """Whether a budget can take a call."""

    NOW = enum.auto()
    #: Only once calls under way have ended, if they take less than they may.
    LATER = enum.auto()
    NEVER = enum.auto()


def fit(*, limit: int, used: int, reserved: int, tokens: int) -> Fit:
    """Whether `tokens` fit beside what is used, and what calls under way may take."""
    if used + reserved + tokens <= limit:
        return Fit.NOW
    return Fit.LATER if used + tokens <= limit else Fit.NEVER


class Account:
    """The budget of one job: what was used of it, and what its calls under way may take."""

    def __init__(self, limit: int, used: int = 0) -> None:
        self.limit = limit
        self.used = used
        self._reserved: dict[TaskId, int] = {}

    @property
    def reserved(self) -> int:
        return sum(self._reserved.values())

    @property
    def left(self) -> int:
        """Tokens that are neither used nor reserved."""
        return max(0, self.limit - self.used - self.reserved)

    def reserve(self, task_id: TaskId, tokens: int) -> Fit:
        """Take the tokens of one call, if they fit now. Calls of one attempt add up."""
        found = fit(limit=self.limit, used=self.used, reserved=self.reserved, tokens=tokens)
        if found is Fit.NOW:
            self._reserved[task_id] = self._reserved.get(task_id, 0) + tokens
        return found

    def give_back(self, task_id: TaskId, tokens: int) -> None:
        """A call for which they were reserved is not made."""
        self._reserved[task_id] -= tokens

    def settle(self, task_id: TaskId, used: int) -> int:
        """An attempt has ended: what it used comes in place of what it had reserved. Answers what that was."""
        self.used += used
        return self._reserved.pop(task_id, 0)


def estimate(prompt: str, answer: int) -> int:
    """Tokens that a call may take: a third of the prompt's characters, rounded up, and the answer's."""
    return -(-len(prompt) // CHARACTERS) + answer


def told_in(metadata: Mapping[str, Any]) -> int | None:
    """The budget that a descriptor tells; None where it tells none.

    Raises ValueError: if it is no budget; the message is a sentence.
    """
    told = metadata.get(TOKEN_BUDGET)
    if told is None:
        return None
    if type(told) is not int or not 1 <= told <= MOST_TOKENS:
        raise ValueError("A token budget is a whole number, at least 1.")
    return told


def sentence(name: str, *, limit: int, used: int, reserved: int, tokens: int) -> str:
    """Why a call is not made: names the budget, what is used of it, and what the call would take."""
    under_way = f", calls under way may take {reserved:,}" if reserved else ""
    return (
        f"{name} cannot take the call: {used:,} of {limit:,} tokens are used{under_way}, "
        f"and it would take up to {tokens:,}"
    )


def period_of(per: Period, now: Instant) -> str:
    """The name of a moment's period: `2026-11-22`, `2026-11`, or empty for ever."""
    moment = _EPOCH + timedelta(microseconds=now)
    return {Period.DAY: f"{moment:%Y-%m-%d}", Period.MONTH: f"{moment:%Y-%m}", Period.EVER: ""}[per]


def period_end(per: Period, now: Instant) -> Instant | None:
    """When the next period begins; None: never."""
    day = (_EPOCH + timedelta(microseconds=now)).replace(hour=0, minute=0, second=0, microsecond=0)
    match per:
        case Period.DAY:
            following = day + timedelta(days=1)
        case Period.MONTH:
            following = (day.replace(day=1) + timedelta(days=32)).replace(day=1)
        case Period.EVER:
            return None
    return (following - _EPOCH) // timedelta(microseconds=1)
