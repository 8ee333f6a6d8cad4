"""The fakes we ship: for our own tests, and for those of people who write handlers."""

from __future__ import annotations

from typing import Any

import anyio

from runner.core.errors import AttemptError
from runner.core.events import Usage
from runner.core.job import Signal
from runner.core.plan import Instant, JobId, Plan, TaskPlan


class FakeAttempt:
    """An Attempt that remembers what its handler told it.

    Its time is the event loop's: `remaining` counts down from `timeout` seconds after it was made. Make it inside a
    running loop. It cancels nothing by itself.
    """

    def __init__(
        self,
        parameters: dict[str, Any] | None = None,
        *,
        description: str = "a task of a test",
        kind: str = "ai_prompt",
        number: int = 1,
        failures: int = 0,
        retries_left: int = 0,
        timeout: float = 10.0,
        plan: Plan | None = None,
        traceparent: str = "",
        signal: Signal | None = None,
        waited: float = 0.0,
    ) -> None:
        self.job_id: JobId = "job-1"
        self.parameters = dict(parameters or {})
        self.task = TaskPlan(id="task-1", description=description, kind=kind, parameters=self.parameters)
        self.plan = plan or Plan(
            alt_id="alt-1", dialect="tasks", version="1.0", title="A test", tasks=(self.task,), created_at=0
        )
        self.number = number
        self.failures = failures
        self.retries_left = retries_left
        self.idempotency_key = f"{self.job_id}/{self.task.id}"
        self.traceparent = traceparent
        self.signal = signal
        self.began: Instant = 0
        self.waited = waited
        self._ends = anyio.current_time() + timeout
        #: Set it to ask the handler to stop.
        self.stopping = anyio.Event()
        #: Every report, as its arguments.
        self.reports: list[dict[str, Any]] = []
        #: Every piece of streamed text.
        self.pieces: list[str] = []
        #: Every call that was announced, as its prompt and the tokens of its answer.
        self.reserved: list[tuple[str, int | None]] = []
        #: Tokens of the job's budget; None where it has none.
        self.left: int | None = None
        #: What it would tell if it were cut off.
        self.used: Usage | None = None
        #: Set it to refuse the next calls.
        self.budget_error: AttemptError | None = None

    @property
    def text(self) -> str:
        """All streamed text."""
        return "".join(self.pieces)

    def remaining(self) -> float:
        return max(0.0, self._ends - anyio.current_time())

    def progress(
        self,
        fraction: float | None = None,
        *,
        completed: int | None = None,
        total: int | None = None,
        message: str = "",
    ) -> None:
        self.reports.append({"fraction": fraction, "completed": completed, "total": total, "message": message})

    async def stop_requested(self) -> None:
        await self.stopping.wait()

    def consumed(self, usage: Usage) -> None:
        self.used = usage

    def redacted(self, value: Any) -> Any:
        return value

    async def output(self, text: str) -> None:
        await anyio.lowlevel.checkpoint()
        self.pieces.append(text)

    async def reserve_tokens(self, prompt: str, *, answer: int | None = None) -> None:
        await anyio.lowlevel.checkpoint()
        self.reserved.append((prompt, answer))
        if self.budget_error is not None:
            raise self.budget_error

    def tokens_left(self) -> int | None:
        return self.left
