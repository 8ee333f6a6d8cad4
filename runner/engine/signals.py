"""Answers of people to tasks, checked before they are kept."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Final

import msgspec

from runner.core.alt.dialect import APPROVAL
from runner.core.findings import Finding
from runner.core.interpreter import JobRun
from runner.core.job import Signal
from runner.core.plan import ForEach, ForRange, Plan, TaskId, planned

MAX_COMMENT: Final = 1_000
#: Tasks that a refusal names.
MAX_NAMED: Final = 10
MAX_SENDER: Final = 255
#: Bytes.
MAX_DATA: Final = 64 * 1024


def signal_problems(signal: Signal, plan: Plan, run: JobRun | None) -> list[Finding]:
    """Everything that is wrong with an answer to a task of this plan.

    `run` tells which rounds of loops there are; it may be None for a plan without bodies.
    """
    problems = []
    task = planned(plan, signal.task_id)
    if task is None or (run is not None and never_comes(run, signal.task_id)):
        told = "now" if run is not None else "now or later"
        waiting = ", ".join(f"`{task_id}`" for task_id in islice(_asking(plan, run), MAX_NAMED)) or "none"
        message = f"the job has no such task; waiting for approval, {told}: {waiting}"
        problems.append(Finding("UNKNOWN_TASK", "task_id", message))
    elif task.kind != APPROVAL:
        message = f"a task of kind `{task.kind}` asks for no approval"
        problems.append(Finding("NOT_AN_APPROVAL", "task_id", message))
    for name, value, limit in (("comment", signal.comment, MAX_COMMENT), ("sender", signal.sender, MAX_SENDER)):
        if len(value) > limit:
            problems.append(Finding("TOO_LONG", name, f"at most {limit} characters; it has {len(value)}"))
        if "\0" in value:
            problems.append(Finding("BAD_NAME", name, "no text holds a NUL"))
    if len(signal.data) > MAX_DATA:
        problems.append(Finding("TOO_LONG", "data_json", f"at most {MAX_DATA} bytes; it has {len(signal.data)}"))
    elif signal.data:
        try:
            msgspec.json.decode(signal.data)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            problems.append(Finding("BAD_TYPE", "data_json", f"not JSON: {error}"))
    return problems


def _asking(plan: Plan, run: JobRun | None) -> Iterator[TaskId]:
    if run is None:
        return (task.id for task in plan.tasks if task.kind == APPROVAL)
    waiting = (task for task in run.tasks.values() if task.plan.kind == APPROVAL and not task.state.terminal)
    return (task.plan.id for task in waiting if task.signal is None)


def never_comes(run: JobRun, task_id: TaskId) -> bool:
    """True if no body that may still begin asks this: what runs it has ended, or has fewer rounds, or it is reused."""
    if task_id in run.promises:
        return True
    if task_id in run.tasks:
        return False
    *outer, _ = task_id.split("/")
    path = ""
    for step in outer:
        name, _, round_ = step.partition("[")
        control = run.tasks.get(path + name)
        if control is None:
            return False
        known = run.bodies.control(path + name).items
        loop = isinstance(control.plan.control, ForEach | ForRange)
        if control.state.terminal or (loop and known is not None and int(round_.rstrip("]")) >= len(known)):
            return True
        path = f"{path}{step}/"
    return False
