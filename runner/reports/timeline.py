"""Where the time went: a row for each task, a bar for each attempt, over the time of the job.

A task that ran in many rounds has one row for all of them: how many were under way at a time, and where some failed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Final

import msgspec

from runner.core.record import AttemptRecord, LastRecord, TaskRecord, duration_text
from runner.reports.markup import Markup, join, percent, tag
from runner.reports.standing import Standing, counted, notable, outcome_of, standing_of, took
from runner.reports.tree import Shape, fate_of, told_times, worst

_ROW: Final = 26
_BAR: Final = 12
_AXIS: Final = 24
_MAX_TICKS: Final = 7
#: Pixels by which the row of a task in a body is set to the right.
_INDENT: Final = 14
#: Of the time, in the row of a task that ran in many rounds.
_SLICES: Final = 240
#: The outcome of an attempt that only found that it has to wait.
_PARKED: Final = "parked"
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


class Line(msgspec.Struct, frozen=True):
    """A row: a task, or all instances of one."""

    name: str
    tasks: Sequence[TaskRecord]
    depth: int = 0


def lines_of(shaped: Sequence[Shape], limit: int, span: Span) -> list[Line]:
    """At most `limit` rows: the file's own tasks first, then below each what it ran, as deep as there is room."""
    first = {shape.tasks[0].task_id: shape for shape in shaped}
    level = [(0, first[task.task_id]) for task in notable([shape.tasks[0] for shape in shaped], limit)]
    kept: set[int] = set()
    while level and len(kept) + len(level) <= limit:
        kept |= {id(shape) for _, shape in level}
        level = [(depth + 1, each) for depth, shape in level for body in shape.bodies.values() for each in body]
    ordered = sorted(shaped, key=lambda shape: _begin(shape.tasks, span))
    return [line for shape in ordered for line in _lines(shape, 0, kept, span)]


def _lines(shape: Shape, depth: int, kept: set[int], span: Span) -> Iterator[Line]:
    if id(shape) in kept:
        yield Line(shape.name, shape.tasks, depth)
        inner = [each for body in shape.bodies.values() for each in body]
        for each in sorted(inner, key=lambda each: _begin(each.tasks, span)):
            yield from _lines(each, depth + 1, kept, span)


def _begin(tasks: Sequence[TaskRecord], span: Span) -> datetime:
    return min((task.start_time for task in tasks if task.start_time), default=span.start)


def timeline(record: LastRecord, rows: Sequence[Line], anchors: dict[str, str]) -> Markup:
    """Labels, bars and durations side by side; bars grow and shrink with the page."""
    span = span_of(record)
    height = _AXIS + _ROW * len(rows)
    return tag(
        "div",
        tag("div", tag("div", class_="axis"), *(_label(line, anchors) for line in rows), class_="names"),
        tag(
            "svg",
            *_axis(span, height),
            *(_row(line, span, _AXIS + _ROW * index) for index, line in enumerate(rows)),
            width="100%",
            height=height,
            role="img",
            aria_label="timeline of the tasks",
        ),
        tag("div", tag("div", class_="axis"), *map(_duration, rows), class_="times"),
        class_="timeline",
    )


def _label(line: Line, anchors: dict[str, str]) -> Markup:
    task = line.tasks[0]
    standing = worst(map(standing_of, line.tasks))
    mark = tag("span", standing.glyph, class_="glyph")
    href = anchors.get(task.task_id) if len(line.tasks) == 1 else None
    name = tag("a", line.name, href=href) if href else tag("span", line.name)
    many = f" {told_times(line.tasks)}" if len(line.tasks) > 1 else ""
    return tag(
        "div",
        mark,
        name,
        tag("small", many) if many else None,
        class_=f"{standing.name.lower()} name",
        title=f"{task.description or line.name}{many}",
        style=f"padding-left:{line.depth * _INDENT}px" if line.depth else None,
    )


