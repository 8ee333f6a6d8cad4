"""What an AI orchestrator is asked, and what it answers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from runner.core.events import Usage
from runner.core.plan import JobId, Mode

#: Told what a call has consumed so far, when more of it is known, at the latest when it is cut off. The last word
#: stands.
OnUsage = Callable[[Usage], None]


class Prompt(msgspec.Struct, frozen=True, kw_only=True):
    """A call to an AI orchestrator."""

    #: Also the Idempotency-Key.
    request_id: str
    text: str
    #: The word of the descriptor: `ai_prompt`, `search`, `analyze`, …
    task_type: str
    mode: Mode = Mode.NORMAL
    persona: str | None = None
    #: The endpoint or group that the task names; empty: any that serves the model.
    endpoint: str = ""
    #: A model's name, its alias, or a label that models have; None for the endpoint's default.
    model: str | None = None
    #: Everything else of the task's parameters: temperature, max_tokens, system, …
    parameters: Mapping[str, Any] = {}
    traceparent: str = ""
    #: Seconds left for the whole call.
    timeout: float
    #: The job that it is for: jobs share rates fairly.
    job_id: JobId = ""
    #: An earlier attempt failed: it counts against the retry budget.
    retry: bool = False
    #: Takes the tokens for a second call beside this one out of the budgets; without it nothing bounds them.
    #: Raises AttemptError: if they are not to be had. The second call is not made then.
    reserve: Callable[[], Awaitable[None]] | None = None
    #: For those who may cut the call off, and want to know what it has cost.
    used: OnUsage | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What an AI orchestrator answered."""

    text: str
    model: str
    endpoint: str
    usage: Usage
    #: What else the endpoint told: finish_reason, processing_time_ms, …
    metadata: Mapping[str, Any] = {}
