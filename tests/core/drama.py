"""A runner that is played: generated plans, generated luck, and a death after any event."""

from __future__ import annotations

import random
from typing import Any, Final

import msgspec
from hypothesis import strategies as st

from runner.core.events import (
    AttemptFailed,
    AttemptOutput,
    AttemptParked,
    AttemptProgressed,
    AttemptStarted,
    AttemptSucceeded,
    Event,
    Failure,
    JobAccepted,
    JobCancelling,
    JobPaused,
    JobReleased,
    JobResumed,
    JobStarted,
    JobState,
    Recorded,
    TaskFailed,
    TaskReused,
    TaskSignalled,
    TaskTimedOut,
    WaitReason,
)
from runner.core.interpreter import JobRun
from runner.core.plan import Instant, Plan, Priority, TaskPlan
from runner.core.runs import DEADLINE_EXCEEDED, TaskRun

SECOND: Final = 1_000_000
START: Final = 1_767_225_600 * SECOND
MAX_LOST: Final = 3
#: What a task of this kind does when it succeeds: it sets the variable `count` to one more.
COUNTS: Final = "counts"


def plan_of(*tasks: TaskPlan, **more: Any) -> Plan:
    return Plan(alt_id="alt", dialect="tasks", version="1.0", title="Özet", tasks=tasks, created_at=START, **more)


