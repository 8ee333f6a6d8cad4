"""Dialect `segments` 2.0: what its control flow comes to in the plan."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
import yaml

from runner.core.alt import decode
from runner.core.plan import (
    Branch,
    Call,
    Condition,
    Definition,
    ForEach,
    ForRange,
    Operator,
    Parameter,
    Plan,
    TaskPlan,
    Type,
    Value,
    Variable,
    While,
    bodies,
)
from tests.core.alt.descriptors import as_json, as_msgpack, as_toml, as_yaml, plan_of, refused, segments_file
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


def shape(tasks: tuple[TaskPlan, ...]) -> list[Any]:
    """Ids, each with the bodies inside of it."""
    return [(task.id, *map(shape, bodies(task.control))) if bodies(task.control) else task.id for task in tasks]


def flow_plan(*segments: Any, **fields: Any) -> Plan:
    return plan_of(flow_file(*segments, **({"global_variables": GLOBALS} | fields)))


def control_of(**fields: Any) -> Any:
    """What a segment `a` comes to, the file's others being `x` and `y`."""
    return flow_plan(step("a", **fields), step("x"), step("y")).tasks[0].control


# ------------------------------------------------------------------------------------------------- what comes out


def test_a_body_stands_inside_of_what_runs_it_however_the_file_is_ordered() -> None:
    plan = flow_plan(
        step("deep"),
        step("no"),
        step("a", loop=each(["b"])),
        step("yes"),
        step("b", condition=branch(["inner", "yes"], ["no"])),
        step("inner", loop=counted(["deep"])),
    )
    assert shape(plan.tasks) == [("a", [("b", [("inner", ["deep"]), "yes"], ["no"])])]
    assert (plan.dialect, plan.version, plan.has_variables) == ("segments", "2.0", True)


def test_the_last_of_the_list_comes_last_for_its_output_is_the_bodys_value() -> None:
    plan = flow_plan(step("a", loop=each(["y", "z", "x"])), step("x"), step("y"), step("z"))
    assert shape(plan.tasks) == [("a", ["y", "z", "x"])]


def test_every_kind_of_control_flow_becomes_its_struct() -> None:
    holds = Condition(Operator.EQ, Value("${variables.v}"), Value(1))
    assert msgspec.structs.replace(control_of(condition=branch(["x"], ["y"])), then=(), otherwise=()) == Branch(
        condition=holds, then=()
    )
    assert msgspec.structs.replace(control_of(loop=each(["x"])), body=()) == ForEach(
        variable="item", items=Value("${variables.items}"), body=()
    )
    assert msgspec.structs.replace(control_of(loop=counted(["x"], "number", 9.0, step=-1)), body=()) == ForRange(
        variable="n", start=Value("${variables.number}"), end=Value(9.0), step=Value(-1), body=()
    )
    assert msgspec.structs.replace(control_of(loop=during(["x"])), body=()) == While(
        variable="round", condition=holds, body=()
    )
    defined = function("f", "x", parameters=[parameter("p", "number", default_value=3)], return_type="object")
    plan = flow_plan(step("d", function_def=defined), step("c", function_call=call("f", "r", p=5)), step("x"))
    assert [task.control for task in plan.tasks] == [
        Definition(),
        Call(function="f", arguments={"p": 5}, result="r"),
    ]
    (made,) = plan.functions
    assert (made.name, made.returns, shape(made.body)) == ("f", Type.OBJECT, ["x"])
    assert made.parameters == (Parameter(name="p", type=Type.NUMBER, default=3),)
    kinds = [flow_plan(step("a", loop=counted(["x"])), step("x")).tasks[0].kind, *(task.kind for task in plan.tasks)]
    assert kinds == ["for_range", "function_def", "function_call"]


@pytest.mark.parametrize(
    ("metadata", "parallel"),
    [
        ({}, 1),
        ({"parallel": False, "max_parallel": 3}, 1),
        ({"parallel": True}, 16),
        ({"parallel": True, "max_parallel": 3}, 3),
        ({"max_parallel": 3}, 3),
    ],
)
def test_rounds_run_side_by_side_where_the_metadata_says_so(metadata: dict[str, Any], parallel: int) -> None:
    assert control_of(loop=each(["x"]), metadata=metadata).parallel == parallel
    assert control_of(loop=counted(["x"]), metadata=metadata).parallel == parallel


def test_a_dependency_between_bodies_is_lifted_to_where_the_two_ways_meet() -> None:
    plan = flow_plan(
        step("first", loop=each(["a", "b"])),
        step("second", loop=each(["c"])),
        step("third", "b"),
        step("a"),
        step("b", "a"),
        step("c", "a", "b", "a_deep"),
        step("far", loop=each(["a_deep"])),
        step("a_deep", "third"),
    )
    waits = {task.id: task.dependencies for task in plan.tasks}
    assert waits == {"first": (), "second": ("first", "far"), "third": ("first",), "far": ("third",)}
    assert [task.dependencies for task in bodies(plan.tasks[0].control)[0]] == [(), ("a",)]


