"""How a task's end is shown: one glyph, one word and one colour, the same in every report."""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Final

from runner.core.record import LastRecord, RecordStatus, ResultStatus, TaskRecord, duration_text


class Standing(enum.Enum):
    """What became of a task, as a reader sees it: glyph, word, and the name of a terminal's colour."""

    COMPLETED = ("✓", "completed", "green")
    FAILED = ("✗", "failed", "red")
    TIMEOUT = ("◷", "timed out", "yellow")
    CANCELLED = ("⊘", "cancelled", "bright_black")
    SKIPPED = ("↷", "skipped", "bright_black")
    RUNNING = ("●", "running", "blue")
    PENDING = ("○", "pending", "bright_black")

    def __init__(self, glyph: str, word: str, colour: str) -> None:
        self.glyph = glyph
        self.word = word
        self.colour = colour


#: For the outcome of an attempt, the standing whose colours it wears.
_OUTCOMES: Final = {
    "succeeded": Standing.COMPLETED,
    "failed": Standing.FAILED,
    "timed_out": Standing.TIMEOUT,
    "running": Standing.RUNNING,
}
#: How a job ended, as a person says it, and the standing whose colour it wears.
_HEADLINES: Final = {
    RecordStatus.SUCCESS: (Standing.COMPLETED, "✓ succeeded"),
    RecordStatus.PARTIAL_SUCCESS: (Standing.TIMEOUT, "◐ partially succeeded"),
    RecordStatus.FAILURE: (Standing.FAILED, "✗ failed"),
}
#: C0 and C1 controls other than tab and newline, and the marks that turn the direction of text around.
_UNSAFE: Final = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


def standing_of(task: TaskRecord) -> Standing:
    """A skipped task is cancelled in the record, with a mark."""
    if task.status is ResultStatus.CANCELLED and task.metadata.get("skipped") is True:
        return Standing.SKIPPED
    return Standing[task.status.name]


def outcome_of(attempt: str) -> Standing:
    """An outcome we do not know is shown like one that does not count: parked, lost, cancelled."""
    return _OUTCOMES.get(attempt, Standing.CANCELLED)


def headline_of(record: LastRecord) -> tuple[Standing, str]:
    """The standing and the words for the job as a whole."""
    if record.metadata.get("cancelled") is True:
        return Standing.CANCELLED, "⊘ cancelled"
    return _HEADLINES[record.status]


def standings(tasks: Iterable[TaskRecord]) -> Counter[Standing]:
    """How many tasks ended how, in the order in which they are told."""
    counts = Counter(standing_of(task) for task in tasks)
    return Counter({standing: counts[standing] for standing in Standing if counts[standing]})


def notable(tasks: Sequence[TaskRecord], limit: int) -> list[TaskRecord]:
    """At most `limit` tasks, in their order: chosen are those that failed, then other incomplete ones, then long ones.

    Of tasks in bodies, those that were not to run come last: every round has some.
    """
    if len(tasks) <= limit:
        return list(tasks)
    rank = sorted(tasks, key=lambda task: (_rank(task), -(task.duration_ms or 0)))
    chosen = {task.task_id for task in rank[:limit]}
    return [task for task in tasks if task.task_id in chosen]


def _rank(task: TaskRecord) -> int:
    standing = standing_of(task)
    if standing in (Standing.FAILED, Standing.TIMEOUT):
        return 0
    inside = "body_of" in task.metadata
    if standing is Standing.COMPLETED:
        return 3 if inside else 2
    return 4 if inside else 1


def harmless(text: str) -> str:
    """The text without what could steer a terminal or turn a line around: outputs come from strangers and AIs."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text)


def one_line(text: str) -> str:
    """The text without what could steer a terminal, and without line breaks."""
    return " ".join(harmless(text).split())


def counted(number: int, noun: str, nouns: str = "") -> str:
    """`1 task`, `1,000 tasks`."""
    return f"{number:,} {noun if number == 1 else nouns or f'{noun}s'}"


def took(task: TaskRecord) -> str:
    """How long a task ran; a dash where it never did."""
    return (
        duration_text(task.duration_ms) if task.duration_ms is not None and (task.duration_ms or task.attempts) else "–"
    )