def _duration(line: Line) -> Markup:
    if len(line.tasks) == 1:
        return tag("div", took(line.tasks[0]))
    ran = [task.duration_ms or 0 for task in line.tasks if fate_of(task) == "ran"]
    mean = sum(ran) // len(ran) if ran else 0
    told = f"{counted(len(ran), 'run')}: {duration_text(mean)} on average, {duration_text(max(ran, default=0))} at most"
    return tag("div", f"⌀ {duration_text(mean)}", title=told)


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


def _row(line: Line, span: Span, top: int) -> Markup:
    middle = top + _ROW / 2
    guide = tag("line", class_="guide", x1="0%", x2="100%", y1=float(top), y2=float(top))
    if len(line.tasks) > 1:
        return join(guide, *_activity(line.tasks, span, middle))
    task = line.tasks[0]
    if task.attempts:
        return join(guide, _waits(task.attempts, span, middle), *(_bar(each, span, middle) for each in task.attempts))
    if task.start_time is None:
        return guide
    standing = standing_of(task)
    told = tag("title", f"{task.task_id}: {standing.word}" + (f" – {task.error}" if task.error else ""))
    # A control task has no attempts, and that of an older runner neither, but it may have taken time.
    if task.duration_ms:
        bar = AttemptRecord(started=task.start_time, ended=task.end_time, outcome=standing.word)
        look = f"{standing.name.lower()} control" if "control" in task.metadata else standing.name.lower()
        return join(guide, _bar(bar, span, middle, look))
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


class _Slice(msgspec.Struct, frozen=True):
    """What a row of many instances shows of a slice of the time."""

    #: Instances under way, those that wait not among them.
    busy: int
    waiting: bool
    failed: bool


def _activity(tasks: Sequence[TaskRecord], span: Span, middle: float) -> Iterator[Markup]:
    """The more instances were under way, the higher the bar; red where one ended badly; dotted where they waited."""
    slices = _slices(tasks, span)
    most = max((each.busy for each in slices), default=0) or 1
    control = " control" if "control" in tasks[0].metadata else ""
    begin = 0
    for each, run in itertools.groupby(slices):
        length = len(list(run))
        left, right = begin / _SLICES, (begin + length) / _SLICES
        begin += length
        if each.busy or each.failed:
            height = _BAR * (0.35 + 0.65 * each.busy / most)
            yield tag(
                "rect",
                tag("title", f"{counted(each.busy, 'run')} under way{', one or more ended badly' * each.failed}"),
                class_=f"{'failed' if each.failed else 'running'} activity{control}",
                x=percent(left),
                y=round(middle - height / 2, 1),
                width=percent(right - left),
                height=round(height, 1),
            )
        elif each.waiting:
            yield tag("line", class_="wait", x1=percent(left), x2=percent(right), y1=middle, y2=middle)


def _slices(tasks: Sequence[TaskRecord], span: Span) -> list[_Slice]:
    busy, waiting = [0] * (_SLICES + 1), [0] * (_SLICES + 1)
    failed: set[int] = set()

    def place(time: datetime) -> int:
        return min(_SLICES - 1, int(span.share(time) * _SLICES))

    for task in tasks:
        for works, begun, ended in _periods(task):
            counts = busy if works else waiting
            counts[place(begun)] += 1
            counts[place(ended) + 1] -= 1
        if task.end_time and fate_of(task) == "ran" and standing_of(task) in (Standing.FAILED, Standing.TIMEOUT):
            failed.add(place(task.end_time))
    both = zip(itertools.accumulate(busy), itertools.accumulate(waiting), strict=True)
    return [_Slice(count, waits > 0, at in failed) for at, (count, waits) in enumerate(both)][:_SLICES]


def _periods(task: TaskRecord) -> Iterator[tuple[bool, datetime, datetime]]:
    """When it was under way (true) and when it waited, between attempts or, parked, for an answer."""
    if not task.attempts:
        # A control task, or one of an older runner.
        if task.duration_ms and task.start_time and task.end_time:
            yield True, task.start_time, task.end_time
        return
    ended = task.end_time or task.attempts[-1].started
    for attempt in task.attempts:
        if attempt.outcome != _PARKED:
            yield True, attempt.started, attempt.ended or ended
    last = task.attempts[-1]
    yield False, task.attempts[0].started, ended if last.outcome == _PARKED else last.started
