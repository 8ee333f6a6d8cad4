"""The four formats: recognised, read alike, and refused in bounded time and memory."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from runner.core.alt import DescriptorLimits, decode
from tests.core.alt.descriptors import (
    as_json,
    as_msgpack,
    as_toml,
    as_yaml,
    reasons,
    refused,
    said,
    segments_file,
    task,
    tasks_file,
)

WRITERS: dict[str, Callable[[Any], bytes]] = {
    "application/json": as_json,
    "application/yaml": as_yaml,
    "application/toml": as_toml,
    "application/msgpack": as_msgpack,
}
RAW = tasks_file(
    task("a", parameters={"prompt": "Çığ\n\"öğle\" 'ı' ${job.id}", "n": [1, 2.5, True, {"k": "no"}]}),
    task("b", "a", parameters={"task_type": "delay", "seconds": 1}),
    metadata={"source": "el ile", "on": "yes"},
)


@pytest.mark.parametrize("content_type", WRITERS)
@pytest.mark.parametrize("told", [True, False], ids=["told", "recognised"])
@pytest.mark.parametrize("raw", [RAW, segments_file(language="no")], ids=["tasks", "segments"])
def test_a_descriptor_means_the_same_in_every_format(content_type: str, told: bool, raw: Any) -> None:
    decoded = decode(WRITERS[content_type](raw), content_type=content_type if told else "")
    assert said(decoded) == said(decode(as_json(raw)))


@pytest.mark.parametrize(
    ("content_type", "writer"),
    [
        ("application/json; charset=utf-8", as_json),
        ("APPLICATION/JSON;charset=UTF-8", as_json),
        ("text/json", as_json),
        ("application/vnd.altrunner.job+json", as_json),
        ("text/yaml", as_yaml),
        ("application/x-yaml", as_yaml),
        ("text/x-yaml", as_yaml),
        ("application/vnd.yaml", as_yaml),
        ("application/vnd.altrunner+yaml", as_yaml),
        ("text/x-toml", as_toml),
        ("application/x-msgpack", as_msgpack),
        ("application/vnd.msgpack", as_msgpack),
        ("application/octet-stream", as_msgpack),
        ("text/plain; charset=us-ascii", as_yaml),
    ],
)
def test_the_usual_names_of_a_content_type_are_known(content_type: str, writer: Callable[[Any], bytes]) -> None:
    raw = tasks_file()
    assert said(decode(writer(raw), content_type=content_type)) == said(decode(as_json(raw)))


@pytest.mark.parametrize(
    "content_type", ["application/xml", "image/json", "json", "application/json; charset=latin-1", ";", "application/"]
)
def test_an_unknown_content_type_is_refused(content_type: str) -> None:
    found = reasons(tasks_file(), content_type) if content_type != ";" else ["UNSUPPORTED_CONTENT_TYPE"]
    assert found == ["UNSUPPORTED_CONTENT_TYPE"]


def test_a_byte_order_mark_is_passed_over() -> None:
    for writer in (as_json, as_yaml, as_toml):
        assert said(decode(b"\xef\xbb\xbf" + writer(RAW))) == said(decode(as_json(RAW)))
    (finding,) = refused(b"\xef\xbb\xbf" + as_json(tasks_file(mode="choas")))
    assert finding.column == as_json(tasks_file(mode="choas")).index(b'"choas"') + 1


@pytest.mark.parametrize(
    ("text", "content_type"),
    [
        (b'# comment\n\nid = "a"\n', "TOML"),
        (b"[metadata]\na = 1\n", "TOML"),
        (b'"a.b"."c" = 1', "TOML"),
        (b"# comment\nid: a = b\n", "dialect"),
        (b"{id: a}", "dialect"),
        (b"- a\n- b\n", "must be an object"),
    ],
)
def test_text_is_recognised_by_its_first_line(text: bytes, content_type: str) -> None:
    assert content_type in refused(text + b"\n= =" if content_type == "TOML" else text)[0].message


@pytest.mark.parametrize(
    ("data", "content_type", "reason", "place"),
    [
        (b"", "", "EMPTY", (0, 0)),
        (b" \n\t", "application/json", "EMPTY", (0, 0)),
        (b"# nothing\n", "application/yaml", "EMPTY", (0, 0)),
        (b'{"id": "a",\n "b": }', "", "SYNTAX", (2, 7)),
        (b'{"id": "a"', "", "SYNTAX", (1, 11)),
        (b'{"id": "a"} x', "", "SYNTAX", (1, 13)),
        (b'{"id": "a\nb"}', "", "SYNTAX", (1, 10)),
        (b"id: a\nb: c: d\n", "", "SYNTAX", (2, 5)),
        (b"id: a\n\x01", "", "SYNTAX", (2, 1)),
        (b"id: a\n---\nid: b\n", "", "SYNTAX", (2, 1)),
        (b'id = "a"\nb = \n', "", "SYNTAX", (2, 5)),
        (b'id = "a"\nb = "', "", "SYNTAX", (2, 6)),
        (b'id = "a"\nid = "b"', "", "SYNTAX", (2, 9)),
        (b"a = " + b"1" * 5_000, "", "SYNTAX", (0, 0)),
        (b"\x82\xa1a", "", "SYNTAX", (0, 0)),
        (b"\xdf\x00\x00\x00\x01", "", "SYNTAX", (0, 0)),
        (b'{"id": "\xff"}', "", "BAD_ENCODING", (1, 9)),
        (b"id: a\nb: \xc3(", "", "BAD_ENCODING", (2, 4)),
        (b"\xff\xfei\x00d\x00", "", "BAD_ENCODING", (1, 1)),
        (b"\x81\xa1a\xa1\xff", "", "BAD_ENCODING", (0, 0)),
        (b'{"id":\x00 1}', "", "NUL_CHARACTER", (1, 7)),
        (b"id: a\nb: \x00", "", "NUL_CHARACTER", (2, 4)),
    ],
)
def test_what_cannot_be_read_is_refused_with_its_place(
    data: bytes, content_type: str, reason: str, place: tuple[int, int]
) -> None:
    (finding,) = refused(data, content_type)
    assert (finding.reason, (finding.line, finding.column)) == (reason, place)


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a: {b: c", (1, 9)),
        ("%YAML 1.2\n#", (2, 2)),
        ("k: 'a\x85b\u2028c\u2029d\r e'\nmode: choas\ntasks: [{id: a, description: b}]", (2, 7)),
        ("a: b\r\nmode: choas\r\ntasks: [{id: a, description: b}]", (2, 7)),
    ],
)
def test_a_place_in_yaml_is_one_of_the_text_as_editors_count_lines(text: str, place: tuple[int, int]) -> None:
    """The parser also counts lines that end at U+0085 and U+2028, and one behind the text."""
    found = refused(text.encode(), "application/yaml")
    assert place in {(finding.line, finding.column) for finding in found}
    assert all(finding.line <= place[0] + 1 for finding in found)


def around(value: bytes) -> bytes:
    return as_json(tasks_file(metadata={"x": "HERE"})).replace(b'"HERE"', value)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b"NaN", "NUMBER_OUT_OF_RANGE"),
        (b"-Infinity", "NUMBER_OUT_OF_RANGE"),
        (b"1e999", "NUMBER_OUT_OF_RANGE"),
        (b"18446744073709551616", "NUMBER_OUT_OF_RANGE"),
        (b"-9223372036854775809", "NUMBER_OUT_OF_RANGE"),
        (b"1" * 100_000, "NUMBER_OUT_OF_RANGE"),
        (b'"\\u0000"', "NUL_CHARACTER"),
        (b'"\\ud800"', "BAD_ENCODING"),
        (b'"\\ude00\\ud83d"', "BAD_ENCODING"),
        (b'{"a": 1, "a": 2}', "DUPLICATE_KEY"),
        (b'{"a" : 1, "a": 2}', "DUPLICATE_KEY"),
        (b'{"a": "\\u0022:", "a": 2}', "DUPLICATE_KEY"),
        (b'{"a": "\\"\\u003a", "a": "\\"\\u003A"}', "DUPLICATE_KEY"),
    ],
)
def test_json_that_no_store_could_keep_is_refused(value: bytes, reason: str) -> None:
    (finding,) = refused(around(value))
    assert finding.reason == reason
    assert finding.path.startswith("metadata.x")
    assert finding.line == 1


@pytest.mark.parametrize(
    "value", [b"18446744073709551615", b"-9223372036854775808", b'"\\ud83d\\ude00"', b'"a\\":b :"']
)
def test_json_at_the_edge_is_accepted(value: bytes) -> None:
    assert decode(around(value)).plan.metadata["x"] == msgspec.json.decode(value)


def test_each_duplicate_key_is_told_at_its_place() -> None:
    data = (
        b'{\n "id": "a",\n "id": "b",\n "tasks": [{"id": "t", "description": "d",\n  "parameters": {"p": 1, "p": 2}}]}'
    )
    found = [f for f in refused(data) if f.reason == "DUPLICATE_KEY"]
    assert [(f.path, f.line, f.column) for f in found] == [("id", 3, 2), ("tasks[0].parameters.p", 5, 26)]


@pytest.mark.parametrize(
    ("text", "reason", "place"),
    [
        ("metadata: {a: 1, a: 2}", "DUPLICATE_KEY", (1, 18)),
        ("metadata: {1: a}", "BAD_KEY", (1, 12)),
        ("metadata: {[a]: b}", "BAD_KEY", (1, 12)),
        ("metadata: {a: !!python/object:os.system x}", "UNSUPPORTED_TAG", (1, 15)),
        ("metadata: {a: !!binary aGk=}", "UNSUPPORTED_TAG", (1, 15)),
        ("metadata: !!set {a}", "UNSUPPORTED_TAG", (1, 11)),
        ("metadata: {a: .nan}", "NUMBER_OUT_OF_RANGE", (1, 15)),
        ("metadata: {a: 1.0e+999}", "NUMBER_OUT_OF_RANGE", (1, 15)),
        ("metadata: {a: 99999999999999999999999}", "NUMBER_OUT_OF_RANGE", (1, 15)),
        ('metadata: {a: "\\0"}', "NUL_CHARACTER", (1, 15)),
        ("metadata: &m {a: *m}", "RECURSIVE_ALIAS", (1, 18)),
        ("metadata: {a: *none}", "UNKNOWN_ALIAS", (1, 15)),
        ("metadata: {<<: text}", "BAD_TYPE", (1, 16)),
    ],
)
def test_yaml_that_is_no_json_is_refused(text: str, reason: str, place: tuple[int, int]) -> None:
    data = f"{text}\n".encode() + as_yaml(tasks_file())
    (finding,) = refused(data, "application/yaml")
    assert (finding.reason, (finding.line, finding.column)) == (reason, place)


def test_plain_yaml_words_stay_text_where_yaml_1_1_and_1_2_differ() -> None:
    words = "no, yes, on, 012, 0o14, 1_000, 12:30, 2025-04-26, 1e3, -.5, 0xff, ~, .5, +1, 1.5e+3, True, !!str 1, '1'"
    plan = decode(f"metadata: {{x: [{words}], empty: }}\n".encode() + as_yaml(tasks_file())).plan
    assert plan.metadata["empty"] is None
    as_written = ["no", "yes", "on", "012", "0o14", "1_000", "12:30", "2025-04-26", "1e3", "-.5"]
    assert plan.metadata["x"] == [*as_written, 255, None, 0.5, 1, 1500.0, True, "1", "1"]


def test_yaml_merge_keys_are_followed() -> None:
    text = """\
