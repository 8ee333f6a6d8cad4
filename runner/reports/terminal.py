"""A `.last` record for a terminal: what happened, task by task, and where the time went.

Piped, or on a terminal without colours, it is plain text; it is as wide as the console it is printed on. Task names,
errors and titles cannot steer the terminal.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from runner.core.record import LastRecord, TaskRecord, duration_text, tokens_of
from runner.reports.rows import Folded, Row, rows_of
from runner.reports.standing import (
    Standing,
    counted,
    harmless,
    headline_of,
    one_line,
    outcome_of,
    standing_of,
    standings,
    took,
)
from runner.reports.timeline import Span, span_of
from runner.reports.wording import of_answer, of_metadata, place_of, reused_from, short, stood_in

#: Narrower consoles do without bars.
_WIDE: Final = 72
_WIDEST_BAR: Final = 60
#: What the cells of an attempt are drawn with; ░ for those that do not count: parked, lost, cancelled.
_INK: Final = {Standing.COMPLETED: "█", Standing.RUNNING: "█", Standing.FAILED: "▒", Standing.TIMEOUT: "▓"}
#: Rows, unless all are asked for.
_TASKS: Final = 100
#: Failed tasks that are told of below the table.
_FAILURES: Final = 20
#: Answered approvals that are told of there, and fallbacks, and tasks of one earlier job that are named.
_TOLD: Final = 20
_REUSED: Final = 10
#: Endpoints and models whose usage is told one by one.
_MODELS: Final = 10
#: Characters of the value of a loop's variable.
_VALUE: Final = 24
#: How an error begins that only repeats another task's.
_PASSED_ON: Final = "BODY_FAILED:"


def show(record: LastRecord, console: Console, *, tasks: int = _TASKS) -> None:
    """Print the record; at most `tasks` of its tasks, and a line that says so where there are more.

    What a control task ran stands below it. A loop with more rounds than a tenth of `tasks` is summed up, and those of
    its rounds that failed are shown.
    """
    rows = rows_of(record, tasks)
    console.print(_panel(record))
    if rows:
        console.print()
        console.print(_table(record, rows, console.width))
        console.print()
    shown = [row.task for row in rows if isinstance(row, Row)]
    hidden = len(record.task_results) - len(shown)
    if hidden:
        folded = any(isinstance(row, Folded) for row in rows)
        which = "in rounds that are summed up, or that" if folded else "that"
        console.print(Text(f"… and {counted(hidden, 'task')} more {which} completed or were shorter", style="dim"))
    failures = _failures(shown)
    for task in failures[:_FAILURES]:
        console.print(_failure(task))
    if len(failures) > _FAILURES:
        console.print(Text(f"… and {len(failures) - _FAILURES:,} more of those shown failed", style="dim"))
    for line in (*_stood_in(shown), *_answers(shown), *_reused(shown)):
        console.print(line)


def _failures(tasks: Sequence[TaskRecord]) -> list[TaskRecord]:
    """Those that failed; not what failed only because something in its body did, where that is told."""
    failed = [task for task in tasks if standing_of(task) in (Standing.FAILED, Standing.TIMEOUT)]
    causes = {task.task_id for task in failed if not (task.error or "").startswith(_PASSED_ON)}
    around = {task.metadata.get("body_of") for task in failed}
    return [task for task in failed if task.task_id in causes or task.task_id not in around]


def _stood_in(tasks: Sequence[TaskRecord]) -> list[Text]:
    """A line for each task to which not its first choice gave the output."""
    return _lines_of([(task, told) for task in tasks if (told := stood_in(task))], "more fallback")


def _answers(tasks: Sequence[TaskRecord]) -> list[Text]:
    """A line for each approval that somebody answered."""
    return _lines_of([(task, answer) for task in tasks if (answer := of_answer(task))], "more answer")


def _lines_of(told: Sequence[tuple[TaskRecord, str]], what: str) -> list[Text]:
    lines = [_line_of(task, each) for task, each in told[:_TOLD]]
    left = len(told) - _TOLD
    return [*lines, Text(f"… and {counted(left, what)}", style="dim")] if left > 0 else lines


def _reused(tasks: Sequence[TaskRecord]) -> list[Text]:
    """A line for each earlier job from which tasks were taken over."""
    ids: dict[str, list[str]] = {}
    for task in tasks:
        if job := reused_from(task):
            ids.setdefault(job, []).append(one_line(task.task_id))
    return [
        Text.assemble(
            ("↺ ", "dim"),
            f"reused from job {one_line(job)}: {', '.join(names[:_REUSED])}",
            f" and {len(names) - _REUSED:,} more" if len(names) > _REUSED else "",
        )
        for job, names in ids.items()
    ]


def _panel(record: LastRecord) -> RenderableType:
    standing, words = headline_of(record)
    counts = standings(record.task_results.values())
    legend = Text("  ").join(
        Text(f"{each.glyph} {count:,} {each.word}", style=each.colour) for each, count in counts.items()
    )
    lines = [Text(harmless(record.summary))] if record.summary else []
    lines += [legend] if counts else []
    return Panel(
        Group(*lines, _facts(record), *_usage(record)),
        title=Text.assemble((words, f"bold {standing.colour}"), "  ", (one_line(record.title), "bold")),
        title_align="left",
        border_style=standing.colour,
        box=box.ROUNDED,
    )


def _facts(record: LastRecord) -> Text:
    facts = [
        ("started", f"{record.start_time:%Y-%m-%d %H:%M:%S} UTC"),
        ("took", duration_text(record.execution_time_ms)),
        ("queued", "" if record.queue_time_ms is None else duration_text(record.queue_time_ms)),
        ("AI", "" if record.usage is None else f"{_calls(record)}, {tokens_of(record.usage):,} tokens"),
        ("artifacts", f"{len(record.artifacts):,}" if record.artifacts else ""),
    ]
    ids = [("job", record.job_id), ("execution", record.execution_id)]
    return Text("\n").join((_told(facts), _told(ids)))


def _usage(record: LastRecord) -> list[Text]:
    """A line for each endpoint and model, where there are several."""
    if len(record.usage_by) <= 1:
        return []
    lines = [
        Text.assemble(
            ("AI ", "dim"),
            f"{one_line(place_of(each))}  ",
            f"{counted(each.calls, 'call')}, {counted(tokens_of(each), 'token')}",
        )
        for each in record.usage_by[:_MODELS]
    ]
    left = len(record.usage_by) - _MODELS
    return [*lines, Text(f"… and {counted(left, 'more model')}", style="dim")] if left > 0 else lines


def _told(facts: list[tuple[str, str]]) -> Text:
    told = [Text.assemble((f"{name} ", "dim"), one_line(value)) for name, value in facts if value]
    return Text("  ·  ", style="dim").join(told)


def _calls(record: LastRecord) -> str:
    return counted(record.usage.calls if record.usage else 0, "call")


def _table(record: LastRecord, rows: Sequence[Row | Folded], width: int) -> Table:
    span = span_of(record)
    wide = width >= _WIDE
    nested = any(row.depth for row in rows)
    widest = max(12, width * (9 if nested else 6) // 18)
    table = Table(box=box.SIMPLE_HEAD, expand=wide, pad_edge=False, header_style="dim", show_edge=False)
    table.add_column("", width=1)
    table.add_column("task", overflow="ellipsis", no_wrap=True, max_width=widest)
    table.add_column("tries", justify="right", no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    bars = 0
    if wide:
        longest = max(_name(row).cell_len for row in rows)
        bars = min(_WIDEST_BAR, max(10, width - min(longest, widest) - 27))
        table.add_column(f"where {duration_text(span.milliseconds)} went", width=bars, no_wrap=True)
    for row in rows:
        table.add_row(*_row(row), *([_where(row, span, bars)] if wide else []))
    return table


def _row(row: Row | Folded) -> list[Text]:
    if isinstance(row, Folded):
        lasted = duration_text(row.milliseconds) if row.mean is None else f"⌀ {duration_text(row.mean)}"
        return [Text("⋮", style="dim"), _name(row), Text(), Text(lasted, style="dim")]
    task = row.task
    standing = standing_of(task)
    quiet = "" if task.attempts or standing is Standing.COMPLETED else "dim"
    return [
        Text(standing.glyph, style=standing.colour),
        _name(row),
        Text(str(len(task.attempts)) if task.attempts else "–", style=quiet),
        Text(took(task), style=quiet),
    ]


def _name(row: Row | Folded) -> Text:
    """A task under its name in the file, with its round; what a control task does stands beside it."""
    indent = "  " * row.depth
    if isinstance(row, Folded):
        return Text(f"{indent}{row.told}", style="dim")
    task = row.task
    quiet = "" if task.attempts or standing_of(task) is Standing.COMPLETED else "dim"
    words = of_metadata(task.metadata)
    words = " · ".join(part for part in (words, "" if row.value is None else short(row.value, _VALUE)) if part)
    number = "" if row.round is None else f"[{row.round}] "
    told = f"  {one_line(words)}" if words else ""
    return Text.assemble((indent, ""), (number, "dim"), (one_line(row.name), quiet), (told, "dim"))


def _where(row: Row | Folded, span: Span, width: int) -> Text:
    """One cell for each slice of the job's time; without colours, too, a failed attempt is told from a good one."""
    if isinstance(row, Folded):
        return _line("─", row.standing, span.share(row.start), span.share(row.end), width)
    task = row.task
    if task.attempts:
        return _bar(task, span, width)
    standing = standing_of(task)
    if row.control and task.start_time and task.end_time and (task.duration_ms or standing is Standing.COMPLETED):
        return _line("━", standing, span.share(task.start_time), span.share(task.end_time), width)
    return Text("reused" if reused_from(task) else standing.word, style="dim")


