"""Dialect `segments`: the segmentation service's descriptors, 1.0 and, with control flow, 2.0."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from runner.core.alt import control_flow
from runner.core.alt.dialect import (
    ATTEMPTS,
    ATTEMPTS_ALSO_KNOWN,
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
from runner.core.alt.outline import Body, Flow, FunctionOutline, Names, Outline
from runner.core.alt.report import Path, Report, kind_of, shown
from runner.core.plan import Mode, Plan, TaskPlan
from runner.core.references import may_be_reference

LIST = "segments"
SUPPORTED = "1.0 and 2.0"
VERSION = re.compile(r"[12]\.0")

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
        **ATTEMPTS,
        "weight": Field("weight", Number(above=0, most=HEAVIEST)),
        "metadata": Field("metadata", mapping),
    },
    also_known={
        "depends_on": "dependencies",
        "description": "content",
        "prompt": "content",
        "type": "task_type",
        **ATTEMPTS_ALSO_KNOWN,
    },
)
FILE_2 = Table(
    {
        **FILE.fields,
        "global_variables": Field("_variables", as_it_is),
        "functions": Field("_functions", as_it_is),
    },
    also_known={**FILE.also_known, "variables": "global_variables"},
)
SEGMENT_2 = Table(
    {
        **SEGMENT.fields,
        # A segment that runs others needs no type of its own.
        "task_type": Field("kind", title),
        "variables": Field("_own", as_it_is),
        **{place: Field(f"_{place}", as_it_is) for place in control_flow.PLACES},
    },
    also_known={**SEGMENT.also_known, "parallel": "metadata.parallel", "max_parallel": "metadata.max_parallel"},
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
    """The plan as it is written; None if there is no list of segments to read."""
    # A version 2 that is not supported, or no text, was meant as this one: what else is wrong is told by its rules.
    second = str(raw.get("version")).partition(".")[0] == "2"
    spot = Spot((), report)
    known, unknown = (FILE_2 if second else FILE).read(raw, spot)
    check_version(known.get("version"), VERSION, LIST, SUPPORTED, report)
    settle_priority(known, report)
    _check_chaos(raw, known, report)
    listed = rows(raw, LIST, report) if known.pop("_rows", None) is not None else None
    if listed is None:
        return None
    saved_at = known.pop("_saved_at", None)
    if saved_at is not None:
        unknown["saved_at"] = saved_at
    flow = _flow(known, spot) if second else None
    dependencies: list[tuple[str, ...]] = []
    tasks = tuple([_task(segment, index, report, dependencies, flow) for index, segment in enumerate(listed)])
    known["metadata"] = kept(unknown, known.get("metadata"))
    defaults = {"alt_id": "", "version": "", "title": "", "created_at": 0}
    plan = Plan(dialect=LIST, tasks=tasks, has_variables=second, **{**defaults, **known})

    positions: dict[int, dict[str, int]] = {}

    def locate_parameter(index: int, path: Path) -> Path:
        if index not in positions:
            positions[index] = _positions(listed[index].get("parameters"))
        position = positions[index].get(str(path[0]))
        if position is None:
            return (LIST, index, "content")
        return (LIST, index, "parameters", position, "value", *path[1:])

    if flow is None:
        return Draft(plan, LIST, dependencies, locate_parameter)
    return Draft(plan, LIST, dependencies, locate_parameter, _bodies_located(flow, dependencies), flow)


def _flow(known: dict[str, Any], spot: Spot) -> Flow:
    """The control flow of a file, without that of its segments yet. Variables stay among what is known."""
    known["variables"] = control_flow.variables(known.pop("_variables", None), spot, "global_variables")
    names = Names({variable.name: variable.type for variable in known["variables"]})
    flow = Flow(outlines={}, functions={}, file=Body((LIST,), names=names), variables={})
    listed = known.pop("_functions", None)
    if listed is not None and type(listed) is not list:
        spot.not_a("a list of functions", "functions", listed)
        return flow
    for index, raw in enumerate(listed or ()):
        inner = Spot(("functions", index), spot.report)
        _add_function(flow, control_flow.function(raw, inner), inner)
    return flow


def _add_function(flow: Flow, function: FunctionOutline | None, spot: Spot) -> None:
    if function is None:
        return
    name = function.function.name
    if name in flow.functions:
        spot.wrong("DUPLICATE_NAME", "name", f"There is a function `{shown(name)}` already.")
        return
    flow.functions[name] = function


def _bodies_located(flow: Flow, dependencies: list[tuple[str, ...]]) -> Callable[[int, int], Path]:
    """Segments wait for what they run, as far as rings are concerned: behind their dependencies stand their bodies."""

    def locate(index: int, position: int) -> Path:
        outline = flow.outlines.get(index)
        bodies = [] if outline is None else outline.bodies
        place = position - len(dependencies[index]) + sum(len(body.ids) for body in bodies)
        for body in bodies if place >= 0 else ():
            if place < len(body.ids):
                return (*body.path, place)
            place -= len(body.ids)
        return (LIST, index, "dependencies", position)

    return locate


def _positions(parameters: Any) -> dict[str, int]:
    """By its name, the index of each parameter that has a value; of the first, where a name is there twice."""
    found: dict[str, int] = {}
    for position, raw in enumerate(parameters if isinstance(parameters, list) else ()):
        if isinstance(raw, dict) and isinstance(raw.get("name"), str) and raw.get("value") is not None:
            found.setdefault(raw["name"], position)
    return found


def _check_chaos(raw: dict[str, Any], known: dict[str, Any], report: Report) -> None:
    told = raw.get("chaos_level") is not None
    if known.get("mode") is Mode.CHAOS:
        if not told:
            report.error("MISSING_FIELD", ("chaos_level",), "`chaos_level` (1 to 10) is required in mode Chaos.")
    elif told and (known.get("mode") or raw.get("mode") is None):
        mode = known.get("mode", Mode.NORMAL).capitalize()
        message = f"`chaos_level` belongs to mode Chaos only; this is mode {mode}."
        report.error("CHAOS_LEVEL", ("chaos_level",), message)


def _task(raw: Any, index: int, report: Report, dependencies: list[tuple[str, ...]], flow: Flow | None) -> TaskPlan:
    if type(raw) is not dict:
        report.error("BAD_TYPE", (LIST, index), f"A segment must be an object, not {kind_of(raw)}.")
        dependencies.append(())
        return TaskPlan(id="", description="", kind="")
    spot = Spot((LIST, index), report)
    known, unknown = (SEGMENT if flow is None else SEGMENT_2).read(raw, spot)
    written = known.get("dependencies", ())
    if len(written) > 1:
        known["dependencies"] = without_doubles(written, spot)
    known.setdefault("id", "")
    outline = None if flow is None else _controlled(raw, known, index, spot, flow)
    dependencies.append((*written, *(name for body in outline.bodies for name in body.ids)) if outline else written)
    if outline:
        unknown |= _without_attempts(raw, known, spot)
    known.setdefault("kind", "")
    parameters = _parameters(known.pop("_parameters", None), known["id"], spot)
    known.setdefault("description", "")
    known["parameters"] = parameters if outline else with_prompt(known["kind"], parameters, known["description"])
    if unknown:
        known["metadata"] = kept(unknown, known.get("metadata"))
    return TaskPlan(**known)


def _controlled(raw: dict[str, Any], known: dict[str, Any], index: int, spot: Spot, flow: Flow) -> Outline | None:
    """Take what version 2.0 adds out of what is known of a segment, and into the control flow of its file."""
    for place in control_flow.PLACES:
        known.pop(f"_{place}", None)
    control_flow.check_id(known["id"], spot)
    own = control_flow.variables(known.pop("_own", None), spot, "variables")
    if own:
        flow.variables[index] = own
    outline, function = control_flow.outline(raw, index, spot)
    _add_function(flow, function, Spot((*spot.path, "function_def"), spot.report))
    if outline is not None:
        flow.outlines[index] = outline
        known["kind"] = outline.kind
        if raw.get("parameters"):
            message = "A segment that runs others takes no parameters; these do nothing."
            spot.report.warn("UNKNOWN_PARAMETER", (*spot.path, "parameters"), message, at_key=True)
    elif "kind" not in known and all(raw.get(place) is None for place in ("task_type", *control_flow.PLACES)):
        spot.wrong("MISSING_FIELD", "task_type", "`task_type` is required where a segment runs no others.")
    return outline


def _without_attempts(raw: dict[str, Any], known: dict[str, Any], spot: Spot) -> dict[str, Any]:
    """Take out of what is known what only an attempt has; it is told, and answered as it stands."""
    told = {name: raw[name] for name, field in ATTEMPTS.items() if known.pop(field.becomes, None) is not None}
    for name in told:
        message = f"A segment that runs others has no attempts, so `{name}` is kept in the metadata and does nothing."
        spot.report.warn("UNKNOWN_FIELD", (*spot.path, name), message, at_key=True)
    return told


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
    if told is None or may_be_reference(value) or (type(value) in TYPES[told]):
        return
    spot.wrong("BAD_VALUE", "value", f"The {name} must be of type {told}, not {kind_of(value)}.")