id: a
version: '1.0'
title: t
created_at: 2025-04-26T19:32:00Z
metadata: {base: &base {timeout_seconds: 5, retry_count: 1}, other: &other {retry_count: 9, weight: 2}}
tasks:
  - {<<: *base, id: a, description: x, retry_count: 2}
  - {<<: [*base, *other], id: b, description: y}
"""
    first, second = decode(text.encode()).plan.tasks
    assert (first.timeout, first.retries) == (5.0, 2)
    assert (second.timeout, second.retries, second.weight) == (5.0, 1, 2.0)


def test_times_of_toml_and_yaml_are_read() -> None:
    toml = as_toml(tasks_file()).replace(b'"2025-04-26T19:32:00Z"', b"2025-04-26T22:32:00+03:00")
    yaml = as_yaml(tasks_file()).replace(b"'2025-04-26T19:32:00Z'", b"2025-04-26T22:32:00+03:00")
    assert said(decode(toml)) == said(decode(yaml)) == said(decode(as_json(tasks_file())))


def test_msgpack_holds_json_values_only() -> None:
    assert reasons(msgspec.msgpack.encode(tasks_file(metadata={"a": b"bytes"}))) == ["BAD_TYPE"]
    assert reasons(msgspec.msgpack.encode(tasks_file(metadata={1: "a"}))) == ["BAD_KEY"]
    assert reasons(msgspec.msgpack.encode(tasks_file(metadata={"a": msgspec.msgpack.Ext(5, b"x")}))) == ["BAD_TYPE"]
    assert reasons(msgspec.msgpack.encode(tasks_file(metadata={"a": float("nan")}))) == ["NUMBER_OUT_OF_RANGE"]
    doubled = msgspec.msgpack.encode(tasks_file(metadata={"aa": 1, "ab": 2})).replace(b"ab", b"aa")
    assert reasons(doubled) == ["DUPLICATE_KEY"]


BOMB = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (c, c, b", ".join([b"*%c" % (c - 1)] * 9)) for c in range(ord("b"), ord("k"))
)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        pytest.param(BOMB, "TOO_LARGE", id="billion laughs"),
        pytest.param(
            b"a: &a " + b"x" * 500_000 + b"\nb: [" + b"*a, " * 900 + b"]", "TOO_LARGE", id="long text, many aliases"
        ),
        pytest.param(b"a: &a x\nb: [" + b"*a, " * 2_000 + b"]", "TOO_MANY_ALIASES", id="many aliases"),
        pytest.param(b'{"a":' + b"[" * 500_000, "TOO_DEEP", id="deep json"),
        pytest.param(b'{"a":' * 100 + b"1" + b"}" * 100, "TOO_DEEP", id="deep json objects"),
        pytest.param(b"a: " + b"[" * 500_000, "TOO_DEEP", id="deep flow yaml"),
        pytest.param(b"a:\n " + b"- " * 250_000, "TOO_DEEP", id="deep block yaml"),
        pytest.param(b"a = " + b"[" * 500_000, "TOO_DEEP", id="deep toml"),
        pytest.param(b"a = " + b"{a=" * 100_000, "TOO_DEEP", id="deep toml tables"),
        pytest.param(b"a." * 250_000 + b"a = 1", "TOO_DEEP", id="dotted toml key"),
        pytest.param(b"[" + b"a." * 250_000 + b"a]\nb = 1", "TOO_DEEP", id="dotted toml header"),
        pytest.param(b"\x81\xa1a" + b"\x91" * 500_000, "TOO_DEEP", id="deep msgpack"),
        pytest.param(b"\x81\xa1a" + b"\x91" * 100 + b"\x01", "TOO_DEEP", id="somewhat deep msgpack"),
        pytest.param(b"\x81\xa1a\xdd\xff\xff\xff\xff", "SYNTAX", id="msgpack that promises more"),
        pytest.param(b'{"a": "' + b"x" * 2_000_000 + b'"}', "TEXT_TOO_LONG", id="long text"),
        pytest.param(
            b"{" + b'"a":1,' * 100_000 + b'"a":1}', "DUPLICATE_KEY", id="a hundred thousand keys that are one"
        ),
        pytest.param(b" " * (5 << 20) + b"{}", "TOO_LARGE", id="large"),
        pytest.param(b"a: " + b"x" * (2 << 20), "TOO_LARGE", id="large yaml"),
        pytest.param(b"a = 1\n" + b"#" * (2 << 20), "TOO_LARGE", id="large toml"),
    ],
)
def test_a_hostile_descriptor_is_refused_in_bounded_time_and_memory(data: bytes, reason: str) -> None:
    tracemalloc.start()
    started = time.process_time()
    found = reasons(data)
    took, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert reason in found
    assert took < 10
    assert peak < 64 << 20


@pytest.mark.parametrize("writer", [as_json, as_msgpack])
def test_a_hundred_thousand_tasks_are_refused(writer: Callable[[Any], bytes]) -> None:
    data = writer(tasks_file(*({"id": f"t{n}"} for n in range(100_000))))
    (finding,) = refused(data)
    assert finding.reason == "TOO_MANY_TASKS"
    assert "descriptor.max_tasks" in finding.message


@pytest.mark.parametrize("limits", [DescriptorLimits(max_depth=3), DescriptorLimits(max_depth=1)])
@pytest.mark.parametrize("content_type", WRITERS)
def test_the_depth_limit_is_the_same_in_every_format(limits: DescriptorLimits, content_type: str) -> None:
    raw = tasks_file(task("a", parameters={"a": {}}))
    assert "TOO_DEEP" in reasons(WRITERS[content_type](raw), content_type, limits)
    decode(WRITERS[content_type](raw), content_type=content_type, limits=DescriptorLimits(max_depth=5))
