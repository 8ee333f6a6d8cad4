"""The live view on a terminal: a bar for each job and each running task, and the text that tasks stream."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len, set_cell_size
from rich.console import Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from runner.cli import output
from runner.cli.sentences import JOB_LOOKS, TASK_LOOKS
from runner.cli.view import Flow, JobView, TaskView
from runner.core.events import JobState, Recorded, TaskState
from runner.core.plan import Instant
from runner.core.record import duration_text
from runner.reports.standing import harmless

if TYPE_CHECKING:
    from google.protobuf.message import Message

#: Seconds between two pictures.
_PERIOD: Final = 0.1
#: Lines of streamed text shown for each task.
_TEXT_LINES: Final = 3
#: Cells of a bar, on a terminal of the given width and on narrower ones.
_WIDE: Final = 100
_BAR: Final = 24
_SHORT_BAR: Final = 10
_NAME: Final = 30
#: States in which a task is worth a line when there is no room for all.
_PRESENT: Final = frozenset({TaskState.RUNNING, TaskState.WAITING, TaskState.FAILED, TaskState.TIMED_OUT})


class LiveAudience:
    """Draws all jobs ten times a second, within the height of the terminal."""

    def __init__(self) -> None:
        self._views: Sequence[JobView] = ()
        self._console = output.console()
        self._notice = ""
        self._showing = False
        #: What draws, while something does.
        self._live: Live | None = None

    @asynccontextmanager
    async def showing(self, views: Sequence[JobView]) -> AsyncIterator[None]:
        self._views = views
        self._showing = True
        self._begin()
        drawing = asyncio.create_task(self._draw())
        try:
            yield
        finally:
            self._showing = False
            drawing.cancel()
            with suppress(asyncio.CancelledError):
                await drawing
            self._end()

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """Nothing is drawn inside the context; the last picture stays above what others write."""
        self._end()
        try:
            yield
        finally:
            if self._showing:
                self._begin()

    def _begin(self) -> None:
        # A new one each time: an old one would go back to where it drew last, over what was written since.
        self._live = Live(console=self._console, auto_refresh=False, get_renderable=self.picture)
        self._live.start()

    def _end(self) -> None:
        live, self._live = self._live, None
        if live is not None:
            live.stop()

    async def _draw(self) -> None:
        while True:
            if self._live is not None:
                self._live.refresh()
            await asyncio.sleep(_PERIOD)

    def event(self, view: JobView, recorded: Recorded, message: Message) -> None:
        pass

    def notice(self, view: JobView, text: str) -> None:
        self._notice = "" if text in {"caught up", "connected again"} else text

    def picture(self) -> RenderableType:
        """Everything as it stands."""
        now = time.time_ns() // 1_000
        room = self._console.height - 2
        shown = [view for view in self._views if not view.state.terminal] if room < len(self._views) else self._views
        shown = shown[: max(1, room)]
        rows: list[RenderableType] = []
        for view in shown:
            rows += job_rows(view, now, room // max(1, len(shown)), self._console.width)
        if left := len(self._views) - len(shown):
            rows.append(Text(f"  … and {left} more jobs", "bright_black"))
        if self._notice:
            rows.append(Text(harmless(self._notice), "yellow"))
        return Group(*rows)


def job_rows(view: JobView, now: Instant, room: int, width: int) -> Iterator[RenderableType]:
    yield _job_row(view, now, width)
    if view.state is JobState.QUEUED:
        return
    tasks = list(_tree(view))
    if len(tasks) + 1 > room:
        tasks = [(depth, task) for depth, task in tasks if task.state in _PRESENT]
    shown = tasks[: max(0, room - 2)]
    spare = room - 2 - len(shown)
    for depth, task in shown:
        yield _task_row(task, depth, now, width)
        for text in _last_lines(task, min(_TEXT_LINES, spare), width - 8):
            spare -= 1
            yield text
    if hidden := view.total - len(shown):
        done = view.count(TaskState.SUCCEEDED)
        yield Text(f"    … {hidden:,} more tasks; {done:,} of {view.total:,} succeeded", "bright_black")


def _tree(view: JobView) -> Iterator[tuple[int, TaskView]]:
    """The tasks worth a line, those in bodies below what runs them, and how deep they stand."""
    inside: dict[str, list[TaskView]] = {}
    for task in view.tasks.values():
        if task.owner in view.tasks and task.state in _PRESENT:
            inside.setdefault(task.owner, []).append(task)
    waiting = [(0, task) for task in reversed(view.tasks.values()) if task.owner not in view.tasks]
    while waiting:
        depth, task = waiting.pop()
        yield depth, task
        waiting += [(depth + 1, each) for each in reversed(inside.get(task.id, ()))]


def _row(name: Text, bar: RenderableType, told: Text, width: int) -> Table:
    """One line: rich would squeeze all columns where the last is too long, and then nothing is aligned."""
    grid = Table.grid(padding=(0, 1))
    length = _bar_length(width)
    for cells, content in ((_NAME, name), (length, None), (max(1, width - _NAME - length - 2), told)):
        grid.add_column(width=cells, no_wrap=True)
        if content is not None:
            content.truncate(cells, overflow="ellipsis")
    grid.add_row(name, bar, told)
    return grid


def _job_row(view: JobView, now: Instant, width: int) -> RenderableType:
    glyph, word, colour = JOB_LOOKS[view.state]
    name = Text.assemble((f"{glyph} ", colour), (harmless(view.title or view.id), "bold"))
    told = f"{view.progress:4.0%}  {view.ended}/{view.total} tasks  {_elapsed(view, now)}  {word}"
    return _row(name, _bar(view.progress, colour, width), Text(told, colour), width)


def _task_row(task: TaskView, depth: int, now: Instant, width: int) -> RenderableType:
    glyph, word, colour = TASK_LOOKS[task.state]
    shown = task.id.removeprefix(task.owner).removeprefix("/") if depth else task.id
    name = Text.assemble((f"{'  ' * (depth + 1)}{glyph} ", colour), harmless(shown))
    if task.state is TaskState.RUNNING:
        bar: RenderableType = _bar(_fraction(task), colour, width)
    else:
        bar = Text(word, colour)
    attempt = f"attempt {task.attempt}  " if task.attempt > 1 else ""
    flow = "" if task.flow is None else _flow(task.flow)
    told = f"{_task_time(task, now)}  {attempt}{flow}{harmless(task.trouble or task.message)}".replace("\n", " ")
    return _row(name, bar, Text(told, "bright_black"), width)


def _fraction(task: TaskView) -> float | None:
    if task.flow is None:
        return task.fraction
    return None if task.flow.body == "round" and not task.flow.rounds else task.flow.progress


def _flow(flow: Flow) -> str:
    """How far a control task is: `12/5,000 rounds, 2 failed`."""
    if flow.body != "round":
        return {"if": "branch if  ", "else": "branch else  "}.get(flow.body, "")
    of = f"/{flow.rounds:,}" if flow.rounds else ""
    failed = f", {flow.failed:,} failed" if flow.failed else ""
    return f"{flow.done:,}{of} rounds{failed}  "


def _bar_length(width: int) -> int:
    return _BAR if width >= _WIDE else _SHORT_BAR


def _bar(fraction: float | None, colour: str, width: int) -> ProgressBar:
    """A bar; one that moves to and fro where nothing is known."""
    return ProgressBar(
        total=1.0,
        completed=fraction or 0.0,
        width=_bar_length(width),
        pulse=fraction is None,
        complete_style=colour,
        finished_style=colour,
        animation_time=time.monotonic(),
    )


def _elapsed(view: JobView, now: Instant) -> str:
    start = view.started_at
    return "" if start is None else duration_text(max(0, (view.ended_at or now) - start) // 1_000)


def _task_time(task: TaskView, now: Instant) -> str:
    if task.state is TaskState.WAITING and task.waiting_until is not None:
        return f"again in {duration_text(max(0, task.waiting_until - now) // 1_000)}"
    return "" if task.started_at is None else duration_text(max(0, (task.ended_at or now) - task.started_at) // 1_000)


def _last_lines(task: TaskView, count: int, width: int) -> Iterator[Text]:
    """The end of what a running task streams, broken into lines of the terminal."""
    if task.state is not TaskState.RUNNING or count <= 0 or not task.text:
        return
    lines: list[str] = []
    for line in harmless(task.text).replace("\t", " ").splitlines():
        lines += _folded(line, max(8, width))
    for line in lines[-count:]:
        yield Text(f"      {line}", "italic bright_black", no_wrap=True)


def _folded(line: str, width: int) -> Iterator[str]:
    while cell_len(line) > width:
        head = set_cell_size(line, width).rstrip("\0")
        place = head.rfind(" ")
        cut = place if place > width // 2 else len(head)
        yield line[:cut]
        line = line[cut:].lstrip()
    yield line
