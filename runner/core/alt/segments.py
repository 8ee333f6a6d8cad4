"""Dialect `segments` 1.0: the segmentation service's descriptors."""

from __future__ import annotations

import re
from typing import Any

from runner.core.alt.dialect import (
    HEAVIEST,
    Draft,
    check_version,
    kept,
    read_mode,
    rows,
    settle_priority,
    with_prompt,
    without_doubles,
)
from runner.core.alt.fields import (
    Field,
    Integer,
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
from runner.core.alt.report import Path, Report, kind_of, shown
from runner.core.plan import Mode, Plan, TaskPlan
from runner.core.references import is_reference

LIST = "segments"
SUPPORTED = "1.0"
VERSION = re.compile(r"1\.0")
#: Control flow: what it says cannot be checked, let alone run, by the rules of 1.0.
_CONTROL_FLOW = re.compile(r"2(\.[0-9]+)*", re.ASCII)

TYPES: dict[str, tuple[type, ...]] = {
    "string": (str,),
    "number": (int, float),
    "boolean": (bool,),
    "array": (list,),
    "object": (dict,),
}


FILE = Table(
    {
        "id": Field("alt_id", identifier, required=True),
        "version": Field("version", title, required=True),
        "timestamp": Field("created_at", instant, required=True),
        "command": Field("title", title, required=True),
        "language": Field("language", short_text),
        "mode": Field("mode", read_mode),
        "persona": Field("persona", short_text),
        "chaos_level": Field("chaos_level", Integer(1, 10)),
        "metadata": Field("metadata", mapping),
        "saved_at": Field("_saved_at", as_it_is),
        "fail_fast": Field("fail_fast", boolean),
        LIST: Field("_rows", as_it_is, required=True),
    },
    also_known={"title": "command", "created_at": "timestamp"},
)
SEGMENT = Table(
    {
        "id": Field("id", identifier, required=True),
        "task_type": Field("kind", title, required=True),
        "content": Field("description", filled_text, required=True),
        "parameters": Field("_parameters", as_it_is),
        "dependencies": Field("dependencies", texts),
        "weight": Field("weight", Number(above=0, most=HEAVIEST)),
        "metadata": Field("metadata", mapping),
    },
    also_known={"depends_on": "dependencies", "description": "content", "prompt": "content", "type": "task_type"},
)
PARAMETER = Table(
    {
        "name": Field("name", filled_text, required=True),
        "value": Field("value", as_it_is),
        "type": Field("type", Word({name: name for name in TYPES}, "UNKNOWN_TYPE")),
        "required": Field("required", boolean),
        "description": Field("description", text),
    }
)


def read(raw: dict[str, Any], report: Report) -> Draft | None:
    """The plan as it is written; None if there is no list of segments to read.

    Raises Unreadable: if the version is 2.x.
    """
    version = raw.get("version")
    if isinstance(version, str) and _CONTROL_FLOW.fullmatch(version):
        message = f"Version `{shown(version)}` of dialect `{LIST}` is not supported; supported is {SUPPORTED}."
        raise report.fatal("UNSUPPORTED_VERSION", message, path=("version",))
    known, unknown = FILE.read(raw, Spot((), report))
    check_version(known.get("version"), VERSION, LIST, SUPPORTED, report)
    settle_priority(known, report)
    _check_chaos(raw, known, report)
    listed = rows(raw, LIST, report) if known.pop("_rows", None) is not None else None
    if listed is None:
        return None
    saved_at = known.pop("_saved_at", None)
    if saved_at is not None:
        unknown["saved_at"] = saved_at
    dependencies: list[tuple[str, ...]] = []
    tasks = tuple([_task(segment, index, report, dependencies) for index, segment in enumerate(listed)])
    known["metadata"] = kept(unknown, known.get("metadata"))
    defaults = {"alt_id": "", "version": "", "title": "", "created_at": 0}
    plan = Plan(dialect=LIST, tasks=tasks, **{**defaults, **known})

    def locate_parameter(index: int, path: Path) -> Path:
        position = _position(listed[index].get("parameters"), path[0])
        if position is None:
            return (LIST, index, "content")
        return (LIST, index, "parameters", position, "value", *path[1:])

    return Draft(plan, LIST, dependencies, locate_parameter)


def _position(parameters: Any, name: str | int) -> int | None:
    """The index of the parameter that has this name and a value."""
    for position, raw in enumerate(parameters if isinstance(parameters, list) else ()):
        if isinstance(raw, dict) and raw.get("name") == name and raw.get("value") is not None:
            return position
    return None


def _check_chaos(raw: dict[str, Any], known: dict[str, Any], report: Report) -> None:
    told = raw.get("chaos_level") is not None
    if known.get("mode") is Mode.CHAOS:
        if not told:
            report.error("MISSING_FIELD", ("chaos_level",), "`chaos_level` (1 to 10) is required in mode Chaos.")
    elif told and (known.get("mode") or raw.get("mode") is None):
        mode = known.get("mode", Mode.NORMAL).capitalize()
        message = f"`chaos_level` belongs to mode Chaos only; this is mode {mode}."
        report.error("CHAOS_LEVEL", ("chaos_level",), message)


def _task(raw: Any, index: int, report: Report, dependencies: list[tuple[str, ...]]) -> TaskPlan:
    if type(raw) is not dict:
        report.error("BAD_TYPE", (LIST, index), f"A segment must be an object, not {kind_of(raw)}.")
        dependencies.append(())
        return TaskPlan(id="", description="", kind="")
    spot = Spot((LIST, index), report)
    known, unknown = SEGMENT.read(raw, spot)
    written = known.get("dependencies", ())
    dependencies.append(written)
    if len(written) > 1:
        known["dependencies"] = without_doubles(written, spot)
    known.setdefault("id", "")
    known.setdefault("kind", "")
    parameters = _parameters(known.pop("_parameters", None), known["id"], spot)
    known["parameters"] = with_prompt(known["kind"], parameters, known.setdefault("description", ""))
    if unknown:
        known["metadata"] = kept(unknown, known.get("metadata"))
    return TaskPlan(**known)


def _parameters(listed: Any, segment: str, spot: Spot) -> dict[str, Any]:
    if listed is None:
        return {}
    if type(listed) is not list:
        spot.not_a("a list of {name, value, type, required}", "parameters", listed)
        return {}
    parameters: dict[str, Any] = {}
    for index, raw in enumerate(listed):
        inner = Spot((*spot.path, "parameters", index), spot.report)
        if type(raw) is not dict:
            spot.report.error("BAD_TYPE", inner.path, f"A parameter must be an object, not {kind_of(raw)}.")
            continue
        known, _ = PARAMETER.read(raw, inner)
        name = known.get("name")
        if name is None:
            continue
        if name in parameters:
            message = f"Segment `{shown(segment)}` has the parameter `{shown(name)}` twice."
            inner.wrong("DUPLICATE_PARAMETER", "name", message)
        _check_value(known, segment, inner)
        parameters[name] = known.get("value")
    return parameters


def _check_value(parameter: dict[str, Any], segment: str, spot: Spot) -> None:
    value, told = parameter.get("value"), parameter.get("type")
    name = f"parameter `{shown(parameter['name'])}` of segment `{shown(segment)}`"
    if value is None:
        if parameter.get("required"):
            spot.wrong("MISSING_VALUE", "value", f"The {name} is required and has no value.")
        return
    # What a reference becomes is known when it runs; booleans are numbers to Python only.
    if told is None or is_reference(value) or (type(value) in TYPES[told]):
        return
    spot.wrong("BAD_VALUE", "value", f"The {name} must be of type {told}, not {kind_of(value)}.")
