"""The `.last` 1.0 record that a job leaves behind, and how to read one.

Names and spellings are those of the runner service's records, so that its readers can read ours; what we add stands
under names that they ignore. A record is one JSON object, sealed by a checksum: the SHA-256, in lower-case hexadecimal,
of its canonical form, which is the object without `checksum`, every key sorted by code point, no white space, UTF-8,
and floats in the shortest form that reads back the same.
"""

from __future__ import annotations

import enum
import hashlib
from datetime import datetime
from typing import Any, Final

import msgspec

from runner.core.errors import InvalidRecord
from runner.core.events import Json, Usage, UsageAt
from runner.core.plan import Mode, TaskId

VERSION: Final = "1.0"


class RecordStatus(enum.StrEnum):
    """How a job ended; a cancelled one is a failure with `metadata.cancelled` set."""

    SUCCESS = "success"
    PARTIAL_SUCCESS = "partialsuccess"
    FAILURE = "failure"


class ResultStatus(enum.StrEnum):
    """How a task ended; a skipped one is cancelled with `metadata.skipped` set."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"


class ArtifactType(enum.StrEnum):
    """What kind of bytes an artifact holds; a kind we do not know is read as OTHER."""

    FILE = "file"
    IMAGE = "image"
    TEXT = "text"
    JSON = "json"
    LOG = "log"
    OTHER = "other"

    @classmethod
    def _missing_(cls, value: object) -> ArtifactType | None:
        return cls.OTHER if isinstance(value, str) else None


class DependencyType(enum.StrEnum):
    """How strongly one task needs another."""

    REQUIRED = "required"
    OPTIONAL = "optional"
    CONDITIONAL = "conditional"


class FallbackRecord(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What stood in for an AI task's first choice."""

    #: `endpoint cached value`.
    kind: str
    #: Its place in the task's list, from 1.
    position: int = 0
    #: The endpoint that it stood in for.
    instead_of: str = ""
    #: `REASON: a sentence`: why that did not serve.
    reason: str = ""
    #: Of a cached answer.
    age_seconds: float = 0.0


