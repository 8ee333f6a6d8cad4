"""Dialect `workflow` 1.x: the workflow engine's graphs of nodes and edges."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

from runner.core.alt.dialect import (
    HEAVIEST,
    TRIGGERS,
    Draft,
    check_version,
    kept,
    read_mode,
    read_priority,
    rows,
    settle_priority,
    with_prompt,
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
    identifier,
    instant,
    mapping,
    short_text,
    text,
    texts,
    title,
)
from runner.core.alt.report import Path, Report, kind_of, shown
from runner.core.plan import Plan, TaskPlan

LIST: Final = "nodes"
EDGES: Final = "edges"
SUPPORTED: Final = "1.x"
VERSION: Final = re.compile(r"1(\.[0-9]+){0,2}", re.ASCII)
#: Seconds; a day is the longest that anyone waits before another try.
_LONGEST_WAIT: Final = 86_400

FILE = Table(
    {
        "id": Field("alt_id", identifier, required=True),
        "name": Field("title", title, required=True),
        "version": Field("version", title, required=True),
        "description": Field("description", text),
        "created_at": Field("created_at", instant),
        "mode": Field("mode", read_mode),
        "persona": Field("persona", short_text),
        "priority": Field("priority", read_priority),
        "tags": Field("tags", texts),
        "metadata": Field("metadata", mapping),
        "fail_fast": Field("fail_fast", boolean),
        LIST: Field("_rows", as_it_is, required=True),
        EDGES: Field("_edges", as_it_is, required=True),
    },
    also_known={"title": "name"},
)
NODE = Table(
    {
        "id": Field("id", identifier, required=True),
        "type": Field("_type", Word({"trigger": "trigger", "action": "action"}, "UNKNOWN_TYPE"), required=True),
        "piece_type": Field("kind", title, required=True),
        "name": Field("_name", short_text),
        "description": Field("_description", text),
        "config": Field("parameters", mapping),
        "position": Field("_position", as_it_is),
        "weight": Field("weight", Number(above=0, most=HEAVIEST)),
        "metadata": Field("metadata", mapping),
    },
    also_known={"kind": "piece_type", "piece": "piece_type", "parameters": "config", "label": "name"},
)
#: What of a node's configuration is the runner's; the rest is the handler's.
RETRIES = Table(
    {
        "max_retries": Field("retries", Integer(0, 255)),
        "retry_delay_seconds": Field("retry_seconds", Number(least=0, most=_LONGEST_WAIT, unit=" of seconds")),
    }
)
EDGE = Table(
    {
        "id": Field("id", short_text),
        "source_node_id": Field("source", identifier, required=True),
        "target_node_id": Field("target", identifier, required=True),
        "source_handle": Field("source_handle", short_text),
        "target_handle": Field("target_handle", short_text),
    },
    also_known={"source": "source_node_id", "target": "target_node_id", "from": "source_node_id"},
)


_HANDLES: Final[tuple[str, ...]] = ("source_handle", "target_handle")


class _Edge(msgspec.Struct, frozen=True):
    """An edge that was read."""

    #: Its place in the list.
    index: int
    source: str
    #: What it says of its ends, if anything.
    handles: dict[str, str]


#: The edges into each node, by the node's id, in the order of the file.
_Incoming = dict[str, list[_Edge]]


def read(raw: dict[str, Any], report: Report) -> Draft | None:
    """The plan as it is written; None if there is no list of nodes to read."""
    known, unknown = FILE.read(raw, Spot((), report))
    check_version(known.get("version"), VERSION, "workflow", SUPPORTED, report)
    settle_priority(known, report)
    listed = rows(raw, LIST, report) if known.pop("_rows", None) is not None else None
    edges = known.pop("_edges", [])
    if listed is None:
        return None
    incoming = _incoming(edges, listed, report)
    tasks = tuple([_task(node, index, incoming, report) for index, node in enumerate(listed)])
    known["metadata"] = kept(unknown, known.get("metadata"))
    plan = Plan(dialect="workflow", tasks=tasks, **{"alt_id": "", "version": "", "title": "", **known})

    def locate_dependency(index: int, position: int) -> Path:
        task = tasks[index]
        source = task.dependencies[position]
        edge = next(edge for edge in incoming[task.id] if edge.source == source)
        return (EDGES, edge.index)

    return Draft(
        plan,
        LIST,
        [task.dependencies for task in tasks],
        lambda index, path: (LIST, index, "config", *path),
        locate_dependency,
    )


def _incoming(edges: Any, nodes: list[Any], report: Report) -> _Incoming:
    if type(edges) is not list:
        report.error("BAD_TYPE", (EDGES,), f"`{EDGES}` must be a list, not {kind_of(edges)}.")
        return {}
    ids = {node["id"]: None for node in nodes if isinstance(node, dict) and isinstance(node.get("id"), str)}
    incoming: _Incoming = {}
    for index, raw in enumerate(edges):
        spot = Spot((EDGES, index), report)
        if type(raw) is not dict:
            report.error("BAD_TYPE", spot.path, f"An edge must be an object, not {kind_of(raw)}.")
            continue
        known, _ = EDGE.read(raw, spot)
        source, target = (_end(known, end, ids, spot) for end in ("source", "target"))
        if source is not None and target is not None:
            handles = {name: known[name] for name in _HANDLES if name in known}
            incoming.setdefault(target, []).append(_Edge(index, source, handles))
    return incoming


def _end(edge: dict[str, Any], end: str, ids: dict[str, None], spot: Spot) -> str | None:
    name: str | None = edge.get(end)
    if name is None or name in ids:
        return name
    spot.wrong("UNKNOWN_NODE", f"{end}_node_id", f"There is no node `{shown(name)}`.", like=(name, ids))
    return None


def _task(raw: Any, index: int, incoming: _Incoming, report: Report) -> TaskPlan:
    spot = Spot((LIST, index), report)
    if type(raw) is not dict:
        report.error("BAD_TYPE", spot.path, f"A node must be an object, not {kind_of(raw)}.")
        return TaskPlan(id="", description="", kind="")
    known, unknown = NODE.read(raw, spot)
    known.setdefault("id", "")
    kind = known.setdefault("kind", "")
    edges = incoming.get(known["id"], [])
    _check_piece(known.pop("_type", None), kind, spot, has_edges=bool(edges))
    name, description = known.pop("_name", ""), known.pop("_description", "")
    known["description"] = description or name or kind
    dependencies = tuple(dict.fromkeys(edge.source for edge in edges))
    known |= _configured(known.get("parameters", {}), Spot((*spot.path, "config"), report))
    if kind in TRIGGERS:
        known["parameters"] = {"input": "${inputs}"}
        _warn_of_schedule(kind, raw.get("config"), spot)
    else:
        known["parameters"] = with_prompt(kind, known["parameters"], known["description"])
        if "input" not in known["parameters"]:
            known["input_from"] = dependencies
    if known.pop("_position", None) is not None:
        unknown["position"] = raw["position"]
    if handles := [{"from": edge.source, **edge.handles} for edge in edges if edge.handles]:
        unknown["handles"] = handles
    known["metadata"] = kept(unknown, known.get("metadata"))
    return TaskPlan(dependencies=dependencies, **known)


def _configured(config: dict[str, Any], spot: Spot) -> dict[str, Any]:
    """Fields of the TaskPlan: how it is tried again, and the parameters that are left for its handler."""
    ours = {name: config[name] for name in RETRIES.fields if name in config}
    told, _ = RETRIES.read(ours, spot)
    return {**told, "parameters": {name: value for name, value in config.items() if name not in ours}}


def _check_piece(told: str | None, kind: str, spot: Spot, *, has_edges: bool) -> None:
    if told is None or not kind:
        return
    if (told == "trigger") != (kind in TRIGGERS):
        names = ", ".join(f"`{name}`" for name in sorted(TRIGGERS))
        message = f"`{shown(kind)}` is no piece of a node of type {told}; triggers are {names}."
        spot.wrong("BAD_PIECE", "piece_type", message, like=(kind, TRIGGERS) if told == "trigger" else None)
    elif told == "trigger" and has_edges:
        message = "A trigger begins a workflow; no edge may lead into it."
        spot.wrong("BAD_PIECE", "id", message)


def _warn_of_schedule(kind: str, config: Any, spot: Spot) -> None:
    if kind == "schedule_trigger" and config:
        spot.report.warn(
            "SCHEDULE_IGNORED",
            (*spot.path, "config"),
            "A job runs once, when it is submitted; its schedule is the submitter's to keep.",
        )
