"""The dialects as JSON Schema, draft 2020-12, for editors: made of the tables that the decoder reads by.

Whatever the decoder accepts by the same limits is valid. What a schema cannot say (ids that are unique, dependencies
that exist, rings, references) only the decoder finds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

from runner.core.alt import fields, segments, tasks, workflow
from runner.core.alt.dialect import LOCAL_KINDS
from runner.core.alt.fields import Field, Integer, Number, Read, Table, Word
from runner.core.alt.limits import DescriptorLimits
from runner.core.plan import Mode

Schema = dict[str, Any]

_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
_FILLED: Final = {"type": "string", "pattern": r"\S"}
#: A text that is one reference and nothing else stands for a value of any type.
_REFERENCE: Final = {"type": "string", "pattern": r"^\$\{[\s\S]*\}$"}

_READ: Final[dict[Read, Callable[[DescriptorLimits], Schema]]] = {
    fields.as_it_is: lambda _: {},
    fields.text: lambda _: {"type": "string"},
    fields.filled_text: lambda _: dict(_FILLED),
    fields.identifier: lambda limits: {**_FILLED, "maxLength": limits.max_id},
    fields.title: lambda limits: {**_FILLED, "maxLength": limits.max_title},
    fields.short_text: lambda limits: {"type": "string", "maxLength": limits.max_title},
    fields.boolean: lambda _: {"type": "boolean"},
    fields.mapping: lambda _: {"type": "object"},
    fields.texts: lambda _: {"type": "array", "items": {"type": "string"}},
    fields.instant: lambda _: {
        "type": "string",
        "pattern": rf"^\s*(?:{fields.TIME.pattern})\s*$",
        "examples": ["2025-04-26T19:32:00Z"],
    },
}

#: What an editor tells of a field, by its name; the same name means the same in all tables.
_ABOUT: Final = {
    "id": "Its name, unique where it stands.",
    "version": "Of the dialect.",
    "title": "What people see in lists.",
    "created_at": "RFC 3339; without a zone it is taken as UTC.",
    "timestamp": "RFC 3339; without a zone it is taken as UTC.",
    "description": "In words.",
    "mode": "How freely an orchestrator may interpret it; in any case. Default: normal.",
    "persona": "Whom the orchestrator is to be.",
    "priority": "In any case; may stand in metadata.priority instead. Default: medium.",
    "tags": "Carried to the record.",
    "metadata": "Carried to the record.",
    "expected_completion_time": "Seconds.",
    "fail_fast": "End the job as soon as one task has failed for good. Default: false.",
    "tasks": "In any order; each starts when those that it depends on have succeeded.",
    "dependencies": "Ids of those that must succeed first.",
    "parameters": "For the handler; texts may hold ${…} references.",
    "timeout_seconds": "For one attempt.",
    "retry_count": "Attempts after the first.",
    "status": "Ignored.",
    "weight": "Its share of the job's progress. Default: 1.",
    "command": "What the person asked for; becomes the title.",
    "language": "Of the texts: tr, en, …",
    "chaos_level": "In mode Chaos only, and required there.",
    "saved_at": "Kept in the metadata.",
    "segments": "In any order; each starts when those that it depends on have succeeded.",
    "task_type": "Who does it: a handler, or any other word for the orchestrator.",
    "content": "The text; the prompt, where it goes to the orchestrator.",
    "name": "What it is called.",
    "value": "Of the type that `type` names, or one reference; texts may hold ${…} references.",
    "type": "Of what sort it is.",
    "required": "Whether it must have a value.",
    "nodes": "Triggers and actions.",
    "edges": "Which node's output goes into which.",
    "piece_type": "What the node does: a handler, or any other word for the orchestrator.",
    "config": "For the handler, and how often it is tried again; texts may hold ${…} references.",
    "position": "Where an editor draws it.",
    "max_retries": "Attempts after the first.",
    "retry_delay_seconds": "Between two attempts.",
    "source_node_id": "Where it comes from.",
    "target_node_id": "Where it leads to.",
    "source_handle": "Kept in the metadata.",
    "target_handle": "Kept in the metadata.",
}


def schema_of_all(limits: DescriptorLimits | None = None) -> Schema:
    """For a descriptor of any dialect, which is known by its list."""
    return {
        "$schema": _DRAFT,
        "title": "alt-runner descriptor",
        "oneOf": [{"required": [key]} for key in _LISTS.values()],
        "allOf": [
            {"if": {"required": [key]}, "then": {"$ref": f"#/$defs/{dialect}"}} for dialect, key in _LISTS.items()
        ],
        "$defs": {dialect: _DIALECTS[dialect](limits or DescriptorLimits()) for dialect in _LISTS},
    }


def schema_of(dialect: str, limits: DescriptorLimits | None = None) -> Schema:
    """For one of DIALECTS."""
    return {"$schema": _DRAFT, **_DIALECTS[dialect](limits or DescriptorLimits())}


# ------------------------------------------------------------------------------------------------------- dialects


def _tasks(limits: DescriptorLimits) -> Schema:
    kind = _or_null({**_READ[fields.title](limits), "description": _ABOUT["task_type"], "examples": _kinds()})
    task = _object(tasks.TASK, limits, {"parameters": {"properties": {"task_type": kind}}})
    version = {"pattern": f"^{tasks.VERSION.pattern}$"}
    listed = _list(task, limits.max_tasks)
    return _file("tasks", tasks.SUPPORTED, _object(tasks.FILE, limits, {"version": version, tasks.LIST: listed}))


def _segments(limits: DescriptorLimits) -> Schema:
    parameter = _object(segments.PARAMETER, limits, {}) | {"allOf": _typed_values()}
    parameters = {"type": ["array", "null"], "items": parameter}
    segment = _object(segments.SEGMENT, limits, {"parameters": parameters, "task_type": {"examples": _kinds()}})
    version = {"pattern": f"^{segments.VERSION.pattern}$"}
    listed = _list(segment, limits.max_tasks)
    file = _object(segments.FILE, limits, {"version": version, segments.LIST: listed})
    return _file("segments", segments.SUPPORTED, file | _chaos_level())


def _workflow(limits: DescriptorLimits) -> Schema:
    config = {"properties": _object(workflow.RETRIES, limits, {})["properties"]}
    node = _object(workflow.NODE, limits, {"config": config, "piece_type": {"examples": _kinds()}})
    edges = {"type": "array", "items": _object(workflow.EDGE, limits, {})}
    version = {"pattern": f"^{workflow.VERSION.pattern}$"}
    inner = {"version": version, workflow.LIST: _list(node, limits.max_tasks), workflow.EDGES: edges}
    return _file("workflow", workflow.SUPPORTED, _object(workflow.FILE, limits, inner))


_DIALECTS: Final = {"tasks": _tasks, "segments": _segments, "workflow": _workflow}
#: The key that names each dialect.
_LISTS: Final = {"tasks": tasks.LIST, "segments": segments.LIST, "workflow": workflow.LIST}
DIALECTS: Final = tuple(_DIALECTS)


def _kinds() -> list[str]:
    return sorted(LOCAL_KINDS | {"ai_prompt"})


def _typed_values() -> list[Schema]:
    """The rules of a segment's parameter: its value is of its type, or a reference; a required one has a value."""
    typed = [
        {
            "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
            "then": {"properties": {"value": {"anyOf": [{"type": [name, "null"]}, _REFERENCE]}}},
        }
        for name in segments.TYPES
    ]
    has_value = {"properties": {"value": {"not": {"type": "null"}}}, "required": ["value"]}
    return [*typed, {"if": {"properties": {"required": {"const": True}}, "required": ["required"]}, "then": has_value}]


