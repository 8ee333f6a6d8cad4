"""What holds for the job of every plan that was accepted: it can be played to its end, and replayed to the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from runner.core.control import ControlLimits
from runner.core.events import AttemptStarted, AttemptSucceeded, Event, JobAccepted, JobStarted, Recorded
from runner.core.interpreter import JobRun
from runner.core.plan import Plan

#: So that hostile loops end soon.
_LIMITS: Final = ControlLimits(max_rounds=4, max_depth=12, max_tasks=300, max_variable_bytes=1_000)
#: Events after which a job has been looked at for long enough.
_MOST_EVENTS: Final = 400
_INPUTS: Final[dict[str, Any]] = {"x": [{"k": 1}, 2]}
_OUTPUTS: Final = (b"null", b"[1,2]", b'{"k":{"x":1}}', b'"x"', b"true", b"3")


def play(plan: Plan, stored: Plan, hold: Callable[[bool, str], None]) -> None:
    """Run the plan with tasks that all succeed; `stored` is the same plan, read from its bytes.

    `hold` is told each promise, and whether it holds.
    """
    run = JobRun(plan, job_id="fuzz", inputs=_INPUTS)
    history: list[Recorded] = []

    def record(event: Event) -> None:
        history.append(run.record(event, time=0))

    record(JobAccepted(plan.title, len(plan.tasks), "default", plan.priority))
    record(JobStarted("fuzz", 1))
    while len(history) < _MOST_EVENTS:
        history += run.settle(now=0, max_lost=3, limits=_LIMITS)
        ready = [task.plan.id for task in run.runnable(0)]
        for task_id in ready[: _MOST_EVENTS // 4]:
            record(AttemptStarted(task_id, 1, "fuzz"))
            record(AttemptSucceeded(task_id, attempt=1, output=_OUTPUTS[len(history) % len(_OUTPUTS)]))
        if not ready and run.next_wakeup(settled=0) is None:
            hold(run.state is not None and run.state.terminal, f"the job stands still: {run.counts}")
            break
    again = JobRun(stored, job_id="fuzz", inputs=_INPUTS).replay(history)
    hold(again.counts == run.counts and again.state is run.state, "the stored plan is replayed to another state")
    hold([*again.tasks] == [*run.tasks], "the stored plan is replayed to other tasks")
    hold(0 <= run.progress <= 1, f"a progress of {run.progress}")
