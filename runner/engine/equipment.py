"""What every part of the engine works with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field

from runner.core.budgets import LabelBudget
from runner.core.plan import JobId
from runner.core.redaction import Redaction
from runner.core.retry import RetryPolicy
from runner.engine.bell import Bell
from runner.engine.broadcast import Broadcast
from runner.engine.children import Children
from runner.engine.journal import Journal
from runner.engine.line import Line
from runner.engine.settings import EngineSettings
from runner.engine.slots import Slots
from runner.ports import Clock, Handler, Ledger, Observer, Secrets

#: The handler for task types that no other handler claims.
FALLBACK_HANDLER = "orchestrator"


async def _leave_as_it_is(job_id: JobId) -> None:
    """Where jobs leave nothing."""


@dataclass(slots=True, kw_only=True)
class Equipment:
    """The ports and settings of one running engine.

    `settings`, `retry`, `secrets`, `redaction` and `budgets` are replaced on reload.
    """

    #: New at every start of the process.
    runner_id: str
    ledger: Ledger
    #: By task type; FALLBACK_HANDLER among them.
    handlers: Mapping[str, Handler]
    observer: Observer
    clock: Clock
    secrets: Secrets
    #: Takes the daemon's own secrets out of what attempts tell.
    redaction: Redaction = field(default_factory=lambda: Redaction({}))
    settings: EngineSettings
    retry: RetryPolicy
    slots: Slots
    broadcast: Broadcast
    journal: Journal
    #: Uniform in [0, 1).
    chance: Callable[[], float]
    #: Unique, sorting by time (UUIDv7).
    new_id: Callable[[], str]
    #: The sinks that every record goes to, by name, each with the bell that says one was committed.
    sinks: Mapping[str, Bell]
    #: Jobs that tasks run; the handler of task kind `job` has the same one.
    children: Children = field(default_factory=Children)
    #: The token budgets of labels, and who waits for room in them.
    budgets: tuple[LabelBudget, ...] = ()
    budget_line: Line = field(default_factory=Line)
    #: Who waits until a budget is whole again: another day or month, or other settings.
    period_line: Line = field(default_factory=Line)
    #: Told of each job that ended here, after its end is durable, and when nothing of it runs any more. Must not raise.
    job_ended: Callable[[JobId], Awaitable[None]] = _leave_as_it_is

    def take_budgets(self, budgets: tuple[LabelBudget, ...]) -> None:
        """These hold from now on. Whoever waits for one asks again, if they are others."""
        if self.budgets != budgets:
            self.budgets = budgets
            self.budget_line.call_all()
            self.period_line.call_all()

    def handler_for(self, kind: str) -> tuple[str, Handler]:
        """The handler that claims a task type, with its name."""
        handler = self.handlers.get(kind)
        return (kind, handler) if handler is not None else (FALLBACK_HANDLER, self.handlers[FALLBACK_HANDLER])

    def grace_for(self, kind: str) -> float:
        """Seconds between asking an attempt to stop and cancelling it: none for handlers that do not listen."""
        _, handler = self.handler_for(kind)
        return self.settings.cancel_grace_seconds if getattr(handler, "stops_when_asked", False) else 0.0
