"""Descriptors inside of descriptors: what a task of kind `job` runs is checked together with the file that holds it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from runner.core.alt.dialect import JOB, Draft
from runner.core.alt.report import Path, Report, Unreadable, shown
from runner.core.plan import Plan, TaskPlan
from runner.core.quoting import unquoted
from runner.core.references import Reference, Root, is_reference, required_inputs, scan

#: Reads and checks a descriptor that was parsed; None if there is no plan in it. May raise Unreadable.
Read = Callable[[Any, Report], Plan | None]


def check_children(draft: Draft, report: Report, read: Read) -> None:
    """Report all that is wrong with the descriptors that tasks run as jobs, each at its place in the file.

    One that a reference brings is checked when the task submits it.
    """
    for index, task in enumerate(draft.plan.tasks):
        if task.kind == JOB:
            _check_child(task, lambda *path, index=index: draft.locate_parameter(index, path), report, read)


def _check_child(task: TaskPlan, at: Callable[..., Path], report: Report, read: Read) -> None:
    for place, found in scan(task.parameters):
        if isinstance(found, Reference) and found.root is Root.SECRETS:
            message = (
                f"The secret `{shown(found.name)}` would be stored with the job that this task submits; refer to it"
                " inside of `descriptor` instead, where it is looked up at the moment of the call."
            )
            report.error("SECRET_STORED", at(*place), message)
    written = task.parameters.get("descriptor")
    if isinstance(written, str) and not is_reference(written):
        message = "`descriptor` must be an object, or one reference that brings a descriptor."
        report.error("BAD_TYPE", at("descriptor"), message)
    elif isinstance(written, dict):
        plan = _read(written, at("descriptor"), report, read)
        if plan is not None:
            _check_inputs(task, plan, at, report)


def _read(written: dict[str, Any], path: Path, report: Report, read: Read) -> Plan | None:
    """The child's plan, if nothing is wrong with it."""
    part = Report(report.limits)
    plan: Plan | None = None
    with suppress(Unreadable):
        plan = read(unquoted(written), part)
    report.adopt(part, path)
    return None if part.errors else plan


def _check_inputs(task: TaskPlan, plan: Plan, at: Callable[..., Path], report: Report) -> None:
    passed = task.parameters.get("inputs")
    if passed is not None and not isinstance(passed, dict):
        return
    for name in sorted(required_inputs(plan) - (passed or {}).keys()):
        message = f"The descriptor refers to `${{inputs.{shown(name)}}}`; pass it in `inputs`."
        report.error("MISSING_INPUT", at("descriptor" if passed is None else "inputs"), message)