def _line(ink: str, standing: Standing, start: float, end: float, width: int) -> Text:
    first = min(width - 1, int(start * width))
    last = min(width, max(first + 1, int(end * width)))
    return Text.assemble(" " * first, (ink * (last - first), standing.colour))


def _bar(task: TaskRecord, span: Span, width: int) -> Text:
    cells = [(" ", "")] * width
    first = min(width - 1, int(span.share(task.attempts[0].started) * width))
    last = min(width - 1, int(span.share(task.attempts[-1].started) * width))
    cells[first : last + 1] = [("·", "dim")] * (last + 1 - first)
    for attempt in task.attempts:
        outcome = outcome_of(attempt.outcome)
        begin = min(width - 1, int(span.share(attempt.started) * width))
        end = int(span.share(attempt.ended) * width) if attempt.ended else width
        for index in range(begin, min(width, max(begin + 1, end))):
            cells[index] = (_INK.get(outcome, "░"), outcome.colour)
    runs = ((cell, len(list(run))) for cell, run in itertools.groupby(cells))
    return Text.assemble(*((glyph * length, style) for (glyph, style), length in runs))


def _failure(task: TaskRecord) -> Text:
    return _line_of(task, task.error or standing_of(task).word)


def _line_of(task: TaskRecord, told: str) -> Text:
    standing = standing_of(task)
    return Text.assemble(
        (f"{standing.glyph} ", standing.colour), (one_line(task.task_id), "bold"), f"  {harmless(told)}"
    )
