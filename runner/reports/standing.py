"""How a task's end is shown: one glyph, one word and one colour, the same in every report."""

from __future__ import annotations

import enum
import re
from collections import Counter
from collections.abc import Iterable
from typing import Final

from runner.core.record import LastRecord, RecordStatus, ResultStatus, TaskRecord


class Standing(enum.Enum):
    """What became of a task, as a reader sees it: glyph, word, and the name of a terminal's colour."""

    COMPLETED = ("✓", "completed", "green")
    FAILED = ("✗", "failed", "red")
    TIMEOUT = ("⧖", "timed out", "yellow")
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
#: How a job ended, as a person says it.
HEADLINES: Final = {
    RecordStatus.SUCCESS: (Standing.COMPLETED, "succeeded"),
    RecordStatus.PARTIAL_SUCCESS: (Standing.TIMEOUT, "partially succeeded"),
    RecordStatus.FAILURE: (Standing.FAILED, "failed"),
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
    """The standing and the word for the job as a whole."""
    if record.metadata.get("cancelled") is True:
        return Standing.CANCELLED, "cancelled"
    return HEADLINES[record.status]


def standings(tasks: Iterable[TaskRecord]) -> Counter[Standing]:
    """How many tasks ended how, in the order in which they are told."""
    counts = Counter(standing_of(task) for task in tasks)
    return Counter({standing: counts[standing] for standing in Standing if counts[standing]})


def harmless(text: str) -> str:
    """The text without what could steer a terminal or turn a line around: outputs come from strangers and AIs."""
    return _UNSAFE.sub("\N{REPLACEMENT CHARACTER}", text)


def counted(number: int, noun: str) -> str:
    """`1 task`, `1,000 tasks`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
