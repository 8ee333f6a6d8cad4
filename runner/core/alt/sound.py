"""A `tasks` file in JSON about which there is nothing to tell: straight into structs, in a third of the time.

This is the way of nearly every submission. It takes no decision of its own: at the least doubt it answers None, and the
file is read by the tables of `tasks`, which tell what is wrong with it and where.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from runner.core.alt import tasks
from runner.core.alt.dialect import HEAVIEST, JOB, LONGEST, MODES, PRIORITIES, Draft, with_prompt
from runner.core.alt.fields import Spot, instant
from runner.core.alt.graph import check_graph
from runner.core.alt.json_text import is_sound, may_refer
from runner.core.alt.limits import DescriptorLimits
from runner.core.alt.linking import check_references
from runner.core.alt.media import Format, format_of
from runner.core.alt.parameters import LONGEST_LOOKED_INTO, NO_KINDS, Kinds, all_pass, check_parameters
from runner.core.alt.report import Report, Unreadable
from runner.core.budgets import TOKEN_BUDGET
from runner.core.plan import Plan, Priority, TaskPlan

_Filled = Annotated[str, Meta(min_length=1)]
_Priority = Literal["low", "medium", "high", "critical"]
#: Levels of a file above the parameters of a task: the file, the list, the task.
_LEVELS_ABOVE: Final = 3
#: Keys of the file's metadata that mean something, and may be wrong.
_READ: Final = frozenset({"priority", TOKEN_BUDGET})


class _Task(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`tasks.TASK`, as types. A null is doubtful."""

    id: _Filled
    description: _Filled
    dependencies: tuple[str, ...] | UnsetType = UNSET
    parameters: dict[str, Any] | UnsetType = UNSET
    timeout_seconds: Annotated[float, Meta(gt=0, le=LONGEST)] | UnsetType = UNSET
    retry_count: Annotated[int, Meta(ge=0, le=255)] | UnsetType = UNSET
    status: Literal["pending", "running", "completed", "failed", "cancelled", "timeout"] | UnsetType = UNSET
    priority: _Priority | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET
    weight: Annotated[float, Meta(gt=0, le=HEAVIEST)] | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET


class _File(msgspec.Struct, forbid_unknown_fields=True, omit_defaults=True):
    """`tasks.FILE`, as types."""

    id: _Filled
    version: _Filled
    title: _Filled
    created_at: str
    tasks: Annotated[list[_Task], Meta(min_length=1)]
    description: str | UnsetType = UNSET
    mode: Literal["normal", "dream", "explore", "chaos"] | UnsetType = UNSET
    persona: str | UnsetType = UNSET
    priority: _Priority | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET
    metadata: dict[str, Any] | UnsetType = UNSET
    #: As a float it would hide that it was an integer beyond 64 bits.
    expected_completion_time: Annotated[float, Meta(ge=0, lt=2**64)] | UnsetType = UNSET
    fail_fast: bool | UnsetType = UNSET


_DECODER: Final = msgspec.json.Decoder(_File)


class _Doubtful(Exception):
    """Not for this module."""


def sound_plan(
    data: bytes, *, content_type: str, limits: DescriptorLimits, kinds: Kinds = NO_KINDS
) -> tuple[Plan, bytes] | None:
    """The plan, and it as MessagePack, if there is nothing to tell about it; None if there may be."""
    report = Report(limits)
    try:
        if len(data) > limits.max_bytes or format_of(data, content_type, report) is not Format.JSON:
            return None
        file = _DECODER.decode(data)
        _check_file(file, data, report)
        plan = _plan(file, report)
        draft = Draft(plan, tasks.LIST, [task.dependencies for task in plan.tasks], lambda _, path: path)
        edges = check_graph(draft, report)
        refers = may_refer(data)
        if refers:
            check_references(draft, edges, report)
        if refers or len(data) > LONGEST_LOOKED_INTO or not all_pass(plan, kinds):
            check_parameters(draft, kinds, report)
        packed = msgspec.msgpack.encode(plan)  # refuses what no ledger can store: integers beyond 64 bits
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, OverflowError, Unreadable, _Doubtful):
        return None
    return None if report.errors or report.warnings else (plan, packed)


def _check_file(file: _File, data: bytes, report: Report) -> None:
    limits = report.limits
    nested = [each for task in file.tasks for each in (task.parameters, task.metadata) if each]
    if (
        len(file.tasks) > limits.max_tasks
        or len(file.id) > limits.max_id
        or not tasks.VERSION.fullmatch(file.version)
        or max(len(file.version), len(file.title), len(file.persona or "")) > limits.max_title
        or file.id.isspace()
        or file.title.isspace()
        or (file.metadata and not file.metadata.keys().isdisjoint(_READ))
        or not is_sound(data, file, [*nested, file.metadata or {}], report, above=_LEVELS_ABOVE)
    ):
        raise _Doubtful


def _plan(file: _File, report: Report) -> Plan:
    created_at = instant(file.created_at, Spot((), report), "created_at")
    if created_at is None:
        raise _Doubtful
    return Plan(
        dialect=tasks.LIST,
        alt_id=file.id,
        version=file.version,
        title=file.title,
        tasks=tuple([_task(task, report.limits) for task in file.tasks]),
        created_at=created_at,
        description=None if file.description is UNSET else file.description,
        mode=MODES[file.mode or "normal"],
        persona=None if file.persona is UNSET else file.persona,
        priority=PRIORITIES[file.priority] if file.priority else Priority.MEDIUM,
        tags=file.tags or (),
        expected_seconds=None if file.expected_completion_time is UNSET else file.expected_completion_time,
        fail_fast=file.fail_fast or False,
        metadata=file.metadata or {},
    )


def _task(task: _Task, limits: DescriptorLimits) -> TaskPlan:
    dependencies, parameters = task.dependencies or (), task.parameters or {}
    kind = parameters.get("task_type")
    if kind is None:
        kind = tasks.untold_kind(parameters)
    if (
        type(kind) is not str
        or not kind
        or kind == JOB
        or kind.isspace()
        or len(kind) > limits.max_title
        or len(task.id) > limits.max_id
        or task.id.isspace()
        or task.description.isspace()
        or (len(dependencies) > 1 and len(set(dependencies)) < len(dependencies))
    ):
        raise _Doubtful
    return TaskPlan(
        id=task.id,
        description=task.description,
        kind=kind,
        parameters=with_prompt(kind, parameters, task.description),
        dependencies=dependencies,
        timeout=task.timeout_seconds or None,
        retries=None if task.retry_count is UNSET else task.retry_count,
        priority=PRIORITIES[task.priority] if task.priority else None,
        tags=task.tags or (),
        weight=task.weight or 1.0,
        metadata=task.metadata or {},
    )
