"""Descriptors inside of descriptors: what a task of kind `job` runs is checked together with the file that holds it.

However deep they are, each part of the file is looked at once: where a descriptor is read, those inside of it are taken
out before, and read after it.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

import msgspec

from runner.core.alt.dialect import JOB, Draft
from runner.core.alt.report import Path, Report, Unreadable, shown
from runner.core.plan import Plan, TaskPlan
from runner.core.quoting import unquoted
from runner.core.references import Reference, Root, is_reference, required_inputs, scan

#: Reads and checks a descriptor that was parsed; None if there is no plan in it. May raise Unreadable.
Read = Callable[[Any, Report], Plan | None]

#: Stands for a descriptor that was taken out: what a reference brings is not looked at.
_TAKEN: Final = "${job.id}"


class _Child(msgspec.Struct, frozen=True):
    """A descriptor within a task."""

    written: dict[str, Any]
    #: What the task passes as `inputs`.
    passed: Any
    #: Where it stands, and where `inputs` do.
    path: Path
    inputs_path: Path


def check_children(draft: Draft, report: Report, read: Read) -> None:
    """Report all that is wrong with the descriptors that tasks run as jobs, each at its place in the file.

    One that a reference brings is checked when the task submits it.
    """
    for index, task in enumerate(draft.plan.tasks):
        if task.kind == JOB:
            _check_task(task, lambda *path, index=index: draft.locate_parameter(index, path), report, read)


def _check_task(task: TaskPlan, at: Callable[..., Path], report: Report, read: Read) -> None:
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
        first = _Child(unquoted(written), task.parameters.get("inputs"), at("descriptor"), at("inputs"))
        _check_with_all_inside(first, report, read)


def _check_with_all_inside(first: _Child, report: Report, read: Read) -> None:
    waiting = [first]
    while waiting:
        child = waiting.pop()
        raw, inside = _taken_apart(child)
        waiting += inside
        plan: Plan | None = None
        part = Report(report.limits)
        with suppress(Unreadable):
            plan = read(raw, part)
        report.adopt(part, child.path)
        if plan is not None and not part.errors:
            _check_inputs(child, plan, report)


def _check_inputs(child: _Child, plan: Plan, report: Report) -> None:
    passed = child.passed
    if passed is not None and not isinstance(passed, dict):
        return
    for name in sorted(required_inputs(plan) - (passed or {}).keys()):
        message = f"The descriptor refers to `${{inputs.{shown(name)}}}`; pass it in `inputs`."
        report.error("MISSING_INPUT", child.path if passed is None else child.inputs_path, message)


# -------------------------------------------------------------------------------------------------- taking apart


def _taken_apart(child: _Child) -> tuple[dict[str, Any], list[_Child]]:
    """The descriptor without those inside of it, and these. What is not of a dialect's shape stays where it is."""
    raw, inside = dict(child.written), list[_Child]()
    for key, take_out in _TAKE_OUT.items():
        listed = child.written.get(key)
        if not isinstance(listed, list):
            continue
        raw[key] = listed.copy()
        for index, row in enumerate(listed):
            taken = take_out(row) if isinstance(row, dict) else None
            if taken is not None:
                raw[key][index], inner = taken
                path = (*child.path, key, index)
                inside.append(_Child(inner.written, inner.passed, (*path, *inner.path), (*path, *inner.inputs_path)))
    return raw, inside


#: A row without its descriptor, and that, at its path in the row.
_Taken = tuple[dict[str, Any], _Child]


def _from_task(row: dict[str, Any]) -> _Taken | None:
    held = row.get("parameters")
    return _from_object(row, "parameters") if isinstance(held, dict) and held.get("task_type") == JOB else None


def _from_node(row: dict[str, Any]) -> _Taken | None:
    return _from_object(row, "config") if row.get("piece_type") == JOB else None


def _from_object(row: dict[str, Any], field: str) -> _Taken | None:
    held = row.get(field)
    written = held.get("descriptor") if isinstance(held, dict) else None
    if not isinstance(held, dict) or not isinstance(written, dict):
        return None
    child = _Child(written, held.get("inputs"), (field, "descriptor"), (field, "inputs"))
    return {**row, field: {**held, "descriptor": _TAKEN}}, child


def _from_segment(row: dict[str, Any]) -> _Taken | None:
    held = row.get("parameters")
    if row.get("task_type") != JOB or not isinstance(held, list):
        return None
    named = {each.get("name"): place for place, each in enumerate(held) if _is_parameter(each)}
    place, inputs = named.get("descriptor"), named.get("inputs")
    written = None if place is None else held[place].get("value")
    if place is None or not isinstance(written, dict):
        return None
    passed = None if inputs is None else held[inputs].get("value")
    path, inputs_path = (("parameters", at, "value") for at in (place, place if inputs is None else inputs))
    without = [*held[:place], {**held[place], "value": _TAKEN}, *held[place + 1 :]]
    return {**row, "parameters": without}, _Child(written, passed, path, inputs_path)


def _is_parameter(value: Any) -> bool:
    return isinstance(value, dict) and isinstance(value.get("name"), str)


_TAKE_OUT: Final[dict[str, Callable[[dict[str, Any]], _Taken | None]]] = {
    "tasks": _from_task,
    "segments": _from_segment,
    "nodes": _from_node,
}
