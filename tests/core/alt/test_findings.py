"""All that is wrong with a descriptor is told at once, each with its place."""

from __future__ import annotations

import json
from typing import Any

import pytest

from runner.core.alt import DescriptorLimits, decode
from runner.core.errors import InvalidDescriptor
from tests.core.alt.descriptors import as_json, as_toml, reasons, refused, segment, segments_file, task, tasks_file

SEVEN_JSON = """{
  "id": "alt_7",
  "version": "1.0",
  "title": " ",
  "created_at": "yesterday",
  "mode": "choas",
  "tasks": [
    {"id": "fetch", "description": "Fetch"},
    {"id": "read", "description": "Read", "dependencies": ["fetsh"],
     "retry_count": 256},
    {"id": "fetch", "description": "Fetch again"},
    {"id": "sum", "description": "Sum up", "parameters": {"prompt": "About ${tasks.read.output}"}}
  ]
}
"""

SEVEN_YAML = """\
id: alt_7
version: '1.0'
title: ' '
created_at: yesterday
mode: choas
tasks:
  - {id: fetch, description: Fetch}
  - id: read
    description: Read
    dependencies:
      - fetsh
    retry_count: 256
  - {id: fetch, description: Fetch again}
  - id: sum
    description: Sum up
    parameters:
      prompt: About ${tasks.read.output}
"""

SEVEN = {
    ("BLANK", "title"): ((4, 12), (3, 8)),
    ("BAD_TIME", "created_at"): ((5, 17), (4, 13)),
    ("UNKNOWN_MODE", "mode"): ((6, 11), (5, 7)),
    ("UNKNOWN_DEPENDENCY", "tasks[1].dependencies[0]"): ((9, 60), (11, 9)),
    ("OUT_OF_RANGE", "tasks[1].retry_count"): ((10, 21), (12, 18)),
    ("DUPLICATE_ID", "tasks[2].id"): ((11, 12), (13, 10)),
    ("NOT_AN_ANCESTOR", "tasks[3].parameters.prompt"): ((12, 69), (17, 15)),
}


@pytest.mark.parametrize(("text", "which"), [(SEVEN_JSON, 0), (SEVEN_YAML, 1)], ids=["json", "yaml"])
def test_seven_mistakes_are_seven_findings_each_in_its_place(text: str, which: int) -> None:
    found = refused(text.encode())
    assert {(f.reason, f.path): (f.line, f.column) for f in found} == {key: at[which] for key, at in SEVEN.items()}
    assert len(found) == len(SEVEN)
    suggestions = {finding.reason: finding.suggestion for finding in found if finding.suggestion}
    assert suggestions == {
        "UNKNOWN_MODE": "chaos",
        "UNKNOWN_DEPENDENCY": "fetch",
        "NOT_AN_ANCESTOR": "dependencies: [read]",
    }


def test_findings_come_in_the_order_of_the_file() -> None:
    found = refused(SEVEN_JSON.encode())
    assert [finding.line for finding in found] == sorted(finding.line for finding in found)


def test_a_misspelt_dialect_is_named_and_the_rest_is_read_nevertheless() -> None:
    raw = tasks_file() | {"task": [task("a", timeout_seconds=0)]}
    del raw["tasks"]
    found = refused(json.dumps(raw, indent=1).encode())
    assert [(f.reason, f.path, f.suggestion, f.line > 0) for f in found] == [
        ("UNSUPPORTED_DIALECT", "task", "tasks", True),
        ("OUT_OF_RANGE", "task[0].timeout_seconds", "", True),
    ]


