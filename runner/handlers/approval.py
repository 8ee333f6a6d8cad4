"""Task kind `approval`: waits until a person approves or rejects."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec

from runner.core.errors import AttemptError, AttemptPutOff
from runner.core.events import WaitReason
from runner.core.job import Signal
from runner.handlers.parameters import read
from runner.ports import Attempt, Outcome

NOT_APPROVED: Final = "NOT_APPROVED"
_MICROS: Final = 1_000_000
#: Seconds: ten years, for those who give no time of their own.
_LONGEST: Final = 10 * 365 * 86_400.0


class ApprovalParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked, and what counts if nobody answers."""

    #: The question; without it the task's description.
    message: str = ""
    #: Seconds that there are to answer; without it as long as the job may take.
    deadline_seconds: Annotated[float, msgspec.Meta(gt=0, le=_LONGEST)] | None = None
    #: What counts when that time is over: an answer, or `fail`.
    default: Literal["approve", "reject", "fail"] = "fail"
    #: What a rejection does: `fail` fails the task, so that what depends on it does not run; `continue` goes on.
    on_reject: Literal["fail", "continue"] = "fail"


class Approval:
    """A Handler; its output is `{"approved": …, "by": …, "comment": …, "data": …}`; `by` is who answered, or `default`.

    It waits in the ledger, without a slot, over restarts, and consumes no attempt.
    """

    needs_slot: Final = False
    parameters: Final = ApprovalParameters

    async def run(self, attempt: Attempt) -> Outcome:
        """Take the answer if there is one.

        Raises AttemptPutOff: AWAITING_APPROVAL, until somebody answers or the time is over.
        Raises AttemptError: NOT_APPROVED; INVALID_PARAMETERS.
        """
        asked = read(attempt.parameters, ApprovalParameters)
        if attempt.signal is not None:
            return _answered(attempt.signal, asked)
        left = (asked.deadline_seconds or _LONGEST) - attempt.waited
        if left > 0:
            question = asked.message or attempt.task.description
            until = attempt.began + round(left * _MICROS)
            raise AttemptPutOff(WaitReason.AWAITING_APPROVAL, question, until=until)
        if asked.default == "fail":
            seconds = f"{asked.deadline_seconds:g}"
            raise AttemptError(NOT_APPROVED, f"nobody answered within {seconds} s", retryable=False)
        return _answered(Signal(attempt.task.id, asked.default == "approve", sender="default"), asked)


def _answered(signal: Signal, asked: ApprovalParameters) -> Outcome:
    if not signal.approved and asked.on_reject == "fail":
        who = f" by {signal.sender}" if signal.sender else ""
        why = f": {signal.comment}" if signal.comment else ""
        raise AttemptError(NOT_APPROVED, f"rejected{who}{why}", retryable=False)
    data: Any = msgspec.json.decode(signal.data) if signal.data else None
    return Outcome(output={"approved": signal.approved, "by": signal.sender, "comment": signal.comment, "data": data})
