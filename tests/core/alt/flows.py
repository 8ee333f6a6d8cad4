"""Pieces of `segments` 2.0 for the tests of this directory."""

from __future__ import annotations

from typing import Any

from tests.core.alt.descriptors import segments_file


def flow_file(*segments: Any, **fields: Any) -> dict[str, Any]:
    return segments_file(*segments or [step("a")], **({"version": "2.0"} | fields))


def step(name: str, *dependencies: str, **fields: Any) -> dict[str, Any]:
    """A segment; one that runs others, if the fields say so."""
    kind = {} if {"condition", "loop", "function_call", "function_def"} & fields.keys() else {"task_type": "search"}
    return {"id": name, "content": f"Do {name}", "dependencies": list(dependencies)} | kind | fields


def variable(name: str, value: Any = None, kind: str = "any") -> dict[str, Any]:
    return {"name": name, "type": kind, "value": value}


def compared(operator: str = "eq", left: Any = "v", right: Any = 1) -> dict[str, Any]:
    return {"operator": operator, "left": left, "right": right}


def branch(then: list[str], otherwise: list[str] | None = None, condition: Any = None) -> dict[str, Any]:
    chosen = {} if otherwise is None else {"else_body": otherwise}
    return {"condition": condition or compared(), "if_body": then} | chosen


def each(body: list[Any], iterable: Any = "items", name: str = "item") -> dict[str, Any]:
    return {"type": "for_each", "variable": name, "iterable": iterable, "body": body}


def counted(body: list[str], start: Any = 0, end: Any = 3, name: str = "n", **fields: Any) -> dict[str, Any]:
    return {"type": "for_range", "variable": name, "start": start, "end": end, "body": body} | fields


def during(body: list[str], condition: Any = None, name: str = "round") -> dict[str, Any]:
    return {"type": "while", "variable": name, "condition": condition or compared(), "body": body}


def call(name: str, result: str | None = None, **arguments: Any) -> dict[str, Any]:
    taken = {} if result is None else {"result_variable": result}
    return {"function_name": name, "arguments": arguments} | taken


def function(name: str, *body: str, parameters: Any = None, **fields: Any) -> dict[str, Any]:
    told = {} if parameters is None else {"parameters": parameters}
    return {"name": name, "body": list(body)} | told | fields


def parameter(name: str, kind: str = "any", **fields: Any) -> dict[str, Any]:
    return {"name": name, "type": kind} | fields


#: Of any type, a number, a text, a list, true or false, an object.
GLOBALS = [
    variable("v", 1),
    variable("number", 2, "number"),
    variable("text", "x", "string"),
    variable("items", [1], "array"),
    variable("flag", True, "boolean"),
    variable("record", {}, "object"),
]
