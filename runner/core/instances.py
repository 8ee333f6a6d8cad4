"""What a record tells of control flow: of a control task what it did, of every other task which body it stands in."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from runner.core.control import ControlRun, name_of, prefix_of, short_value
from runner.core.events import BodyStarted
from runner.core.interpreter import JobRun
from runner.core.plan import Branch, Call, Control, ForEach, ForRange, TaskId, While


def told(run: JobRun) -> dict[TaskId, dict[str, Any]]:
    """By task, what stands in its metadata; a task of the file that controls nothing has none. Linear in the tasks.

    A control task has `control` (`condition`, `for_each`, `for_range`, `while`, `function_call`, `function_def`); a
    loop also `variable` and `rounds`, how many began; a condition `branch`, the one that it took; a call `function`.
    A task of a body has `body_of`, the control task, and `body` (`if`, `else`, `round`, `call`); in a loop also
    `round`, from 0, and the variable's `value`, where that is short.
    """
    found: dict[TaskId, dict[str, Any]] = {}
    bodies: dict[str, dict[str, Any]] = {}
    for task_id, task in run.tasks.items():
        control = task.plan.control
        if control is None:
            continue
        done = run.bodies.control(task_id)
        found[task_id] = _of_control(control, done)
        bodies.update(_of_bodies(task_id, control, done))
    for task_id in run.tasks:
        place = run.bodies.place(task_id)
        if place is not run.bodies.file:
            found[task_id] = found.get(task_id, {}) | _within(bodies, place.prefix, task_id)
    return found


def _of_control(control: Control, done: ControlRun) -> dict[str, Any]:
    about: dict[str, Any] = {"control": _word(control)}
    match control:
        case ForEach() | ForRange() | While():
            about |= {"variable": name_of(control), "rounds": len(done.runs)}
        case Branch() if done.runs:
            about["branch"] = "if" if _took_then(control, done) else "else"
        case Call():
            about["function"] = control.function
    return about


def _word(control: Control) -> str:
    return str(type(control).__struct_config__.tag)


def _took_then(control: Branch, done: ControlRun) -> bool:
    body = done.runs[0]
    return bool(control.then) and body.last == body.prefix + control.then[-1].id


def _of_bodies(task_id: TaskId, control: Control, done: ControlRun) -> Iterator[tuple[str, dict[str, Any]]]:
    """Of each body that began, what the ids in it begin with, and what is told of its tasks."""
    if isinstance(control, Branch):
        # The body not taken came into being as well, so these are told apart by the task.
        for body, plans in (("if", control.then), ("else", control.otherwise)):
            for plan in plans if done.runs else ():
                yield f"{task_id}/{plan.id}", {"body_of": task_id, "body": body}
        return
    for number in range(len(done.runs)):
        about: dict[str, Any] = {"body_of": task_id, "body": "call" if isinstance(control, Call) else "round"}
        if about["body"] == "round":
            about["round"] = number
            if value := short_value(done.items, number):
                about["value"] = msgspec.json.decode(value)
        yield prefix_of(task_id, BodyStarted(task_id, body=about["body"], round=number)), about


def _within(bodies: dict[str, dict[str, Any]], prefix: str, task_id: TaskId) -> dict[str, Any]:
    return bodies[prefix] if prefix in bodies else bodies[task_id]
