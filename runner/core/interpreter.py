"""(plan, events so far) → where the job stands, and what must or may happen next.

One fold serves the running job, recovery after a crash, and the `.last`. It is pure: the same plan and events give
the same state, on any replica, at any time. All bookkeeping is incremental, so that a job costs time linear in its
tasks and events.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Final

from runner.core.bodies import Bodies
from runner.core.control import DEFAULT_LIMITS, BodyRun, ControlLimits
from runner.core.events import (
    AttemptFailed,
    AttemptOutput,
    AttemptParked,
    AttemptProgressed,
    AttemptStarted,
    AttemptSucceeded,
    BodyStarted,
    ControlSucceeded,
    Event,
    Failure,
    JobCancelled,
    JobCancelling,
    JobEvent,
    JobFailed,
    JobPartiallySucceeded,
    JobReleased,
    JobStarted,
    JobState,
    JobSucceeded,
    Json,
    Recorded,
    TaskCancelled,
    TaskEvent,
    TaskFailed,
    TaskReused,
    TaskSignalled,
    TaskSkipped,
    TaskState,
    TaskTimedOut,
    WaitReason,
)
from runner.core.lifecycle import IN_HAND, TASK_TRANSITIONS, job_after
from runner.core.plan import Instant, JobId, Plan, Priority, Sequence, TaskId, TaskPlan
from runner.core.promises import Promises
from runner.core.runs import DEADLINE_EXCEEDED, AttemptRun, TaskRun, outcome_of
from runner.core.wakeups import Wakeups

LOST_TOO_OFTEN = "LOST_TOO_OFTEN"
#: Events, and bytes of outputs looked at, after which `settle` lets others have their turn.
MOST_AT_ONCE: Final = 1_000
MOST_LOOKED_AT: Final = 4 * 1024 * 1024


class JobRun:
    """A job's state: the fold of its events over its plan."""

    def __init__(
        self,
        plan: Plan,
        *,
        deadline: Instant | None = None,
        job_id: JobId = "",
        inputs: Mapping[str, Json] = MappingProxyType({}),
    ) -> None:
        self.plan = plan
        self.deadline = deadline
        self.state: JobState | None = None
        #: Number of the newest event.
        self.sequence: Sequence = 0
        #: Fencing token of the newest claim.
        self.token = 0
        self.started_at: Instant | None = None
        self.ended_at: Instant | None = None
        #: Set once the job is terminal, or once a task has failed: the first failure.
        self.error: Failure | None = None
        #: The reason given, once a cancellation is under way.
        self.cancelling: str | None = None
        #: All tasks so far: those of a body come into being when it begins.
        self.tasks: dict[TaskId, TaskRun] = {}
        self._dependents: dict[TaskId, list[TaskId]] = {}
        #: Tasks by state; every task is in exactly one.
        self.counts = dict.fromkeys(TaskState, 0)
        #: Insertion-ordered sets, one for each priority: the ready tasks in the order they became ready.
        self._ready: dict[Priority, dict[TaskId, None]] = {priority: {} for priority in reversed(Priority)}
        #: Tasks with an attempt under way.
        self.running: dict[TaskId, None] = {}
        #: Tasks with a dependency that will never succeed, and why; to be cancelled.
        self._doomed: dict[TaskId, str] = {}
        #: Tasks that were running when their runner was lost.
        self._lost: dict[TaskId, None] = {}
        self._wakeups = Wakeups()
        self._weight = sum(task.weight for task in plan.tasks) or 1.0
        self._done_weight = 0.0
        self.bodies = Bodies(plan, self.tasks, job_id=job_id, inputs=inputs)
        #: Control tasks that may have something to do.
        self._due: dict[TaskId, None] = {}
        #: Tasks of branches that are not taken, and why; to be skipped.
        self._untaken: dict[TaskId, str] = {}
        #: How much control tasks have looked at when `settle` ends.
        self._tired_at = 0
        #: What an earlier job has done already.
        self.promises = Promises()
        #: Tasks with an output, in the order in which they got it.
        self.succeeded: list[TaskId] = []
        for task_id in self._enter_body(plan.tasks, self.bodies.file):
            if not self.tasks[task_id].unmet:
                self._make_ready(self.tasks[task_id])

    def _enter_body(self, plans: tuple[TaskPlan, ...], body: BodyRun) -> list[TaskId]:
        """The tasks of a body come into being. Answers their ids."""
        named = self.bodies.enter(plans, body)
        for plan in named:
            self.tasks[plan.id] = TaskRun(plan=plan, index=len(self.tasks), unmet=len(plan.dependencies))
            self._dependents[plan.id] = []
        for plan in named:
            for dependency in plan.dependencies:
                self._dependents[dependency].append(plan.id)
        self.counts[TaskState.PENDING] += len(named)
        return [plan.id for plan in named]

    # ------------------------------------------------------------------------------------------------ the fold

    def record(self, event: Event, *, time: Instant) -> Recorded:
        """Give the event the next number and fold it in."""
        recorded = Recorded(self.sequence + 1, time, event)
        self.apply(recorded)
        return recorded

    def replay(self, history: Iterable[Recorded]) -> JobRun:
        """Fold in what happened before."""
        for recorded in history:
            self.apply(recorded)
        return self

    def apply(self, recorded: Recorded) -> None:
        """Fold one event in.

        Raises ValueError: if it does not follow the one before, or the tables of transitions do not know it here.
        """
        if recorded.sequence != self.sequence + 1:
            raise ValueError(f"event {recorded.sequence} does not follow event {self.sequence}")
        event = recorded.event
        if isinstance(event, JobEvent):
            self._apply_to_job(event, recorded.time)
        else:
            self._apply_to_task(event, recorded.time)
        self.sequence = recorded.sequence

    def _apply_to_job(self, event: JobEvent, time: Instant) -> None:
        after = job_after(self.state, event)
        if after is None:
            raise ValueError(f"{type(event).__name__} cannot happen to a job that is {self.state!r}")
        self.state = after
        match event:
            case JobStarted(lease_token=token):
                self.token = token
                self.started_at = time if self.started_at is None else self.started_at
                self._lose_running(event, time)
            case JobReleased():
                self._lose_running(event, time)
            case JobCancelling(reason=reason):
                self.cancelling = reason
            case JobFailed(error=error) | JobPartiallySucceeded(error=error):
                self.error = error
        if after.terminal:
            self.ended_at = time

    def _lose_running(self, event: JobEvent, time: Instant) -> None:
        for task_id in tuple(self.running):
            task = self.tasks[task_id]
            task.end_attempt("lost", time)
            if isinstance(event, JobStarted):
                task.lost += 1
                self._lost[task_id] = None
            self._enter(task, TASK_TRANSITIONS[task.state, type(event)])
            self._make_ready(task)

    def _apply_to_task(self, event: TaskEvent, time: Instant) -> None:
        if isinstance(event, TaskReused) and self.started_at is None and self.plan.has_variables:
            self._promise(event)
            return
        task = self.tasks[event.task_id]
        after = TASK_TRANSITIONS.get((task.state, type(event)))
        if after is None:
            raise ValueError(f"{type(event).__name__} cannot happen to task `{event.task_id}`, which is {task.state!r}")
        self._fold_attempt(task, event, time)
        self._enter(task, after)
        if after.terminal:
            task.ended_at = time
            self._doomed.pop(task.plan.id, None)
            self._set_fraction(task, 1.0)
            ended = self.bodies.leave(task, succeeded=after is TaskState.SUCCEEDED)
            if ended:
                self._due[ended] = None

    def _fold_attempt(self, task: TaskRun, event: TaskEvent, time: Instant) -> None:
        match event:
            case AttemptStarted(attempt=number, handler=handler):
                task.attempts.append(AttemptRun(number, handler, time))
                task.started_at = time if task.started_at is None else task.started_at
                task.wait_reason = task.waiting_until = None
                self._set_fraction(task, 0.0)
            case AttemptProgressed():
                self._progress(task, event)
            case AttemptOutput(offset=offset, text=text):
                task.attempts[-1].streamed = offset + len(text)
            case AttemptSucceeded():
                task.end_attempt("succeeded", time, event)
                self._succeed(task, event)
            case AttemptFailed():
                task.failures += 1
                task.failure = event.failure
                task.end_attempt(outcome_of(event.failure), time, event)
                self._wait(task, WaitReason.BACKING_OFF, event.retry_at)
            case AttemptParked():
                task.end_attempt("parked", time, event)
                task.message = event.message
                # Or the answer came while the attempt that asks for it was on its way.
                answered = event.reason is WaitReason.AWAITING_APPROVAL and task.signal is not None
                self._wait(task, event.reason, time if answered else event.until)
            case _:
                self._fold_task(task, event, time)

    def _fold_task(self, task: TaskRun, event: TaskEvent, time: Instant) -> None:
        match event:
            case TaskSignalled():
                self._signal(task, event)
            case TaskReused(job_id=job_id):
                task.reused_from = job_id
                self._succeed(task, self.promises.redeem(event))
            case BodyStarted():
                self._begin_body(task, event, time)
            case ControlSucceeded():
                self.bodies.take_result(task)
                self._release_dependents(task)
            case TaskFailed() | TaskTimedOut():
                self._fail(task, event, time)
            case TaskCancelled(reason=reason):
                task.end_attempt("cancelled", time, event)
                task.reason = reason
                self._doom_dependents(task, f"dependency `{task.plan.id}` was cancelled")
            case TaskSkipped(reason=reason):
                task.reason = reason

    def _promise(self, event: TaskReused) -> None:
        """Where tasks decide what others do, each counts in its turn; it may not even be there yet."""
        self.promises.keep(event)
        task = self.tasks.get(event.task_id)
        if task is not None and not task.unmet:
            self._ready[self._priority(task)].pop(event.task_id, None)
            self.promises.ready(event.task_id)

    def _succeed(self, task: TaskRun, event: AttemptSucceeded | TaskReused) -> None:
        task.output, task.output_artifact_id = event.output, event.output_artifact_id
        task.artifacts = event.artifacts
        task.failure = None
        self.succeeded.append(task.plan.id)
        task.variables = event.variables
        if event.variables:
            self.bodies.assign(task.plan.id, event.variables)
        self._release_dependents(task)

    def _begin_body(self, task: TaskRun, event: BodyStarted, time: Instant) -> None:
        task.started_at = time if task.started_at is None else task.started_at
        (body, plans), *skipped = self.bodies.begin(task, event)
        for task_id in self._enter_body(plans, body):
            if not self.tasks[task_id].unmet:
                self._make_ready(self.tasks[task_id])
        for aside, others in skipped:
            reason = f"`{task.plan.id}` took the other branch"
            self._untaken.update(dict.fromkeys(self._enter_body(others, aside), reason))

    def _release_dependents(self, task: TaskRun) -> None:
        for dependent in self._dependents[task.plan.id]:
            other = self.tasks[dependent]
            other.unmet -= 1
            if not other.unmet and other.state is TaskState.PENDING:
                self._make_ready(other)

    def _fail(self, task: TaskRun, event: TaskFailed | TaskTimedOut, time: Instant) -> None:
        task.failure = event.failure
        task.end_attempt(outcome_of(event.failure), time, event)
        if self.error is None:
            self.error = Failure(event.failure.reason, event.failure.message, task.plan.id)
        self._doom_dependents(task, f"dependency `{task.plan.id}` failed")

    def _doom_dependents(self, task: TaskRun, reason: str) -> None:
        for dependent in self._dependents[task.plan.id]:
            if not self.tasks[dependent].state.terminal:
                self._doomed.setdefault(dependent, reason)

    def _wait(self, task: TaskRun, reason: WaitReason, until: Instant) -> None:
        task.wait_reason, task.waiting_until = reason, until
        self._wakeups.add(task, until)

    def put_back(self, task: TaskRun, due: Instant) -> None:
        """Time alone ends the task's wait then, and not before."""
        self._wakeups.add(task, due)

    def _signal(self, task: TaskRun, event: TaskSignalled) -> None:
        task.signal = event
        if task.wait_reason is WaitReason.AWAITING_APPROVAL:
            self._make_ready(task)

    def _progress(self, task: TaskRun, event: AttemptProgressed) -> None:
        task.message = event.message or task.message
        fraction = event.fraction
        if fraction is None and event.completed is not None and event.total:
            fraction = event.completed / event.total
        if fraction is not None:
            # A handler that counts anew, or learns of a greater total, must not make the job's progress fall.
            self._set_fraction(task, min(1.0, max(task.fraction, fraction)))

    def _set_fraction(self, task: TaskRun, fraction: float) -> None:
        gained = task.plan.weight * (fraction - task.fraction)
        task.fraction = fraction
        body = self.bodies.place(task.plan.id)
        if body is self.bodies.file:
            self._done_weight += gained
        elif body.share:
            control = self.tasks[body.control]
            self._set_fraction(control, min(1.0, max(0.0, control.fraction + gained * body.share)))

    def _enter(self, task: TaskRun, state: TaskState) -> None:
        if state is task.state:
            return
        task_id = task.plan.id
        self.running.pop(task_id, None)
        self._ready[self._priority(task)].pop(task_id, None)
        if state is TaskState.RUNNING and task.plan.control is None:
            self.running[task_id] = None
        self.counts[task.state] -= 1
        self.counts[state] += 1
        task.state = state

    def _make_ready(self, task: TaskRun) -> None:
        if task.plan.control is not None:
            self._due[task.plan.id] = None
        elif task.plan.id in self.promises:
            self.promises.ready(task.plan.id)
        else:
            self._ready[self._priority(task)][task.plan.id] = None

    def _priority(self, task: TaskRun) -> Priority:
        return self.plan.priority if task.plan.priority is None else task.plan.priority

    # ------------------------------------------------------------------------------------------- what comes next

    @property
    def progress(self) -> float:
        """0–1: the weighted progress of the tasks."""
        return min(1.0, max(0.0, self._done_weight / self._weight))

    @property
    def failed(self) -> int:
        """Tasks that failed or timed out for good."""
        return self.counts[TaskState.FAILED] + self.counts[TaskState.TIMED_OUT]

    @property
    def stopping(self) -> str | None:
        """Why nothing new may start and what runs must stop, apart from the deadline; None while all is well."""
        if self.cancelling is not None:
            return f"job cancelled: {self.cancelling}" if self.cancelling else "job cancelled"
        if self.plan.fail_fast and self.error is not None:
            return f"task `{self.error.task_id}` failed (fail_fast)"
        return None

    def expired(self, now: Instant) -> bool:
        """Whether the job's deadline has passed."""
        return self.deadline is not None and now >= self.deadline

    def runnable(self, now: Instant, *, called: Collection[TaskId] = ()) -> Iterator[TaskRun]:
        """The tasks that may start now, most urgent first; before them, waiting ones that were `called`."""
        if self.state is not JobState.RUNNING or self.stopping is not None or self.expired(now):
            return
        for task in self._wakeups.take(now):
            self._make_ready(task)
        for task_id in called:
            if self.tasks[task_id].state is TaskState.WAITING:
                self._make_ready(self.tasks[task_id])
                yield self.tasks[task_id]
        for level in self._ready.values():
            for task_id in level:
                if task_id not in called:
                    yield self.tasks[task_id]

    def next_wakeup(self, *, settled: Instant) -> Instant | None:
        """When the next waiting task is due, or the deadline passes; None if time alone changes nothing.

        `settled` is the time of the last `settle`: a deadline that it saw needs no other waking, or whoever waits for
        tasks that take their time to stop would be woken without a pause.
        """
        if self.state is JobState.RUNNING and (self._due or self._untaken or self.promises.waiting):
            return settled
        # A paused job starts nothing: a task that is due would be a reason to wake for ever.
        due = self._wakeups.next() if self.state is not JobState.PAUSED else None
        end = self.deadline if not self.expired(settled) else None
        return min((time for time in (due, end) if time is not None), default=None)

    def settle(self, *, now: Instant, max_lost: int, limits: ControlLimits = DEFAULT_LIMITS) -> list[Recorded]:
        """Record what follows by itself: cancelled descendants, steps of control tasks, the job's end.

        Running attempts are never touched here: whoever runs them stops them and records how they ended. After some
        thousand events there may be more to settle; `next_wakeup` then tells that it is due.
        """
        if self.state not in IN_HAND:
            return []
        recorded = [self.record(event, time=now) for event in self._give_up_lost(max_lost)]
        self._tired_at = self.bodies.looked_at + MOST_LOOKED_AT
        while len(recorded) < MOST_AT_ONCE and self.bodies.looked_at <= self._tired_at:
            before = len(recorded)
            recorded += [self.record(event, time=now) for event in self._consequences(now, limits)]
            if len(recorded) > before:
                continue
            promised = self.promises.next(self.tasks) if self.state is JobState.RUNNING else None
            if promised is None:
                break
            recorded.append(self.record(promised, time=now))
        if self._open() == 0:
            recorded.append(self.record(self._end(now), time=now))
        return recorded

    def _consequences(self, now: Instant, limits: ControlLimits) -> Iterator[Event]:
        """One round of what follows by itself; each event is to be folded in before the next is asked for."""
        reason = self.stopping or ("the job's deadline passed" if self.expired(now) else None)
        if reason is not None:
            self._doomed.update(dict.fromkeys(self._unstarted(), reason))
        for task_id, why in tuple(self._doomed.items()):
            yield TaskCancelled(task_id, attempt=0, reason=why)
        for task_id, why in tuple(self._untaken.items()):
            del self._untaken[task_id]
            if self.tasks[task_id].state is TaskState.PENDING:
                yield TaskSkipped(task_id, why)
        for task_id in tuple(self._due):
            if self.bodies.looked_at > self._tired_at:
                return
            event = self._step(task_id, reason, limits)
            if event is None:
                del self._due[task_id]
            # While the job is paused, no body begins; it stays due.
            elif self.state is JobState.RUNNING or not isinstance(event, BodyStarted):
                yield event

    def _step(self, task_id: TaskId, reason: str | None, limits: ControlLimits) -> Event | None:
        """What a control task does next; once all stops, it ends as soon as its bodies have."""
        task = self.tasks[task_id]
        if task.state.terminal or (reason is not None and self.bodies.control(task_id).open):
            return None
        if reason is not None:
            return TaskCancelled(task_id, attempt=0, reason=reason)
        return self.bodies.step(task, limits)

    def _give_up_lost(self, max_lost: int) -> list[Event]:
        given_up: list[Event] = []
        for task_id in self._lost:
            task = self.tasks[task_id]
            if task.lost >= max_lost and task.state is TaskState.PENDING:
                message = f"{task.lost} runners were lost while they ran this task"
                given_up.append(TaskFailed(task_id, attempt=0, failure=Failure(LOST_TOO_OFTEN, message)))
        return given_up

    def _unstarted(self) -> list[TaskId]:
        return [task_id for task_id, task in self.tasks.items() if task.state in (TaskState.PENDING, TaskState.WAITING)]

    def _open(self) -> int:
        return self.counts[TaskState.PENDING] + self.counts[TaskState.RUNNING] + self.counts[TaskState.WAITING]

    def _end(self, now: Instant) -> Event:
        """The terminal event. In the very commit that ends the last task, so `now` decides about the deadline."""
        if self.cancelling is not None:
            return JobCancelled(self.cancelling)
        cancelled = self.counts[TaskState.CANCELLED]
        # Where nothing failed, it was the deadline that cancelled them, also when the clock was set back meanwhile.
        if (self.expired(now) and (self.failed or cancelled)) or (self.error is None and cancelled):
            return JobFailed(Failure(DEADLINE_EXCEEDED, "the job's deadline passed before all tasks had ended"))
        if self.error is None:
            return JobSucceeded()
        if self.counts[TaskState.SUCCEEDED] and not self.plan.fail_fast:
            return JobPartiallySucceeded(self.error)
        return JobFailed(self.error)
