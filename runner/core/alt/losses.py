"""What of a plan gets lost on the way to another dialect, and what must be the same on both sides."""

from __future__ import annotations

from typing import Any

import msgspec

from runner.core.alt.dialect import PRIORITIES
from runner.core.alt.report import Path
from runner.core.plan import Plan, Priority, TaskPlan


class Loss(msgspec.Struct, frozen=True):
    """A field of a plan that a dialect cannot say."""

    #: Of `Plan` or `TaskPlan`.
    field: str
    #: Index of the task; None for the plan's own.
    task: int | None = None
    #: Where inside of the field; empty for the whole.
    inside: Path = ()
    #: What stands in the way, where leaving the field out is no way out; a sentence.
    obstacle: str = ""


def essence(plan: Plan) -> bytes:
    """What two plans have in common if they are the same job in two dialects.

    That is everything but the dialect's name and version, and a parameter `task_type` that repeats the task's kind.
    """
    # As dicts: whether a struct leaves out a default of its own depends on which 1.0 it holds.
    tasks = [{**msgspec.structs.asdict(task), "parameters": without_kind(task)} for task in plan.tasks]
    fields = {**msgspec.structs.asdict(plan), "dialect": None, "version": None, "tasks": tasks}
    return msgspec.json.encode(fields, order="deterministic")


def without(plan: Plan, lost: tuple[Loss, ...]) -> Plan:
    """The plan with the lost fields as if its descriptor had not said them."""
    tasks = list(plan.tasks)
    unsaid = {field.name: default_of(field) for field in msgspec.structs.fields(TaskPlan)}
    for loss in lost:
        if loss.task is not None:
            tasks[loss.task] = msgspec.structs.replace(tasks[loss.task], **{loss.field: unsaid[loss.field]})
    unsaid = {field.name: default_of(field) for field in msgspec.structs.fields(Plan)}
    own = {loss.field: unsaid[loss.field] for loss in lost if loss.task is None}
    if "priority" in own:
        own["priority"] = implied_priority(plan)
    return msgspec.structs.replace(plan, **{**own, "tasks": tuple(tasks)})


def implied_priority(plan: Plan) -> Priority:
    """The priority of a file that tells none beside its metadata."""
    told = plan.metadata.get("priority")
    return PRIORITIES.get(told.lower(), Priority.MEDIUM) if isinstance(told, str) else Priority.MEDIUM


def without_kind(task: TaskPlan) -> dict[str, Any]:
    """The parameters, without a `task_type` that says the task's kind once more."""
    repeated = (None, task.kind)
    return {name: value for name, value in task.parameters.items() if name != "task_type" or value not in repeated}


def default_of(field: msgspec.structs.FieldInfo) -> Any:
    """What a field holds where nothing was said; NODEFAULT where something must be."""
    return field.default if field.default_factory is msgspec.NODEFAULT else field.default_factory()
