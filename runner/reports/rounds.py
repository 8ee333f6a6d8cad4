"""The rounds of a record's loops, as tables that fold: those that did not go well first, then all, block by block."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from runner.core.record import TaskRecord, duration_text
from runner.reports.markup import Markup, join, tag
from runner.reports.standing import Standing, standing_of
from runner.reports.tree import BodyRun, Tree, told_rounds
from runner.reports.wording import of_metadata, short

_BAD: Final = frozenset({Standing.FAILED, Standing.TIMEOUT, Standing.CANCELLED})
#: Rounds that fold as one, and up to which a loop does not fold at all.
_BLOCK: Final = 250
#: Of the rounds that did not go well, those that stand first.
_FIRST: Final = 100
#: Characters of an error, and of all of one loop together: then each has its share, but never less than the least.
_ERROR: Final = 200
_ALL_ERRORS: Final = 200_000
_LEAST: Final = 40


def loops(tree: Tree, anchors: Mapping[str, str], room: int) -> tuple[list[Markup], int]:
    """A part for each loop, the outermost first, with at most `room` rows in all; and how many rounds have none."""
    drawn: list[Markup] = []
    left_out = 0
    for task, runs in tree.loops():
        shown = runs if len(runs) <= room else [run for run in runs if run.standing in _BAD][:room]
        left_out += len(runs) - len(shown)
        room -= len(shown)
        if shown:
            drawn.append(_loop(task, runs, shown, tree, anchors))
    return drawn, left_out


def _loop(
    task: TaskRecord, runs: Sequence[BodyRun], shown: Sequence[BodyRun], tree: Tree, anchors: Mapping[str, str]
) -> Markup:
    summary = tag(
        "summary",
        tag("b", task.task_id),
        tag("span", f"{of_metadata(task.metadata)} · {told_rounds(runs)}", class_="about"),
    )
    bad = [run for run in shown if run.standing in _BAD]
    error = max(_LEAST, min(_ERROR, _ALL_ERRORS // (len(bad) or 1)))
    blocks = [shown[begin : begin + _BLOCK] for begin in range(0, len(shown), _BLOCK)]
    if len(blocks) == 1:
        return tag("details", summary, _table(task, shown, tree, anchors, error), class_="rounds", open=bool(bad))
    first = [_table(task, bad[:_FIRST], tree, anchors, error)] if bad else []
    folded = (
        tag("details", tag("summary", told_rounds(block)), _table(task, block, tree, anchors, error))
        for block in blocks
    )
    return tag("details", summary, *first, *folded, class_="rounds", open=bool(bad))


def _table(task: TaskRecord, runs: Sequence[BodyRun], tree: Tree, anchors: Mapping[str, str], error: int) -> Markup:
    names = ("round", str(task.metadata.get("variable", "")), "ended", "took", "what went wrong")
    head = tag("tr", *(tag("th", name) for name in names))
    return tag("table", head, *(_row(run, tree, anchors, error) for run in runs))


def _row(run: BodyRun, tree: Tree, anchors: Mapping[str, str], error: int) -> Markup:
    standing = run.standing
    return tag(
        "tr",
        tag("td", str(run.round or 0)),
        tag("td", "" if run.value is None else short(run.value)),
        tag("td", standing.glyph, class_="word"),
        tag("td", _took(run)),
        tag("td", _wrong(run, tree, anchors, error) if standing in _BAD else None),
        class_=standing.name.lower(),
    )


def _took(run: BodyRun) -> str:
    begun = [task.start_time for task in run.tasks if task.start_time]
    ended = [task.end_time for task in run.tasks if task.end_time]
    if not begun or not ended:
        return ""
    return duration_text(max(0, round((max(ended) - min(begun)).total_seconds() * 1_000)))


def _wrong(run: BodyRun, tree: Tree, anchors: Mapping[str, str], error: int) -> Markup:
    """The task with which it began: one that failed and is no control task, if there is one; `error` characters."""
    inside = [each for task in run.tasks for each in tree.under(task) if standing_of(each) in _BAD]
    failed = [each for each in inside if standing_of(each) is not Standing.CANCELLED] or inside
    cause = next((each for each in failed if each.task_id not in tree.runs), failed[0])
    told = cause.error or standing_of(cause).word
    told = told if len(told) <= error else f"{told[:error]}…"
    href = anchors.get(cause.task_id)
    name = tag("a", cause.task_id, href=href) if href else cause.task_id
    return join(name, f": {told}")
