"""Where the time went: a row for each task, a bar for each attempt, over the time of the job."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

import msgspec

from runner.core.record import AttemptRecord, LastRecord, TaskRecord, duration_text
from runner.reports.markup import Markup, join, percent, tag
from runner.reports.standing import outcome_of, standing_of, took

_ROW: Final = 26
_BAR: Final = 12
_AXIS: Final = 24
_MAX_TICKS: Final = 7
#: Shares of the width: a bar is never thinner, or it could not be seen.
_THINNEST: Final = 0.003
#: Beyond this share of the width a label is set to the left of its tick.
_NEAR_END: Final = 0.96
_STEPS: Final = (
    *(digit * 10**power for power in range(4) for digit in (1, 2, 5)),
    *(seconds * 1_000 for seconds in (10, 15, 30, 60, 120, 300, 600, 900, 1_800, 3_600, 7_200, 14_400, 43_200, 86_400)),
)


class Span(msgspec.Struct, frozen=True):
    """The time that a timeline shows."""

    start: datetime
    milliseconds: int

    def share(self, time: datetime) -> float:
        """Where a time is, 0–1."""
        return min(1.0, max(0.0, self.since_start(time) / (self.milliseconds or 1)))

    def since_start(self, time: datetime) -> float:
        return (time - self.start).total_seconds() * 1_000


def span_of(record: LastRecord) -> Span:
    """From the job's start to its end."""
    return Span(record.start_time, max(1, round((record.end_time - record.start_time).total_seconds() * 1_000)))


def in_order(tasks: Sequence[TaskRecord], span: Span) -> list[TaskRecord]:
    """As they began; the sort is stable, so equals stay in the plan's order."""
    return sorted(tasks, key=lambda task: task.start_time or span.start)


def timeline(record: LastRecord, tasks: Sequence[TaskRecord], anchors: dict[str, str]) -> Markup:
    """Labels, bars and durations side by side; bars grow and shrink with the page."""
    span = span_of(record)
    rows = in_order(tasks, span)
    height = _AXIS + _ROW * len(rows)
    return tag(
        "div",
        tag("div", tag("div", class_="axis"), *(_label(task, anchors) for task in rows), class_="names"),
        tag(
            "svg",
            *_axis(span, height),
            *(_row(task, span, _AXIS + _ROW * index) for index, task in enumerate(rows)),
            width="100%",
            height=height,
            role="img",
            aria_label="timeline of the tasks",
        ),
        tag("div", tag("div", class_="axis"), *(tag("div", took(task)) for task in rows), class_="times"),
        class_="timeline",
    )


def _label(task: TaskRecord, anchors: dict[str, str]) -> Markup:
    standing = standing_of(task)
    mark = tag("span", standing.glyph, class_="glyph")
    href = anchors.get(task.task_id)
    name = tag("a", task.task_id, href=href) if href else tag("span", task.task_id)
    return tag("div", mark, name, class_=f"{standing.name.lower()} name", title=task.description or task.task_id)


def _axis(span: Span, height: int) -> list[Markup]:
    step = next((step for step in _STEPS if span.milliseconds / step <= _MAX_TICKS), span.milliseconds)
    ticks = [index * step for index in range(int(span.milliseconds // step) + 1)]
    return [_tick(at, span, height, odd=bool(index % 2)) for index, at in enumerate(ticks)]


def _tick(at: int, span: Span, height: int, *, odd: bool) -> Markup:
    share = at / span.milliseconds
    x = percent(share)
    anchor = "start" if not at else "end" if share > _NEAR_END else "middle"
    label = tag("text", _tick_text(at), x=x, y=12, text_anchor=anchor, class_="odd" if odd else None)
    return join(tag("line", x1=x, x2=x, y1=_AXIS - 6, y2=height), label)


def _tick_text(milliseconds: int) -> str:
    minutes, rest = divmod(milliseconds, 60_000)
    if minutes and not rest:
        return f"{minutes} min"
    seconds = milliseconds / 1_000
    return f"{seconds:g} s" if seconds >= 1 or not milliseconds else f"{milliseconds} ms"


def _row(task: TaskRecord, span: Span, top: int) -> Markup:
    middle = top + _ROW / 2
    guide = tag("line", class_="guide", x1="0%", x2="100%", y1=float(top), y2=float(top))
    if task.attempts:
        return join(guide, _waits(task.attempts, span, middle), *(_bar(each, span, middle) for each in task.attempts))
    if task.start_time is None:
        return guide
    standing = standing_of(task)
    told = tag("title", f"{task.task_id}: {standing.word}" + (f" – {task.error}" if task.error else ""))
    # A task of an older runner has no attempts, but it may have taken time.
    if task.duration_ms:
        bar = AttemptRecord(started=task.start_time, ended=task.end_time, outcome=standing.word)
        return join(guide, _bar(bar, span, middle, standing.name.lower()))
    at = span.share(task.start_time)
    return join(guide, tag("circle", told, class_=standing.name.lower(), cx=percent(at), cy=middle, r=3.5))


def _waits(attempts: Sequence[AttemptRecord], span: Span, middle: float) -> Markup:
    """A dotted line from the first attempt to the last: the gaps between bars are waits."""
    first, last = attempts[0], attempts[-1]
    return tag(
        "line",
        class_="wait",
        x1=percent(span.share(first.started)),
        x2=percent(span.share(last.started)),
        y1=middle,
        y2=middle,
    )


def _bar(attempt: AttemptRecord, span: Span, middle: float, look: str = "") -> Markup:
    start = span.share(attempt.started)
    end = span.share(attempt.ended) if attempt.ended else 1.0
    width = max(_THINNEST, end - start)
    started = span.since_start(attempt.started)
    lasted = duration_text(round((attempt.ended - attempt.started).total_seconds() * 1_000)) if attempt.ended else "?"
    begun = duration_text(max(0, round(started)))
    told = f"attempt {attempt.number or 1}: {attempt.outcome} in {lasted}, begun at {begun}"
    return tag(
        "rect",
        tag("title", f"{told}\n{attempt.error}" if attempt.error else told),
        class_=f"{look or outcome_of(attempt.outcome).name.lower()} bar",
        x=percent(min(start, 1 - width)),
        y=middle - _BAR / 2,
        width=percent(width),
        height=_BAR,
        rx=3,
    )
