"""Follows jobs to their end, for a terminal, a pipe, or a program that reads JSON."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, nullcontext
from typing import TYPE_CHECKING, Any, Final, Protocol

from runner.cli import output, sentences
from runner.cli.exits import OF_STATE, Exit, exit_of, worst
from runner.cli.view import JobView
from runner.core.errors import RunnerError
from runner.core.events import AttemptOutput, AttemptProgressed, JobState, Recorded, TaskEvent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from google.protobuf.message import Message

    from runner.client import Client


#: Characters of streamed text in a line, so that a long paragraph is seen while it grows.
_LINE: Final = 120
#: Progress gets a line at each such step: a task may tell it ten times a second.
_STEP: Final = 0.25


class Audience(Protocol):
    """Whoever is shown the events."""

    def showing(self, views: Sequence[JobView]) -> AbstractAsyncContextManager[None]:
        """Show these jobs inside the context."""
        ...

    def event(self, view: JobView, recorded: Recorded, message: Message) -> None:
        """`view` has taken the event in; `message` is its wire form."""
        ...

    def notice(self, view: JobView, text: str) -> None:
        """About the connection."""
        ...

    def quiet(self) -> AbstractContextManager[None]:
        """Inside the context nothing is drawn that what others write could garble."""
        ...


class LinesAudience:
    """A line for each event: what a log or a pipe wants."""

    def __init__(self) -> None:
        self._several = False
        #: Text that was streamed and has no end of line yet, by job and task.
        self._open: dict[tuple[str, str], str] = {}
        #: The attempt and the last progress of it that had a line, by job and task.
        self._progress: dict[tuple[str, str], tuple[int, float, str]] = {}

    @asynccontextmanager
    async def showing(self, views: Sequence[JobView]) -> AsyncIterator[None]:
        self._several = len(views) > 1
        yield

    def event(self, view: JobView, recorded: Recorded, message: Message) -> None:
        event = recorded.event
        if isinstance(event, AttemptOutput):
            self._text(view, recorded, event)
            return
        if isinstance(event, AttemptProgressed) and not self._worth_a_line(view.id, event):
            return
        if isinstance(event, TaskEvent) and view.task(event.task_id).state.terminal:
            self._progress.pop((view.id, event.task_id), None)
        if isinstance(event, TaskEvent) and (rest := self._open.pop((view.id, event.task_id), "")):
            self._line(view, recorded, f"{event.task_id}│ {rest}")
        self._line(view, recorded, sentences.told(recorded, view))

    def notice(self, view: JobView, text: str) -> None:
        if text != "caught up":
            output.notice(f"{view.id}: {text}")

    def quiet(self) -> AbstractContextManager[None]:
        return nullcontext()

    def _worth_a_line(self, job: str, event: AttemptProgressed) -> bool:
        """Whether it has moved by a step since the last line, or says something else."""
        attempt, fraction, message = self._progress.get((job, event.task_id), (0, 0.0, ""))
        if attempt != event.attempt:
            fraction, message = 0.0, ""
        if event.message == message and (event.fraction or 0.0) < fraction + _STEP:
            return False
        self._progress[job, event.task_id] = (event.attempt, event.fraction or 0.0, event.message)
        return True

    def _text(self, view: JobView, recorded: Recorded, event: AttemptOutput) -> None:
        *whole, rest = (self._open.get((view.id, event.task_id), "") + event.text).split("\n")
        while len(rest) > _LINE:
            place = rest.rfind(" ", _LINE // 2, _LINE) + 1 or _LINE
            whole.append(rest[:place].rstrip())
            rest = rest[place:]
        self._open[(view.id, event.task_id)] = rest
        for text in whole:
            self._line(view, recorded, f"{event.task_id}│ {text}")

    def _line(self, view: JobView, recorded: Recorded, text: str) -> None:
        job = f" {view.id}" if self._several else ""
        output.line(f"{sentences.clock(recorded.time)}{job} #{recorded.sequence} {text}")


class JsonAudience:
    """An object for each event: the event's JSON form with the job's id."""

    @asynccontextmanager
    async def showing(self, views: Sequence[JobView]) -> AsyncIterator[None]:
        yield

    def event(self, view: JobView, recorded: Recorded, message: Message) -> None:
        output.json_line({"job_id": view.id, **output.message_json(message)})

    def notice(self, view: JobView, text: str) -> None:
        if text != "caught up":
            output.notice(f"{view.id}: {text}")

    def quiet(self) -> AbstractContextManager[None]:
        return nullcontext()


def audience(*, as_json: bool) -> Audience:
    """Bars on a terminal, lines in a pipe, objects if asked for."""
    if as_json:
        return JsonAudience()
    if sys.stdout.isatty():
        from runner.cli.live import LiveAudience

        return LiveAudience()
    return LinesAudience()


class Followed:
    """Jobs that are followed, and how it went so far; holds what is known also after an interruption."""

    def __init__(self, jobs: Sequence[str], audience: Audience, *, reachable: bool = True) -> None:
        """`reachable` tells whether other commands find the daemon, so that it makes sense to name them."""
        self.views = [JobView(job, reachable=reachable) for job in dict.fromkeys(jobs)]
        self.errors: dict[str, RunnerError] = {}
        self._audience = audience

    def quiet(self) -> AbstractContextManager[None]:
        """Inside the context nothing is drawn."""
        return self._audience.quiet()

    async def follow(self, client: Client, *, after: int = 0) -> None:
        """Follow all jobs to their ends. What goes wrong with one of them is kept in `errors`, and the others go on."""
        unread = False
        try:
            async with self._audience.showing(self.views), asyncio.TaskGroup() as following:
                for view in self.views:
                    following.create_task(self._follow(client, view, after))
        except* BrokenPipeError:
            unread = True
        if unread:
            raise BrokenPipeError

    async def _follow(self, client: Client, view: JobView, after: int) -> None:
        from runner.frames import decode_event

        def notice(text: str) -> None:
            self._audience.notice(view, text)

        try:
            self._begin(view, await client.get(view.id, full=True), after)
            async for message in client.watch(view.id, after=after, on_notice=notice):
                try:
                    recorded = decode_event(message)
                except ValueError as unknown:
                    notice(f"{unknown}; a newer alt-runner shows it")
                    continue
                view.apply(recorded)
                self._audience.event(view, recorded, message)
        except RunnerError as error:
            self.errors[view.id] = error

    @staticmethod
    def _begin(view: JobView, job: Any, after: int) -> None:
        from runner.frames import instant

        view.title, view.task_count, view.own_count = job.title, job.task_count, job.task_count
        # Tasks in bodies are told of by the events with which they come into being.
        view.expect((task.task_id, task.description, task.task_type) for task in list(job.tasks)[: job.task_count])
        if after:
            view.task_count = max(job.task_count, len(job.tasks))
            # What came before is not replayed, and the end may be before.
            view.sequence = after
            view.partial = True
            view.state = JobState(job.state)
            view.started_at = instant(job.start_time) if job.HasField("start_time") else None

    def exit(self) -> Exit:
        """The worst of all ends."""
        codes = [exit_of(error) for error in self.errors.values()]
        codes += [OF_STATE.get(view.state, Exit.ERROR) for view in self.views if view.id not in self.errors]
        return worst(codes)


def to_the_end(jobs: list[str], server: str, *, patience: float, after: int = 0, as_json: bool) -> Exit:
    """Follow jobs of a daemon, tell how they ended and where to look next. Answers the exit code.

    Raises KeyboardInterrupt: as `run`.
    """
    followed = Followed(jobs, audience(as_json=as_json))
    run(followed, server, patience=patience, after=after)
    summarise(followed, server, as_json=as_json)
    return followed.exit()


def run(followed: Followed, server: str, *, patience: float, after: int = 0) -> None:
    """Follow until the end or until Ctrl-C, which leaves the jobs running and says so.

    Raises KeyboardInterrupt: after it was said.
    """
    from runner.cli.options import command, connected

    async def follow() -> None:
        async with connected(server, patience=patience) as client:
            await followed.follow(client, after=after)

    try:
        asyncio.run(follow())
    except KeyboardInterrupt:
        for view in followed.views:
            if not view.state.terminal:
                output.notice(f"job {view.id} runs on")
                output.notice(f"  watch it again: {command(f'watch {view.id} --after {view.sequence}', server)}")
                output.notice(f"  cancel it: {command(f'cancel {view.id}', server)}")
        raise


def summarise(followed: Followed, server: str, *, as_json: bool) -> None:
    """A line for each job, and where to look next."""
    from runner.cli.options import command

    tell_ends(followed, lambda view: command(f"last show {view.id}", server), as_json=as_json)


def tell_ends(followed: Followed, showing: Callable[[JobView], str], *, as_json: bool) -> None:
    """A line for each job that has ended, and `showing`, the command that shows its record."""
    for error in followed.errors.values():
        output.notice(f"alt-runner: {error}")
    if as_json:
        return
    for view in followed.views:
        if view.state.terminal and view.id not in followed.errors:
            output.line(sentences.ended(view))
            output.notice(f"  see its record: {showing(view)}")