def _chaos_level() -> Schema:
    chaos = {"type": "string", "pattern": _in_any_case(Mode.CHAOS.value)}
    return {
        "if": {"properties": {"mode": chaos}, "required": ["mode"]},
        "then": {"properties": {"chaos_level": {"type": "integer"}}, "required": ["chaos_level"]},
        "else": {"properties": {"chaos_level": {"type": "null"}}},
    }


# -------------------------------------------------------------------------------------------------------- pieces


def _file(dialect: str, supported: str, schema: Schema) -> Schema:
    return {"title": f"alt-runner descriptor, dialect {dialect} {supported}", **schema}


def _list(item: Schema, longest: int) -> Schema:
    return {"type": "array", "minItems": 1, "maxItems": longest, "items": item}


def _object(table: Table, limits: DescriptorLimits, more: Mapping[str, Schema]) -> Schema:
    """An object that a table reads. `more` says of some fields what the table does not know."""
    properties = {name: _property(name, field, limits) | more.get(name, {}) for name, field in table.fields.items()}
    return {"type": "object", "required": sorted(table.required), "properties": properties}


def _property(name: str, field: Field, limits: DescriptorLimits) -> Schema:
    value = _value(field.read, limits)
    return {"description": _ABOUT[name], **(value if field.required else _or_null(value))}


def _value(read: Read, limits: DescriptorLimits) -> Schema:
    match read:
        case Integer(lowest=lowest, highest=highest):
            return {"type": "integer", "minimum": lowest, "maximum": highest}
        case Number():
            bounds = {"exclusiveMinimum": read.above, "minimum": read.least, "maximum": read.most}
            return {"type": "number", **{name: bound for name, bound in bounds.items() if math.isfinite(bound)}}
        case Word(words=words):
            # The words first: editors offer them.
            return {"anyOf": [{"enum": list(words)}, {"type": "string", "pattern": _in_any_case(*words)}]}
    return _READ[read](limits)


def _in_any_case(*words: str) -> str:
    """A pattern; that of JSON Schema has no flags."""
    spelt = ("".join(f"[{c}{c.upper()}]" if c.isalpha() else c for c in word) for word in words)
    return f"^(?:{'|'.join(spelt)})$"


def _or_null(schema: Schema) -> Schema:
    """A null counts as absent."""
    if "anyOf" in schema:
        return {"anyOf": [*schema["anyOf"], {"type": "null"}]}
    return {**schema, "type": [schema["type"], "null"]} if "type" in schema else schema
