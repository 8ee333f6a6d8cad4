"""The plan: what every dialect of `.alt` decodes into. Nothing after the decoder knows which dialect it was."""

from __future__ import annotations

import enum
from typing import Any

import msgspec

#: Microseconds since the Unix epoch, UTC. Ints, because events by the thousand are compared, stored and sent.
Instant = int

JobId = str
TaskId = str
#: Number of an event within its job: 1, 2, 3, …
Sequence = int


class Mode(enum.StrEnum):
    """How freely an orchestrator may interpret the job."""

    NORMAL = "normal"
    DREAM = "dream"
    EXPLORE = "explore"
    CHAOS = "chaos"


class Priority(enum.IntEnum):
    """Urgency; the numbers are those of the wire."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4


class TaskPlan(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One task as it is to run."""

    #: Unique in the plan.
    id: TaskId
    description: str
    #: The task type as written or inferred: `ai_prompt`, `http_request`, `delay`, …, or any word for the orchestrator.
    kind: str
    #: May hold `${…}` references in any string.
    parameters: dict[str, Any] = {}
    #: Ids of the tasks that must succeed first; no doubles, never a cycle.
    dependencies: tuple[TaskId, ...] = ()
    #: Seconds for one attempt; None for the runner's default.
    timeout: float | None = None
    #: Attempts after the first, 0–255; None for the runner's default.
    retries: int | None = None
    #: Seconds between attempts; None for the runner's backoff.
    retry_seconds: float | None = None
    #: Of its dependencies, those whose outputs become its parameter `input`, merged.
    input_from: tuple[TaskId, ...] = ()
    #: None for the job's.
    priority: Priority | None = None
    tags: tuple[str, ...] = ()
    #: Its share of the job's progress, relative to the other tasks'.
    weight: float = 1.0
    #: Unknown fields of the descriptor and its own metadata, carried to the record.
    metadata: dict[str, Any] = {}


class Plan(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A job as it is to run: a graph of tasks without cycles."""

    #: The descriptor's own id.
    alt_id: str
    #: `tasks`, `segments` or `workflow`.
    dialect: str
    #: The descriptor's version, as written.
    version: str
    title: str
    tasks: tuple[TaskPlan, ...]
    #: When the descriptor says it was made, if it does.
    created_at: Instant | None = None
    description: str | None = None
    mode: Mode = Mode.NORMAL
    persona: str | None = None
    #: BCP 47 language of the texts (`tr`, `en`), where told.
    language: str | None = None
    #: 1–10, in mode chaos of dialect `segments`.
    chaos_level: int | None = None
    priority: Priority = Priority.MEDIUM
    tags: tuple[str, ...] = ()
    #: Seconds the author expects the job to take.
    expected_seconds: float | None = None
    #: Cancel everything as soon as one task has failed for good.
    fail_fast: bool = False
    #: The descriptor's metadata and its unknown fields, carried to the record.
    metadata: dict[str, Any] = {}
