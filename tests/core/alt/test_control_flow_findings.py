"""Control flow that is wrong: each mistake is told with its place, all at once, and nothing that only follows."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from runner.core.alt import DescriptorLimits, decode
from runner.core.errors import InvalidDescriptor
from tests.core.alt.descriptors import as_json, as_msgpack, refused
from tests.core.alt.flows import (
    GLOBALS,
    branch,
    call,
    compared,
    counted,
    during,
    each,
    flow_file,
    function,
    parameter,
    step,
    variable,
)

X, Y = step("x"), step("y")
#: Segments, fields of the file, and the reasons and paths that are told.
WRONG: list[Any] = [
    # BAD_CONTROL
    ([step("a", condition=branch(["x"]), loop=each(["y"])), X, Y], {}, [("BAD_CONTROL", "segments[0].loop")]),
    ([step("a", loop=each(["x"]) | {"end": 3}), X], {}, [("BAD_CONTROL", "segments[0].loop.end")]),
    ([step("a", loop=counted(["x"], condition={})), X], {}, [("BAD_CONTROL", "segments[0].loop.condition")]),
    (
        [step("a", loop=during(["x"]), metadata={"parallel": True}), X],
        {},
        [("BAD_CONTROL", "segments[0].metadata.parallel")],
    ),
    # BAD_NAME
    ([step("a/b")], {}, [("BAD_NAME", "segments[0].id")]),
    ([step("a[1]")], {}, [("BAD_NAME", "segments[0].id")]),
    ([X], {"global_variables": [variable("not-one")]}, [("BAD_NAME", "global_variables[0].name")]),
    ([X], {"functions": [function("1st", "x")]}, [("BAD_NAME", "functions[0].name")]),
    ([step("a", loop=each(["x"], name="a b")), X], {}, [("BAD_NAME", "segments[0].loop.variable")]),
    ([X], {"global_variables": [variable("n" * 257)]}, [("TEXT_TOO_LONG", "global_variables[0].name")]),
    # BAD_OPERAND
    *(
        (
            [step("a", condition=branch(["x"], condition=compared(operator, left, right))), X],
            {},
            [("BAD_OPERAND", "segments[0].condition.condition.operator")],
        )
        for operator, left, right in [
            ("gt", "number", "x"),
            ("lte", "text", 1),
            ("lt", "items", 1),
            ("gte", "number", True),
            ("starts_with", "number", "x"),
            ("ends_with", "text", 1),
            ("contains", "number", 1),
            ("contains", "text", 1),
            ("not_contains", "record", ["x"]),
            ("contains", "text", None),
            ("gt", "number", None),
            ("not_contains", "flag", 1),
            ("and", "number", "flag"),
            ("or", "flag", "nobody"),
            ("gt", compared(), 1),
        ]
    ),
    (
        [step("a", condition=branch(["x"], condition=compared("and", "flag", 1))), X],
        {},
        [("BAD_OPERAND", "segments[0].condition.condition.right")],
    ),
    (
        [step("a", condition=branch(["x"], condition={"operator": "not", "left": "number"})), X],
        {},
        [("BAD_OPERAND", "segments[0].condition.condition.operator")],
    ),
    ([step("a", loop=each(["x"], iterable="number")), X], {}, [("BAD_OPERAND", "segments[0].loop.iterable")]),
    ([step("a", loop=each(["x"], iterable=5)), X], {}, [("BAD_OPERAND", "segments[0].loop.iterable")]),
    (
        [step("a", loop=counted(["x"], "text", [])), X],
        {},
        [("BAD_OPERAND", "segments[0].loop.start"), ("BAD_OPERAND", "segments[0].loop.end")],
    ),
    # BAD_TYPE, OUT_OF_RANGE, MISSING_FIELD, UNKNOWN_TYPE
    ([step("a", loop=counted(["x"], 0.5)), X], {}, [("BAD_TYPE", "segments[0].loop.start")]),
    ([step("a", loop=counted(["x"], step=0)), X], {}, [("OUT_OF_RANGE", "segments[0].loop.step")]),
    (
        [step("a", loop=each(["x"]), metadata={"parallel": True, "max_parallel": 0}), X],
        {},
        [("OUT_OF_RANGE", "segments[0].metadata.max_parallel")],
    ),
    ([step("a", loop=[]), X], {}, [("BAD_TYPE", "segments[0].loop")]),
    ([step("a", condition=branch(["x"], condition=[1])), X], {}, [("BAD_TYPE", "segments[0].condition.condition")]),
    (
        [step("a", condition=branch(["x"], condition=compared(left=1))), X],
        {},
        [("BAD_TYPE", "segments[0].condition.condition.left")],
    ),
    ([X], {"functions": {}}, [("BAD_TYPE", "functions")]),
    ([X], {"functions": [5]}, [("BAD_TYPE", "functions[0]")]),
    ([X], {"global_variables": {}}, [("BAD_TYPE", "global_variables")]),
    ([step("a", variables=[5])], {}, [("BAD_TYPE", "segments[0].variables[0]")]),
    (
        [step("a", loop={"type": "for_all", "variable": "v", "body": ["x"]}), X],
        {},
        [("UNKNOWN_TYPE", "segments[0].loop.type")],
    ),
    ([step("a", loop=each(["x"], iterable=None)), X], {}, [("MISSING_FIELD", "segments[0].loop.iterable")]),
    (
        [step("a", loop=counted(["x"], None, None)), X],
        {},
        [("MISSING_FIELD", "segments[0].loop.start"), ("MISSING_FIELD", "segments[0].loop.end")],
    ),
    ([{"id": "a", "content": "c"}], {}, [("MISSING_FIELD", "segments[0].task_type")]),
    ([X], {"global_variables": [variable("n", 1, "integer")]}, [("UNKNOWN_TYPE", "global_variables[0].type")]),
    # BAD_VALUE
    ([X], {"global_variables": [variable("n", "1", "number")]}, [("BAD_VALUE", "global_variables[0].value")]),
    ([X], {"global_variables": [variable("n", ["${job.id}"])]}, [("BAD_VALUE", "global_variables[0].value")]),
    ([step("a", variables=[variable("n", True, "number")])], {}, [("BAD_VALUE", "segments[0].variables[0].value")]),
    (
        [X],
        {"functions": [function("f", "x", parameters=[parameter("p", "array", default_value={})]), function("g", "y")]},
        [("BAD_VALUE", "functions[0].parameters[0].default_value"), ("UNKNOWN_DEPENDENCY", "functions[1].body[0]")],
    ),
    (
        [step("a", function_call=call("f", p="x")), X],
        {"functions": [function("f", "x", parameters=[parameter("p", "number")])]},
        [("BAD_VALUE", "segments[0].function_call.arguments.p")],
    ),
    # BAD_REFERENCE
    (
        [step("a", condition=branch(["x"], condition=compared(left="v."))), X],
        {},
        [("BAD_REFERENCE", "segments[0].condition.condition.left")],
    ),
    (
        [step("a", condition=branch(["x"], condition=compared(left="v} {v"))), X],
        {},
        [("BAD_REFERENCE", "segments[0].condition.condition.left")],
    ),
    ([step("a", loop=each(["x"], iterable="${tasks.b}")), X], {}, [("BAD_REFERENCE", "segments[0].loop.iterable")]),
    # DUPLICATE_NAME
    ([X], {"global_variables": [variable("n"), variable("n")]}, [("DUPLICATE_NAME", "global_variables[1].name")]),
    (
        [step("d", function_def=function("f", "x")), X, Y],
        {"functions": [function("f", "y")]},
        [("DUPLICATE_NAME", "segments[0].function_def.name")],
    ),
    # EMPTY_BODY
    ([step("a", loop=each([])), X], {}, [("EMPTY_BODY", "segments[0].loop.body")]),
    ([step("a", condition=branch([])), X], {}, [("EMPTY_BODY", "segments[0].condition.if_body")]),
    ([X], {"functions": [function("f")]}, [("EMPTY_BODY", "functions[0].body")]),
    # Calls
    (
        [step("a", function_call=call("f", q=1)), X],
        {"functions": [function("f", "x", parameters=[parameter("p", required=True), parameter("r", required=True)])]},
        [
            ("UNKNOWN_ARGUMENT", "segments[0].function_call.arguments.q"),
            ("MISSING_ARGUMENT", "segments[0].function_call.arguments"),
            ("MISSING_ARGUMENT", "segments[0].function_call.arguments"),
        ],
    ),
    ([step("a", function_call=call("g")), X], {}, [("UNKNOWN_FUNCTION", "segments[0].function_call.function_name")]),
    # OPERAND_COUNT, UNKNOWN_OPERATOR, UNKNOWN_VARIABLE
    (
        [step("a", condition=branch(["x"], condition={"operator": "eq", "left": "v"})), X],
        {},
        [("OPERAND_COUNT", "segments[0].condition.condition.right")],
    ),
    (
        [step("a", condition=branch(["x"], condition=compared("not", "flag", "flag"))), X],
        {},
        [("OPERAND_COUNT", "segments[0].condition.condition.right")],
    ),
    (
        [step("a", condition=branch(["x"], condition=compared("equals"))), X],
        {},
        [("UNKNOWN_OPERATOR", "segments[0].condition.condition.operator")],
    ),
    ([step("a", loop=each(["x"], iterable="none")), X], {}, [("UNKNOWN_VARIABLE", "segments[0].loop.iterable")]),
    (
        [step("a", loop=each(["x"], iterable="${variables.none}")), X],
        {},
        [("UNKNOWN_VARIABLE", "segments[0].loop.iterable")],
    ),
    (
        [step("a", loop=each(["x"])), X, step("b", content="${variables.item}")],
        {},
        [("UNKNOWN_VARIABLE", "segments[2].content")],
    ),
    (
        [step("a", function_call=call("f"), variables=[variable("own")]), step("x", content="${variables.own}")],
        {"functions": [function("f", "x")]},
        [("UNKNOWN_VARIABLE", "segments[1].content")],
    ),
    # SECRET_STORED
    (
        [step("a", condition=branch(["x"], condition=compared(left="${secrets.K}"))), X],
        {},
        [("SECRET_STORED", "segments[0].condition.condition.left")],
    ),
    (
        [step("a", function_call=call("f", p=["${secrets.K}"])), X],
        {"functions": [function("f", "x", parameters=[parameter("p")])]},
        [("SECRET_STORED", "segments[0].function_call.arguments.p[0]")],
    ),
    # Bodies
    ([step("a", loop=each(["x", "x"])), X], {}, [("SHARED_BODY", "segments[0].loop.body[1]")]),
    (
        [step("a", loop=each(["x"])), step("b", condition=branch(["y"], ["x"])), X, Y],
        {},
        [("SHARED_BODY", "segments[1].condition.else_body[0]")],
    ),
    (
        [step("a", loop=each(["x"])), X],
        {"functions": [function("f", "x")]},
        [("SHARED_BODY", "functions[0].body[0]")],
    ),
    ([step("a", loop=each(["x", "nobody"])), X], {}, [("UNKNOWN_DEPENDENCY", "segments[0].loop.body[1]")]),
    ([X], {"functions": [function("f", "x")]}, [("NO_TASKS", "segments")]),
    ([step("a", loop=each([5, "x"])), X], {}, [("BAD_TYPE", "segments[0].loop.body[0]")]),
    # CYCLE
    ([step("a", loop=each(["a"]))], {}, [("CYCLE", "segments[0].loop.body[0]")]),
    (
        [step("a", loop=each(["b"])), step("b", condition=branch(["x", "a"])), X],
        {},
        [("CYCLE", "segments[0].loop.body[0]")],
    ),
    ([step("a", "x", loop=each(["x"])), X], {}, [("CYCLE", "segments[0].dependencies[0]")]),
    ([step("a", loop=each(["x"])), step("x", "a")], {}, [("CYCLE", "segments[0].loop.body[0]")]),
    (
        [step("a", loop=each(["b"])), step("b", loop=each(["x"])), step("x", "a")],
        {},
        [("CYCLE", "segments[0].loop.body[0]")],
    ),
    (
        [
            step("a", loop=each(["x", "x2"])),
            step("b", loop=each(["y", "y2"])),
            step("x", "y"),
            step("x2"),
            step("y"),
            step("y2", "x2"),
        ],
        {},
        [("CYCLE", "segments[0]")],
    ),
    # OTHER_BODY
    (
        [step("a", "x"), step("b", function_call=call("f")), X],
        {"functions": [function("f", "x")]},
        [("OTHER_BODY", "segments[0].dependencies[0]")],
    ),
    (
        [step("a"), step("x", "a")],
        {"functions": [function("f", "x")]},
        [("OTHER_BODY", "segments[1].dependencies[0]")],
    ),
    (
        [step("b"), step("x"), step("y", "x")],
        {"functions": [function("f", "x"), function("g", "y")]},
        [("OTHER_BODY", "segments[2].dependencies[0]")],
    ),
    (
        [step("a", condition=branch(["x"], ["y"])), step("x", "y"), Y],
        {},
        [("OTHER_BODY", "segments[1].dependencies[0]")],
    ),
    # NOT_AN_ANCESTOR
    (
        [step("a", loop=each(["x"])), X, step("b", "a", content="${tasks.x.output}")],
        {},
        [("NOT_AN_ANCESTOR", "segments[2].content")],
    ),
    (
        [step("a", function_call=call("f")), X, step("b", "a", content="${tasks.x.output}")],
        {"functions": [function("f", "x")]},
        [("NOT_AN_ANCESTOR", "segments[2].content")],
    ),
    (
        [step("a"), step("b", "a", function_call=call("f")), step("x", content="${tasks.a.output}")],
        {"functions": [function("f", "x")]},
        [("NOT_AN_ANCESTOR", "segments[2].content")],
    ),
    (
        [step("a", loop=each(["x"])), step("x", content="${tasks.y.output}"), Y],
        {},
        [("NOT_AN_ANCESTOR", "segments[1].content")],
    ),
    (
        [step("a", loop=each(["x"])), step("x", content="${tasks.a.output}")],
        {},
        [("NOT_AN_ANCESTOR", "segments[1].content")],
    ),
    (
        [step("a", loop=each(["x"], iterable="${tasks.y.output}")), X, Y],
        {},
        [("NOT_AN_ANCESTOR", "segments[0].loop.iterable")],
    ),
    (
        [step("a", loop=each(["x"], iterable="${tasks.x.output}")), X],
        {},
        [("NOT_AN_ANCESTOR", "segments[0].loop.iterable")],
    ),
    (
        [step("a", loop=each(["x"], iterable="${tasks.q.output}")), X],
        {},
        [("UNKNOWN_TASK", "segments[0].loop.iterable")],
    ),
    # RECURSION
    (
        [step("a", function_call=call("f")), step("x", function_call=call("g")), step("y", function_call=call("f"))],
        {"functions": [function("f", "x"), function("g", "y")]},
        [("RECURSION", "functions[0].body")],
    ),
    (
        [step("a", function_def=function("f", "x")), step("x", function_call=call("f"))],
        {},
        [("RECURSION", "segments[0].function_def.body")],
    ),
    # A version that was meant as 2.0
    ([step("a", loop=each([]))], {"version": 2.0}, [("BAD_TYPE", "version"), ("EMPTY_BODY", "segments[0].loop.body")]),
    ([step("a", loop=each(["x"])), X], {"version": "2.1"}, [("UNSUPPORTED_VERSION", "version")]),
]


@pytest.mark.parametrize(
    ("segments", "fields", "told"), WRONG, ids=[f"{n}-{w[2][0][0] if w[2] else 'sound'}" for n, w in enumerate(WRONG)]
)
def test_what_is_wrong_is_told_where_it_stands_and_nothing_else_is(
    segments: list[Any], fields: dict[str, Any], told: list[tuple[str, str]]
) -> None:
    raw = flow_file(*segments, **({"global_variables": GLOBALS} | fields))
    try:
        found = decode(as_json(raw)).warnings
    except InvalidDescriptor as e:
        found = e.findings
    assert sorted((finding.reason, finding.path) for finding in found) == sorted(told)
    assert all(finding.line == 1 and finding.column > 1 for finding in found if finding.path)


def message(*segments: Any, **fields: Any) -> str:
    (finding,) = refused(flow_file(*segments, **({"global_variables": GLOBALS} | fields)))
    return finding.message


def test_a_reference_into_a_body_or_out_of_a_function_says_what_to_do() -> None:
    looks = step("b", "a", content="${tasks.x.output}")
    assert message(step("a", loop=each(["x"])), X, looks) == (
        "`x` runs only inside of `a`; refer to `a`, whose output is what its body gives."
    )
    assert message(step("a", function_call=call("f")), X, looks, functions=[function("f", "x")]) == (
        "`x` runs only inside of function `f`; refer to a task that calls it."
    )
    inside = step("x", content="${tasks.a.output}")
    assert message(step("a"), step("b", "a", function_call=call("f")), inside, functions=[function("f", "x")]) == (
        "`a` stands outside of the function that refers to it; pass what it needs as an argument."
    )


def test_sentences_name_what_they_speak_of() -> None:
    assert "`x` is in the body of `a` already" in message(step("a", loop=each(["x", "x"])), X)
    assert "function `f` already" in message(X, Y, functions=[function("f", "x"), function("g", "x")])
    ring = message(
        step("a"),
        step("x", function_call=call("g")),
        step("y", function_call=call("f")),
        functions=[function("f", "x"), function("g", "y")],
    )
    assert "f → g → f" in ring
    assert "This runs `x`" in message(step("a", "x", loop=each(["x"])), X)
    branches = message(step("a", condition=branch(["x"], ["y"])), step("x", "y"), Y)
    assert "different branches of `a`" in branches
    assert "a → b → a" in message(step("a", loop=each(["b"])), step("b", loop=each(["a"])))


def suggestion(*segments: Any, **fields: Any) -> str:
    (finding,) = refused(flow_file(*segments, **({"global_variables": GLOBALS} | fields)))
    return finding.suggestion


def test_near_names_are_suggested() -> None:
    condition = branch(["x"], condition=compared(left="nummer"))
    assert suggestion(step("a", condition=condition), X) == "number"
    assert suggestion(step("a", condition=branch(["x"], condition=compared("equ"))), X) == "eq"
    functions = [function("score", "x", parameters=[parameter("weight")])]
    assert suggestion(step("a", function_call=call("scores")), X, functions=functions) == "score"
    assert suggestion(step("a", function_call=call("score", wieght=1)), X, functions=functions) == "weight"
    assert suggestion(step("a", loop=each(["xx"])), step("xxx"), Y) == "xxx"
    assert suggestion(step("a", loop=each(["x"])), step("x", content="${variables.itme}")) == "item"


EVERYTHING = """\
id: all
version: '2.0'
timestamp: '2026-01-05T08:00:00Z'
command: Everything is wrong
global_variables:
  - {name: 1st}
  - {name: n, type: number, value: one}
  - {name: n, type: number}