@pytest.mark.parametrize(
    ("right", "read"),
    [
        ("text", Value("${variables.text}")),
        ("no variable", Value("no variable")),
        ("text.part", Value("text.part")),
        ("${variables.text}", Value("${variables.text}")),
        ("$${text}", Value("$${text}")),
        (None, Value(None)),
        ([1, "text"], Value([1, "text"])),
        ({"left": 1}, Value({"left": 1})),
        (True, Value(True)),
    ],
)
def test_a_text_on_the_right_is_a_variable_if_there_is_one_of_that_name(right: Any, read: Value) -> None:
    assert control_of(condition=branch(["x"], condition=compared(right=right))).condition.right == read


@pytest.mark.parametrize(
    ("left", "read"),
    [
        ("v", "${variables.v}"),
        ("v.part[0]", "${variables.v.part[0]}"),
        ("v | length(@)", "${variables.v | length(@)}"),
        ("${inputs.x}", "${inputs.x}"),
        ("${job.id}-${inputs.x}", "${job.id}-${inputs.x}"),
    ],
)
def test_the_left_is_a_variable_a_part_of_one_or_a_reference(left: str, read: str) -> None:
    assert control_of(condition=branch(["x"], condition=compared(left=left))).condition.left == Value(read)


def test_conditions_nest_on_both_sides() -> None:
    inner = {"operator": "NOT", "left": compared("gt", "number", 3)}
    condition = control_of(condition=branch(["x"], condition=compared("and", compared(), inner))).condition
    assert condition.operator is Operator.AND
    assert condition.left == Condition(Operator.EQ, Value("${variables.v}"), Value(1))
    negated = condition.right
    assert (negated.operator, negated.right) == (Operator.NOT, None)
    assert negated.left == Condition(Operator.GT, Value("${variables.number}"), Value(3))


def test_what_a_call_gives_is_a_variable_from_where_the_call_stands_inwards() -> None:
    plan = flow_plan(
        step("c", function_call=call("f", "given")),
        step("loop", loop=each(["inner"], iterable="given")),
        step("inner", condition=branch(["y"], condition=compared("gt", "given", 3))),
        step("x"),
        step("y"),
        functions=[function("f", "x", return_type="string")],
    )
    assert isinstance(plan.tasks[1].control, ForEach)
    inner = function("f", "x"), function("g", "c", "y")
    (finding,) = refused(
        flow_file(
            step("c", function_call=call("f", "given")),
            step("y"),
            step("z", condition=branch(["x2"], condition=compared(left="given"))),
            step("x"),
            step("x2"),
            functions=[*inner],
        )
    )
    assert (finding.reason, finding.path) == ("UNKNOWN_VARIABLE", "segments[2].condition.condition.left")


def test_scopes_nest_and_the_innermost_counts() -> None:
    """`v` is a text to the loop's own, a number in the file."""
    plan = flow_plan(
        step("loop", loop=each(["if"]), variables=[variable("v", "t", "string")]),
        step("if", condition=branch(["x"], condition=compared("starts_with", "v", "t"))),
        step("x"),
        global_variables=[variable("v", 1, "number"), variable("items", [], "array")],
    )
    assert plan.tasks[0].variables == (Variable(name="v", type=Type.STRING, value="t"),)
    assert plan.variables == (
        Variable(name="v", type=Type.NUMBER, value=1),
        Variable(name="items", type=Type.ARRAY, value=[]),
    )


TURKISH = """\
id: sayım
version: '2.0'
timestamp: '2026-01-05T08:00:00Z'
command: Öğeleri say
global_variables:
  - {name: öğeler, type: array, value: [1, 2]}
  - {name: eşik_değeri, type: number, value: 1}
functions:
  - {name: ölç, parameters: [{name: ağırlık, type: number, required: true}], body: [tart]}
segments:
  - id: her_öğe
    content: Her öğe için
    loop: {type: for_each, variable: öğe, iterable: öğeler, body: [ölçüm, büyük]}
  - id: ölçüm
    content: Ölç
    function_call: {function_name: ölç, arguments: {ağırlık: '${variables.öğe}'}, result_variable: sonuç}
  - id: büyük
    content: Eşikten büyük mü?
    dependencies: [ölçüm]
    condition:
      condition: {operator: gt, left: sonuç, right: eşik_değeri}
      if_body: [yaz]
  - {id: yaz, task_type: analyze, content: 'Yaz: ${variables.sonuç}'}
  - {id: tart, task_type: analyze, content: 'Tart: ${variables.ağırlık}'}
"""


@pytest.mark.parametrize("write", [as_json, as_yaml, as_msgpack, as_toml])
def test_turkish_names_are_names_in_every_format(write: Any) -> None:
    plan = decode(TURKISH.encode()).plan
    assert decode(write(yaml.safe_load(TURKISH))).plan == plan
    assert shape(plan.tasks) == [("her_öğe", ["ölçüm", ("büyük", ["yaz"], [])])]
    loop = plan.tasks[0].control
    assert isinstance(loop, ForEach)
    assert (loop.variable, loop.items) == ("öğe", Value("${variables.öğeler}"))
    condition = loop.body[1].control
    assert isinstance(condition, Branch)
    assert condition.condition.right == Value("${variables.eşik_değeri}")
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=Plan) == plan