def task(name: str, *dependencies: str, **more: Any) -> TaskPlan:
    return TaskPlan(id=name, description=f"do {name}", kind="ai_prompt", dependencies=dependencies, **more)


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Graphs without cycles: a task depends on earlier ones alone; then their places are shuffled."""
    count = draw(st.integers(1, 30))
    density = draw(st.sampled_from((0.0, 0.05, 0.2, 0.6)))
    luck = random.Random(draw(st.integers(0, 2**32)))  # noqa: S311  no secret
    tasks = [
        task(
            f"t{index}",
            *(f"t{earlier}" for earlier in range(index) if luck.random() < density),
            retries=luck.choice((0, 0, 1, 3)),
            priority=luck.choice((None, *Priority)),
            weight=luck.choice((1.0, 0.1, 7.5)),
        )
        for index in range(count)
    ]
    luck.shuffle(tasks)
    return plan_of(*tasks, fail_fast=draw(st.booleans()), priority=draw(st.sampled_from(Priority)))


class Driver:
    """Plays the runner: commits event by event, dies after any of them, and begins again from what was committed."""

    def __init__(self, plan: Plan, luck: random.Random, *, deadline: Instant | None, steady_clock: bool) -> None:
        self.plan, self.luck, self.deadline, self.steady_clock = plan, luck, deadline, steady_clock
        self.now = START
        self.history: list[Recorded] = []
        self.run = JobRun(plan, deadline=deadline)
        self.token = 0
        self.max_lost = MAX_LOST
        #: What a job that this one retries has done.
        self.taken_over: list[TaskReused] = []
        #: Whether a runner has the job; nobody else may write its events, but for pauses while there is none.
        self.held = False
        #: Chance of each mishap; none after a while, so that every job ends.
        self.mishaps = luck.choice((0.0, 0.02, 0.1))
        self.sickness = luck.choice((0.0, 0.2, 0.6))
        self.cancel_chance = luck.choice((0.0, 0.0, 0.05))
        self.pause_chance = luck.choice((0.0, 0.0, 0.02, 0.2))
        self.progress: list[float] = []

    def play(self) -> list[Recorded]:
        self.commit(JobAccepted("Özet", len(self.plan.tasks), "default", self.plan.priority))
        for event in self.taken_over:
            self.commit(event)
        if not self.taken_over and self.luck.random() < 0.2:
            self.reuse()
        for turn in range(3_000):
            if turn == 200:
                self.mishaps = self.sickness = self.pause_chance = 0.0
            if self.run.state is not None and self.run.state.terminal:
                return self.history
            if self.held:
                self.turn()
            else:
                self.wait()
        raise AssertionError("the job does not end")

    def turn(self) -> None:
        self.pass_time()
        self.go_on()
        self.steer()
        if not self.held:
            return
        if self.run.cancelling is None and self.luck.random() < self.cancel_chance:
            self.commit(JobCancelling("enough"))
        if self.luck.random() < 0.2:
            self.answer()
        before = self.run.sequence
        settled = self.run.settle(now=self.now, max_lost=self.max_lost)
        assert [entry.sequence for entry in settled] == list(range(before + 1, self.run.sequence + 1))
        # A crash may keep any beginning of what one round recorded.
        kept = settled if self.luck.random() >= self.mishaps else settled[: self.luck.randint(0, len(settled))]
        self.history += kept
        self.progress.append(self.run.progress)
        if len(kept) < len(settled):
            self.crash()
            return
        for ready in list(self.run.runnable(self.now)):
            if self.mishap():
                break
            if self.luck.random() < 0.6:
                self.commit(AttemptStarted(ready.plan.id, len(ready.attempts) + 1, "fake"))

    def go_on(self) -> None:
        """What runs tells how far it is, or ends."""
        for running in [self.run.tasks[task_id] for task_id in self.run.running]:
            if self.mishap():
                break
            if self.luck.random() < 0.5:
                self.commit(self.outcome(running))

    def wait(self) -> None:
        """Nobody has the job: it is paused, resumed, or taken; a paused one only to be ended."""
        self.pass_time()
        if self.run.state is JobState.PAUSED:
            if self.run.cancelling is not None or self.run.expired(self.now):
                self.take()
            else:
                self.commit(JobPaused() if self.luck.random() < self.pause_chance else JobResumed(held=False))
        elif self.luck.random() < self.pause_chance:
            self.commit(JobPaused())
        else:
            self.take()

    def steer(self) -> None:
        """Perhaps pause the job or let it go on; let go of it once nothing of it runs."""
        if not self.held:
            return
        if self.run.state is JobState.RUNNING and self.luck.random() < self.pause_chance:
            self.commit(JobPaused())
        elif self.run.state is JobState.PAUSED and self.luck.random() < 0.3:
            self.commit(JobResumed(held=True))
        if self.run.state is JobState.PAUSED and not self.run.running and self.luck.random() < 0.7:
            self.commit(JobReleased("r", "paused"))
            self.held = False

    def reuse(self) -> None:
        """The job retries another, in which some tasks succeeded, and with them all that they depend on."""
        reused: set[str] = set()
        for plan in sorted(self.plan.tasks, key=lambda plan: int(plan.id[1:])):
            if plan.control is None and reused.issuperset(plan.dependencies) and self.luck.random() < 0.5:
                self.commit(TaskReused(plan.id, output=b"1", job_id="earlier"))
                reused.add(plan.id)

    def answer(self) -> None:
        """Somebody answers a task, whether it waits for that or not."""
        task = self.run.tasks[self.luck.choice(self.plan.tasks).id]
        if not task.state.terminal and task.signal is None:
            self.commit(TaskSignalled(task.plan.id, approved=self.luck.random() < 0.5))

    def pass_time(self) -> None:
        self.now += self.luck.randint(0, 2 * SECOND)
        wakeup = self.run.next_wakeup(settled=self.now)
        if not self.run.running and wakeup is not None and self.luck.random() < 0.7:
            self.now = max(self.now, wakeup)
        if not self.steady_clock and self.luck.random() < 0.1:
            self.now -= self.luck.randint(0, 60 * SECOND)

    def outcome(self, running: TaskRun) -> Event:
        name, number = running.plan.id, len(running.attempts)
        succeeded = AttemptSucceeded(name, attempt=number, output=b'{"a":1}', variables=self.variables(running))
        failure = Failure("HTTP_STATUS", "500")
        if self.run.expired(self.now):
            late = Failure(DEADLINE_EXCEEDED, "late")
            return self.luck.choice((TaskTimedOut(name, attempt=number, failure=late), succeeded))
        if self.luck.random() >= self.sickness:
            return self.luck.choice(
                (
                    succeeded,
                    AttemptProgressed(name, number, fraction=self.luck.uniform(-0.5, 1.5)),
                    AttemptProgressed(name, number, completed=self.luck.randint(0, 5), total=self.luck.randint(0, 5)),
                    AttemptOutput(name, number, running.attempts[-1].streamed, "şeker"),
                )
            )
        if self.luck.random() < 0.3:
            until = self.now + self.luck.randint(1, 90 * SECOND)
            return AttemptParked(name, attempt=number, reason=self.luck.choice(tuple(WaitReason)), until=until)
        if running.failures < (running.plan.retries or 0):
            retry_at = self.now + self.luck.randint(1, 90 * SECOND)
            return AttemptFailed(name, attempt=number, failure=failure, retry_at=retry_at)
        if self.luck.random() < 0.5:
            return TaskTimedOut(name, attempt=number, failure=Failure("TIMED_OUT", "slow"))
        return TaskFailed(name, attempt=number, failure=failure)

    def variables(self, running: TaskRun) -> bytes:
        """What a task sets when it succeeds."""
        if running.plan.kind != COUNTS:
            return b""
        return msgspec.json.encode({"count": self.run.bodies.variables(running.plan.id).read("count") + 1})

    def mishap(self) -> bool:
        """Perhaps lose the job: given back in order, or without a word."""
        if self.luck.random() >= self.mishaps:
            return False
        if self.luck.random() < 0.3:
            self.commit(JobReleased("r", "shutdown"))
            self.held = False
        else:
            self.crash()
        return True

    def crash(self) -> None:
        self.run = JobRun(self.plan, deadline=self.deadline).replay(self.history)
        self.held = False

    def take(self) -> None:
        self.token += 1
        self.held = True
        self.commit(JobStarted("r", self.token))

    def commit(self, event: Event) -> None:
        self.history.append(self.run.record(event, time=self.now))
        self.progress.append(self.run.progress)


def played(plans: st.SearchStrategy[Plan]) -> st.SearchStrategy[Driver]:
    """Such plans, each with a runner's luck."""
    return st.builds(
        lambda plan, seed, within, steady: Driver(
            plan,
            random.Random(seed),  # noqa: S311  no secret
            deadline=None if within is None else START + within * SECOND,
            steady_clock=steady,
        ),
        plans,
        st.integers(0, 2**32),
        st.none() | st.integers(1, 120),
        st.booleans(),
    )


dramas = played(plans())


def view(run: JobRun) -> tuple[Any, ...]:
    """All that the outside can see of a job."""
    return (
        run.state,
        run.sequence,
        run.token,
        run.started_at,
        run.ended_at,
        run.error,
        run.cancelling,
        run.tasks,
        run.counts,
        run.running,
        run.progress,
        run.failed,
        run.stopping,
        run.next_wakeup(settled=START),
        {ready.plan.id for ready in run.runnable(START + 3600 * SECOND)},
    )
