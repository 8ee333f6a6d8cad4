"""A descriptor in another dialect is the same job, or it is told, with its place, what would be lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.alt import decode
from runner.core.alt.conversion import Converted, convert
from runner.core.alt.losses import essence
from runner.core.alt.media import Format
from runner.core.alt.places import DialectName
from runner.core.errors import InvalidDescriptor
from runner.core.findings import Finding
from runner.core.plan import Plan, Priority
from scripts.fuzzing.inputs import case
from tests.core.alt.descriptors import (
    as_json,
    as_toml,
    as_yaml,
    edge,
    node,
    segment,
    segments_file,
    task,
    tasks_file,
    workflow_file,
)
from tests.core.alt.test_any_bytes import descriptors

EXAMPLES = sorted((Path(__file__).parents[3] / "examples").glob("*.alt*"))
TASKS, SEGMENTS, WORKFLOW = DialectName


def there(raw: Any, dialect: DialectName, to: Format | None = None, *, lossy: bool = False) -> Converted:
    data = raw if isinstance(raw, bytes) else as_json(raw)
    converted = convert(data, to, dialect=dialect, lossy=lossy)
    again = decode(converted.content, content_type=converted.format).plan
    assert again.dialect == dialect
    if not converted.lost:
        assert essence(again) == essence(decode(data).plan)
    return converted


def plan_in(raw: Any, dialect: DialectName) -> Plan:
    return decode(there(raw, dialect).content).plan


def value_in(raw: Any, dialect: DialectName) -> Any:
    return yaml.safe_load(there(raw, dialect, Format.YAML).content)


def refused(raw: Any, dialect: DialectName, *, lossy: bool = False) -> tuple[Finding, ...]:
    data = raw if isinstance(raw, bytes) else as_json(raw)
    with pytest.raises(InvalidDescriptor) as caught:
        convert(data, None, dialect=dialect, lossy=lossy)
    return caught.value.findings


def places(findings: tuple[Finding, ...]) -> list[tuple[str, str]]:
    return [(finding.reason, finding.path) for finding in findings]


@pytest.mark.parametrize("to", Format)
@pytest.mark.parametrize("dialect", DialectName)
def test_dialect_and_format_change_together(dialect: DialectName, to: Format) -> None:
    raw = tasks_file(task("a"), task("b", "a", parameters={"input": {"x": 1.0, "y": [True, 1]}}), title="Çığ 🎉")
    converted = there(raw, dialect, to)
    assert converted.format is to
    assert "Çığ 🎉".encode() in converted.content


@pytest.mark.parametrize("write", [as_json, as_yaml, as_toml])
def test_without_a_format_it_keeps_its_own(write: Any) -> None:
    data = write(tasks_file(task("a")))
    converted = there(data, SEGMENTS)
    assert converted.format is convert(data, None).format
    assert there(converted.content, TASKS).format is converted.format


@settings(max_examples=15, deadline=None)
@given(raw=descriptors())
def test_there_and_back_is_the_same_job_where_nothing_is_lost(raw: dict[str, Any]) -> None:
    back = there(there(raw, SEGMENTS).content, TASKS).content
    assert essence(decode(back).plan) == essence(decode(as_json(raw)).plan)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
@pytest.mark.parametrize("dialect", DialectName)
def test_an_example_in_a_dialect_is_the_same_job_or_its_losses_are_told(path: Path, dialect: DialectName) -> None:
    data = path.read_bytes()
    if decode(data).plan.dialect == dialect:
        assert convert(data, None, dialect=dialect) == convert(data, None)
        return
    try:
        assert there(data, dialect).lost == ()
    except InvalidDescriptor as e:
        found = e.findings
    else:
        return
    assert {finding.reason for finding in found} <= {"NO_PLACE", "CANNOT_BE_WRITTEN"}
    if all(finding.reason == "NO_PLACE" for finding in found):
        assert there(data, dialect, lossy=True).lost == found


def test_turkish_text_survives_byte_for_byte_in_every_dialect() -> None:
    text = "İıĞğŞşÇçÖöÜü I\u0307 e\u0301 🎉"
    raw = tasks_file(task(text, description=text, parameters={"prompt": text * 2, text: text}), title=text)
    for dialect in (SEGMENTS, WORKFLOW):
        plan = plan_in(raw, dialect)
        assert (plan.title, plan.tasks[0].id, plan.tasks[0].description) == (text, text, text)
        assert plan.tasks[0].parameters == {"prompt": text * 2, text: text}
        assert text.encode() in there(raw, dialect).content


def test_what_a_task_is_for_is_said_where_the_dialect_says_it() -> None:
    raw = segments_file(segment("a", parameters=[{"name": "n", "value": 1}]), segment("b", "a", task_type="ai_prompt"))
    assert value_in(raw, TASKS)["tasks"] == [
        {"id": "a", "description": "Do a", "parameters": {"task_type": "search", "n": 1}},
        {"id": "b", "description": "Do b", "dependencies": ["a"]},
    ]
    raw = tasks_file(task("a", parameters={"task_type": "search", "n": [1], "prompt": "find it"}))
    assert value_in(raw, SEGMENTS)["segments"] == [
        {
            "id": "a",
            "content": "Do a",
            "task_type": "search",
            "parameters": [
                {"name": "n", "type": "array", "value": [1]},
                {"name": "prompt", "type": "string", "value": "find it"},
            ],
        }
    ]


def test_a_workflow_without_merged_inputs_becomes_tasks_and_back() -> None:
    config = {"input": "${tasks.start.output}", "url": "http://127.0.0.1/", "max_retries": 2}
    raw = workflow_file(
        node("start", "manual_trigger"),
        node("fetch", config=config),
        edges=[edge("start", "fetch", source_handle="ok")],
        created_at="2026-01-05",
    )
    written = value_in(raw, TASKS)
    assert written["created_at"] == "2026-01-05"
    fetch = written["tasks"][1]
    assert (fetch["retry_count"], fetch["dependencies"]) == (2, ["start"])
    assert fetch["metadata"] == {"position": {"x": 1, "y": 2}, "handles": [{"from": "start", "source_handle": "ok"}]}
    again = value_in(as_json(written), WORKFLOW)
    assert again["nodes"][0]["type"] == "trigger"
    assert again["nodes"][1]["position"] == {"x": 1, "y": 2}
    assert again["edges"] == [{"id": "e1", "source_node_id": "start", "target_node_id": "fetch"}]


@pytest.mark.parametrize("dialect", [SEGMENTS, WORKFLOW])
def test_a_descriptor_inside_of_the_parameters_stays_as_it_is(dialect: DialectName) -> None:
    inner = task("b", "a", parameters={"prompt": "${tasks.a.output} $${x}"})
    child = tasks_file(task("a", retry_count=2), inner)
    raw = tasks_file(task("run", parameters={"task_type": "job", "descriptor": child}))
    assert value_in(there(raw, dialect).content, TASKS)["tasks"][0]["parameters"]["descriptor"] == child


def test_a_time_keeps_its_zone() -> None:
    written = value_in(tasks_file(created_at="2025-04-26T22:32:00.5+03:00"), SEGMENTS)
    assert written["timestamp"] == "2025-04-26T22:32:00.5+03:00"


def test_unknown_fields_go_on_in_the_metadata() -> None:
    written = value_in(tasks_file(task("a", colour="red"), team="ö"), SEGMENTS)
    assert (written["metadata"], written["segments"][0]["metadata"]) == ({"team": "ö"}, {"colour": "red"})


def test_a_priority_is_carried_by_the_metadata_or_told() -> None:
    assert plan_in(tasks_file(metadata={"priority": "HIGH"}), SEGMENTS).priority is Priority.HIGH
    (finding,) = refused(tasks_file(priority="high"), SEGMENTS)
    assert (finding.reason, finding.path) == ("NO_PLACE", "priority")
    assert "`metadata.priority`" in finding.message
    assert places(refused(tasks_file(priority="low", metadata={"priority": "high"}), SEGMENTS)) == [
        ("NO_PLACE", "priority")
    ]
    raw = segments_file(metadata={"priority": "low"})
    assert "priority" not in value_in(raw, TASKS)


def test_the_attempts_of_a_segment_are_those_of_a_task_and_its_retries_those_of_a_node() -> None:
    raw = segments_file(segment("a", timeout_seconds=5, retry_count=2))
    (told,) = value_in(raw, TASKS)["tasks"]
    assert (told["timeout_seconds"], told["retry_count"]) == (5, 2)
    raw = segments_file(segment("a", retry_count=2))
    assert value_in(raw, WORKFLOW)["nodes"][0]["config"]["max_retries"] == 2


def test_all_that_would_be_lost_is_told_with_its_place_and_line() -> None:
    raw = tasks_file(
        task("a", timeout_seconds=5, retry_count=1, tags=["x"]),
        task("b", priority="low"),
        tags=["t"],
        expected_completion_time=60,
    )
    found = refused(yaml.safe_dump(raw, sort_keys=False).encode(), SEGMENTS)
    assert sorted(places(found)) == [
        ("NO_PLACE", "expected_completion_time"),
        ("NO_PLACE", "tags"),
        ("NO_PLACE", "tasks[0].tags"),
        ("NO_PLACE", "tasks[1].priority"),
    ]
    assert all(finding.line > 1 for finding in found)
    assert "Dialect `segments` has no place for `tags`, which is of `tasks`." in {f.message for f in found}
    found = refused(segments_file(segment("a", timeout_seconds=5, retry_count=1)), WORKFLOW)
    assert places(found) == [("NO_PLACE", "segments[0].timeout_seconds")]
    assert "`timeout_seconds`, which is of `tasks` and `segments`." in found[0].message


def test_what_a_file_says_beside_its_plan_is_not_forgotten() -> None:
    parameter = {"name": "n", "value": 1, "type": "number", "required": True, "description": "How many", "unit": "kg"}
    assert sorted(places(refused(segments_file(segment("a", parameters=[parameter]), language="tr"), TASKS))) == [
        ("NO_PLACE", "language"),
        ("NO_PLACE", "segments[0].parameters[0].description"),
        ("NO_PLACE", "segments[0].parameters[0].unit"),
    ]
    raw = workflow_file(
        node("daily", "schedule_trigger", config={"cron": "0 8 * * *"}),
        node("a", description="Another") | {"name": "One"},
        node("b", config={"input": 1}),
        edges=[edge("a", "b", label="then")],
        created_at="2026-01-05T08:00:00Z",
    )
    assert sorted(places(refused(raw, TASKS))) == [
        ("NO_PLACE", "edges[0].label"),
        ("NO_PLACE", "nodes[0].config.cron"),
        ("NO_PLACE", "nodes[1].name"),
    ]


@pytest.mark.parametrize(
    ("raw", "dialect", "path"),
    [
        (
            workflow_file(node("a"), node("b"), edges=[edge("a", "b")], created_at="2026-01-05T08:00:00Z"),
            TASKS,
            "nodes[1]",
        ),
        (tasks_file(task("a"), task("b", "a")), WORKFLOW, "tasks[1].dependencies"),
        (workflow_file(), TASKS, ""),
        (workflow_file(node("a", description=" "), created_at="2026-01-05T08:00:00Z"), TASKS, "nodes[0].description"),
        (tasks_file(mode="chaos"), SEGMENTS, "mode"),
        (tasks_file(task("a", parameters={" ": 1})), SEGMENTS, 'tasks[0].parameters[" "]'),
        (tasks_file(task("a", parameters={"max_retries": 1})), WORKFLOW, "tasks[0].parameters.max_retries"),
        (tasks_file(task("a", parameters={"task_type": "manual_trigger"})), WORKFLOW, "tasks[0].parameters"),
        (
            segments_file(segment("a", parameters=[{"name": "x"}, {"name": "task_type", "value": "delay"}])),
            TASKS,
            "segments[0].parameters[1]",
        ),
    ],
)
def test_what_cannot_be_left_out_is_refused_even_if_lossy(raw: Any, dialect: DialectName, path: str) -> None:
    for lossy in (False, True):
        assert places(refused(raw, dialect, lossy=lossy)) == [("CANNOT_BE_WRITTEN", path)]


def test_a_lossy_one_is_the_same_job_without_what_is_told() -> None:
    raw = tasks_file(task("a", timeout_seconds=5, retry_count=2), tags=["t"], metadata={"priority": "low"})
    converted = there(raw, SEGMENTS, lossy=True)
    assert places(converted.lost) == places(refused(raw, SEGMENTS))
    kept = tasks_file(task("a", timeout_seconds=5, retry_count=2), metadata={"priority": "low"})
    assert essence(decode(converted.content).plan) == essence(decode(as_json(kept)).plan)


def test_what_toml_cannot_hold_is_told_in_the_words_of_the_other_dialect() -> None:
    with pytest.raises(InvalidDescriptor) as caught:
        convert(as_json(tasks_file(task("a", parameters={"x": None}))), Format.TOML, dialect=SEGMENTS)
    assert places(caught.value.findings) == [("CANNOT_BE_WRITTEN", "segments[0].parameters[0].value")]


def test_what_would_be_too_deep_in_the_other_dialect_is_refused() -> None:
    deep: Any = 1
    for _ in range(60):
        deep = [deep]
    (finding,) = refused(tasks_file(task("a", parameters={"x": deep})), SEGMENTS)
    assert (finding.reason, finding.line) == ("TOO_DEEP", 0)


def test_a_wrong_descriptor_is_refused_as_ever() -> None:
    assert [finding.reason for finding in refused(tasks_file(mode="choas"), SEGMENTS)] == ["UNKNOWN_MODE"]


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32), number=st.integers(0, 2**32))
def test_a_hostile_input_is_converted_or_refused_for_a_reason(seed: int, number: int) -> None:
    hostile = case(seed, number)
    for dialect in DialectName:
        told: tuple[Finding, ...] = ()
        try:
            convert(hostile.data, None, dialect=dialect, lossy=bool(seed % 2), content_type=hostile.content_type)
        except InvalidDescriptor as error:
            told = error.findings
        assert not [finding for finding in told if "defect" in finding.message]
