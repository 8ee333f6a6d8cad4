"""The token budgets of one job in this daemon's hands: its own, and those of its labels.

Its own is this daemon's alone, for one daemon holds the job: what was used stands in its events. Those of labels are
shared by all jobs, so the ledger decides, in the order of its commits.
"""

from __future__ import annotations

from collections import Counter
from typing import Final

import msgspec

from runner.core.alt.dialect import JOB
from runner.core.budgets import (
    TOKEN_BUDGET_EXCEEDED,
    Account,
    Fit,
    LabelBudget,
    OnExceeded,
    estimate,
    fit,
    period_end,
    sentence,
)
from runner.core.errors import AttemptError, AttemptPutOff
from runner.core.events import Event, TaskState, Usage, WaitReason
from runner.core.interpreter import JobRun
from runner.core.job import Claim, Reservation, Share, Shortfall, Spending
from runner.core.plan import TaskId, TaskPlan
from runner.core.record import tokens_of
from runner.engine.equipment import Equipment
from runner.engine.line import Line
from runner.engine.patience import patiently

MICROS: Final = 1_000_000
#: Seconds after which a call that found a budget taken by calls under way is tried again, unless it is called before.
#: By chance up to twice as many, so that not all come at once.
CROWDED: Final = 10.0
#: Seconds over which the calls that wait for a period are spread when it begins.
SPREAD: Final = 10.0
_OWN: Final = "the job's token budget"


class Settlement(msgspec.Struct, frozen=True):
    """What one commit tells the ledger of budgets."""

    spent: tuple[Spending, ...] = ()
    settled: tuple[TaskId, ...] = ()


class Budgets:
    """What a job's attempts reserve before their calls, and what becomes of that when they end."""

    def __init__(self, claim: Claim, equipment: Equipment, *, limit: int | None, run: JobRun) -> None:
        """`limit` is the job's own budget, None where nothing bounds it; `run` tells what it has used."""
        self._job = claim.summary
        self._token = claim.token
        self._with = equipment
        attempts = (attempt for task in run.tasks.values() for attempt in task.attempts)
        used = sum(tokens_of(attempt.usage) for attempt in attempts if attempt.usage is not None)
        self._account = None if limit is None else Account(limit, used)
        self._line = Line()
        #: What attempts under way have reserved of the budgets of labels.
        self._shares: dict[TaskId, tuple[Share, ...]] = {}
        self._settled: list[TaskId] = []
        self._spent: Counter[tuple[str, str]] = Counter()
        #: Whether a reservation has ended since the last commit, or an attempt that cannot fit any more.
        self._freed = False

    @property
    def left(self) -> int | None:
        """Tokens of the job's own budget that are neither used nor reserved; None where nothing bounds them."""
        return None if self._account is None else self._account.left

    async def reserve(self, task_id: TaskId, prompt: str, answer: int | None) -> None:
        """As `Attempt.reserve_tokens`."""
        settings = self._with.settings
        tokens = estimate(prompt, settings.default_answer_tokens if answer is None else answer)
        account = self._account
        if account is not None:
            self._ask_own(account, task_id, tokens)
        budgets = self._of_labels()
        if not budgets:
            return
        now = self._with.clock.now()
        shares = tuple(budget.share(now) for budget in budgets)
        before = self._shares.get(task_id, ())
        # Before it is asked: an attempt that is cancelled meanwhile may have reserved.
        self._shares[task_id] = tuple(dict.fromkeys((*before, *shares)))
        asked = Reservation(job_id=self._job.id, token=self._token, task_id=task_id, tokens=tokens, shares=shares)
        short = await patiently(self._with.ledger.reserve_tokens, asked)
        if short is not None:
            self._shares[task_id] = before
            if account is not None:
                account.give_back(task_id, tokens)
            if budgets != self._of_labels():
                # Others hold since it was asked.
                await self.reserve(task_id, prompt, answer)
                return
            raise self._refusal(budgets[shares.index(short.share)], short, tokens)

    def ended(self, task: TaskPlan, event: Event | None) -> None:
        """An attempt has ended with an event that may tell its usage, or was cut off without one."""
        usage: Usage | None = getattr(event, "usage", None)
        tokens = 0 if usage is None else tokens_of(usage)
        if self._account is not None and self._account.settle(task.id, tokens):
            self._freed = True
        shares = self._shares.pop(task.id, ())
        if shares:
            self._freed = True
            self._settled.append(task.id)
        # A child job has taken of the budgets of its labels itself.
        if tokens and task.kind != JOB:
            now = self._with.clock.now()
            for share in shares or [budget.share(now) for budget in self._of_labels()]:
                self._spent[share.budget, share.period] += tokens

    def settlement(self) -> Settlement:
        """What has ended since this was asked last; for the commit of the events that tell it."""
        if not self._spent and not self._settled:
            return Settlement()
        spent = tuple(Spending(budget, period, tokens) for (budget, period), tokens in self._spent.items())
        settled = tuple(self._settled)
        self._spent.clear()
        self._settled.clear()
        return Settlement(spent, settled)

    def committed(self) -> None:
        """A commit is durable: what it settled is free for others."""
        if self._freed:
            self._freed = False
            self._line.call_next()
            self._with.budget_line.call_next()

    def ask_again(self, run: JobRun) -> None:
        """Who waits for a budget asks soon: it may be another one than that of the daemon before."""
        due = self._with.clock.now() + round(self._with.chance() * SPREAD * MICROS)
        for task in run.tasks.values():
            waits = task.state is TaskState.WAITING and task.wait_reason is WaitReason.RATE_LIMITED
            # What waits for an endpoint names it.
            if waits and not task.attempts[-1].endpoint and task.due is not None and task.due > due:
                run.put_back(task, due)

    def _of_labels(self) -> list[LabelBudget]:
        return [budget for budget in self._with.budgets if budget.concerns(self._job.labels)]

    def _ask_own(self, account: Account, task_id: TaskId, tokens: int) -> None:
        told = {"limit": account.limit, "used": account.used, "reserved": account.reserved, "tokens": tokens}
        match account.reserve(task_id, tokens):
            case Fit.LATER:
                raise self._crowded(sentence(_OWN, **told), self._line)
            case Fit.NEVER:
                # Who was called and cannot use the room lets the next one have it, or fail as soon.
                self._freed = True
                raise AttemptError(TOKEN_BUDGET_EXCEEDED, sentence(_OWN, **told), retryable=False)

    def _refusal(self, budget: LabelBudget, short: Shortfall, tokens: int) -> AttemptError:
        told = {"limit": short.share.limit, "used": short.used, "reserved": short.reserved, "tokens": tokens}
        message = sentence(f"budget `{budget.name}`", **told)
        if fit(**told) is Fit.LATER:
            return self._crowded(message, self._with.budget_line)
        end = period_end(budget.per, self._with.clock.now())
        if budget.on_exceeded is OnExceeded.WAIT and end is not None and tokens <= budget.tokens:
            until = end + round(self._with.chance() * SPREAD * MICROS)
            message += f"; it waits for the next {budget.per}"
            return AttemptPutOff(WaitReason.RATE_LIMITED, message, until=until, turn=self._with.period_line.place())
        self._freed = True
        return AttemptError(TOKEN_BUDGET_EXCEEDED, message, retryable=False)

    def _crowded(self, message: str, line: Line) -> AttemptPutOff:
        until = self._with.clock.now() + round(CROWDED * (1 + self._with.chance()) * MICROS)
        return AttemptPutOff(WaitReason.RATE_LIMITED, message, until=until, turn=line.place())
