"""Whatever the decoder accepts is valid by the schema of its dialect; what has a wrong shape is refused by both."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from runner.core.alt import DescriptorLimits, control_flow, decode, fields, json_schema, segments, tasks, workflow
from runner.core.alt.conversion import convert
from runner.core.alt.fields import Field, Integer, Number, Table, Word
from runner.core.alt.media import Format
from runner.core.errors import InvalidDescriptor
from scripts.fuzzing.descriptors import wronged
from scripts.fuzzing.flows import flow
from tests.core.alt.descriptors import (
    as_json,
    edge,
    node,
    reasons,
    segment,
    segments_file,
    task,
    tasks_file,
    workflow_file,
)
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

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.alt*"))
ANY: Final = Draft202012Validator(json_schema.schema_of_all())
#: What stands where something else should: some of it fits some fields.
ODD: Final[list[Any]] = [
    *(None, True, False, 0, 1, 3.0, -1, 1.5, 255, 256, 1e12),
    *("", " ", "x", "Normal", "CHAOS", "low", "1", "1.0", "1.2.3", "string", "Number", "${inputs.x}"),
    *("2025-04-26", "2025-04-26 19:32:00", " 2025-04-26T19:32:00.5+03:00 "),
    *([], ["a"], [1], [None], {}, {"task_type": "delay"}, {"task_type": None}, {"task_type": 1}, {"priority": "low"}),
    *({"max_retries": 3}, {"max_retries": "3"}, {"retry_delay_seconds": None}),
]


#: Of a reader, what it takes.
FITTING: Final[dict[Any, list[Any]]] = {
    fields.text: ["", "x"],
    fields.filled_text: ["x"],
    fields.identifier: ["x" * 256],
    control_flow.name: ["item", "öğe_2", "_"],
    fields.title: ["1.0"],
    fields.short_text: ["", "ı" * 1_000],
    fields.boolean: [True, False],
    fields.mapping: [{}, {"k": None, "priority": "high"}],
    fields.texts: [[], ["x"], ["x", "y"]],
    fields.instant: ["2025-04-26T19:32:00Z", "2025-04-26", " 2025-4-6 1:32:00 +3"],
    fields.as_it_is: [None],
}


def fitting(field: Field) -> list[Any]:
    match field.read:
        case Integer(lowest=lowest, highest=highest):
            return [None, lowest, highest]
        case Number():
            return [None, max(field.read.least, 1), 0.5]
        case Word(words=words):
            return [None, *words, *(word.upper() for word in words)]
    return FITTING[field.read] if field.required else [None, *FITTING[field.read]]


def changes(table: Table) -> st.SearchStrategy[dict[str, Any]]:
    """Fields of an object; a few of them, now and then, odd ones."""
    lists = (tasks.LIST, segments.LIST, workflow.LIST, workflow.EDGES)
    own = ("id", "type", "version", "name", "body", "if_body", "function_name", *lists, *control_flow.PLACES)
    free = {name: field for name, field in table.fields.items() if name not in own}
    sound = st.fixed_dictionaries({}, optional={name: st.sampled_from(fitting(field)) for name, field in free.items()})
    odd = st.dictionaries(st.sampled_from([*table.fields, "colour"]), st.sampled_from(ODD), max_size=1)
    return st.one_of(sound, sound, st.builds(lambda one, two: one | two, sound, odd), odd)


PARAMETERS = st.lists(
    changes(segments.PARAMETER).map(lambda changed: {"name": "p", "value": "x", "type": "string"} | changed), max_size=2
)


#: Of each field of control flow that may hold many things, some of them.
OPERANDS: Final[dict[str, list[Any]]] = {
    "left": ["v", "item.part", "${inputs.x}", compared(), {"operator": "not", "left": "flag"}, {"operator": "EQ"}],
    "right": [None, 1, "v", [], {"k": 1}, {"operator": 1}, compared("Or", "flag", True), "${inputs.x}"],
    "condition": [compared(), compared("GT", "number", 1.5), compared("and", compared(), "flag"), {}, 5],
    "iterable": ["items", "${inputs.x}", [1, 2], {}, 1],
    "start": [0, 2.0, 0.5, "number", "${inputs.x}", True],
    "end": [9, -1, "text"],
    "step": [1, 0, -1, 0.0, "number"],
    "value": [None, 1, "x", True, [], {}],
    "default_value": [None, 1, "x", True, [], {}],
    "variables": [None, [], [variable("own", 1)], [variable("öz", "1", "number")], {}],
    "parameters": [None, [], [parameter("p")], [parameter("p", "array", default_value=[])], {}],
    "arguments": [None, {}, {"p": 1}, {"p": "${inputs.x}"}],
}


def varied(table: Table) -> st.SearchStrategy[dict[str, Any]]:
    """A few fields of an object of control flow, many of them sound."""
    values = {name: st.sampled_from(OPERANDS[name]) for name in table.fields if name in OPERANDS}
    return st.builds(
        lambda some, other: some | other,
        st.dictionaries(st.sampled_from(sorted(values)), st.none(), max_size=2).flatmap(
            lambda names: st.fixed_dictionaries({name: values[name] for name in names})
        ),
        st.one_of(st.just({}), st.just({}), changes(table)),
    )


@st.composite
def flow_files(draw: st.DrawFn) -> dict[str, Any]:
    """With control flow."""
    loop = draw(st.sampled_from([each(["x"]), counted(["x"]), during(["x"])]))
    place, control, table = draw(
        st.sampled_from(
            [
                ("loop", loop, control_flow.LOOP),
                ("condition", branch(["x"]), control_flow.BRANCH),
                ("condition", branch(["x"], ["y"]), control_flow.BRANCH),
                ("function_call", call("f", p=1), control_flow.CALL),
                ("function_def", function("g", "x"), control_flow.FUNCTION),
            ]
        )
    )
    if draw(st.booleans()):
        control = control | {"condition": compared() | draw(varied(control_flow.CONDITION))}
    first = step("a", **{place: control | draw(varied(table))})
    first |= draw(
        st.sampled_from([{}, {"metadata": {"parallel": True}}, {"metadata": {"max_parallel": 0}}, {"loop": {}}])
    )
    first |= draw(varied(segments.SEGMENT_2))
    declared = variable("w", 1, draw(st.sampled_from(["number", "Number", "string"]))) | draw(
        varied(control_flow.VARIABLE)
    )
    taken = parameter("p") | draw(varied(control_flow.FUNCTION_PARAMETER))
    functions = [function("f", "z", parameters=[taken]) | draw(varied(control_flow.FUNCTION))]
    fields = {"global_variables": [*GLOBALS, declared], "functions": functions}
    return flow_file(first, step("x"), step("y"), step("z"), **fields) | draw(changes(segments.FILE_2))


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    """Of all dialects; many of them sound, many nearly so."""
    match draw(st.sampled_from(json_schema.DIALECTS)):
        case "tasks":
            return tasks_file(task("a") | draw(changes(tasks.TASK)), task("b", "a")) | draw(changes(tasks.FILE))
        case "segments":
            changed = {"parameters": draw(PARAMETERS)} | draw(changes(segments.SEGMENT))
            if draw(st.booleans()):
                return draw(flow_files())
            return segments_file(segment("a") | changed) | draw(changes(segments.FILE))
    nodes = [node("a") | draw(changes(workflow.NODE)), node("b")]
    edges = [edge("a", "b") | draw(changes(workflow.EDGE))]
    return workflow_file(*nodes, edges=edges) | draw(changes(workflow.FILE))


@settings(max_examples=50, deadline=None)
@given(files())
def test_what_the_decoder_accepts_is_valid(raw: dict[str, Any]) -> None:
    try:
        dialect = decode(as_json(raw)).plan.dialect
    except InvalidDescriptor:
        return
    ANY.validate(raw)
    Draft202012Validator(json_schema.schema_of(dialect)).validate(raw)


@settings(max_examples=40, deadline=None)
@given(st.randoms(use_true_random=False), st.integers(0, 2))
def test_control_flow_that_the_decoder_accepts_is_valid(random: Any, times: int) -> None:
    raw = flow(random)
    for _ in range(times):
        raw = wronged(random, raw)
    try:
        data = as_json(raw)
        decode(data)
    except (InvalidDescriptor, UnicodeEncodeError):  # half of a surrogate pair
        return
    ANY.validate(json.loads(data))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_valid(path: Path) -> None:
    ANY.validate(json.loads(convert(path.read_bytes(), Format.JSON).content))


#: Of a reader, a value that is of the wrong type.
WRONG_TYPES: Final[dict[Any, Any]] = {
    **dict.fromkeys([fields.text, fields.filled_text, fields.identifier, fields.title, fields.short_text], 5),
    control_flow.name: 5,
    fields.instant: 1_745_695_920,
    fields.boolean: "yes",
    fields.mapping: [],
    fields.texts: "one",
}


def broken(table: Table) -> Iterator[tuple[str, Any]]:
    """Of each field that has a type, a value of another; of each word, none of them; of what is required, null."""
    for name, field in table.fields.items():
        if isinstance(field.read, Word):
            yield from ((name, value) for value in ("nonsense", 5, ["x"]))
        elif field.read is not fields.as_it_is:
            yield name, WRONG_TYPES.get(field.read, "5")
        if field.required:
            yield name, None


def broken_flows() -> Iterator[tuple[str, dict[str, Any]]]:
    x = step("x")
    for name, value in broken(segments.FILE_2):
        if name != "version":
            yield f"flow.{name}", flow_file() | {name: value}
    for name, value in broken(segments.SEGMENT_2):
        yield f"step.{name}", flow_file(step("a") | {name: value})
    for place, control, table in (
        ("loop", each(["x"]), control_flow.LOOP),
        ("condition", branch(["x"]), control_flow.BRANCH),
        ("function_call", call("f"), control_flow.CALL),
        ("function_def", function("g", "x"), control_flow.FUNCTION),
    ):
        for name, value in broken(table):
            yield (
                f"{place}.{name}",
                flow_file(step("a", **{place: control | {name: value}}), x, global_variables=GLOBALS),
            )
    for name, value in broken(control_flow.VARIABLE):
        yield f"variable.{name}", flow_file(step("a", variables=[variable("v") | {name: value}]))
    for name, value in broken(control_flow.FUNCTION_PARAMETER):
        yield (
            f"parameter.{name}",
            flow_file(x, functions=[function("f", "x", parameters=[parameter("p") | {name: value}])]),
        )
    for name, value in broken(control_flow.CONDITION):
        for deep in (False, True):
            condition = compared() | {name: value}
            chosen = branch(["x"], condition=compared("and", condition, condition) if deep else condition)
            yield f"condition.{name}", flow_file(step("a", condition=chosen), x, global_variables=GLOBALS)


def all_broken() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, value in broken(tasks.FILE):
        yield f"tasks.{name}", tasks_file() | {name: value}
    for name, value in broken(tasks.TASK):
        yield f"task.{name}", tasks_file(task("a") | {name: value})
    for name, value in broken(segments.FILE):
        yield f"segments.{name}", segments_file() | {name: value}
    for name, value in broken(segments.SEGMENT):
        yield f"segment.{name}", segments_file(segment("a") | {name: value})
    for name, value in broken(segments.PARAMETER):
        yield f"parameter.{name}", segments_file(segment("a", parameters=[{"name": "p", "value": 1, name: value}]))
    yield from broken_flows()
    for name, value in broken(workflow.FILE):
        yield f"workflow.{name}", workflow_file() | {name: value}
    for name, value in broken(workflow.NODE):
        yield f"node.{name}", workflow_file(node("a") | {name: value})
    for name, value in broken(workflow.RETRIES):
        yield f"config.{name}", workflow_file(node("a", config={name: value}))
    for name, value in broken(workflow.EDGE):
        yield f"edge.{name}", workflow_file(node("a"), node("b"), edges=[edge("a", "b") | {name: value}])


def test_a_wrong_type_word_or_missing_field_is_refused_by_both() -> None:
    count = 0
    for place, raw in all_broken():
        assert not ANY.is_valid(raw), place
        assert reasons(raw), place
        count += 1
    assert count > 100


@pytest.mark.parametrize(
    "raw",
    [
        tasks_file(task("a", retry_count=256)),
        tasks_file(task("a", timeout_seconds=0)),
        tasks_file(task("a", description=" ")),
        tasks_file(task("a", id="x" * 257)),
        tasks_file(task("a", parameters={"task_type": 5})),
        tasks_file(version="2.0"),
        tasks_file(created_at="26.04.2025"),
        tasks_file() | {"tasks": []},
        tasks_file() | segments_file(),
        segments_file(mode="Chaos"),
        segments_file(mode="Normal", chaos_level=3),
        segments_file(chaos_level=3),
        segments_file(segment("a", parameters=[{"name": "p", "type": "number", "value": "5"}])),
        segments_file(segment("a", parameters=[{"name": "p", "required": True, "value": None}])),
        {"title": "x"},
        flow_file(step("a/b")),
        flow_file({"id": "a", "content": "c"}),
        flow_file(step("a", loop=each(["x"]), condition=branch(["y"])), step("x"), step("y"), global_variables=GLOBALS),
        flow_file(step("a", loop=each([])), global_variables=GLOBALS),
        flow_file(step("a", loop=each(["x"], iterable=None)), step("x")),
        flow_file(step("a", loop=each(["x"], iterable=5)), step("x")),
        flow_file(step("a", loop=each(["x"]) | {"end": 1}), step("x"), global_variables=GLOBALS),
        flow_file(step("a", loop=counted(["x"], step=0)), step("x")),
        flow_file(step("a", loop=counted(["x"], 0.5)), step("x")),
        flow_file(step("a", loop=during(["x"], condition={"left": "v"})), step("x"), global_variables=GLOBALS),
        flow_file(step("a", loop=counted(["x"]), metadata={"parallel": True, "max_parallel": 0}), step("x")),
        flow_file(step("a", condition=branch(["x"], condition={"operator": "eq", "left": "v"})), step("x")),
        flow_file(step("a", condition=branch(["x"], condition=compared("not", "flag", True))), step("x")),
        flow_file(step("a", condition=branch(["x"], condition=compared("and", "flag", 1))), step("x")),
        flow_file(global_variables=[variable("a b")]),
        flow_file(global_variables=[variable("1")]),
        flow_file(global_variables=[variable("n", "1", "number")]),
        flow_file(functions=[function("f", "a", parameters=[parameter("p", "array", default_value={})])]),
        flow_file(functions=[function("f")]),
    ],
)
def test_bounds_and_rules_are_known_to_both(raw: dict[str, Any]) -> None:
    assert reasons(raw)
    assert not ANY.is_valid(raw)


@pytest.mark.parametrize("dialect", json_schema.DIALECTS)
def test_a_schema_is_one_and_says_what_every_field_means(dialect: str) -> None:
    schema = json_schema.schema_of(dialect)
    Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    for told in schema["properties"].values():
        assert told["description"]


def test_a_schema_follows_the_limits() -> None:
    schema = json_schema.schema_of("tasks", DescriptorLimits(max_tasks=3, max_id=9))
    assert schema["properties"]["tasks"]["maxItems"] == 3
    assert schema["properties"]["id"]["maxLength"] == 9


def test_a_field_that_is_left_out_is_missed_by_both() -> None:
    for table, whole in (
        (tasks.FILE, tasks_file()),
        (segments.FILE, segments_file()),
        (segments.FILE_2, flow_file()),
        (workflow.FILE, workflow_file()),
    ):
        for name in table.required:
            raw = {key: value for key, value in whole.items() if key != name}
            assert reasons(raw), name
            assert not ANY.is_valid(raw), name
