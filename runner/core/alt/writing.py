"""Plan → descriptor: what a plan says in the words of one dialect, and what of it that dialect cannot say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from runner.core.alt.dialect import JOB, LOCAL_KINDS, TRIGGERS
from runner.core.alt.losses import Loss, default_of, implied_priority, without_kind
from runner.core.alt.places import LISTS, NOWHERE, PLAN, TASK, VERSION, DialectName, Places
from runner.core.alt.report import shown
from runner.core.alt.segments import TYPES
from runner.core.alt.tasks import untold_kind
from runner.core.alt.workflow import EDGES, RETRIES
from runner.core.plan import Mode, Plan, Priority, TaskPlan
from runner.core.quoting import unquoted

#: Stands for a field that needs no word.
_UNSAID: Final = object()
#: What a trigger's parameters always are.
_TRIGGERED: Final = {"input": "${inputs}"}
_EXACT: Final = 2.0**53
_OBSTACLES: Final = {
    "input_from": "Only a workflow merges outputs into an input; give it a parameter `input`, made of references.",
}


class Written(msgspec.Struct, frozen=True):
    """A plan as an object of a dialect."""

    #: Unless something stands in the way, decodes to a plan with the `essence` of the original `without` what is lost.
    value: dict[str, Any]
    lost: tuple[Loss, ...]


def write(plan: Plan, dialect: DialectName, *, created_at: str | None = None) -> Written:
    """The descriptor that decodes to this plan; to be encoded in any format.

    `created_at` is the plan's time as text, as its own descriptor wrote it.
    """
    lost: list[Loss] = []
    if created_at is None and dialect is not DialectName.WORKFLOW:
        lost.append(
            Loss("created_at", obstacle=f"Dialect `{dialect}` needs the time at which it was made; give it one.")
        )
    if dialect is DialectName.SEGMENTS and plan.mode is Mode.CHAOS and plan.chaos_level is None:
        obstacle = f"In mode Chaos dialect `{dialect}` needs a level of chaos, which is not told; choose another mode."
        lost.append(Loss("mode", obstacle=obstacle))
    mode = plan.mode.value.capitalize() if dialect is DialectName.SEGMENTS else plan.mode.value
    own = {
        "dialect": _UNSAID,
        "version": VERSION,
        "tasks": _UNSAID,
        "created_at": _UNSAID if created_at is None else created_at,
        "mode": _UNSAID if plan.mode is Mode.NORMAL else mode,
        "priority": _UNSAID if plan.priority is implied_priority(plan) else plan.priority.name.lower(),
    }
    value = _fields(plan, PLAN, dialect, own=own, task=None, lost=lost)
    row = _ROWS[dialect]
    value[LISTS[dialect]] = [row(task, index, lost) for index, task in enumerate(plan.tasks)]
    if dialect is DialectName.WORKFLOW:
        ends = [(source, task.id) for task in plan.tasks for source in task.dependencies]
        value[EDGES] = [
            {"id": f"e{number}", "source_node_id": source, "target_node_id": target}
            for number, (source, target) in enumerate(ends, 1)
        ]
    return Written(value, tuple(lost))


# ------------------------------------------------------------------------------------------------ one row a dialect


def _task(task: TaskPlan, index: int, lost: list[Loss]) -> dict[str, Any]:
    _check_description(task, index, DialectName.TASKS, lost)
    parameters = _told_parameters(task)
    if "task_type" in parameters:
        obstacle = f"In dialect `tasks` the parameter `task_type` is the task's type, which is `{shown(task.kind)}`."
        lost.append(Loss("parameters", index, ("task_type",), obstacle))
    elif untold_kind(parameters) != task.kind:
        parameters = {"task_type": task.kind, **parameters}
    own = {"kind": _UNSAID, "parameters": parameters or _UNSAID}
    return _fields(task, TASK, DialectName.TASKS, own=own, task=index, lost=lost)


def _segment(task: TaskPlan, index: int, lost: list[Loss]) -> dict[str, Any]:
    _check_description(task, index, DialectName.SEGMENTS, lost)
    parameters = []
    for name, value in _told_parameters(task).items():
        if not name.strip():
            lost.append(Loss("parameters", index, (name,), "The name of a segment's parameter cannot be blank."))
        told = [word for word, types in TYPES.items() if type(value) in types]
        parameters.append({"name": name, **({"type": told[0]} if told else {}), "value": value})
    own = {"parameters": parameters or _UNSAID}
    return _fields(task, TASK, DialectName.SEGMENTS, own=own, task=index, lost=lost)


def _node(task: TaskPlan, index: int, lost: list[Loss]) -> dict[str, Any]:
    is_trigger = task.kind in TRIGGERS
    config = _told_parameters(task)
    if is_trigger:
        _check_trigger(task, config, index, lost)
        config = {}
    for name in RETRIES.fields:
        if name in config:
            obstacle = f"In a node's configuration `{name}` is not the handler's but the runner's."
            lost.append(Loss("parameters", index, (name,), obstacle))
    metadata = dict(task.metadata)
    position = metadata.pop("position") if metadata.get("position") is not None else None
    own = {
        "description": _UNSAID if task.description == task.kind else task.description,
        "parameters": config or _UNSAID,
        "dependencies": _UNSAID,
        "input_from": _UNSAID,
        "metadata": metadata or _UNSAID,
    }
    if not is_trigger:
        _check_input(task, index, lost)
    fields = _fields(task, TASK, DialectName.WORKFLOW, own=own, task=index, lost=lost)
    node = {"id": fields.pop("id"), "type": "trigger" if is_trigger else "action", **fields}
    return node if position is None else {**node, "position": position}


_ROWS: Final[Mapping[DialectName, Callable[[TaskPlan, int, list[Loss]], dict[str, Any]]]] = {
    DialectName.TASKS: _task,
    DialectName.SEGMENTS: _segment,
    DialectName.WORKFLOW: _node,
}


def _check_description(task: TaskPlan, index: int, dialect: DialectName, lost: list[Loss]) -> None:
    if not task.description.strip():
        lost.append(Loss("description", index, obstacle=f"In dialect `{dialect}` this text must not be blank."))


def _check_trigger(task: TaskPlan, parameters: dict[str, Any], index: int, lost: list[Loss]) -> None:
    if task.dependencies:
        lost.append(Loss("dependencies", index, obstacle="A trigger begins a workflow; it cannot wait for another."))
    if task.input_from:
        lost.append(Loss("input_from", index, obstacle="A trigger begins a workflow; it takes no input of another."))
    if parameters != _TRIGGERED:
        obstacle = "A workflow's trigger has the parameter `input: ${inputs}` and no other."
        lost.append(Loss("parameters", index, obstacle=obstacle))


def _check_input(task: TaskPlan, index: int, lost: list[Loss]) -> None:
    given = () if "input" in task.parameters else task.dependencies
    if task.input_from == given:
        return
    obstacle = "A node without a parameter `input` is given the outputs of those it waits for; give it one of its own."
    lost.append(Loss("dependencies", index, obstacle=obstacle))


# ---------------------------------------------------------------------------------------------------- what all share


def _told_parameters(task: TaskPlan) -> dict[str, Any]:
    """The parameters, without what decoding does to them."""
    parameters = without_kind(task)
    if task.kind == JOB and isinstance(parameters.get("descriptor"), dict):
        parameters["descriptor"] = unquoted(parameters["descriptor"])
    is_prompted = task.kind not in LOCAL_KINDS and task.kind not in TRIGGERS
    if is_prompted and parameters.get("prompt") == task.description:
        del parameters["prompt"]
    return parameters


def _fields(
    value: Plan | TaskPlan,
    places: Mapping[str, Places],
    dialect: DialectName,
    *,
    own: Mapping[str, Any],
    task: int | None,
    lost: list[Loss],
) -> dict[str, Any]:
    """All fields that are not as they are by default, at their places. `own` are written as they stand there."""
    out: dict[str, Any] = {}
    for field in msgspec.structs.fields(value):
        held = getattr(value, field.name)
        said = own.get(field.name, _UNSAID if held == default_of(field) else _plain(held))
        if said is _UNSAID:
            continue
        row = places.get(field.name, NOWHERE)
        place = row.at(dialect)
        if place is None:
            # Without a timeout a job is still the same job; without its loops or inputs it is another.
            obstacle = (
                _OBSTACLES.get(field.name, f"Dialect `{dialect}` has no way to say this.") if row == NOWHERE else ""
            )
            lost.append(Loss(field.name, task, obstacle=obstacle))
            continue
        inner = out
        for step in place[:-1]:
            inner = inner.setdefault(str(step), {})
        inner[str(place[-1])] = said
    return out


def _plain(held: Any) -> Any:
    """A field's value as descriptors write it."""
    match held:
        case Priority():
            return held.name.lower()
        case tuple():
            return list(held)
        case float() if held.is_integer() and abs(held) < _EXACT:
            return int(held)
    return held
