"""The dialects as JSON Schema, draft 2020-12, for editors: made of the tables that the decoder reads by.

Whatever the decoder accepts by the same limits is valid. What a schema cannot say (ids that are unique, dependencies
that exist, rings, references) only the decoder finds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from itertools import combinations
from typing import Any, Final

from runner.core.alt import control_flow, fields, segments, tasks, workflow
from runner.core.alt.dialect import LOCAL_KINDS
from runner.core.alt.fields import Field, Integer, Number, Read, Table, Word
from runner.core.alt.limits import DescriptorLimits
from runner.core.plan import Mode

Schema = dict[str, Any]

_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
_FILLED: Final = {"type": "string", "pattern": r"\S"}
#: A text that is one reference and nothing else stands for a value of any type.
_REFERENCE: Final = {"type": "string", "pattern": r"^\$\{[\s\S]*\}$"}
#: A letter or `_`, then letters, digits and `_`, of any alphabet: as near as the patterns of all readers come to it.
_NAME: Final = r"^[^\s\d!-/:-@\[-^`{-~][^\s!-/:-@\[-^`{-~]*$"
#: The id of a segment of 2.0.
_IN_PATHS: Final = r"^[^/\[\]]*$"
_NULL: Final = {"type": "null"}
_CONDITION: Final = {"$ref": "#/$defs/condition"}

_READ: Final[dict[Read, Callable[[DescriptorLimits], Schema]]] = {
    fields.as_it_is: lambda _: {},
    fields.text: lambda _: {"type": "string"},
    fields.filled_text: lambda _: dict(_FILLED),
    fields.identifier: lambda limits: {**_FILLED, "maxLength": limits.max_id},
    fields.title: lambda limits: {**_FILLED, "maxLength": limits.max_title},
    fields.short_text: lambda limits: {"type": "string", "maxLength": limits.max_title},
    control_flow.name: lambda limits: {"type": "string", "maxLength": limits.max_id, "pattern": _NAME},
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
    "global_variables": "Variables that every segment sees.",
    "functions": "Bodies with parameters, for `function_call`.",
    "variables": "Its own, which what it runs sees as well.",
    "condition": "Runs one of two bodies.",
    "loop": "Runs a body again and again.",
    "function_def": "Defines a function; by itself it does nothing.",
    "function_call": "Runs a function's body.",
    "if_body": "Ids of the segments that run if it is true; they run only through this.",
    "else_body": "Ids of the segments that run if it is not; they run only through this.",
    "operator": "How it compares.",
    "left": "The name of a variable or a part of one, a ${…} reference, or a condition.",
    "right": "A literal, the name of a variable, a ${…} reference, or a condition; `not` has none.",
    "variable": "The name under which each round finds its item or number.",
    "iterable": "For for_each: the name of a variable that holds a list, or a ${…} reference to one.",
    "start": "For for_range: the first number, the name of a variable, or a ${…} reference.",
    "end": "For for_range: the number before which it ends, the name of a variable, or a ${…} reference.",
    "step": "For for_range: from one number to the next; may be negative. Default: 1.",
    "body": "Ids of the segments that run; they run only through this. The last one's output is the body's value.",
    "return_type": "Of the function's value. Default: any.",
    "default_value": "Taken where a call gives none.",
    "function_name": "The function that runs.",
    "arguments": "By parameter: literals and ${…} references.",
    "result_variable": "The variable that takes the function's value.",
    "source_handle": "Kept in the metadata.",
    "target_handle": "Kept in the metadata.",
}


def schema_of_all(limits: DescriptorLimits | None = None) -> Schema:
    """For a descriptor of any dialect, which is known by its list."""
    dialects = {dialect: _DIALECTS[dialect](limits or DescriptorLimits()) for dialect in _LISTS}
    return {
        "$schema": _DRAFT,
        "title": "alt-runner descriptor",
        "oneOf": [{"required": [key]} for key in _LISTS.values()],
        "allOf": [
            {"if": {"required": [key]}, "then": {"$ref": f"#/$defs/{dialect}"}} for dialect, key in _LISTS.items()
        ],
        # What a dialect defines is looked for at the root.
        "$defs": {name: told for schema in dialects.values() for name, told in schema.pop("$defs", {}).items()}
        | dialects,
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
    more: dict[str, Schema] = {
        "parameters": {"type": ["array", "null"], "items": parameter},
        "task_type": {"examples": _kinds()},
    }
    first = _list(_object(segments.SEGMENT, limits, more), limits.max_tasks)
    version = {"pattern": f"^{segments.VERSION.pattern}$", "examples": ["1.0", "2.0"]}
    file = _object(segments.FILE, limits, {"version": version})
    by_version = {
        "if": {"properties": {"version": {"const": "2.0"}}, "required": ["version"]},
        "then": {"properties": _flow_properties(limits, more)},
        "else": {"properties": {segments.LIST: first}},
    }
    whole = file | {"allOf": [by_version, _chaos_level()], "$defs": {"condition": _condition(limits)}}
    return _file("segments", segments.SUPPORTED, whole)


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
    typed = _typed("value", segments.TYPES, _REFERENCE)
    has_value = {"properties": {"value": {"not": _NULL}}, "required": ["value"]}
    return [*typed, {"if": {"properties": {"required": {"const": True}}, "required": ["required"]}, "then": has_value}]


def _typed(key: str, names: Iterable[str], *others: Schema) -> list[Schema]:
    """The field `key` is of the type that `type` names, or one of the others."""
    return [
        {
            "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
            "then": {"properties": {key: {"anyOf": [{"type": [name, "null"]}, *others]}}},
        }
        for name in names
    ]


def _chaos_level() -> Schema:
    chaos = {"type": "string", "pattern": _in_any_case(Mode.CHAOS.value)}
    return {
        "if": {"properties": {"mode": chaos}, "required": ["mode"]},
        "then": {"properties": {"chaos_level": {"type": "integer"}}, "required": ["chaos_level"]},
        "else": {"properties": {"chaos_level": {"type": "null"}}},
    }


# --------------------------------------------------------------------------------------------------- control flow


def _flow_properties(limits: DescriptorLimits, more: Mapping[str, Schema]) -> Schema:
    """What version 2.0 of `segments` adds to a file."""
    told = _object(
        segments.FILE_2,
        limits,
        {
            "global_variables": _variables(limits),
            "functions": {"type": ["array", "null"], "items": _function(limits)},
            segments.LIST: _list(_flow_segment(limits, more), limits.max_tasks),
        },
    )["properties"]
    return {name: told[name] for name in ("global_variables", "functions", segments.LIST)}


def _flow_segment(limits: DescriptorLimits, more: Mapping[str, Schema]) -> Schema:
    branch = {"condition": _described("What decides."), "if_body": {"minItems": 1}}
    controls = {
        "condition": _or_null(_object(control_flow.BRANCH, limits, branch)),
        "loop": _or_null(_loop(limits)),
        "function_def": _or_null(_function(limits)),
        "function_call": _or_null(_object(control_flow.CALL, limits, {})),
    }
    told = {**more, **controls, "variables": _variables(limits), "id": {"allOf": [{"pattern": _IN_PATHS}]}}
    has = {place: {"properties": {place: {"not": _NULL}}, "required": [place]} for place in control_flow.PLACES}
    a_type = {"properties": {"task_type": {"not": _NULL}}, "required": ["task_type"]}
    at_most_one = [{"not": {"allOf": [has[one], has[other]]}} for one, other in combinations(has, 2)]
    rules = [{"anyOf": [a_type, *has.values()]}, *at_most_one, {"if": has["loop"], "then": _rounds()}]
    return _object(segments.SEGMENT_2, limits, told) | {"allOf": rules}


def _rounds() -> Schema:
    """What the metadata of a loop says of its rounds."""
    most = {"type": ["integer", "null"], "minimum": 1, "maximum": control_flow.MOST_PARALLEL}
    told = {"parallel": {"type": ["boolean", "null"]}, "max_parallel": most}
    return {"properties": {"metadata": {"properties": told}}}


def _loop(limits: DescriptorLimits) -> Schema:
    number = {"type": ["string", "integer", "null"]}
    more: dict[str, Schema] = {
        "iterable": {"type": ["string", "array", "null"]},
        "start": number,
        "end": number,
        "step": {**number, "not": {"const": 0}},
        "condition": _described("It goes on as long as this holds.", {"type": "null"}),
        "body": {"minItems": 1},
    }
    rules = [_of_kind(kind, *fields) for kind, fields in control_flow.LOOP_FIELDS.items()]
    return _object(control_flow.LOOP, limits, more) | {"allOf": rules}


def _of_kind(kind: str, needed: tuple[str, ...], possible: tuple[str, ...]) -> Schema:
    """The fields of one kind of loop."""
    others = {name for fields in control_flow.LOOP_FIELDS.values() for each in fields for name in each}
    foreign = dict.fromkeys(sorted(others - {*needed, *possible}), _NULL)
    return {
        "if": {"properties": {"type": {"type": "string", "pattern": _in_any_case(kind)}}, "required": ["type"]},
        "then": {"required": list(needed), "properties": foreign | {name: {"not": _NULL} for name in needed}},
    }


def _function(limits: DescriptorLimits) -> Schema:
    rules = {"allOf": _typed("default_value", control_flow.TYPES)}
    parameters = {"type": ["array", "null"], "items": _object(control_flow.FUNCTION_PARAMETER, limits, {}) | rules}
    told: dict[str, Schema] = {"parameters": {**parameters, "description": "What it takes."}, "body": {"minItems": 1}}
    return _object(control_flow.FUNCTION, limits, told)


def _variables(limits: DescriptorLimits) -> Schema:
    value = {"value": {"description": "What it begins with, of its type; no ${…} reference."}}
    item = _object(control_flow.VARIABLE, limits, value) | {"allOf": _typed("value", control_flow.TYPES)}
    return {"type": ["array", "null"], "items": item}


def _condition(limits: DescriptorLimits) -> Schema:
    """An operator with its operands, which may be conditions."""
    inner = {"if": {"type": "object", "required": ["operator"]}, "then": _CONDITION}
    told = _object(
        control_flow.CONDITION, limits, {"left": {"anyOf": [{"type": "string"}, _CONDITION]}, "right": inner}
    )
    negates = {"properties": {"operator": {"type": "string", "pattern": _in_any_case("not")}}, "required": ["operator"]}
    joins = {"properties": {"operator": {"type": "string", "pattern": _in_any_case("and", "or")}}}
    sides = {"properties": {"right": {"anyOf": [{"type": ["string", "boolean"]}, _CONDITION]}}}
    counts = {"if": negates, "then": {"properties": {"right": _NULL}}, "else": {"required": ["right"]}}
    return told | {"allOf": [counts, {"if": joins, "then": sides}]}


def _described(words: str, *others: Schema) -> Schema:
    return {"description": words, "anyOf": [_CONDITION, *others]}


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
