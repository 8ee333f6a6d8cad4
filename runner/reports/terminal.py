"""A `.last` record for a terminal: what happened, task by task, and where the time went.

Piped, or on a terminal without colours, it is plain text; it is as wide as the console it is printed on. Task names,
errors and titles cannot steer the terminal.
"""

from __future__ import annotations

import itertools
from typing import Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from runner.core.record import LastRecord, TaskRecord, duration_text, tokens_of
from runner.reports.standing import (
    Standing,
    counted,
    harmless,
    headline_of,
    notable,
    one_line,
    outcome_of,
    standing_of,
    standings,
    took,
)
from runner.reports.timeline import Span, in_order, span_of

#: Narrower consoles do without bars.
_WIDE: Final = 72
_WIDEST_BAR: Final = 60
#: What the cells of an attempt are drawn with; ░ for those that do not count: parked, lost, cancelled.
_INK: Final = {Standing.COMPLETED: "█", Standing.RUNNING: "█", Standing.FAILED: "▒", Standing.TIMEOUT: "▓"}
#: Rows, unless all are asked for.
_TASKS: Final = 100


def show(record: LastRecord, console: Console, *, tasks: int = _TASKS) -> None:
    """Print the record; at most `tasks` of its tasks, and a line that says so where there are more."""
    shown = notable(list(record.task_results.values()), tasks)
    console.print(_panel(record))
    if shown:
        console.print()
        console.print(_table(record, shown, console.width))
        console.print()
    hidden = len(record.task_results) - len(shown)
    if hidden:
        console.print(Text(f"… and {counted(hidden, 'task')} more that completed or were shorter", style="dim"))
    for task in in_order(shown, span_of(record)):
        if standing_of(task) in (Standing.FAILED, Standing.TIMEOUT):
            console.print(_failure(task))


def _panel(record: LastRecord) -> RenderableType:
    standing, words = headline_of(record)
    counts = standings(record.task_results.values())
    legend = Text("  ").join(
        Text(f"{each.glyph} {count:,} {each.word}", style=each.colour) for each, count in counts.items()
    )
    lines = [Text(harmless(record.summary))] if record.summary else []
    lines += [legend] if counts else []
    return Panel(
        Group(*lines, _facts(record)),
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


def _told(facts: list[tuple[str, str]]) -> Text:
    told = [Text.assemble((f"{name} ", "dim"), one_line(value)) for name, value in facts if value]
    return Text("  ·  ", style="dim").join(told)


def _calls(record: LastRecord) -> str:
    return counted(record.usage.calls if record.usage else 0, "call")


def _table(record: LastRecord, tasks: list[TaskRecord], width: int) -> Table:
    span = span_of(record)
    wide = width >= _WIDE
    table = Table(box=box.SIMPLE_HEAD, expand=wide, pad_edge=False, header_style="dim", show_edge=False)
    table.add_column("", width=1)
    table.add_column("task", overflow="ellipsis", no_wrap=True, max_width=max(12, width // 3))
    table.add_column("tries", justify="right", no_wrap=True)
    table.add_column("took", justify="right", no_wrap=True)
    bars = 0
    if wide:
        longest = max(len(task.task_id) for task in tasks)
        bars = min(_WIDEST_BAR, max(10, width - min(longest, max(12, width // 3)) - 27))
        table.add_column(f"where {duration_text(span.milliseconds)} went", width=bars, no_wrap=True)
    for task in in_order(tasks, span):
        table.add_row(*_row(task), *([_bar(task, span, bars)] if wide else []))
    return table


def _row(task: TaskRecord) -> list[Text]:
    standing = standing_of(task)
    quiet = "" if task.attempts or standing is Standing.COMPLETED else "dim"
    return [
        Text(standing.glyph, style=standing.colour),
        Text(one_line(task.task_id), style=quiet),
        Text(str(len(task.attempts)) if task.attempts else "–", style=quiet),
        Text(took(task), style=quiet),
    ]


def _bar(task: TaskRecord, span: Span, width: int) -> Text:
    """One cell for each slice of the job's time; without colours, too, a failed attempt is told from a good one."""
    standing = standing_of(task)
    if not task.attempts:
        return Text(standing.word, style="dim")
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
    standing = standing_of(task)
    reason = harmless(task.error or standing.word)
    return Text.assemble((f"{standing.glyph} ", standing.colour), (one_line(task.task_id), "bold"), f"  {reason}")
