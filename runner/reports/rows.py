"""The tasks of a record as rows: what a control task ran below it, and long loops summed up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, Final

import msgspec

from runner.core.record import LastRecord, TaskRecord
from runner.reports.standing import Standing, counted, notable, standing_of
from runner.reports.timeline import Span, in_order, span_of
from runner.reports.tree import (
    BodyRun,
    Shape,
    Tree,
    fate_of,
    local_name,
    shape_of,
    told_rounds,
    told_times,
    tree_of,
    worst,
)

_QUIET: Final = frozenset({Standing.COMPLETED, Standing.SKIPPED})
_BROKEN: Final = frozenset({Standing.FAILED, Standing.TIMEOUT})


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One task."""

    task: TaskRecord
    depth: int
    name: str
    #: Whether it ran others.
    control: bool
    #: The round in which it stands, if it stands in one and is not told by a task above.
    round: int | None = None
    #: The value of the loop's variable, on the first task of the round.
    value: Any = None


class Folded(msgspec.Struct, frozen=True, kw_only=True):
    """Rounds of a loop, or all instances of a task in them, summed up."""

    told: str
    depth: int
    standing: Standing
    start: datetime
    end: datetime
    #: Milliseconds on average, of all instances of a task; None for rounds.
    mean: int | None = None

    @property
    def milliseconds(self) -> int:
        return max(0, round((self.end - self.start).total_seconds() * 1_000))


def rows_of(record: LastRecord, limit: int) -> list[Row | Folded]:
    """At most `limit` rows, and one for each loop that is summed up; siblings stand as they began."""
    tree = tree_of(record)
    span = span_of(record)
    rounds = max(1, limit // 10)
    rows = [
        row
        for task in in_order(notable(tree.top, limit), span)
        for row in _rows(task, tree, span, rounds, Row(task=task, depth=0, name=task.task_id, control=False))
    ]
    return _fitting(rows, limit)


def _rows(task: TaskRecord, tree: Tree, span: Span, rounds: int, row: Row) -> Iterator[Row | Folded]:
    runs = tree.runs.get(task.task_id, [])
    yield msgspec.structs.replace(row, control=bool(runs))
    shown = runs
    depth = row.depth + 1
    if len(runs) > rounds:
        shown = [run for run in runs if run.standing in _BROKEN][: max(1, rounds // 2)]
        yield _folded(runs, depth, span)
        yield from _summed_up(shape_of(task, tree), depth + 1, span)
    for run in shown:
        for place, each in enumerate(in_order(run.tasks, span)):
            inner = Row(
                task=each,
                depth=depth,
                name=local_name(each),
                control=False,
                round=run.round,
                value=run.value if place == 0 else None,
            )
            yield from _rows(each, tree, span, rounds, inner)
    left = sum(run.standing in _BROKEN for run in runs) - len(shown) if len(shown) < len(runs) else 0
    if left:
        others = [run for run in runs if run.standing in _BROKEN][len(shown) :]
        yield msgspec.structs.replace(_folded(others, depth, span), told=f"{counted(left, 'more round')} failed")


def _summed_up(shape: Shape, depth: int, span: Span) -> Iterator[Folded]:
    """A row for each task in the bodies, with all its instances."""
    for inner in (each for body in shape.bodies.values() for each in body):
        ran = [task for task in inner.tasks if fate_of(task) == "ran"]
        yield Folded(
            told=f"{inner.name} {told_times(inner.tasks)}",
            depth=depth,
            standing=inner.standing,
            start=min((task.start_time for task in ran if task.start_time), default=span.start),
            end=max((task.end_time for task in ran if task.end_time), default=span.start),
            mean=sum(task.duration_ms or 0 for task in ran) // len(ran) if ran else 0,
        )
        yield from _summed_up(inner, depth + 1, span)


def _folded(runs: Sequence[BodyRun], depth: int, span: Span) -> Folded:
    tasks = [task for run in runs for task in run.tasks]
    return Folded(
        told=told_rounds(runs),
        depth=depth,
        standing=worst(run.standing for run in runs),
        start=min((task.start_time for task in tasks if task.start_time), default=span.start),
        end=max((task.end_time for task in tasks if task.end_time), default=span.start),
    )


def _fitting(rows: list[Row | Folded], limit: int) -> list[Row | Folded]:
    """Without the deepest rows of what went well, until the rest fits."""
    tasks = [place for place, row in enumerate(rows) if isinstance(row, Row)]
    if len(tasks) <= limit:
        return rows
    kept = set(sorted(tasks, key=lambda place: _rank(rows[place]))[:limit])
    return [row for place, row in enumerate(rows) if place in kept or isinstance(row, Folded)]


def _rank(row: Row | Folded) -> tuple[bool, bool, int]:
    quiet = isinstance(row, Row) and standing_of(row.task) in _QUIET
    return (row.depth > 0, quiet, row.depth)
