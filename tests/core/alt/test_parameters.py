"""What handlers take is checked when a descriptor is read: every mistake in its place, nothing that may be right."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.core.alt import LATER, Decoded, Kinds, ParameterCheck, ParameterProblem, decode
from runner.core.alt.media import Format
from runner.core.errors import InvalidDescriptor
from runner.core.findings import Finding
from tests.core.alt.descriptors import (
    as_json,
    as_msgpack,
    as_yaml,
    edge,
    node,
    segment,
    segments_file,
    task,
    tasks_file,
    workflow_file,
)


class Colour(enum.StrEnum):
    RED = "red"
    GREEN = "green"


class Point(msgspec.Struct, frozen=True, kw_only=True):
    x: int
    y: int = 0


class Paint(msgspec.Struct, frozen=True, kw_only=True):
    """Something of every kind."""

    surface: str
    colour: Colour = Colour.RED
    layers: Annotated[int, msgspec.Meta(ge=1, le=9)] = 1
    timeout: Annotated[float, msgspec.Meta(gt=0)] | None = None
    how: Literal["brush", "spray"] | None = None
    labels: dict[str, str | int] = {}
    points: list[Point] = []
    pair: tuple[int, str] | None = None
    code: Annotated[str, msgspec.Meta(pattern="^[a-z]+$")] = "a"
    dry: bool = False
    anything: Any = msgspec.UNSET
    input: list[int] = []


class Ask(msgspec.Struct, frozen=True, kw_only=True):
    max_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None


def look(parameters: Mapping[str, Any]) -> Iterator[ParameterProblem]:
    if parameters.get("surface") == "water":
        yield ParameterProblem(name="surface", message="Water cannot be painted.")
    if parameters.get("surface") == "gold":
        yield ParameterProblem(name="surface", message="Gold is not allowed.", by_settings=True)
    if "how" in parameters and "dry" in parameters:
        yield ParameterProblem(message="`how` and `dry` exclude each other.")
    assert parameters.get("layers") in {None, LATER, 1, 2, 3}, "a value that is out of range is not looked at"


KINDS = Kinds({"paint": ParameterCheck(Paint, look=look), "free": None}, others=ParameterCheck(Ask, takes_others=True))


def paint(**parameters: Any) -> dict[str, Any]:
    return tasks_file(task("a", parameters={"task_type": "paint", **parameters}))


def read(raw: Any, kinds: Kinds = KINDS) -> Decoded:
    """Read it both ways, which must agree."""
    slow = decode(b"\xef\xbb\xbf" + as_json(raw), kinds=kinds)
    quick = decode(as_json(raw), kinds=kinds)
    assert (slow.plan, slow.warnings) == (quick.plan, quick.warnings)
    return quick


def told(raw: Any, kinds: Kinds = KINDS) -> tuple[Finding, ...]:
    """The errors of a descriptor that must be refused."""
    data = raw if isinstance(raw, bytes) else as_json(raw)
    with pytest.raises(InvalidDescriptor) as caught:
        decode(data, kinds=kinds)
    return caught.value.findings


@pytest.mark.parametrize(
    ("name", "value", "reason", "path", "message"),
    [
        ("layers", "two", "BAD_TYPE", "layers", "`layers` must be an integer, at least 1, at most 9, not text."),
        ("layers", 10, "OUT_OF_RANGE", "layers", "`layers` must be an integer, at least 1, at most 9, not 10."),
        ("layers", 1.5, "BAD_TYPE", "layers", "`layers` must be an integer, at least 1, at most 9, not a number."),
        ("timeout", 0, "OUT_OF_RANGE", "timeout", "`timeout` must be a number, more than 0, not 0."),
        ("timeout", True, "BAD_TYPE", "timeout", "`timeout` must be a number, more than 0, not true or false."),
        ("colour", "reed", "UNKNOWN_WORD", "colour", "`reed` is no colour; there are `red`, `green`."),
        ("colour", 5, "BAD_TYPE", "colour", "`colour` must be `red` or `green`, not a number."),
        ("how", "brsh", "UNKNOWN_WORD", "how", "`brsh` is no how; there are `brush`, `spray`."),
        ("labels", {"a": "x", "b": []}, "BAD_TYPE", "labels.b", "`labels.b` must be text or integer, not a list."),
        ("labels", [], "BAD_TYPE", "labels", "`labels` must be an object of (text or integer), not a list."),
        ("points", [{"x": 1}, {"x": "1"}], "BAD_TYPE", "points[1].x", "`points[1].x` must be an integer, not text."),
        ("points", [{}], "MISSING_PARAMETER", "points[0].x", "`x` is required."),
        ("pair", [1, 2], "BAD_TYPE", "pair[1]", "`pair[1]` must be text, not a number."),
        ("pair", [1], "BAD_VALUE", "pair", "`pair` is wrong: expected `array` of length 2, got 1."),
        ("code", "A", "BAD_VALUE", "code", "`code` is wrong: expected `str` matching regex '^[a-z]+$'."),
        ("dry", "yes", "BAD_TYPE", "dry", "`dry` must be a boolean, not text."),
    ],
)
def test_a_mistake_is_told_in_its_place(name: str, value: Any, reason: str, path: str, message: str) -> None:
    raw = paint(surface="wall", **{name: value})
    [finding] = told(raw)
    assert (finding.reason, finding.path) == (reason, f"tasks[0].parameters.{path}")
    assert finding.message == message
    assert (finding.line, finding.column > as_json(raw).index(b'"parameters"')) == (1, True)


def test_all_mistakes_are_told_at_once_with_their_lines() -> None:
    text = """{"id": "a", "version": "1.0", "title": "t", "created_at": "2025-04-26T19:32:00Z", "tasks": [
{"id": "a", "description": "d", "parameters": {"task_type": "paint",
  "colour": "gren",
  "layers": "${tasks.nobody.output}",
  "labels": {"a": 1, "b": null, "c": "${inputs.x}", "d": 1.5},
  "timeout": -1,
  "tiemout": 5}},
{"id": "b", "description": "d", "parameters": {"max_tokens": 0}}]}"""
    found = told(text.encode())
    assert [(f.reason, f.path, f.line, f.suggestion) for f in found] == [
        ("MISSING_PARAMETER", "tasks[0].parameters.surface", 2, ""),
        ("UNKNOWN_WORD", "tasks[0].parameters.colour", 3, "green"),
        ("UNKNOWN_TASK", "tasks[0].parameters.layers", 4, ""),
        ("BAD_TYPE", "tasks[0].parameters.labels.b", 5, ""),
        ("BAD_TYPE", "tasks[0].parameters.labels.d", 5, ""),
        ("OUT_OF_RANGE", "tasks[0].parameters.timeout", 6, ""),
        ("OUT_OF_RANGE", "tasks[1].parameters.max_tokens", 8, ""),
    ]


@pytest.mark.parametrize(
    "given",
    [
        {"layers": "${inputs.n}"},
        {"layers": "1${inputs.n}"},
        {"labels": "${inputs.n}"},
        {"labels": {"a": "${inputs.n}"}},
        {"points": [{"x": "${inputs.n}"}, "${inputs.n}"]},
        {"pair": [1, "${inputs.n}"]},
        {"code": "${inputs.n}", "colour": "${inputs.n}", "how": "${inputs.n}", "surface": "${inputs.n}"},
        {"layers": None, "colour": None, "labels": None, "timeout": None},
        {"anything": None},
        {"anything": {"of": ["any", 1, None]}},
        {"timeout": 5},
    ],
)
def test_what_may_be_right_when_it_runs_is_not_refused(given: dict[str, Any]) -> None:
    assert read(paint(**{"surface": "wall", **given})).warnings == ()


def test_a_literal_is_no_reference() -> None:
    assert [finding.reason for finding in told(paint(surface="wall", layers="$${x}"))] == ["BAD_TYPE"]


def test_a_null_is_as_good_as_nothing() -> None:
    assert [finding.reason for finding in told(paint(surface=None))] == ["MISSING_PARAMETER"]


def test_an_unknown_name_is_a_warning_with_what_was_probably_meant() -> None:
    raw = paint(surface="wall", tiemout=5)
    [warning] = read(raw).warnings
    assert (warning.reason, warning.path) == ("UNKNOWN_PARAMETER", "tasks[0].parameters.tiemout")
    assert (warning.suggestion, warning.message) == (
        "timeout",
        "`tiemout` is no parameter of `paint`; it does nothing.",
    )
    assert warning.column == as_json(raw).index(b'"tiemout"') + 1


def test_a_handler_that_passes_all_on_and_one_that_tells_nothing_have_no_unknown_names() -> None:
    tasks = [task("a", parameters={"tiemout": 5}), task("b", parameters={"task_type": "free", "layers": []})]
    assert read(tasks_file(*tasks, task("c", parameters={"task_type": "search", "x": 1}))).warnings == ()


def test_a_handler_looks_into_what_is_of_its_type() -> None:
    found = told(paint(surface="water", how="brush", dry=True, layers=50))
    assert sorted((f.reason, f.path) for f in found) == [
        ("BAD_VALUE", "tasks[0].parameters"),
        ("BAD_VALUE", "tasks[0].parameters.surface"),
        ("OUT_OF_RANGE", "tasks[0].parameters.layers"),
    ]
    assert read(paint(surface="${inputs.n}")).warnings == ()


def test_what_settings_decide_is_a_warning_where_they_are_unknown() -> None:
    assert [finding.reason for finding in told(paint(surface="gold"))] == ["NOT_ALLOWED"]
    unknown = Kinds({"paint": ParameterCheck(Paint, look=look, settings_known=False)})
    assert [warning.reason for warning in read(paint(surface="gold"), unknown).warnings] == ["NOT_ALLOWED"]


def test_texts_that_are_looked_into_are_bounded() -> None:
    seen: list[object] = []

    def note(parameters: Mapping[str, Any]) -> Iterator[ParameterProblem]:
        seen.append(parameters["surface"])
        yield from ()

    kinds = Kinds({"paint": ParameterCheck(Paint, look=note)})
    decode(as_msgpack(paint(surface="x" * 10_001)), kinds=kinds)
    assert seen == [LATER]
    many = [task(f"t{n}", parameters={"task_type": "paint", "surface": "x" * 10_000}) for n in range(100)]
    seen.clear()
    decode(as_msgpack(tasks_file(*many)), kinds=kinds)
    assert len(seen) == 27  # 256 KiB


def test_segments_are_told_by_the_place_of_the_value() -> None:
    listed = [{"name": "layers", "type": "number", "value": 77}, {"name": "colr", "type": "string", "value": "x"}]
    raw = segments_file(segment("a", task_type="paint", parameters=listed))
    found = told(as_yaml(raw))
    assert [(f.reason, f.path) for f in found] == [
        ("MISSING_PARAMETER", "segments[0].parameters"),
        ("OUT_OF_RANGE", "segments[0].parameters[0].value"),
    ]
    assert all(finding.line for finding in found)
    listed[0] = {"name": "surface", "type": "string", "value": "wall"}
    [warning] = read(raw).warnings
    assert (warning.path, warning.suggestion) == ("segments[0].parameters[1].name", "colour")


def test_the_input_of_a_node_is_known_when_it_runs() -> None:
    nodes = [node("a", "paint", config={"surface": "x"}), node("b", "paint", config={"surface": 5, "max_retries": 2})]
    [finding] = told(workflow_file(*nodes, edges=[edge("a", "b")]))
    assert finding.path == "nodes[1].config.surface"
    nodes[1]["config"] = {"surface": "y"}
    assert read(workflow_file(*nodes, edges=[edge("a", "b")])).warnings == ()
    nodes[1]["config"] = {"surface": "y", "input": "no list"}
    assert [finding.path for finding in told(workflow_file(*nodes))] == ["nodes[1].config.input"]


class Range(msgspec.Struct, frozen=True, kw_only=True):
    low: int
    high: int = 9
    where: Point | None = None

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


def test_what_only_the_whole_tells_is_told_of_the_whole() -> None:
    kinds = Kinds({"range": ParameterCheck(Range)})
    [finding] = told(tasks_file(task("a", parameters={"task_type": "range", "low": 10})), kinds)
    assert (finding.reason, finding.path) == ("BAD_VALUE", "tasks[0].parameters")
    assert finding.message == "The parameters do not fit: low is above high."
    decode(as_json(tasks_file(task("a", parameters={"task_type": "range", "low": "${inputs.n}"}))), kinds=kinds)


@pytest.mark.parametrize("form", [Format.JSON, Format.YAML, Format.MSGPACK])
def test_every_format_tells_the_same(form: Format) -> None:
    write = {Format.JSON: as_json, Format.YAML: as_yaml, Format.MSGPACK: as_msgpack}[form]
    assert [(f.reason, f.path) for f in told(write(paint(surface=5, layers=0)))] == [
        ("BAD_TYPE", "tasks[0].parameters.surface"),
        ("OUT_OF_RANGE", "tasks[0].parameters.layers"),
    ]


_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-20, 20)
    | st.floats(-20, 20)
    | st.sampled_from(["red", "brush", "a", "A", "5", "", "${inputs.n}", "a ${inputs.n}", "$${n}"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "y", "z"]), inner, max_size=3),
    max_leaves=6,
)
_NAMES = [field.encode_name for field in msgspec.structs.fields(Paint)]


def _resolved(value: Any, become: Any) -> Any:
    """The value with every reference become something."""
    match value:
        case str():
            return become if "${" in value.replace("$${", "") else value
        case dict():
            return {key: _resolved(item, become) for key, item in value.items()}
        case list():
            return [_resolved(item, become) for item in value]
    return value


@given(st.dictionaries(st.sampled_from(_NAMES), _JSON, max_size=4))
def test_what_is_refused_is_what_could_not_run(parameters: dict[str, Any]) -> None:
    """Without references exactly that; with some, nothing that runs for any value of theirs."""
    kinds = Kinds({"paint": (check := ParameterCheck(Paint))})
    raw = paint(surface="wall", **{name: value for name, value in parameters.items() if name != "surface"})
    parameters = raw["tasks"][0]["parameters"]
    accepted = _accepted(raw, kinds)
    values: list[Any] = [1, 1.5, "a", "red", None, [], {}]
    runs = {_runs(check.without_nulls(_resolved(parameters, become))) for become in values}
    assert accepted or runs == {False}
    if _resolved(parameters, None) == parameters:
        assert runs == {accepted}


def _accepted(raw: Any, kinds: Kinds) -> bool:
    try:
        read(raw, kinds)
    except InvalidDescriptor:
        return False
    return True


def _runs(parameters: dict[str, Any]) -> bool:
    try:
        msgspec.convert(parameters, Paint)
    except msgspec.ValidationError:
        return False
    return True


def test_segments_in_bodies_are_checked_and_those_that_run_others_are_not() -> None:
    loop = {"type": "for_each", "variable": "one", "iterable": "${inputs.all}", "body": ["b"]}
    running = segment("a", task_type="paint", loop=loop)
    inside = segment("b", task_type="paint", parameters=[{"name": "layers", "value": 77}])
    found = told(segments_file(running, inside, version="2.0"))
    assert [(f.reason, f.path) for f in found] == [
        ("MISSING_PARAMETER", "segments[1].parameters"),
        ("OUT_OF_RANGE", "segments[1].parameters[0].value"),
    ]


def test_control_flow_reads_no_files() -> None:
    loop = {"type": "for_each", "variable": "one", "iterable": "${tasks.f.artifacts.list}", "body": ["b"]}
    found = told(segments_file(segment("f"), segment("a", "f", loop=loop), segment("b"), version="2.0"))
    assert [(f.reason, f.path) for f in found] == [("BAD_REFERENCE", "segments[1].loop.iterable")]


@pytest.mark.parametrize(
    ("kind", "meant"),
    [("http_reqeust", "http_request"), ("aproval", "approval"), ("delays", "delay"), ("ai_promt", "ai_prompt")],
)
def test_a_task_type_that_looks_like_one_of_ours_is_told_to_go_to_the_orchestrator(kind: str, meant: str) -> None:
    raw = tasks_file(task("a", parameters={"task_type": kind}))
    (warning,) = decode(as_json(raw), kinds=kinds_of_nothing()).warnings
    assert (warning.reason, warning.path) == ("UNKNOWN_TYPE", "tasks[0].parameters.task_type")
    assert warning.suggestion == meant


@pytest.mark.parametrize("kind", ["search", "create", "analyze", "execute", "summarize", "command", "python_script"])
def test_a_word_for_the_orchestrator_is_no_misspelling(kind: str) -> None:
    raw = tasks_file(task("a", parameters={"task_type": kind}))
    assert decode(as_json(raw), kinds=kinds_of_nothing()).warnings == ()


def kinds_of_nothing() -> Kinds:
    """Handlers that declare nothing, but there are some."""
    return Kinds({"delay": None, "ai_prompt": None}, others=ParameterCheck(Anything, takes_others=True))


class Anything(msgspec.Struct):
    """Takes whatever comes."""
