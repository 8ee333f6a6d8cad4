"""Dialect `tasks` 1.x."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from runner.core.alt import decode
from runner.core.errors import InvalidDescriptor
from runner.core.plan import Mode, Plan, Priority, TaskPlan
from tests.core.alt.descriptors import as_json, plan_of, reasons, refused, task, tasks_file

EXAMPLE = {
    "id": "alt_0042",
    "version": "1.0",
    "created_at": "2025-04-26T19:32:00Z",
    "title": "Weekly digest",
    "mode": "normal",
    "persona": "technical_expert",
    "tasks": [
        {
            "id": "fetch",
            "description": "Fetch the open tickets",
            "parameters": {"url": "http://127.0.0.1:9000/tickets", "method": "GET"},
            "timeout_seconds": 30,
            "retry_count": 3,
        },
        {
            "id": "digest",
            "description": "Summarise them",
            "dependencies": ["fetch"],
            "parameters": {"prompt": "Summarise: ${tasks.fetch.output.body}", "temperature": 0.2},
            "timeout_seconds": 60,
            "retry_count": 2,
        },
    ],
    "metadata": {"priority": "high", "tags": ["digest"], "source": "manual"},
}


def test_a_whole_descriptor_becomes_a_plan() -> None:
    decoded = decode(as_json(EXAMPLE))
    assert decoded.warnings == ()
    assert decoded.plan == Plan(
        alt_id="alt_0042",
        dialect="tasks",
        version="1.0",
        title="Weekly digest",
        created_at=1_745_695_920_000_000,
        mode=Mode.NORMAL,
        persona="technical_expert",
        priority=Priority.HIGH,
        metadata={"priority": "high", "tags": ["digest"], "source": "manual"},
        tasks=(
            TaskPlan(
                id="fetch",
                description="Fetch the open tickets",
                kind="http_request",
                parameters={"url": "http://127.0.0.1:9000/tickets", "method": "GET"},
                timeout=30.0,
                retries=3,
            ),
            TaskPlan(
                id="digest",
                description="Summarise them",
                kind="ai_prompt",
                parameters={"prompt": "Summarise: ${tasks.fetch.output.body}", "temperature": 0.2},
                dependencies=("fetch",),
                timeout=60.0,
                retries=2,
            ),
        ),
    )


@pytest.mark.parametrize(
    ("parameters", "kind", "prompt"),
    [
        ({}, "ai_prompt", "Do a"),
        (None, "ai_prompt", "Do a"),
        ({"temperature": 1}, "ai_prompt", "Do a"),
        ({"prompt": "Hi"}, "ai_prompt", "Hi"),
        ({"prompt": "Hi", "url": "http://127.0.0.1"}, "ai_prompt", "Hi"),
        ({"url": "http://127.0.0.1"}, "http_request", None),
        ({"task_type": "delay", "seconds": 1}, "delay", None),
        ({"task_type": "ai_prompt"}, "ai_prompt", "Do a"),
        ({"task_type": "search"}, "search", "Do a"),
        ({"task_type": "search", "prompt": "Hi"}, "search", "Hi"),
        ({"task_type": None, "url": "http://127.0.0.1"}, "http_request", None),
    ],
)
def test_what_a_task_does_is_told_or_inferred(parameters: Any, kind: str, prompt: str | None) -> None:
    (planned,) = plan_of(tasks_file(task("a", parameters=parameters))).tasks
    assert (planned.kind, planned.parameters.get("prompt")) == (kind, prompt)


@pytest.mark.parametrize("told", ["", "  ", 3, ["delay"]])
def test_a_task_type_that_is_no_word_is_refused(told: Any) -> None:
    (finding,) = refused(tasks_file(task("a", parameters={"task_type": told})))
    assert finding.path == "tasks[0].parameters.task_type"


@pytest.mark.parametrize("mode", ["chaos", "Chaos", "CHAOS"])
def test_mode_is_read_in_any_case(mode: str) -> None:
    assert plan_of(tasks_file(mode=mode)).mode is Mode.CHAOS


def test_the_files_priority_wins_over_that_of_its_metadata() -> None:
    assert plan_of(tasks_file(priority="critical", metadata={"priority": "low"})).priority is Priority.CRITICAL
    assert plan_of(tasks_file(metadata={"priority": "LOW"})).priority is Priority.LOW
    assert plan_of(tasks_file(metadata={"priority": None})).priority is Priority.MEDIUM


@pytest.mark.parametrize(
    ("budget", "reason"), [(0, "OUT_OF_RANGE"), (2**63, "OUT_OF_RANGE"), ("9", "BAD_TYPE"), (True, "BAD_TYPE")]
)
def test_a_wrong_token_budget_in_the_metadata_is_an_error(budget: Any, reason: str) -> None:
    """Whoever relies on one must not run without."""
    with pytest.raises(InvalidDescriptor) as refused:
        decode(as_json(tasks_file(metadata={"token_budget": budget})))
    assert [(found.reason, found.path) for found in refused.value.findings] == [(reason, "metadata.token_budget")]
    assert plan_of(tasks_file(metadata={"token_budget": 5})).metadata == {"token_budget": 5}


@pytest.mark.parametrize("priority", ["urgent", 3, ["high"]])
def test_a_strange_priority_in_the_metadata_is_a_warning(priority: Any) -> None:
    decoded = decode(as_json(tasks_file(metadata={"priority": priority})))
    assert decoded.plan.priority is Priority.MEDIUM
    assert [(w.reason, w.path) for w in decoded.warnings] == [("UNKNOWN_PRIORITY", "metadata.priority")]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("retry_count", -1, "OUT_OF_RANGE"),
        ("retry_count", 256, "OUT_OF_RANGE"),
        ("retry_count", 1.5, "BAD_TYPE"),
        ("retry_count", True, "BAD_TYPE"),
        ("timeout_seconds", 0, "OUT_OF_RANGE"),
        ("timeout_seconds", 1e12, "OUT_OF_RANGE"),
        ("timeout_seconds", "30", "BAD_TYPE"),
        ("timeout_seconds", False, "BAD_TYPE"),
        ("status", "runing", "UNKNOWN_STATUS"),
        ("priority", "hihg", "UNKNOWN_PRIORITY"),
        ("weight", 0, "OUT_OF_RANGE"),
        ("weight", "much", "BAD_TYPE"),
        ("tags", "one", "BAD_TYPE"),
        ("tags", [1], "BAD_TYPE"),
        ("parameters", [], "BAD_TYPE"),
        ("dependencies", "b", "BAD_TYPE"),
        ("dependencies", [None], "BAD_TYPE"),
        ("dependencies", [None, 1], "BAD_TYPE"),
        ("dependencies", [""], "UNKNOWN_DEPENDENCY"),
        ("retry_count", 3.0, "BAD_TYPE"),
        ("description", " \t", "BLANK"),
        ("id", "", "BLANK"),
        ("id", "x" * 257, "TEXT_TOO_LONG"),
        ("metadata", 1, "BAD_TYPE"),
    ],
)
def test_a_wrong_field_of_a_task_is_refused(field: str, value: Any, reason: str) -> None:
    found = refused(tasks_file(task("a", **{field: value}) if field != "id" else task(value)))
    assert {finding.reason for finding in found} == {reason}
    assert all(finding.path.startswith(f"tasks[0].{field}") for finding in found)
    # With an unknown field beside it, it is the table that reads it.
    again = refused(tasks_file(task("a", colour=1, **{field: value}) if field != "id" else task(value, colour=1)))
    assert [finding.reason for finding in again] == [finding.reason for finding in found]


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("tasks", [], "NO_TASKS"),
        ("tasks", {}, "BAD_TYPE"),
        ("tasks", [1], "BAD_TYPE"),
        ("expected_completion_time", -1, "OUT_OF_RANGE"),
        ("fail_fast", "yes", "BAD_TYPE"),
        ("tags", {}, "BAD_TYPE"),
        ("created_at", 1745695920, "BAD_TYPE"),
        ("created_at", "2025-02-30T00:00:00Z", "BAD_TIME"),
        ("created_at", "2025-04-26T19:32:00+25:00", "BAD_TIME"),
        ("created_at", "26.04.2025", "BAD_TIME"),
    ],
)
def test_a_wrong_field_of_the_file_is_refused(field: str, value: Any, reason: str) -> None:
    assert reasons(tasks_file(**{field: value})) == [reason]


@pytest.mark.parametrize("status", ["pending", "Running", "completed", "failed", "cancelled", "timeout", None])
def test_a_known_status_is_ignored(status: Any) -> None:
    assert plan_of(tasks_file(task("a", status=status))) == plan_of(tasks_file(task("a")))


@pytest.mark.parametrize(
    ("written", "instant"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.5z", 1_500_000),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1969-12-31T19:00:00-05:00", 0),
        ("1970-01-01t00:00:00.1234567Z", 123_456),
        ("1970-01-01T00:00:60Z", 60_000_000),
    ],
)
def test_times_are_rfc_3339(written: str, instant: int) -> None:
    decoded = decode(as_json(tasks_file(created_at=written)))
    assert (decoded.plan.created_at, decoded.warnings) == (instant, ())


@pytest.mark.parametrize("written", ["1970-01-01T00:00:00", "1970-01-01 00:00:00", "1970-01-01"])
def test_a_time_without_zone_is_utc_and_told(written: str) -> None:
    decoded = decode(as_json(tasks_file(created_at=written)))
    assert decoded.plan.created_at == 0
    assert [w.reason for w in decoded.warnings] == ["NO_TIME_ZONE"]


def test_a_dependency_listed_twice_counts_once_and_is_told() -> None:
    decoded = decode(as_json(tasks_file(task("a"), task("b", "a", "a"))))
    assert decoded.plan.tasks[1].dependencies == ("a",)
    assert [(w.reason, w.path) for w in decoded.warnings] == [("DUPLICATE_DEPENDENCY", "tasks[1].dependencies[1]")]


def test_what_is_read_in_one_stroke_is_what_the_table_reads() -> None:
    """An unknown field sends the whole list through the table."""
    full = task(
        "b",
        "a",
        parameters={"task_type": "delay", "seconds": 1},
        timeout_seconds=2,
        retry_count=255,
        status="pending",
        priority="low",
        tags=["x"],
        weight=3,
        metadata={"k": None},
    )
    quick = decode(as_json(tasks_file(task("a"), full))).plan
    slow = decode(as_json(tasks_file(task("a"), full, task("c", colour="red")))).plan
    assert slow.tasks[:2] == quick.tasks


@pytest.mark.parametrize("writer", [as_json, lambda raw: b"\xef\xbb\xbf" + as_json(raw)], ids=["quick", "by the table"])
def test_integers_end_at_64_bits_in_fields_that_are_numbers_too(writer: Callable[[Any], bytes]) -> None:
    assert decode(writer(tasks_file(expected_completion_time=2**64 - 1))).plan.expected_seconds == float(2**64)
    assert decode(writer(tasks_file(expected_completion_time=1e30))).plan.expected_seconds == 1e30
    assert reasons(writer(tasks_file(expected_completion_time=2**64))) == ["NUMBER_OUT_OF_RANGE"]


def test_fail_fast_and_weight_are_read() -> None:
    plan = plan_of(tasks_file(task("a", weight=2.5), fail_fast=True))
    assert plan.fail_fast
    assert plan.tasks[0].weight == 2.5


def test_turkish_survives_byte_for_byte() -> None:
    text = "Şırnak'ta ığdır çığ öğünü; İSTANBUL ile istanbul, ı ile I. e\u0301 ≠ é"
    plan = plan_of(tasks_file(task("ığdır", parameters={"prompt": text}, description=text), title=text))
    assert plan.title.encode() == text.encode()
    assert plan.tasks[0].description == text
    assert plan.tasks[0].parameters["prompt"] == text
    assert plan.tasks[0].id == "ığdır"
