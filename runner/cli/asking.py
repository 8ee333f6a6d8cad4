"""Who answers the questions of a run: its options, the person at its terminal, or nobody."""

from __future__ import annotations

import enum
import getpass
import os
import sys
import termios
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Final

import anyio
import anyio.abc

from runner.cli import output
from runner.cli.exits import Unusable
from runner.core.alt.dialect import APPROVAL
from runner.core.errors import RunnerError
from runner.core.events import AttemptParked, Recorded, TaskEvent, WaitReason

if TYPE_CHECKING:
    from runner.client import Client
    from runner.core.plan import Plan

#: Who answers, where an option does.
SENDER: Final = "alt-runner run"
#: Microseconds: nobody waits a year for what happens then.
_FOR_EVER: Final = 365 * 86_400 * 1_000_000
_STDIN: Final = 0
_WORDS: Final = {"y": True, "yes": True, "n": False, "no": False}
_ADVICE: Final = "give --approve-all or --reject-all, run it on a terminal, or submit it to a daemon"


class Answers(enum.Enum):
    """Who answers."""

    APPROVE = enum.auto()
    REJECT = enum.auto()
    PERSON = enum.auto()
    NOBODY = enum.auto()


def answers(*, approve_all: bool, reject_all: bool, as_json: bool) -> Answers:
    """A person can where standard input and output are a terminal. Raises Unusable: if both are to be."""
    if approve_all and reject_all:
        raise Unusable("--approve-all and --reject-all exclude each other; give one of them")
    if approve_all or reject_all:
        return Answers.APPROVE if approve_all else Answers.REJECT
    return Answers.PERSON if os.isatty(_STDIN) and sys.stdout.isatty() and not as_json else Answers.NOBODY


def refuse_unanswerable(plans: Iterable[tuple[str, Plan]]) -> None:
    """Raises Unusable: if one of these files would wait for ever, where nobody answers.

    Of what stands in bodies, or in jobs that tasks run, nobody knows whether it will be asked; that is told then.
    """
    for file, plan in plans:
        for task in plan.tasks:
            if task.kind == APPROVAL and task.parameters.get("deadline_seconds") is None:
                raise Unusable(f"{file}: task `{task.id}` asks for approval, and nobody can answer here; {_ADVICE}")


class Answering:
    """Answers the questions of all jobs of a daemon, those that tasks run among them."""

    def __init__(
        self,
        client: Client,
        who: Answers,
        *,
        quiet: Callable[[], AbstractContextManager[None]],
        refuse: Callable[[str], None],
    ) -> None:
        """`quiet` keeps others from drawing on the terminal; `refuse` is told what nobody can answer."""
        self._client = client
        self._who = who
        self._quiet = quiet
        self._refuse = refuse
        #: One question at a time.
        self._turn = anyio.Lock()
        #: Questions that wait for the person, by job and task.
        self._open: dict[tuple[str, str], anyio.CancelScope] = {}

    async def run(self, *, task_status: anyio.abc.TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Answer until cancelled; has started once no job that is accepted from then on can be missed."""
        known: set[str] = set()
        async with anyio.create_task_group() as group:
            changes = self._client.watch_jobs()
            await anext(changes)
            task_status.started()
            async for response in changes:
                for job in dict.fromkeys(change.job.job_id for change in response.changes):
                    if job not in known:
                        known.add(job)
                        group.start_soon(self._follow, job, group)

    async def _follow(self, job: str, group: anyio.abc.TaskGroup) -> None:
        from runner.frames import decode_event

        try:
            async for message in self._client.watch(job):
                recorded = decode_event(message)
                event = recorded.event
                if isinstance(event, TaskEvent) and (scope := self._open.pop((job, event.task_id), None)):
                    # Whatever happens to a task after its question: it waits for no answer any more.
                    scope.cancel()
                if isinstance(event, AttemptParked) and event.reason is WaitReason.AWAITING_APPROVAL:
                    await self._asked(job, recorded, event, group)
        except RunnerError as error:
            output.notice(f"alt-runner: nobody answers for job {job} any more: {error}")

    async def _asked(self, job: str, recorded: Recorded, event: AttemptParked, group: anyio.abc.TaskGroup) -> None:
        match self._who:
            case Answers.PERSON:
                scope = self._open[job, event.task_id] = anyio.CancelScope()
                group.start_soon(self._ask, job, event, scope)
            case Answers.NOBODY:
                if event.until - recorded.time > _FOR_EVER:
                    self._refuse(f"{_asks(job, event)}, and nobody can answer here; {_ADVICE}")
            case _:
                await self._signal(job, event.task_id, approved=self._who is Answers.APPROVE, sender=SENDER)

    async def _ask(self, job: str, event: AttemptParked, scope: anyio.CancelScope) -> None:
        approved: bool | None = None
        with scope:
            async with self._turn:
                with self._quiet():
                    try:
                        approved = await _person_says(job, event)
                    finally:
                        if scope.cancel_called:
                            output.line("\nno answer is needed any more")
        if scope.cancel_called:
            return
        self._open.pop((job, event.task_id), None)
        if approved is None:
            self._refuse(f"{_asks(job, event)}, and the terminal was closed; {_ADVICE}")
        else:
            await self._signal(job, event.task_id, approved=approved, sender=getpass.getuser())

    async def _signal(self, job: str, task: str, *, approved: bool, sender: str) -> None:
        try:
            await self._client.signal(job, task, approved=approved, sender=sender)
        except RunnerError as error:
            output.notice(f"alt-runner: the answer to {task} was not taken: {error}")


def _asks(job: str, event: AttemptParked) -> str:
    return f"task `{event.task_id}` of job {job} asks “{event.message}”"


async def _person_says(job: str, event: AttemptParked) -> bool | None:
    """Ask until the answer is one; None if there will be none."""
    # What was typed before the question was read is no answer to it.
    termios.tcflush(_STDIN, termios.TCIFLUSH)
    output.line(f"{event.task_id} of job {job} asks for approval:")
    for text in event.message.splitlines():
        output.line(f"  {text}")
    while True:
        sys.stdout.write("approve? [y/n] ")
        sys.stdout.flush()
        await anyio.wait_readable(_STDIN)
        try:
            typed = os.read(_STDIN, 1_024)
        except OSError:
            return None  # Linux says EIO once the other end is closed.
        if not typed:
            return None
        if (answer := _WORDS.get(typed.decode(errors="replace").strip().lower())) is not None:
            return answer
