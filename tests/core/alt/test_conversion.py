"""A descriptor in another format says the same, or is not written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings

from runner.core.alt import decode
from runner.core.alt.conversion import convert
from runner.core.alt.media import Format
from runner.core.errors import InvalidDescriptor
from runner.core.findings import Finding
from tests.core.alt.descriptors import as_json, as_toml, as_yaml, said, segments_file, task, tasks_file
from tests.core.alt.test_any_bytes import descriptors, without_nulls

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.alt*"))
ODD = [
    "\x85",
    "a\u2028b",
    "\ufeff",
    "two\nlines\n",
    "\n",
    " a\n b",
    "a\r\nb",
    "'''\n\"\"\"",
    "no",
    "1e3",
    "~",
    "<<",
    "\x7f",
]


def refused(raw: Any, to: Format) -> tuple[Finding, ...]:
    with pytest.raises(InvalidDescriptor) as caught:
        convert(json.dumps(raw, indent=1).encode(), to)
    return caught.value.findings


@settings(max_examples=20, deadline=None)
@given(raw=descriptors())
def test_there_and_back_is_the_same_plan_and_the_same_file(raw: dict[str, Any]) -> None:
    plain = convert(as_json(raw), Format.JSON).content
    for to in (Format.YAML, Format.MSGPACK):
        there = convert(plain, to)
        back = convert(there.content, Format.JSON, content_type=to)
        assert back.content == plain
        assert repr(back.decoded.plan) == repr(decode(plain).plan)


@settings(max_examples=20, deadline=None)
@given(raw=descriptors().map(without_nulls))
def test_there_and_back_through_toml_is_the_same_file(raw: dict[str, Any]) -> None:
    raw = json.loads(json.dumps(raw), parse_int=lambda digits: int(digits) if len(digits) < 18 else 0)
    plain = convert(as_json(raw), Format.JSON).content
    there = convert(plain, Format.TOML)
    assert convert(there.content, Format.JSON, content_type=Format.TOML).content == plain


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
@pytest.mark.parametrize("to", Format)
def test_an_example_in_another_format_is_recognised_and_is_the_same_plan(path: Path, to: Format) -> None:
    converted = convert(path.read_bytes(), to)
    assert said(decode(converted.content)) == said(converted.decoded) == said(decode(path.read_bytes()))


@pytest.mark.parametrize("to", Format)
def test_keys_keep_their_order_and_numbers_their_kind(to: Format) -> None:
    inner = {"z": 1, "table": {"y": 1.0, "x": [{"b": -0.0, "a": True}, {}]}, "after": 2**53 + 1, "rows": [{"k": {}}]}
    raw = {"metadata": inner, "unknown": {"of": "ours"}} | tasks_file(task("a", parameters=inner), title="Çığ öğle")
    for _ in range(2):
        content = convert(as_json(raw), to).content
        assert convert(content, Format.MSGPACK, content_type=to).content == msgspec.msgpack.encode(raw)
        # In the opposite order the tables stand last, where TOML gives each a header of its own.
        raw = dict(reversed(raw.items()))


@pytest.mark.parametrize("to", Format)
def test_odd_texts_come_back_as_they_were(to: Format) -> None:
    odd = {"texts": ODD, **{f"k{text}": text for text in ODD}, "inline": {text: text for text in ODD}, "last": 1}
    converted = convert(as_json(tasks_file(metadata=odd)), to)
    assert decode(converted.content, content_type=to).plan.metadata == odd


@pytest.mark.parametrize("to", [Format.JSON, Format.YAML, Format.TOML])
def test_turkish_and_emoji_stay_readable(to: Format) -> None:
    text = "Müşteri görüşmelerini özetle 🎉"
    assert text.encode() in convert(as_json(segments_file(command=text)), to).content


def test_a_text_of_several_lines_is_a_block() -> None:
    raw = tasks_file(task("a", parameters={"prompt": "Say:\n- one\n- two\n"}))
    assert b"prompt: |\n      Say:\n      - one\n" in convert(as_json(raw), Format.YAML).content
    assert b'prompt = """\nSay:\n- one\n' in convert(as_json(raw), Format.TOML).content


def test_what_yaml_names_twice_is_written_twice() -> None:
    data = b"x: &x {a: 1}\ny: *x\n" + as_yaml(tasks_file())
    assert convert(data, Format.YAML).content.count(b"a: 1") == 2
    assert b"&" not in convert(data, Format.YAML).content


def test_times_of_toml_become_the_same_times() -> None:
    data = as_toml(tasks_file()).replace(b'"2025-04-26T19:32:00Z"', b"2025-04-26T22:32:00+03:00")
    assert yaml.safe_load(convert(data, Format.YAML).content)["created_at"] == "2025-04-26T22:32:00+03:00"


def test_what_toml_cannot_hold_is_told_with_its_place() -> None:
    raw = tasks_file(metadata={"a": [1, None], "b": {"c": None}, "d": 2**63})
    found = refused(raw, Format.TOML)
    assert [(finding.reason, finding.path) for finding in found] == [
        ("CANNOT_BE_WRITTEN", "metadata.a[1]"),
        ("CANNOT_BE_WRITTEN", "metadata.b.c"),
        ("CANNOT_BE_WRITTEN", "metadata.d"),
    ]
    assert all(finding.line > 1 and "TOML" in finding.message for finding in found)


def test_a_wrong_descriptor_is_refused_as_ever() -> None:
    assert [finding.reason for finding in refused(tasks_file(mode="choas"), Format.YAML)] == ["UNKNOWN_MODE"]


def test_what_would_be_too_large_in_the_other_format_is_refused() -> None:
    raw = tasks_file(metadata={"a": ["x" * 500_000] * 3})
    (finding,) = refused(raw, Format.TOML)
    assert finding.reason == "TOO_LARGE"
    assert "max_toml_bytes" in finding.message
