from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from runner.core.errors import InvalidRecord
from runner.core.record import ArtifactType, RecordStatus, ResultStatus, Verdict, duration_text, parse, verify

OLD_RECORD = {
    "id": "0b0e3c5e-1f1c-4d0c-9f0a-1f6f4b2a7c11",
    "execution_id": "7d1b",
    "alt_file_id": "alt_0042",
    "title": "Weekly digest",
    "mode": "explore",
    "persona": None,
    "status": "partialsuccess",
    "success_rate": 0.5,
    "execution_time_ms": 1500,
    "start_time": "2025-04-26T19:32:00.123456789Z",
    "end_time": "2025-04-26T19:32:01.623456789Z",
    "task_results": {
        "fetch": {
            "task_id": "fetch",
            "execution_id": "e1",
            "status": "completed",
            "start_time": "2025-04-26T19:32:00.123456789Z",
            "end_time": "2025-04-26T19:32:01Z",
            "duration_ms": 877,
            "output": {"text": "ok"},
            "error": None,
            "metadata": None,
        },
        "digest": {"task_id": "digest", "execution_id": "e2", "status": "timeout", "error": "Task execution timed out"},
    },
    "artifacts": [
        {
            "id": "a",
            "name": "x",
            "artifact_type": "binary",
            "task_id": "fetch",
            "path": "artifacts/x",
            "created_at": "2025-04-26T19:32:01Z",
            "size_bytes": None,
            "mime_type": None,
            "metadata": None,
        }
    ],
    "metadata": {"alt_source": "manual"},
    "tags": None,
    "priority": "medium",
    "execution_graph": None,
    "summary": "Execution Summary:\n- Title: Weekly digest",
    "version": "1.0",
}


def test_records_of_the_runner_service_are_read() -> None:
    record = parse(json.dumps(OLD_RECORD).encode())
    assert (record.status, record.tags, record.job_id) == (RecordStatus.PARTIAL_SUCCESS, (), "")
    assert record.start_time == datetime(2025, 4, 26, 19, 32, 0, 123457, UTC)
    assert record.task_results["digest"].status is ResultStatus.TIMEOUT
    assert record.task_results["fetch"].metadata == {}
    assert record.artifacts[0].artifact_type is ArtifactType.OTHER
    assert verify(json.dumps(OLD_RECORD).encode()) is Verdict.NO_CHECKSUM


def test_its_first_records_are_read_too() -> None:
    first = {key: value for key, value in OLD_RECORD.items() if key not in ("title", "start_time", "end_time")}
    first |= {"alt_file_title": "Weekly digest", "created_at": "2025-04-26T19:32:00Z"}
    record = parse(json.dumps(first).encode())
    assert (record.title, record.start_time, record.end_time) == ("Weekly digest", record.end_time, record.start_time)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"{}", b'{"checksum": 5}', b"\xff", b"[" * 100_000, b'"text"'])
def test_what_is_no_record_is_told_from_one(data: bytes) -> None:
    assert verify(data) is Verdict.NOT_A_RECORD
    with pytest.raises(InvalidRecord, match=r"this is not a \.last record: "):
        parse(data)


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [
        (0, "0 ms"),
        (999, "999 ms"),
        (1_000, "1.0 s"),
        (59_949, "59.9 s"),
        (65_999, "1 min 5 s"),
        (12_000_000, "3 h 20 min"),
    ],
)
def test_durations_are_written_for_people(milliseconds: int, text: str) -> None:
    assert duration_text(milliseconds) == text
