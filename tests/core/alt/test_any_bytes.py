"""Whatever the bytes are, the answer is a plan or findings; what means the same reads the same."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import example, given, settings
from hypothesis import strategies as st

from runner.core.alt import decode
from scripts.fuzzing.checks import Case, check
from scripts.fuzzing.inputs import case
from tests.core.alt.descriptors import as_json, as_msgpack, as_toml, as_yaml, segments_file, task, tasks_file

CONTENT_TYPES = ["", "application/json", "application/yaml", "application/toml", "application/msgpack"]
# PyYAML writes U+0085, U+2028 and U+2029 unescaped, and then they are line breaks: lost by the writer.
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\x85\u2028\u2029"), max_size=8)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["${", "a", "b", "1.0"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["id", "tasks", "segments", "parameters", "dependencies", "prompt", "name", "value", "type"]
            )
            | st.text(max_size=4),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32), number=st.integers(0, 2**32))
def test_a_hostile_input_breaks_no_promise(seed: int, number: int) -> None:
    """A few hundred of the inputs of `scripts/fuzz`, which tries them by the million."""
    check(case(seed, number))


@settings(max_examples=30, deadline=None)
@given(data=st.binary(max_size=200), content_type=st.sampled_from(CONTENT_TYPES))
@example(data=b"\xde\x00\x01\x01", content_type="")
@example(data=b"%YAML 9.9\n---\n", content_type="")
def test_any_bytes_become_a_plan_or_findings(data: bytes, content_type: str) -> None:
    check(Case(data, content_type))


@settings(max_examples=30, deadline=None)
@given(text=st.text("{}[]\"':,-&*!#|> \n\tab01.=\\u$", max_size=60), content_type=st.sampled_from(CONTENT_TYPES))
def test_any_punctuation_becomes_a_plan_or_findings(text: str, content_type: str) -> None:
    check(Case(text.encode(), content_type))


@settings(max_examples=30, deadline=None)
@given(fields=st.dictionaries(st.sampled_from(sorted(tasks_file() | segments_file())), ANYTHING), inner=ANYTHING)
def test_any_values_become_a_plan_or_findings(fields: dict[str, Any], inner: Any) -> None:
    for base in (tasks_file, segments_file):
        name = "tasks" if base is tasks_file else "segments"
        for raw in (base(**fields), base(**{name: [inner, {"id": "a", "parameters": inner, "dependencies": inner}]})):
            text = json.dumps(raw).encode()
            check(Case(text, "application/json"))
            check(Case(text, "application/yaml"))


@settings(max_examples=30, deadline=None)
@given(data=st.data())
def test_a_damaged_descriptor_becomes_a_plan_or_findings(data: st.DataObject) -> None:
    raw = tasks_file(task("a"), task("b", "a", parameters={"prompt": "${tasks.a.output.x}"}))
    write = data.draw(st.sampled_from([as_json, as_yaml, as_toml, as_msgpack]))
    written = write(raw)
    start = data.draw(st.integers(0, len(written)))
    cut = data.draw(st.integers(0, 4))
    check(Case(written[:start] + data.draw(st.binary(max_size=3)) + written[start + cut :]))


@st.composite
def descriptors(draw: st.DrawFn) -> dict[str, Any]:
    """Sound ones of dialect `tasks`, with references to what came before."""
    names = draw(
        st.lists(st.text("abcğı.-_ 01", min_size=1, max_size=6).filter(str.strip), min_size=1, max_size=8, unique=True)
    )
    tasks = []
    for index, name in enumerate(names):
        dependencies = draw(st.lists(st.sampled_from(names[:index]), unique=True)) if index else []
        parameters = draw(st.dictionaries(TEXTS.map(lambda text: f"p{text}"), VALUES.filter(no_reference), max_size=3))
        if dependencies:
            parameters["prompt"] = f"${{tasks.{json.dumps(dependencies[0], ensure_ascii=False)}.output}} $${{literal}}"
        tasks.append(task(name, *dependencies, parameters=parameters, retry_count=draw(st.integers(0, 255))))
    return tasks_file(*draw(st.permutations(tasks)), metadata=draw(st.dictionaries(TEXTS, VALUES, max_size=3)))


def no_reference(value: Any) -> bool:
    return b"${" not in msgspec.json.encode(value)


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return [without_nulls(item) for item in value if item is not None] if isinstance(value, list) else value


@settings(max_examples=25, deadline=None)
@given(raw=descriptors())
def test_a_sound_descriptor_is_the_same_plan_in_json_yaml_and_msgpack(raw: dict[str, Any]) -> None:
    decoded = decode(as_json(raw))
    assert decode(as_yaml(raw), content_type="application/yaml").plan == decoded.plan
    assert decode(as_msgpack(raw)).plan == decoded.plan
    assert decode(json.dumps(raw, indent=2).encode()).plan == decoded.plan
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(decoded.plan), type=type(decoded.plan)) == decoded.plan


@settings(max_examples=15, deadline=None)
@given(raw=descriptors().map(without_nulls))
def test_a_sound_descriptor_is_the_same_plan_in_toml(raw: dict[str, Any]) -> None:
    raw = json.loads(json.dumps(raw), parse_int=lambda digits: int(digits) if len(digits) < 18 else 0)
    assert decode(as_toml(raw), content_type="application/toml").plan == decode(as_json(raw)).plan
