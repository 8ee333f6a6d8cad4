"""Dialect `segments` 1.0."""

from __future__ import annotations

from typing import Any

import pytest

from runner.core.alt import decode
from runner.core.plan import Mode
from tests.core.alt.descriptors import as_json, plan_of, reasons, refused, segment, segments_file

TURKISH = """\
id: seg-1
version: '1.0'
timestamp: 2025-04-26 19:32:00
command: Çığ riskini araştır, özetle
language: tr
mode: Explore
persona: uzman
chaos_level: null
segments:
  - id: ara
    task_type: search
    content: Doğu Karadeniz'de çığ riski
    parameters:
      - {name: limit, value: 5, type: number, required: true, description: Kaç sonuç}
      - {name: dil, value: tr, type: string, required: false, description: null}
    dependencies: []
    metadata: {confidence: 0.93}
  - id: özet
    task_type: analyze
    content: 'Özetle: ${tasks.ara.output.text}'
    dependencies: [ara]
metadata: {source: ses}
saved_at: 2025-04-26T19:32:01.5
"""


def test_a_whole_file_becomes_a_plan() -> None:
    decoded = decode(TURKISH.encode())
    plan = decoded.plan
    assert [w.reason for w in decoded.warnings] == ["NO_TIME_ZONE"]
    assert (plan.alt_id, plan.dialect, plan.version) == ("seg-1", "segments", "1.0")
    assert (plan.title, plan.language, plan.mode, plan.persona) == (
        "Çığ riskini araştır, özetle",
        "tr",
        Mode.EXPLORE,
        "uzman",
    )
    assert plan.chaos_level is None
    assert plan.created_at == 1_745_695_920_000_000
    assert plan.metadata == {"source": "ses", "saved_at": "2025-04-26T19:32:01.5"}
    first, second = plan.tasks
    assert (first.id, first.kind, first.description) == ("ara", "search", "Doğu Karadeniz'de çığ riski")
    assert first.parameters == {"limit": 5, "dil": "tr", "prompt": "Doğu Karadeniz'de çığ riski"}
    assert first.metadata == {"confidence": 0.93}
    assert second.dependencies == ("ara",)
    assert second.parameters == {"prompt": "Özetle: ${tasks.ara.output.text}"}


def parameter(value: Any, kind: Any, *, required: bool = False) -> dict[str, Any]:
    return {"name": "p", "value": value, "type": kind, "required": required}


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("text", "string"),
        (1, "number"),
        (1.5, "number"),
        (True, "boolean"),
        ([1], "array"),
        ({"a": 1}, "object"),
        (None, "number"),
        ("${inputs.count}", "number"),
        ("anything", None),
        (1, "Number"),
    ],
)
def test_a_value_of_its_type_is_taken(value: Any, kind: Any) -> None:
    (task,) = plan_of(segments_file(segment("a", parameters=[parameter(value, kind)]))).tasks
    assert task.parameters["p"] == value


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (1, "string"),
        ("1", "number"),
        (True, "number"),
        (1, "boolean"),
        ({}, "array"),
        ([], "object"),
        ("n = ${inputs.n}", "number"),
    ],
)
def test_a_value_of_another_type_is_refused_naming_segment_and_parameter(value: Any, kind: str) -> None:
    (finding,) = refused(segments_file(segment("seg", parameters=[parameter(value, kind)])))
    assert (finding.reason, finding.path) == ("BAD_VALUE", "segments[0].parameters[0].value")
    assert "`p` of segment `seg`" in finding.message


def test_a_required_parameter_without_value_is_refused() -> None:
    (finding,) = refused(segments_file(segment("seg", parameters=[parameter(None, "string", required=True)])))
    assert (finding.reason, finding.path) == ("MISSING_VALUE", "segments[0].parameters[0].value")
    assert "`p` of segment `seg`" in finding.message


def test_an_unknown_type_suggests_the_near_one() -> None:
    (finding,) = refused(segments_file(segment("a", parameters=[parameter("x", "sting")])))
    assert (finding.reason, finding.suggestion) == ("UNKNOWN_TYPE", "string")


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({}, "BAD_TYPE"),
        ([1], "BAD_TYPE"),
        ([{"value": 1}], "MISSING_FIELD"),
        ([{"name": "p"}, {"name": "p"}], "DUPLICATE_PARAMETER"),
    ],
)
def test_malformed_parameters_are_refused(parameters: Any, reason: str) -> None:
    assert reasons(segments_file(segment("a", parameters=parameters))) == [reason]


def test_content_is_the_prompt_unless_one_is_given() -> None:
    given = [{"name": "prompt", "value": "Mine", "type": "string"}]
    plan = plan_of(segments_file(segment("a"), segment("b", parameters=given), segment("c", task_type="delay")))
    assert [task.parameters.get("prompt") for task in plan.tasks] == ["Do a", "Mine", None]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"mode": "Chaos"}, "MISSING_FIELD"),
        ({"mode": "Chaos", "chaos_level": None}, "MISSING_FIELD"),
        ({"mode": "Chaos", "chaos_level": 0}, "OUT_OF_RANGE"),
        ({"mode": "Chaos", "chaos_level": 11}, "OUT_OF_RANGE"),
        ({"mode": "Dream", "chaos_level": 3}, "CHAOS_LEVEL"),
        ({"chaos_level": 3}, "CHAOS_LEVEL"),
        ({"mode": "Choas", "chaos_level": 3}, "UNKNOWN_MODE"),
    ],
)
def test_the_chaos_level_belongs_to_chaos(fields: dict[str, Any], reason: str) -> None:
    assert reasons(segments_file(**fields)) == [reason]


def test_the_chaos_level_is_read() -> None:
    assert plan_of(segments_file(mode="Chaos", chaos_level=10)).chaos_level == 10


def test_a_reference_in_a_value_is_told_at_the_value() -> None:
    listed = [{"name": "x", "value": 1}, {"name": "q", "value": {"deep": ["${tasks.none.output}"]}}]
    (finding,) = refused(segments_file(segment("a", parameters=listed)))
    assert (finding.reason, finding.path) == ("UNKNOWN_TASK", "segments[0].parameters[1].value.deep[0]")


def test_a_reference_in_the_content_is_told_at_the_content() -> None:
    (finding,) = refused(segments_file(segment("a", content="${tasks.none.output}")))
    assert (finding.reason, finding.path) == ("UNKNOWN_TASK", "segments[0].content")


def test_names_of_the_other_dialect_are_suggested() -> None:
    raw = segments_file(title="x")
    assert [w.suggestion for w in decode(as_json(raw)).warnings] == ["command"]


@pytest.mark.parametrize("version", ["1.0", "2.0"])
def test_a_segment_is_tried_again_and_timed_out_by_itself(version: str) -> None:
    plan = plan_of(segments_file(segment("a", timeout_seconds=30, retry_count=3), segment("b"), version=version))
    assert [(task.timeout, task.retries) for task in plan.tasks] == [(30.0, 3), (None, None)]
    (warning,) = decode(as_json(segments_file(segment("a", retries=3), version=version))).warnings
    assert (warning.reason, warning.suggestion) == ("UNKNOWN_FIELD", "retry_count")


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("retry_count", 256, "OUT_OF_RANGE"),
        ("retry_count", 3.0, "BAD_TYPE"),
        ("timeout_seconds", 0, "OUT_OF_RANGE"),
        ("timeout_seconds", "30", "BAD_TYPE"),
    ],
)
def test_its_attempts_are_checked_as_those_of_a_task(field: str, value: Any, reason: str) -> None:
    assert reasons(segments_file(segment("a", **{field: value}))) == [reason]
