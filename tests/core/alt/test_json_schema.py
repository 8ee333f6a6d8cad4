"""Whatever the decoder accepts is valid by the schema of its dialect; what has a wrong shape is refused by both."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from runner.core.alt import DescriptorLimits, decode, fields, json_schema, segments, tasks, workflow
from runner.core.alt.fields import Field, Integer, Number, Table, Word
from runner.core.errors import InvalidDescriptor
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
    fields.title: ["1.0"],
    fields.short_text: ["", "ı" * 1_000],
    fields.boolean: [True, False],
    fields.mapping: [{}, {"k": None, "priority": "high"}],
    fields.texts: [[]],
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
    free = {name: field for name, field in table.fields.items() if name not in ("id", "type", *lists)}
    sound = st.fixed_dictionaries({}, optional={name: st.sampled_from(fitting(field)) for name, field in free.items()})
    odd = st.dictionaries(st.sampled_from([*table.fields, "colour"]), st.sampled_from(ODD), max_size=1)
    return st.one_of(sound, sound, st.builds(lambda one, two: one | two, sound, odd), odd)


PARAMETERS = st.lists(
    changes(segments.PARAMETER).map(lambda changed: {"name": "p", "value": "x", "type": "string"} | changed), max_size=2
)


@st.composite
def files(draw: st.DrawFn) -> dict[str, Any]:
    """Of all dialects; many of them sound, many nearly so."""
    match draw(st.sampled_from(json_schema.DIALECTS)):
        case "tasks":
            return tasks_file(task("a") | draw(changes(tasks.TASK)), task("b", "a")) | draw(changes(tasks.FILE))
        case "segments":
            changed = {"parameters": draw(PARAMETERS)} | draw(changes(segments.SEGMENT))
            return segments_file(segment("a") | changed) | draw(changes(segments.FILE))
    nodes = [node("a") | draw(changes(workflow.NODE)), node("b")]
    edges = [edge("a", "b") | draw(changes(workflow.EDGE))]
    return workflow_file(*nodes, edges=edges) | draw(changes(workflow.FILE))


@settings(max_examples=400, deadline=None)
@given(files())
def test_what_the_decoder_accepts_is_valid(raw: dict[str, Any]) -> None:
    try:
        dialect = decode(as_json(raw)).plan.dialect
    except InvalidDescriptor:
        return
    ANY.validate(raw)
    Draft202012Validator(json_schema.schema_of(dialect)).validate(raw)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_is_valid(path: Path) -> None:
    ANY.validate(yaml.safe_load(path.read_text()))


#: Of a reader, a value that is of the wrong type.
WRONG_TYPES: Final[dict[Any, Any]] = {
    **dict.fromkeys([fields.text, fields.filled_text, fields.identifier, fields.title, fields.short_text], 5),
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
        (workflow.FILE, workflow_file()),
    ):
        for name in table.required:
            raw = {key: value for key, value in whole.items() if key != name}
            assert reasons(raw), name
            assert not ANY.is_valid(raw), name