def test_an_argument_that_is_the_name_of_a_variable_is_told_and_stays_a_text() -> None:
    raw = flow_file(
        step("c", function_call=call("f", p="text", q="${variables.text}")),
        step("x"),
        global_variables=GLOBALS,
        functions=[function("f", "x", parameters=[parameter("p"), parameter("q")])],
    )
    decoded = decode(as_json(raw))
    (warning,) = decoded.warnings
    told = (warning.reason, warning.path, warning.suggestion)
    assert told == ("NAME_AS_TEXT", "segments[0].function_call.arguments.p", "${variables.text}")
    assert decoded.plan.tasks[0].control == Call(function="f", arguments={"p": "text", "q": "${variables.text}"})


def test_a_text_on_the_right_that_looks_like_a_part_of_a_variable_is_told_and_stays_a_text() -> None:
    condition = {"operator": "eq", "left": "text", "right": "text.part"}
    raw = flow_file(
        step("c", condition={"condition": condition, "if_body": ["x"]}), step("x"), global_variables=GLOBALS
    )
    (warning,) = decode(as_json(raw)).warnings
    told = (warning.reason, warning.path, warning.suggestion)
    assert told == ("NAME_AS_TEXT", "segments[0].condition.condition.right", "${variables.text.part}")


def test_parameters_of_a_segment_that_runs_others_are_told_to_do_nothing() -> None:
    loop = {"type": "for_range", "variable": "i", "start": 0, "end": 2, "body": ["x"]}
    raw = flow_file(step("c", loop=loop, parameters=[{"name": "p", "value": 1}]), step("x"))
    (warning,) = decode(as_json(raw)).warnings
    assert (warning.reason, warning.path) == ("UNKNOWN_PARAMETER", "segments[0].parameters")


def test_a_segment_that_runs_others_has_no_attempts_and_those_it_runs_do() -> None:
    loop = {"type": "for_range", "variable": "i", "start": 0, "end": 2, "body": ["x"]}
    attempts = {"timeout_seconds": 5, "retry_count": 2}
    decoded = decode(as_json(flow_file(step("c", loop=loop, **attempts), step("x", **attempts))))
    told = [(warning.reason, warning.path) for warning in decoded.warnings]
    assert told == [("UNKNOWN_FIELD", "segments[0].timeout_seconds"), ("UNKNOWN_FIELD", "segments[0].retry_count")]
    (control,) = decoded.plan.tasks
    assert isinstance(control.control, ForRange)
    (inner,) = control.control.body
    assert (control.timeout, control.retries, control.metadata) == (None, None, attempts)
    assert (inner.timeout, inner.retries) == (5.0, 2)


def test_the_condition_of_a_while_loop_sees_its_counter_and_nobody_beside_it_does() -> None:
    condition = {"operator": "lt", "left": "n", "right": 3}
    loop = {"type": "while", "variable": "n", "condition": condition, "body": ["x"]}
    assert decode(as_json(flow_file(step("c", loop=loop), step("x")))).plan.tasks[0].control is not None
    beside = step("y", condition={"condition": condition, "if_body": ["z"]})
    raw = flow_file(step("c", loop=loop), step("x"), beside, step("z"))
    assert [finding.reason for finding in refused(raw)] == ["UNKNOWN_VARIABLE"]


def test_functions_may_call_themselves_where_a_condition_or_a_loop_decides() -> None:
    plan = flow_plan(
        step("begin", function_call=call("f")),
        step("again", condition=branch(["once_more"])),
        step("once_more", function_call=call("f")),
        functions=[function("f", "again")],
    )
    assert shape(plan.functions[0].body) == [("again", ["once_more"], [])]


def test_version_1_knows_no_control_flow() -> None:
    decoded = decode(as_json(segments_file(step("a/b[1]", loop=each(["x"]), task_type="delay"), step("x"))))
    assert [warning.reason for warning in decoded.warnings] == ["UNKNOWN_FIELD"]
    assert [task.control for task in decoded.plan.tasks] == [None, None]
    assert not decoded.plan.has_variables


def test_a_child_with_control_flow_is_checked_with_its_file() -> None:
    inner = flow_file(
        step("a", loop=each(["x", "gone"], iterable="${inputs.list}")),
        step("x", condition=branch(["y"], condition=compared(left="nobody"))),
        step("y"),
    )
    told = {(finding.reason, finding.path) for finding in refused(flow_file(job(inner)))}
    at = "segments[0].parameters[0].value.segments"
    assert told == {
        ("UNKNOWN_DEPENDENCY", f"{at}[0].loop.body[1]"),
        ("UNKNOWN_VARIABLE", f"{at}[1].condition.condition.left"),
    }
    inner = flow_file(step("a", loop=each(["x"], iterable="${inputs.list}")), step("x"))
    (finding,) = refused(flow_file(job(inner)))
    assert finding.reason == "MISSING_INPUT"
    assert "inputs.list" in finding.message


def job(descriptor: Any) -> dict[str, Any]:
    return step("child", task_type="job", parameters=[{"name": "descriptor", "value": descriptor}])