functions:
  - {name: f, parameters: [{name: p, required: true}], body: [inside]}
  - {name: f, body: [inside]}
  - {name: empty, body: []}
segments:
  - id: a/b
    content: A bad id
  - id: loop
    content: A loop over a number
    loop: {type: for_each, variable: item, iterable: n, body: [one, gone, one], end: 3}
  - {id: one, task_type: x, content: '${variables.nn} ${tasks.inside.output}'}
  - id: both
    content: Two kinds
    condition:
      condition: {operator: gt, left: n, right: high}
      if_body: [two]
    loop: {}
  - {id: two, task_type: x, content: Two, dependencies: [inside]}
  - id: call
    content: A call
    function_call:
      function_name: f
      arguments: {q: 1, secret: '${secrets.K}'}
  - id: lost
    content: A call of nothing
    function_call: {function_name: ff}
  - id: inside
    content: A call of itself
    function_call: {function_name: f, arguments: {p: 1}}
"""
EVERYTHING_TOLD = [
    ("BAD_NAME", "global_variables[0].name", 6),
    ("BAD_VALUE", "global_variables[1].value", 7),
    ("DUPLICATE_NAME", "global_variables[2].name", 8),
    ("RECURSION", "functions[0].body", 10),
    ("DUPLICATE_NAME", "functions[1].name", 11),
    ("EMPTY_BODY", "functions[2].body", 12),
    ("BAD_NAME", "segments[0].id", 14),
    ("MISSING_FIELD", "segments[0].task_type", 14),
    ("BAD_OPERAND", "segments[1].loop.iterable", 18),
    ("UNKNOWN_DEPENDENCY", "segments[1].loop.body[1]", 18),
    ("SHARED_BODY", "segments[1].loop.body[2]", 18),
    ("BAD_CONTROL", "segments[1].loop.end", 18),
    ("UNKNOWN_VARIABLE", "segments[2].content", 19),
    ("NOT_AN_ANCESTOR", "segments[2].content", 19),
    ("BAD_OPERAND", "segments[3].condition.condition.operator", 23),
    ("BAD_CONTROL", "segments[3].loop", 25),
    ("OTHER_BODY", "segments[4].dependencies[0]", 26),
    ("MISSING_ARGUMENT", "segments[5].function_call.arguments", 31),
    ("UNKNOWN_ARGUMENT", "segments[5].function_call.arguments.q", 31),
    ("UNKNOWN_ARGUMENT", "segments[5].function_call.arguments.secret", 31),
    ("SECRET_STORED", "segments[5].function_call.arguments.secret", 31),
    ("UNKNOWN_FUNCTION", "segments[6].function_call.function_name", 34),
]


def test_all_that_is_wrong_is_told_at_once_each_with_its_line() -> None:
    found = refused(EVERYTHING.encode(), limits=DescriptorLimits(max_findings=1_000))
    told = [(finding.reason, finding.path, finding.line) for finding in found]
    assert sorted(told) == sorted(EVERYTHING_TOLD)
    assert [line for _, _, line in told] == sorted(line for _, _, line in told)
    as_others = {
        (finding.reason, finding.path)
        for write in (as_json, as_msgpack)
        for finding in refused(write(yaml.safe_load(EVERYTHING)))
    }
    assert as_others == {(reason, path) for reason, path, _ in EVERYTHING_TOLD}


def test_a_ring_of_bodies_is_told_without_what_follows_from_it() -> None:
    """What stands in a ring has no scope: its names and references are not looked at."""
    (finding,) = refused(
        flow_file(
            step("a", loop=each(["b"])),
            step("b", condition=branch(["a", "x"], condition=compared("gt", "item", 3))),
            step("x", content="${variables.item} ${tasks.a.output}"),
            step("y", "x"),
        )
    )
    assert finding.reason == "CYCLE"
