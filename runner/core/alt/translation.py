"""A descriptor in another dialect: the same plan, said in other words, or a list of what those cannot say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from runner.core.alt.control_flow import PLACES
from runner.core.alt.dialect import TRIGGERS
from runner.core.alt.losses import Loss, without
from runner.core.alt.places import LISTS, PLAN, TASK, DialectName, Places
from runner.core.alt.report import Path, Report
from runner.core.alt.segments import PARAMETER
from runner.core.alt.workflow import EDGE, EDGES, RETRIES
from runner.core.alt.writing import write
from runner.core.plan import Plan


class Translation(msgspec.Struct, frozen=True):
    """A descriptor, translated."""

    value: dict[str, Any]
    #: What it must decode to, by its `essence`.
    plan: Plan


def translate(raw: dict[str, Any], plan: Plan, to: DialectName, report: Report, *, lossy: bool) -> Translation:
    """Say `plan`, which `raw` decodes to, in dialect `to`.

    What that dialect has no place for is reported: as an error, or if `lossy` as a warning, and is not written. What
    cannot be left out is an error always. With errors in the report the answer is of no use.
    """
    spoken = DialectName(plan.dialect)
    created_at = raw.get(_key(PLAN["created_at"], spoken))
    written = write(plan, to, created_at=created_at)
    tell = report.warn if lossy else report.error
    rows = {row["id"]: index for index, row in enumerate(raw[LISTS[spoken]])}
    for path, message in _of_flow(raw) if plan.has_variables else ():
        report.error("CANNOT_BE_WRITTEN", path, message)
    for loss in written.lost:
        if plan.has_variables and loss.field in _FLOW:
            continue
        path = _existing(raw, _path(raw, plan, loss, spoken, rows))
        if loss.obstacle:
            report.error("CANNOT_BE_WRITTEN", path, loss.obstacle)
        else:
            tell("NO_PLACE", path, _sentence(loss, spoken, to))
    for path, message in _UNDECODED[spoken](raw):
        tell("NO_PLACE", path, message)
    if report.errors:
        return Translation({}, plan)
    return Translation(written.value, without(plan, written.lost))


def _key(places: Places, dialect: DialectName) -> str:
    place = places.at(dialect)
    return str(place[-1]) if place else ""


def _sentence(loss: Loss, spoken: DialectName, to: DialectName) -> str:
    row = (PLAN if loss.task is None else TASK)[loss.field]
    having = " and ".join(f"`{name}`" for name in DialectName if row.at(name) is not None)
    key = _key(row, spoken) or loss.field
    more = ""
    if loss.field == "priority" and loss.task is None:
        more = "; write it as `metadata.priority`"
    return f"Dialect `{to}` has no place for `{key}`, which is of {having}{more}."


# ----------------------------------------------------------------------------------------------- where it is written


def _path(raw: Mapping[str, Any], plan: Plan, loss: Loss, spoken: DialectName, rows: Mapping[str, int]) -> Path:
    """Where the field that is lost should stand in the file."""
    if loss.task is None:
        return PLAN[loss.field].at(spoken) or () if loss.field in PLAN else ()
    index = rows.get(plan.tasks[loss.task].id)
    if index is None:
        return (LISTS[spoken],)
    row = (LISTS[spoken], index)
    place = (TASK[loss.field].at(spoken) if loss.field in TASK else None) or ()
    if spoken is DialectName.SEGMENTS and loss.inside:
        for position, parameter in enumerate(raw[LISTS[spoken]][index].get("parameters") or ()):
            if parameter.get("name") == loss.inside[0]:
                return (*row, *place, position)
    return (*row, *place, *loss.inside)


def _existing(raw: Any, path: Path) -> Path:
    """The path, as far as the file has it."""
    here = raw
    for depth, step in enumerate(path):
        try:
            here = here[step]
        except (LookupError, TypeError):
            return path[:depth]
    return path


# -------------------------------------------------------------------------------- what is written, and not in the plan

#: Fields of plans and tasks that hold control flow, and what belongs to it.
_FLOW: Final = frozenset({"control", "variables", "functions", "has_variables"})

#: Paths, and a sentence each.
_Undecoded = Iterator[tuple[Path, str]]


def _of_tasks(_raw: dict[str, Any]) -> _Undecoded:
    yield from ()


def _of_segments(raw: dict[str, Any]) -> _Undecoded:
    list_name = LISTS[DialectName.SEGMENTS]
    for index, segment in enumerate(raw[list_name]):
        for position, parameter in enumerate(segment.get("parameters") or ()):
            for key, value in parameter.items():
                if value is not None and (key == "description" or key not in PARAMETER.fields):
                    path = (list_name, index, "parameters", position, key)
                    yield path, "Only dialect `segments` says more of a parameter than its name and value."


def _of_flow(raw: dict[str, Any]) -> _Undecoded:
    """Everything of version 2.0, that inside of bodies as well."""
    found: list[Path] = [
        (key, index) for key in ("global_variables", "functions") for index in range(len(raw.get(key) or ()))
    ]
    list_name = LISTS[DialectName.SEGMENTS]
    for index, segment in enumerate(raw[list_name]):
        found += [(list_name, index, "variables", number) for number in range(len(segment.get("variables") or ()))]
        found += [(list_name, index, place) for place in PLACES if segment.get(place) is not None]
    for path in found:
        yield path, "Only dialect `segments` 2.0 has variables, conditions, loops and functions."
    if not found:
        yield (
            ("version",),
            "In dialect `segments` 2.0 tasks may set variables; write version 1.0 if none of these does.",
        )


def _of_workflow(raw: dict[str, Any]) -> _Undecoded:
    list_name = LISTS[DialectName.WORKFLOW]
    for index, node in enumerate(raw[list_name]):
        if node["piece_type"] in TRIGGERS:
            for key in node.get("config") or ():
                if key not in RETRIES.fields:
                    yield (
                        (list_name, index, "config", key),
                        "Only dialect `workflow` has triggers with a configuration.",
                    )
        elif node.get("description") and node.get("name") not in {None, "", node["description"]}:
            yield (list_name, index, "name"), "Only dialect `workflow` has a name beside the description."
    for index, edge in enumerate(raw[EDGES]):
        for key in edge:
            if key not in EDGE.fields:
                yield (EDGES, index, key), "No other dialect than `workflow` has edges that say something."


_UNDECODED: Final = {
    DialectName.TASKS: _of_tasks,
    DialectName.SEGMENTS: _of_segments,
    DialectName.WORKFLOW: _of_workflow,
}
