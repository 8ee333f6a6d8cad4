"""Drives one job from its claim to its end: the interpreter decides, handlers act, the ledger commits.

The loop turns whatever has happened since its last commit into one frame. Outcomes that arrive while a commit is
under way wait for the next, so that a busy job costs one commit a round, not one a task. Nothing is shown, and no
attempt begins, before the frame that says so is durable.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import anyio
import anyio.abc
import msgspec

from runner import frames
from runner.core.errors import AttemptError, AttemptPutOff, JobUnreadable, LeaseLost
from runner.core.events import (
    Artifact,
    AttemptStarted,
    AttemptSucceeded,
    Event,
    JobCancelling,
    JobPaused,
    JobReleased,
    JobResumed,
    JobStarted,
    JobState,
    Recorded,
    TaskSignalled,
    TaskState,
)
from runner.core.interpreter import JobRun
from runner.core.job import Append, Claim, Ending, Signal, StoredArtifact
from runner.core.last import compose, seal
from runner.core.lifecycle import IN_HAND
from runner.core.plan import Instant, Plan, TaskId, TaskPlan, every_task
from runner.core.runs import TaskRun
from runner.engine.attempt import Failed, Interrupted, LiveAttempt, Result, Stopped, Succeeded, bulkhead_of
from runner.engine.bell import Bell
from runner.engine.budgets import Budgets
from runner.engine.chunks import chunks
from runner.engine.deposits import Kept, deposit
from runner.engine.equipment import Equipment
from runner.engine.failing import failing, retries_of, stopped
from runner.engine.lending import Loan
from runner.engine.patience import patiently
from runner.engine.reach import Reach
from runner.engine.replaying import end_or_set_back, replayed
from runner.engine.slots import Slots, Standing
from runner.engine.submission import trace_id_of
from runner.engine.turns import Turns

MICROS: Final = 1_000_000
#: Seconds between two commits that only report progress or text: a stream of tokens costs 20 commits a second at most.
REPORT_INTERVAL: Final = 0.05


class Execution:
    """One claimed job, in this daemon's hands until it ends, is given back, or its lease is lost."""

    def __init__(self, claim: Claim, equipment: Equipment) -> None:
        self.job_id = claim.summary.id
        self.token = claim.token
        self._claim = claim
        self._summary = claim.summary
        self._with = equipment
        self._plan: Plan
        self._run: JobRun
        self._reach: Reach
        self._budgets: Budgets
        #: Tasks that have a slot and start with the commit under way.
        self._starting: list[TaskRun] = []
        self._live: dict[TaskId, LiveAttempt] = {}
        self._ended: list[tuple[LiveAttempt, Result]] = []
        self._uncommitted: list[Recorded] = []
        self._artifacts: list[StoredArtifact] = []
        self._kept = Kept()
        self._cancel_reason = claim.cancel_reason
        self._signals = list(claim.signals)
        self._pause_requested = claim.summary.pause_requested
        #: When, on the monotonic clock, what still runs is given up; None while not draining.
        self._release_at: float | None = None
        self._released = False
        self._bell = Bell()
        self._has_news = False
        self._reported_at = -REPORT_INTERVAL
        self._standing: Standing
        self._turns = Turns(self._bell.ring)
        self._loan = Loan(equipment.children.lending, claim.summary)
        self._scope = anyio.CancelScope()

    @property
    def ended(self) -> bool:
        """Whether the job's end is durable."""
        return self._summary.state.terminal

    # ------------------------------------------------------------------------------------------------- signals

    def cancel(self, reason: str) -> None:
        """Fulfil a cancellation that the ledger already knows."""
        if self._cancel_reason is None:
            self._cancel_reason = reason
            self._bell.ring()

    def pause(self, *, requested: bool) -> None:
        """Fulfil a pause that the ledger already knows, or its end."""
        if self._pause_requested is not requested:
            self._pause_requested = requested
            self._bell.ring()

    def signal(self, signal: Signal) -> None:
        """Pass on an answer that the ledger already knows."""
        self._signals.append(signal)
        self._bell.ring()

    def drain(self, *, grace: float) -> None:
        """Start nothing new; after `grace` seconds, give the job back with whatever still runs."""
        if self._release_at is None:
            self._release_at = anyio.current_time() + grace
            self._bell.ring()

    def drop(self) -> None:
        """Stop at once without another write: the job is somebody else's."""
        self._scope.cancel()

    def _news(self) -> None:
        if not self._has_news:
            self._has_news = True
            self._bell.ring()

    # ---------------------------------------------------------------------------------------------------- loop

    async def run(self) -> None:
        """Drive the job until it ends, is given back, or is lost to another runner."""
        try:
            self._load()
        except JobUnreadable as error:
            with self._scope:
                self._summary = await end_or_set_back(self._claim, error, self._with, reason=self._cancel_reason)
            return
        try:
            with self._scope:
                async with anyio.create_task_group() as attempts:
                    try:
                        await self._drive(attempts)
                    except LeaseLost:
                        self._with.observer.notice("lease_lost", job_id=self.job_id, token=self.token)
                    attempts.cancel_scope.cancel()
        finally:
            # A commit that was refused leaves tasks that never began.
            for task in self._starting:
                self._standing.give_back(task.plan.id)
            self._standing.leave()
            self._turns.leave_all()
            self._loan.end()

    def _load(self) -> None:
        """Raises JobUnreadable."""
        self._run, inputs = replayed(self._claim)
        self._plan = self._run.plan
        self._budgets = Budgets(self._claim, self._with, limit=self._plan.token_budget, run=self._run)
        self._budgets.ask_again(self._run)
        limit = self._with.settings.max_referenced_bytes
        self._reach = Reach(self.job_id, inputs, self._run, self._fetch, max_referenced_bytes=limit)
        self._kept = Kept.by([*self._run.tasks.values(), *self._run.promises])
        ways = {self._way(task) for task in every_task(self._plan) if task.control is None}
        self._standing = Standing(self._way, ways, self._summary.priority, self._bell.ring)

    async def _drive(self, attempts: anyio.abc.TaskGroup) -> None:
        if self._run.state is JobState.PAUSED and not self._pause_requested:
            # Its last holder was told so, and could not write it any more.
            self._record(JobResumed(held=False))
            await self._commit()
        self._record(JobStarted(self._with.runner_id, self.token))
        while True:
            self._absorb()
            self._listen()
            self._obey()
            await self._heed_pauses()
            settled = self._now()
            self._uncommitted += self._run.settle(
                now=settled, max_lost=self._with.settings.max_lost_attempts, limits=self._with.settings.control_limits
            )
            self._give_back()
            self._choose()
            self._report()
            await self._commit()
            if self._released or self._run.state is None or self._run.state.terminal:
                return
            while self._starting:
                self._launch(self._starting.pop(0), attempts)
            await self._wait(settled)

    async def _wait(self, settled: Instant) -> None:
        """Wait until something happened, or time alone brings something to do."""
        self._loan.set(waits=not self._live and self._run.counts[TaskState.WAITING] > 0)
        waits: list[float] = []
        wakeup = self._run.next_wakeup(settled=settled)
        # While shutting down nothing starts, so a task that is due is no reason to wake: it would be one for ever.
        if wakeup is not None and self._release_at is None:
            waits.append((wakeup - self._now()) / MICROS)
        if self._has_news:
            waits.append(self._reported_at + REPORT_INTERVAL - anyio.current_time())
        if self._release_at is not None and not _is_due(self._release_at):
            waits.append(self._release_at - anyio.current_time())
        await self._bell.wait(min(waits, default=None))

    def _absorb(self) -> None:
        """Attempts that ended become events."""
        ended, self._ended = self._ended, []
        for live, result in ended:
            del self._live[live.task.id]
            if isinstance(result, Interrupted):
                self._budgets.ended(live.task, None)
                continue
            for event in live.drain():
                self._record(event)
            outcome = self._outcome(live, result)
            self._record(outcome)
            self._budgets.ended(live.task, outcome)
            if isinstance(result, Failed) and isinstance(result.error, AttemptPutOff):
                self._await_turn(live.task.id, result.error)

    def _await_turn(self, task_id: TaskId, put_off: AttemptPutOff) -> None:
        """Let it be called, where it has a turn; its time alone ends its wait only a while later."""
        task = self._run.tasks[task_id]
        if put_off.turn is not None and task.waiting_until is not None:
            self._run.put_back(task, task.waiting_until + round(put_off.turn.patience * MICROS))
            self._turns.wait(task_id, put_off.turn)

    def _listen(self) -> None:
        """Answers of people become events, each once."""
        signals, self._signals = self._signals, []
        for signal in signals:
            task = self._run.tasks.get(signal.task_id)
            if task is None:
                # It stands in a body that has not begun.
                self._signals.append(signal)
            elif task.signal is None and not task.state.terminal:
                self._record(
                    TaskSignalled(
                        signal.task_id,
                        approved=signal.approved,
                        comment=signal.comment,
                        sender=signal.sender,
                        data=signal.data,
                    )
                )

    def _obey(self) -> None:
        """Cancellation and `fail_fast`."""
        if self._cancel_reason is not None and self._run.cancelling is None:
            self._record(JobCancelling(self._cancel_reason))
        if self._run.stopping is not None:
            self._turns.leave_all()
            for live in self._live.values():
                live.stop(grace=self._with.grace_for(live.task.kind))

    async def _heed_pauses(self) -> None:
        """A pause or its end, in a frame of its own: the journal names the event by which a job entered a state."""
        paused = self._run.state is JobState.PAUSED
        if paused is self._pause_requested or self._run.stopping is not None or self._run.expired(self._now()):
            return
        await self._commit()
        self._record(JobResumed(held=True) if paused else JobPaused())
        await self._commit()

    def _give_back(self) -> None:
        """The job is for others as soon as nothing runs here, if it is paused or we shut down.

        What overstays the grace of a shutdown is cut off.
        """
        idle = self._run.state is JobState.PAUSED and self._pause_requested
        if self._run.state not in IN_HAND or (self._release_at is None and not idle):
            return
        if self._release_at is not None and _is_due(self._release_at):
            for live in self._live.values():
                live.interrupt()
        # Not before: another runner would start a task that still runs here.
        if not self._live:
            self._record(JobReleased(self._with.runner_id, "paused" if idle else "shutdown"))
            self._released = True

    def _choose(self) -> None:
        """The tasks that start with this commit: as many as are runnable and have a slot."""
        if self._release_at is not None:
            self._standing.leave()
            return
        called = self._turns.called
        for task_id in called:
            self._standing.let_by(self._run.tasks[task_id].plan)
        self._starting += self._standing.choose(self._run.runnable(self._now(), called=called))
        for task in self._starting:
            self._turns.leave(task.plan.id)
            name, _ = self._with.handler_for(task.plan.kind)
            self._record(AttemptStarted(task.plan.id, len(task.attempts) + 1, name))

    def _way(self, task: TaskPlan) -> tuple[Slots, ...]:
        """Bulkheads come first: who waits for a sick endpoint must not hold what others could use."""
        _, handler = self._with.handler_for(task.kind)
        slots = self._with.slots
        bulkhead = bulkhead_of(handler, task)
        fence = () if bulkhead is None else (slots.bulkhead(bulkhead.name, bulkhead.places),)
        return (*fence, slots) if getattr(handler, "needs_slot", True) else fence

    def _report(self) -> None:
        """Progress and text that have waited long enough, or that another commit can carry."""
        if not self._has_news or self._run.state not in IN_HAND:
            return
        if not self._uncommitted and not _is_due(self._reported_at + REPORT_INTERVAL):
            return
        self._has_news = False
        self._reported_at = anyio.current_time()
        for live in self._live.values():
            for event in live.drain():
                self._record(event)

    def _launch(self, task: TaskRun, attempts: anyio.abc.TaskGroup) -> None:
        limit = task.plan.timeout or self._with.settings.default_task_timeout_seconds
        began = self._now()
        left = limit if self._run.deadline is None else (self._run.deadline - began) / MICROS
        live = LiveAttempt(
            job_id=self.job_id,
            plan=self._plan,
            task=task.plan,
            number=len(task.attempts),
            failures=task.failures,
            retries_left=max(0, retries_of(task.plan, self._with.settings) - task.failures),
            timeout=max(0.0, min(limit, left)),
            ends_with_job=left < limit,
            signal=_signal(task.signal),
            began=began,
            waited=(began - (began if task.started_at is None else task.started_at)) / MICROS,
            secrets=self._with.secrets,
            redaction=self._with.redaction,
            budgets=self._budgets,
            changed=self._news,
        )
        self._live[task.plan.id] = live
        attempts.start_soon(self._attempt, live)

    async def _attempt(self, live: LiveAttempt) -> None:
        _, handler = self._with.handler_for(live.task.kind)
        spanned = self._with.observer.attempt(
            self._summary, live.task, live.number, traceparent=self._claim.traceparent
        )
        try:
            with spanned as live.traceparent:
                result = await live.run(handler, partial(self._reach.scope, live.task))
        finally:
            self._standing.give_back(live.task.id)
        self._ended.append((live, result))
        self._bell.ring()

    # ------------------------------------------------------------------------------------------------ outcomes

    def _outcome(self, live: LiveAttempt, result: Result) -> Event:
        match result:
            case Succeeded():
                return self._succeeded(live, result)
            case Failed():
                return self._failed(live, result)
            case Stopped() | Interrupted():
                return stopped(live, result, self._run.stopping or "stopped")

    def _succeeded(self, live: LiveAttempt, result: Succeeded) -> Event:
        deposited = deposit(live, result, self._with.settings, self._kept, now=self._now(), new_id=self._with.new_id)
        if isinstance(deposited, Failed):
            return self._failed(live, deposited)
        event, artifacts = deposited
        if refused := self._refused(event):
            return self._failed(live, refused)
        self._artifacts += artifacts
        self._kept = self._kept.with_more(event.output, event.artifacts)
        return event

    def _refused(self, event: AttemptSucceeded) -> Failed | None:
        """Why the variables that a task sets cannot be set."""
        if not event.variables:
            return None
        values = msgspec.json.decode(event.variables, type=dict[str, msgspec.Raw])
        problem = self._run.bodies.refusal(event.task_id, values, self._with.settings.control_limits)
        if not problem:
            return None
        error = AttemptError(
            "BAD_VARIABLE",
            problem,
            retryable=False,
            endpoint=event.endpoint,
            model=event.model,
            usage=event.usage,
        )
        return Failed(error, problem)

    def _failed(self, live: LiveAttempt, result: Failed) -> Event:
        return failing(live, result, self._run, self._with, now=self._now())

    # ------------------------------------------------------------------------------------------------- outputs

    async def _fetch(self, artifact: Artifact) -> bytes:
        return await patiently(
            self._with.ledger.artifact_bytes, self.job_id, artifact.id, offset=0, size=artifact.size_bytes
        )

    # -------------------------------------------------------------------------------------------------- commit

    def _now(self) -> int:
        return self._with.clock.now()

    def _record(self, event: Event) -> None:
        self._uncommitted.append(self._run.record(event, time=self._now()))

    async def _commit(self) -> None:
        """Make durable what was recorded, then show it."""
        recorded, self._uncommitted = self._uncommitted, []
        pieces = list(chunks(recorded))
        for index, chunk in enumerate(pieces):
            frame = frames.encode(chunk)
            whole = index == len(pieces) - 1
            settlement = self._budgets.settlement()
            await patiently(
                self._with.ledger.append,
                Append(
                    job_id=self.job_id,
                    token=self.token,
                    frame=frame,
                    progress=self._run.progress,
                    started_at=self._run.started_at if self._summary.started_at is None else None,
                    entered=self._entered(chunk),
                    artifacts=tuple(self._artifacts),
                    ending=self._ending() if frame.terminal else None,
                    release=whole and self._released,
                    spent=settlement.spent,
                    settled=settlement.settled,
                ),
            )
            self._budgets.committed()
            self._artifacts.clear()
            self._summary = msgspec.structs.replace(
                self._summary,
                state=self._entered(chunk) or self._summary.state,
                started_at=self._run.started_at,
                ended_at=self._run.ended_at if frame.terminal else None,
                progress=self._run.progress,
                last_sequence=frame.last,
                error=self._run.error,
            )
            self._with.broadcast.publish(self.job_id, frame)
            self._with.observer.committed(self._summary, chunk, traceparent=self._claim.traceparent)
            self._tell(chunk)

    def _tell(self, chunk: list[Recorded]) -> None:
        """Wake those who follow all jobs, and those who deliver records."""
        if self._entered(chunk) is not None:
            self._with.journal.wake()
        if self._summary.state.terminal:
            for bell in self._with.sinks.values():
                bell.ring()

    def _entered(self, chunk: list[Recorded]) -> JobState | None:
        match chunk[-1].event:
            case JobReleased():
                return JobState.QUEUED if self._run.state is JobState.QUEUED else None
            case JobPaused():
                return JobState.PAUSED
            case JobResumed(held=held):
                # Written by a holder of the job, which the ledger does not call QUEUED.
                return JobState.RUNNING if held else None
        if self._run.state is not None and self._run.state.terminal and chunk[-1].sequence == self._run.sequence:
            return self._run.state
        return JobState.RUNNING if isinstance(chunk[0].event, JobStarted) else None

    def _ending(self) -> Ending:
        execution_id = self._with.new_id()
        state, ended_at = self._run.state, self._run.ended_at
        assert state is not None and ended_at is not None  # noqa: S101, PT018  the terminal event was just recorded
        record = compose(
            self._summary,
            self._plan,
            self._run,
            record_id=self._with.new_id(),
            execution_id=execution_id,
            runner_id=self._with.runner_id,
            trace_id=trace_id_of(self._claim.traceparent),
        )
        return Ending(state, self._run.error, execution_id, seal(record), ended_at, tuple(self._with.sinks))


def _signal(event: TaskSignalled | None) -> Signal | None:
    return None if event is None else Signal(*msgspec.structs.astuple(event))


def _is_due(moment: float) -> bool:
    """Whether a moment of the monotonic clock has come, give or take a hair: floats that waited for it may miss it."""
    return anyio.current_time() >= moment - 0.001