def test_unknown_fields_are_kept_and_told_with_the_near_one() -> None:
    decoded = decode(as_json(tasks_file(task("a", dependancies=["b"], colour="red"), owner="me")))
    assert decoded.plan.metadata == {"owner": "me"}
    assert decoded.plan.tasks[0].metadata == {"dependancies": ["b"], "colour": "red"}
    raw = tasks_file({"id": "a", "description": "b", "dependancies": ["b"]})
    (warning,) = decode(as_json(raw)).warnings
    assert (warning.reason, warning.path, warning.suggestion) == (
        "UNKNOWN_FIELD",
        "tasks[0].dependancies",
        "dependencies",
    )
    assert (warning.line, warning.column) == (1, as_json(raw).index(b'"dependancies"') + 1)


@pytest.mark.parametrize(
    ("field", "meant"),
    [("depends_on", "dependencies"), ("retries", "retry_count"), ("prompt", "parameters.prompt")],
)
def test_other_names_for_a_field_are_known(field: str, meant: str) -> None:
    (warning,) = decode(as_json(tasks_file({"id": "a", "description": "b", field: "x"}))).warnings
    assert warning.suggestion == meant


def test_an_unknown_field_never_overwrites_metadata() -> None:
    plan = decode(as_json(tasks_file(source="top", metadata={"source": "own"}))).plan
    assert plan.metadata == {"source": "own", "_source": "top"}


def test_missing_fields_are_told_at_their_object() -> None:
    found = refused(b'{\n "tasks": [\n  {"id": "a"}]}')
    assert [(f.reason, f.path, f.line, f.column) for f in found] == [
        ("MISSING_FIELD", "id", 1, 1),
        ("MISSING_FIELD", "version", 1, 1),
        ("MISSING_FIELD", "title", 1, 1),
        ("MISSING_FIELD", "created_at", 1, 1),
        ("MISSING_FIELD", "tasks[0].description", 3, 3),
    ]


def test_null_in_a_required_field_is_a_missing_field() -> None:
    assert reasons(tasks_file(title=None)) == ["MISSING_FIELD"]
    assert reasons(tasks_file(tasks=None)) == ["MISSING_FIELD"]


def test_findings_are_capped_and_the_cap_says_so() -> None:
    found = refused(tasks_file(*({"id": f"t{n}"} for n in range(250))))
    assert len(found) == 101
    assert found[-1].reason == "TOO_MANY_FINDINGS"
    assert "150 more errors" in found[-1].message
    assert "descriptor.max_findings" in found[-1].message


def test_warnings_are_capped_too() -> None:
    warnings = decode(as_json(tasks_file(*(task(f"t{n}", colour=1) for n in range(150))))).warnings
    assert len(warnings) == 101
    assert warnings[-1].reason == "TOO_MANY_FINDINGS"


def test_warnings_come_with_the_errors() -> None:
    with pytest.raises(InvalidDescriptor) as caught:
        decode(as_json(tasks_file(title="", colour="red")))
    assert [f.reason for f in caught.value.findings] == ["BLANK"]
    assert [f.reason for f in caught.value.warnings] == ["UNKNOWN_FIELD"]


def test_findings_in_toml_have_a_path_and_no_line() -> None:
    (finding,) = refused(as_toml(tasks_file(task("a", "b"))))
    assert (finding.reason, finding.path, finding.line) == ("UNKNOWN_DEPENDENCY", "tasks[0].dependencies[0]", 0)


def test_a_number_where_text_belongs_suggests_the_quotes() -> None:
    (finding,) = refused(b"id: a\nversion: 1.0\ntitle: b\ncreated_at: 2025-04-26\ntasks: [{id: a, description: b}]")
    assert (finding.reason, finding.path, finding.suggestion) == ("BAD_TYPE", "version", '"1.0"')
    assert (finding.line, finding.column) == (2, 10)


def test_a_text_where_a_list_of_texts_belongs_suggests_the_brackets() -> None:
    raw = tasks_file(task("a"), {**task("b"), "dependencies": "a"})
    (finding,) = refused(as_json(raw))
    assert (finding.reason, finding.suggestion) == ("BAD_TYPE", '["a"]')