class AttemptRecord(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One attempt of a task; what is not known is left out."""

    #: From 1.
    number: int = 0
    handler: str = ""
    started: datetime
    ended: datetime | None = None
    #: `succeeded failed timed_out cancelled parked lost`.
    outcome: str
    endpoint: str = ""
    model: str = ""
    #: All tokens of its calls.
    tokens: int | None = None
    #: Those of them, and the calls, that went to another endpoint or model than these: of a hedge, of endpoints that
    #: failed before another one answered, of a child job.
    elsewhere: tuple[UsageAt, ...] = ()
    #: Where it was not the first choice of an AI task that answered.
    fallback: FallbackRecord | None = None
    #: `REASON: a sentence`.
    error: str | None = None


class TaskRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one task."""

    task_id: TaskId
    #: `<execution_id>/<task_id>`.
    execution_id: str = ""
    status: ResultStatus
    #: When its first attempt began. For a task that never began: when that was decided, as readers demand a time.
    start_time: datetime | None = None
    end_time: datetime | None = None
    #: From the first attempt to the end, waits between attempts included.
    duration_ms: int | None = None
    #: Null also where `metadata.output_artifact` names the artifact that holds it.
    output: Json = None
    #: `REASON: a sentence`, or why it was cancelled.
    error: str | None = None
    #: The descriptor's own under `alt_<key>`; beside them `skipped`, `reused_from`, `output_artifact`, and what
    #: `core/instances.py` tells of control flow.
    metadata: dict[str, Any] = {}
    description: str = ""
    task_type: str = ""
    attempts: tuple[AttemptRecord, ...] = ()
    usage: Usage | None = None


class UsageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """What one model at one endpoint consumed, over all attempts, failed ones among them."""

    #: Empty where an attempt did not tell.
    endpoint: str = ""
    model: str = ""
    calls: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    #: May exceed the sum where an endpoint tells only the total.
    total_tokens: int = 0


class ArtifactRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes that a task left behind; the ledger holds them."""

    id: str
    name: str
    artifact_type: ArtifactType
    task_id: TaskId
    #: `jobs/<job_id>/artifacts/<id>`: its resource name at the daemon, which ReadArtifact serves. Not a path on a disk.
    path: str
    created_at: datetime
    size_bytes: int | None = None
    mime_type: str | None = None
    #: Holds `sha256`.
    metadata: dict[str, Any] = {}


class GraphNode(msgspec.Struct, frozen=True, kw_only=True):
    """A task in the execution graph. Ours have their task's id."""

    id: str
    task_id: TaskId
    status: ResultStatus
    duration_ms: int | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None


class GraphEdge(msgspec.Struct, frozen=True):
    """`target` waited for `source`; both are ids of nodes."""

    source: str
    target: str
    dependency_type: DependencyType = DependencyType.REQUIRED


class ExecutionGraph(msgspec.Struct, frozen=True):
    """Who waited for whom."""

    nodes: tuple[GraphNode, ...] = ()
    edges: tuple[GraphEdge, ...] = ()


class LastRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A `.last`. Fields stand in the order in which a person wants to read them."""

    id: str
    version: str = VERSION
    title: str
    status: RecordStatus
    summary: str | None = None
    #: 0–1: tasks that completed ÷ tasks that were to run.
    success_rate: float
    start_time: datetime
    end_time: datetime
    execution_time_ms: int
    #: From acceptance, or from `not_before` where that is later, to the start. Ours, like all with a default below.
    queue_time_ms: int | None = None
    execution_id: str
    job_id: str = ""
    alt_file_id: str
    descriptor_sha256: str = ""
    runner_id: str = ""
    trace_id: str = ""
    mode: Mode = Mode.NORMAL
    persona: str | None = None
    #: Lower case.
    priority: str | None = None
    tags: tuple[str, ...] = ()
    #: Summed over all attempts of all tasks.
    usage: Usage | None = None
    #: The same by endpoint and model, the dearest first.
    usage_by: tuple[UsageRecord, ...] = ()
    #: The descriptor's own under `alt_<key>`; `cancelled` and `error` where they apply; `unread` where the
    #: job's events could not be read, and so no task is told of; the job's token budget, queue and labels.
    metadata: dict[str, Any] = {}
    #: In the plan's order; then those of bodies, as they came into being, by the ids of instances: `each[3]/fetch`.
    task_results: dict[TaskId, TaskRecord]
    artifacts: tuple[ArtifactRecord, ...] = ()
    execution_graph: ExecutionGraph = ExecutionGraph()
    checksum: str | msgspec.UnsetType = msgspec.UNSET


# ------------------------------------------------------------------------------------------------- bytes and checksums


class Verdict(enum.StrEnum):
    """What a look at the checksum shows; the text is a sentence for a person."""

    OK = "the record is as it was written"
    MISMATCH = "the record was changed after it was written: its checksum does not match"
    NO_CHECKSUM = "the record carries no checksum, so changes cannot be told; older runners wrote none"
    NOT_A_RECORD = "this is not a .last record"


def checksum(content: object) -> str:
    """The checksum of a record's content, which must not hold one already."""
    return hashlib.sha256(msgspec.json.encode(content, order="sorted")).hexdigest()


def parse(data: bytes) -> LastRecord:
    """Read a record: ours, one of a later version of ours (unknown fields are ignored), or the runner service's.

    Does not look at the checksum; `verify` does.

    Raises InvalidRecord: if it is not JSON, or lacks what every record has; says which.
    """
    try:
        return msgspec.convert(_modernised(_json_object(data)), LastRecord)
    except msgspec.ValidationError as error:
        raise InvalidRecord(f"this is not a .last record: {error}") from error


def verify(data: bytes) -> Verdict:
    """Whether the record is as it was sealed. Unknown fields are covered by the checksum like all others."""
    try:
        content = _json_object(data)
        found = content.pop("checksum", None)
        if isinstance(found, str) and found != checksum(content):
            return Verdict.MISMATCH
        parse(data)
    except InvalidRecord:
        return Verdict.NOT_A_RECORD
    return Verdict.OK if isinstance(found, str) else Verdict.NO_CHECKSUM


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        content = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InvalidRecord(f"this is not a .last record: it is not JSON ({error})") from error
    if not isinstance(content, dict):
        raise InvalidRecord("this is not a .last record: it is JSON, but not an object")
    return content


def _modernised(content: dict[str, Any]) -> dict[str, Any]:
    """Nulls that stand for "none" become defaults; names of the runner service's first records become today's."""
    record: dict[str, Any] = _without_nulls(content)
    record.setdefault("title", record.get("alt_file_title", ""))
    for time in ("start_time", "end_time"):
        if "created_at" in record:
            record.setdefault(time, record["created_at"])
    results = record.get("task_results")
    if isinstance(results, dict):
        record["task_results"] = {task_id: _without_nulls(result) for task_id, result in results.items()}
    if isinstance(record.get("artifacts"), list):
        record["artifacts"] = [_without_nulls(artifact) for artifact in record["artifacts"]]
    return record


def _without_nulls(content: Any) -> Any:
    return {key: value for key, value in content.items() if value is not None} if isinstance(content, dict) else content


# ----------------------------------------------------------------------------------------------------- for people


def duration_text(milliseconds: int) -> str:
    """A duration for a person: `840 ms`, `2.3 s`, `1 min 5 s`, `3 h 20 min`."""
    seconds, minutes, hours = milliseconds / 1_000, milliseconds // 60_000, milliseconds // 3_600_000
    if milliseconds < 1_000:  # noqa: PLR2004 -- a second
        return f"{milliseconds} ms"
    if not minutes:
        return f"{seconds:.1f} s"
    if not hours:
        return f"{minutes} min {int(seconds % 60)} s"
    return f"{hours} h {minutes % 60} min"


def tokens_of(usage: Usage | UsageAt | UsageRecord) -> int:
    """All tokens, whether or not the endpoint told a total."""
    return max(usage.total_tokens, usage.prompt_tokens + usage.completion_tokens)
