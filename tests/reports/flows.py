"""Jobs with control flow, run to their ends in no time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from runner.core.events import (
    AttemptParked,
    AttemptStarted,
    AttemptSucceeded,
    Failure,
    JobAccepted,
    JobStarted,
    Recorded,
    TaskFailed,
    TaskReused,
    TaskSignalled,
    TaskState,
    WaitReason,
)
from runner.core.interpreter import JobRun
from runner.core.last import compose
from runner.core.plan import (
    Branch,
    Call,
    Condition,
    Control,
    ForEach,
    Function,
    Instant,
    Operator,
    Parameter,
    Plan,
    Priority,
    TaskPlan,
    Value,
    Variable,
    While,
)
from runner.core.record import LastRecord
from tests.reports.conftest import START, summary_of

BROKEN: Final = Failure("BAD_TICKET", "this ticket cannot be read")
#: Milliseconds that an attempt takes.
_LASTS: Final = 7
#: Microseconds.
MINUTE: Final = 60_000_000
YEAR: Final = 365 * 24 * 60 * MINUTE


def step(name: str, *dependencies: str, control: Control | None = None, kind: str = "delay", **more: Any) -> TaskPlan:
    word = kind if control is None else str(type(control).__struct_config__.tag)
    return TaskPlan(
        id=name, kind=word, description=f"do {name}", dependencies=dependencies, control=control, retries=0, **more
    )


def triage(parallel: int = 16) -> Plan:
    """For each ticket a call, and then a condition with a branch on either side."""
    condition = Condition(Operator.GTE, Value("${variables.ticket.severity}"), Value(3))
    rounds = (
        step("rate", control=Call(function="score", arguments={"of": "${variables.ticket.severity}"})),
        step("urgent", "rate", control=Branch(condition=condition, then=(step("page"),), otherwise=(step("file"),))),
    )
    items = Value("${inputs.tickets}")
    loop = ForEach(variable="ticket", items=items, body=rounds, parallel=parallel)
    return Plan(
        alt_id="triage",
        dialect="segments",
        version="2.0",
        title="Triage",
        created_at=START,
        has_variables=True,
        variables=(Variable(name="n", value=0),),
        functions=(Function(name="score", parameters=(Parameter(name="of"),), body=(step("weigh"),)),),
        tasks=(step("fetch"), step("each_ticket", "fetch", control=loop), step("report", "each_ticket")),
    )


def counting(rounds: int) -> Plan:
    """A `while` that goes on until `again` has run often enough."""
    loop = While(
        variable="round",
        condition=Condition(Operator.LT, Value("${variables.n}"), Value(rounds)),
        body=(step("again"),),
    )
    return msgspec.structs.replace(triage(), functions=(), tasks=(step("until", control=loop),))


def tickets(count: int) -> dict[str, Any]:
    return {"tickets": [{"id": f"T-{number}", "severity": number % 4 + 1} for number in range(count)]}


def ran(
    plan: Plan, inputs: dict[str, Any], *, fails: Callable[[str], bool] = lambda _: False
) -> tuple[JobRun, list[Recorded]]:
    """The job after its last event, and all events; each attempt takes some milliseconds."""
    run = JobRun(plan, inputs=inputs)
    events = [run.record(JobAccepted(plan.title, len(plan.tasks), "default", Priority.HIGH), time=START - 812_000)]
    events.append(run.record(JobStarted("runner-7f", 1), time=START))
    now = START
    while run.state is not None and not run.state.terminal:
        events += run.settle(now=now, max_lost=3)
        ready = [task.plan.id for task in run.runnable(now)][:16]
        events += [run.record(AttemptStarted(name, 1, "delay"), time=now) for name in ready]
        now += _LASTS * 1_000
        for name in ready:
            if run.tasks[name].state is TaskState.RUNNING:
                ended = TaskFailed(name, attempt=1, failure=BROKEN) if fails(name) else _done(name, run)
                events.append(run.record(ended, time=now))
    return run, events


def _done(name: str, run: JobRun) -> AttemptSucceeded:
    counted = name.endswith("/again")
    variables = msgspec.json.encode({"n": len(run.tasks) - 1}) if counted else b""
    return AttemptSucceeded(name, attempt=1, output=b'{"text":"done"}', variables=variables)


def recorded(plan: Plan, inputs: dict[str, Any], *, fails: Callable[[str], bool] = lambda _: False) -> LastRecord:
    """The record that the job left."""
    run, _ = ran(plan, inputs, fails=fails)
    return compose(
        summary_of(plan), plan, run, record_id="r", execution_id="x", runner_id="runner-7f", trace_id="4bf92f3577b34da6"
    )


def asking(count: int) -> LastRecord:
    """A loop over tickets, of which those that are urgent are asked about: for each a minute's wait for an answer."""
    condition = Condition(Operator.GTE, Value("${variables.ticket.severity}"), Value(3))
    ask = step("ask", kind="approval")
    rounds = (step("urgent", control=Branch(condition=condition, then=(ask,), otherwise=())),)
    loop = ForEach(variable="ticket", items=Value("${inputs.tickets}"), body=rounds)
    plan = msgspec.structs.replace(triage(), functions=(), tasks=(step("fetch"), step("each", "fetch", control=loop)))
    run = JobRun(plan, inputs=tickets(count))
    run.record(JobAccepted(plan.title, len(plan.tasks), "default", Priority.HIGH), time=START - 812_000)
    run.record(TaskReused("fetch", output=b"1", job_id="earlier"), time=START - 812_000)
    run.record(JobStarted("runner-7f", 1), time=START)
    now = START
    while run.state is not None and not run.state.terminal:
        run.settle(now=now, max_lost=3)
        for name in [task.plan.id for task in run.runnable(now)]:
            now = _answered(run, name, now)
    return compose(summary_of(plan), plan, run, record_id="r", execution_id="x", runner_id="runner-7f", trace_id="t")


def _answered(run: JobRun, name: str, now: Instant) -> Instant:
    """The time after a task has asked, has been answered a minute later and has ended."""
    asks = AttemptParked(name, attempt=1, reason=WaitReason.AWAITING_APPROVAL, until=now + YEAR, message="Page them?")
    approved = name.startswith("each[2]")
    output = {"approved": approved, "by": "ayşe", "comment": "go" if approved else "", "data": None}
    for lasts, event in (
        (0, AttemptStarted(name, 1, "approval")),
        (1_000, asks),
        (MINUTE, TaskSignalled(name, approved=approved, sender="ayşe")),
        (0, AttemptStarted(name, 2, "approval")),
        (1_000, AttemptSucceeded(name, attempt=2, output=msgspec.json.encode(output))),
    ):
        now += lasts
        run.record(event, time=now)
    return now
