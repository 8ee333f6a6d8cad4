"""Task kinds `manual_trigger`, `schedule_trigger` and `webhook_trigger`: where a workflow begins."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from runner.handlers.parameters import read
from runner.ports import Attempt, Outcome


class TriggerParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What the job was submitted with."""

    #: What it gives: the inputs of the job.
    input: Any = {}


class PassOn:
    """A Handler; its output is its `input`: the job has been submitted, so there is nothing to wait for."""

    needs_slot: Final = False
    parameters: Final = TriggerParameters

    async def run(self, attempt: Attempt) -> Outcome:
        return Outcome(output=read(attempt.parameters, TriggerParameters).input)