def test_keys_that_are_no_words_are_quoted_in_paths() -> None:
    (finding,) = refused(tasks_file(task("a", parameters={"prompt": "x", "a b": ["${nothing}"]})))
    assert finding.path == 'tasks[0].parameters["a b"][0]'


LONG = "x" * 1001


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (tasks_file(title=LONG), "title"),
        (tasks_file(persona=LONG), "persona"),
        (tasks_file(version=f"1.{'0' * 1000}"), "version"),
        (tasks_file(task("a", parameters={"task_type": LONG})), "tasks[0].parameters.task_type"),
        (segments_file(command=LONG), "command"),
        (segments_file(persona=LONG), "persona"),
        (segments_file(language=LONG), "language"),
        (segments_file(segment("a", task_type=LONG)), "segments[0].task_type"),
    ],
)
def test_what_lists_repeat_is_short(raw: dict[str, Any], path: str) -> None:
    (finding,) = refused(raw)
    assert (finding.reason, finding.path) == ("TEXT_TOO_LONG", path)
    assert "1001" in finding.message or "1002" in finding.message
    assert "`descriptor.max_title`" in finding.message
    assert decode(as_json(raw), limits=DescriptorLimits(max_title=1002))


def test_what_a_finding_repeats_of_the_file_is_short() -> None:
    """A hundred findings under one long key would otherwise be an answer a hundred times as long as the file."""
    (finding,) = refused(tasks_file(metadata={"k" * 50_000: "\0"}))
    assert finding.path == f'metadata["{"k" * 60}…"]'
    decoded = decode(as_json(tasks_file(created_at=f"2025-04-26{' ' * 50_000}19:32:00")))
    assert [len(str(warning)) < 300 for warning in decoded.warnings] == [True]


def test_messages_quote_hostile_text_short_and_printable() -> None:
    (finding,) = refused(tasks_file(task("a", "x\n\x1b[31m" + "y" * 10_000)), limits=DescriptorLimits(max_id=20_000))
    assert "\n" not in finding.message
    assert "\x1b" not in finding.message
    assert len(finding.message) < 200


@pytest.mark.parametrize(
    ("raw", "path", "found"),
    [
        (tasks_file(version="2.0"), "version", "2.0"),
        (tasks_file(version="one"), "version", "one"),
        (segments_file(version="2.1"), "version", "2.1"),
        (segments_file(version="1.1"), "version", "1.1"),
    ],
)
def test_an_unsupported_version_is_named_with_what_is_supported(raw: object, path: str, found: str) -> None:
    (finding,) = refused(as_json(raw))
    assert (finding.reason, finding.path) == ("UNSUPPORTED_VERSION", path)
    assert f"`{found}`" in finding.message
    assert "supported is 1." in finding.message


@pytest.mark.parametrize("version", ["1", "1.0", "1.7", "1.2.3"])
def test_every_version_1_of_tasks_is_read(version: str) -> None:
    assert decode(as_json(tasks_file(version=version))).plan.version == version


def test_control_flow_does_nothing_in_version_1() -> None:
    raw = segments_file(segment("a", loop={"type": "while"}), version="1.0", functions=[])
    decoded = decode(as_json(raw))
    assert [finding.path for finding in decoded.warnings] == ["segments[0].loop", "functions"]
    assert decoded.plan.tasks[0].control is None


def test_two_dialects_at_once_are_refused() -> None:
    assert reasons(tasks_file() | segments_file()) == ["UNSUPPORTED_DIALECT"]


@pytest.mark.parametrize("raw", [{}, {"foo": 1}, {"tsk": 1}, {"foo": []}])
def test_an_object_of_no_dialect_is_refused(raw: object) -> None:
    assert reasons(raw)[0] == "UNSUPPORTED_DIALECT"


@pytest.mark.parametrize("raw", [[], [1], "text", 3, None, True])
def test_what_is_no_object_is_refused(raw: object) -> None:
    assert reasons(as_json(raw), "application/json") == ["BAD_TYPE"]
