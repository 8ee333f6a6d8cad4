"""Dialect `tasks` 1.x: the runner service's descriptors."""

from __future__ import annotations

import re
from typing import Any

from runner.core.alt.dialect import (
    ATTEMPTS,
    ATTEMPTS_ALSO_KNOWN,
    HEAVIEST,
    Draft,
    check_version,
    kept,
    read_mode,
    read_priority,
    rows,
    settle_priority,
    with_prompt,
    without_doubles,
)
from runner.core.alt.fields import (
    Field,
    Number,
    Spot,
    Table,
    Word,
    as_it_is,
    boolean,
    filled_text,
    identifier,
    instant,
    mapping,
    short_text,
    text,
    texts,
    title,
)
from runner.core.alt.report import Path, Report, kind_of
from runner.core.plan import Plan, TaskPlan

LIST = "tasks"
SUPPORTED = "1.x"
VERSION = re.compile(r"1(\.[0-9]+){0,2}", re.ASCII)

_STATUSES = {name: name for name in ("pending", "running", "completed", "failed", "cancelled", "timeout")}

FILE = Table(
    {
        "id": Field("alt_id", identifier, required=True),
        "version": Field("version", title, required=True),
        "title": Field("title", title, required=True),
        "created_at": Field("created_at", instant, required=True),
        "description": Field("description", text),
        "mode": Field("mode", read_mode),
        "persona": Field("persona", short_text),
        "priority": Field("priority", read_priority),
        "tags": Field("tags", texts),
        "metadata": Field("metadata", mapping),
        "expected_completion_time": Field("expected_seconds", Number(least=0, unit=" of seconds")),
        "fail_fast": Field("fail_fast", boolean),
        LIST: Field("_rows", as_it_is, required=True),
    }
)
TASK = Table(
    {
        "id": Field("id", identifier, required=True),
        "description": Field("description", filled_text, required=True),
        "dependencies": Field("dependencies", texts),
        "parameters": Field("parameters", mapping),
        **ATTEMPTS,
        "status": Field("_status", Word(_STATUSES, "UNKNOWN_STATUS")),
        "priority": Field("priority", read_priority),
        "tags": Field("tags", texts),
        "weight": Field("weight", Number(above=0, most=HEAVIEST)),
        "metadata": Field("metadata", mapping),
    },
    also_known={
        "depends_on": "dependencies",
        "needs": "dependencies",
        "after": "dependencies",
        **ATTEMPTS_ALSO_KNOWN,
        "task_type": "parameters.task_type",
        "type": "parameters.task_type",
        "prompt": "parameters.prompt",
        "url": "parameters.url",
    },
)


def read(raw: dict[str, Any], report: Report) -> Draft | None:
    """The plan as it is written; None if there is no list of tasks to read."""
    known, unknown = FILE.read(raw, Spot((), report))
    check_version(known.get("version"), VERSION, LIST, SUPPORTED, report)
    settle_priority(known, report)
    listed = rows(raw, LIST, report) if known.pop("_rows", None) is not None else None
    if listed is None:
        return None
    dependencies: list[tuple[str, ...]] = []
    tasks = [_task(task, index, report, dependencies) for index, task in enumerate(listed)]
    known["metadata"] = kept(unknown, known.get("metadata"))
    defaults = {"alt_id": "", "version": "", "title": "", "created_at": 0}
    plan = Plan(dialect=LIST, tasks=tuple(tasks), **{**defaults, **known})

    def locate_parameter(index: int, path: Path) -> Path:
        written = listed[index].get("parameters")
        if path[:1] == ("prompt",) and not (isinstance(written, dict) and written.get("prompt") is not None):
            return (LIST, index, "description")
        return (LIST, index, "parameters", *path)

    return Draft(plan, LIST, dependencies, locate_parameter)


def _task(raw: Any, index: int, report: Report, dependencies: list[tuple[str, ...]]) -> TaskPlan:
    if type(raw) is not dict:
        report.error("BAD_TYPE", (LIST, index), f"A task must be an object, not {kind_of(raw)}.")
        dependencies.append(())
        return TaskPlan(id="", description="", kind="")
    spot = Spot((LIST, index), report)
    known, unknown = TASK.read(raw, spot)
    written = known.get("dependencies", ())
    dependencies.append(written)
    if len(written) > 1:
        known["dependencies"] = without_doubles(written, spot)
    parameters = known.get("parameters", {})
    kind = _kind(parameters, index, report)
    known["parameters"] = with_prompt(kind, parameters, known.setdefault("description", ""))
    known.setdefault("id", "")
    known.pop("_status", None)
    if unknown:
        known["metadata"] = kept(unknown, known.get("metadata"))
    return TaskPlan(kind=kind, **known)


def _kind(parameters: dict[str, Any], index: int, report: Report) -> str:
    told = parameters.get("task_type")
    if told is None:
        return untold_kind(parameters)
    return title(told, Spot((LIST, index, "parameters"), report), "task_type") or ""


def untold_kind(parameters: dict[str, Any]) -> str:
    """The kind of a task that tells none."""
    has_only_url = parameters.get("prompt") is None and parameters.get("url") is not None
    return "http_request" if has_only_url else "ai_prompt"
