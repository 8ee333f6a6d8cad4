"""Jobs that tasks run: children of the jobs that they belong to.

A child is a job like any other: durable, claimed, watched and recorded by itself. Three rules tie it to its parent.

- It has its parent's place in line, before everything that came later, so what others wait for is taken up first.
- A job that waits for a child does not count as a running one, so that parents do not keep their children from
  starting (`Dispatcher._room`).
- A child ends with its parent: a task that is stopped cancels its child, a job that ends cancels all children that are
  left, and a child that is taken up after its parent's end is cancelled before anything of it runs.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator
from contextlib import aclosing, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Final

import anyio
import msgspec

from runner.core.child import ChildEnd, ChildJob
from runner.core.errors import (
    AttemptError,
    AttemptPutOff,
    Draining,
    InvalidDescriptor,
    InvalidRequest,
    JobNotFound,
    JobUnreadable,
    QueueFull,
    RequestIdReused,
)
from runner.core.events import TaskState, WaitReason
from runner.core.job import Frame, JobSummary
from runner.core.plan import Instant, JobId
from runner.core.usage import places_of
from runner.engine.again import RETRY_OF
from runner.engine.family import PARENT, ROOT, child_labels, depth_of
from runner.engine.lending import Lending
from runner.engine.patience import patiently
from runner.engine.submission import Submission, rank
from runner.ports import Jobs

if TYPE_CHECKING:
    from runner.engine.equipment import Equipment
    from runner.engine.runner import Runner


MICROS: Final = 1_000_000
#: Seconds between two looks at a child's progress, at least; and after so many without an event there is another.
LOOK_EVERY: Final = 1.0
QUIET: Final = 5.0


class Children(Jobs):
    """The port for handlers that run jobs, and what a daemon knows of parents and children in its hands.

    A Runner binds the one of its Equipment to itself; before that nothing but the counts may be asked for.
    """

    def __init__(self) -> None:
        self._runner: Runner
        self._with: Equipment
        self.lending = Lending()
        #: Children in this daemon's hands, by parent.
        self._held: dict[JobId, set[JobId]] = {}

    def bind(self, runner: Runner, equipment: Equipment) -> None:
        """Use this runner, and what it works with."""
        self._runner, self._with = runner, equipment
        self.lending.wake = runner.dispatcher.wake

    # --------------------------------------------------------------------------------------------- for handlers

    async def submit(self, child: ChildJob) -> JobId:
        parent = await patiently(self._with.ledger.job, child.parent)
        root = await self._root(parent)
        depth = depth_of(parent) + 1
        limit = self._with.settings.max_job_depth
        if depth > limit:
            message = f"jobs that run jobs go {limit} deep at most (setting `engine.max_job_depth`)"
            raise AttemptError("NESTED_TOO_DEEP", message, retryable=False)
        family, ahead_of = child_labels(parent), rank(root, self._with.settings) - depth
        asked = _submission(child, parent, {budget.label for budget in self._with.budgets})
        submit = partial(self._runner.submit_child, asked, family=family, ahead_of=ahead_of)
        try:
            accepted = await patiently(submit)
        except RequestIdReused as error:
            return await self._submitted_before(error, parent)
        except QueueFull as error:
            raise self._put_off(error, error.retry_after) from error
        except Draining as error:
            raise self._put_off(error) from error
        except (InvalidDescriptor, InvalidRequest) as error:
            raise AttemptError("CHILD_REFUSED", f"the child job was refused: {error}", retryable=False) from error
        return accepted.job.id

    async def wait(self, child: JobId, *, parent: JobId, on_progress: Callable[[float], None]) -> ChildEnd:
        try:
            job = await patiently(self._with.ledger.job, parent)
            with self._lending(job):
                await patiently(self._follow, child, on_progress)
            return await patiently(self._end, child)
        except Draining as error:
            raise self._put_off(error) from error
        except (JobNotFound, JobUnreadable) as error:
            raise AttemptError("CHILD_LOST", str(error), retryable=False) from error

    async def cancel(self, child: JobId, reason: str) -> None:
        await patiently(self._runner.cancel, child, reason)

    # -------------------------------------------------------------------------------------------- for the engine

    @contextmanager
    def held(self, job: JobSummary) -> Iterator[None]:
        """Know, inside the context, that the job is in this daemon's hands."""
        parent = job.labels.get(PARENT)
        if parent is None:
            yield
            return
        self._held.setdefault(parent, set()).add(job.id)
        try:
            yield
        finally:
            siblings = self._held.get(parent, set())
            siblings.discard(job.id)
            if not siblings:
                self._held.pop(parent, None)

    async def end_orphan(self, job: JobSummary) -> None:
        """Cancel the job if it is a child whose parent has ended. Call it inside of `held`, before anything starts."""
        # A job that retries a child has its labels, and is nobody's child.
        parent = job.labels.get(PARENT)
        if parent is None or RETRY_OF in job.labels:
            return
        try:
            ended = (await patiently(self._with.ledger.job, parent)).state.terminal
        except JobNotFound:
            ended = True
        if ended:
            await self.cancel(job.id, _ended(parent))

    async def end_all(self, parent: JobId) -> None:
        """Cancel the children that are still in this daemon's hands when their parent has ended."""
        for child in tuple(self._held.get(parent, ())):
            job = await patiently(self._with.ledger.job, child)
            if RETRY_OF not in job.labels:
                await self.cancel(child, _ended(parent))

    # ---------------------------------------------------------------------------------------------------- inside

    async def _root(self, parent: JobSummary) -> JobSummary:
        root = parent.labels.get(ROOT)
        if root is None:
            return parent
        try:
            return await patiently(self._with.ledger.job, root)
        except JobNotFound:
            return parent

    async def _submitted_before(self, reused: RequestIdReused, parent: JobSummary) -> JobId:
        """The child, though what it was submitted with differs in a field that this version does not have."""
        job = await patiently(self._with.ledger.job, reused.job_id)
        if job.labels.get(PARENT) != parent.id:
            raise AttemptError("CHILD_REFUSED", str(reused), retryable=False) from reused
        return job.id

    @contextmanager
    def _lending(self, parent: JobSummary) -> Iterator[None]:
        self.lending.parents += 1
        # This wakes the dispatcher: the child was told of before there was room for it.
        self.lending.lend(parent)
        try:
            yield
        finally:
            self.lending.parents -= 1
            self.lending.take_back(parent)

    async def _follow(self, child: JobId, on_progress: Callable[[float], None]) -> None:
        looked_at, told = anyio.current_time(), 0.0
        async with aclosing(self._with.broadcast.follow(child, after=0, heartbeat=QUIET)) as stream:
            async for piece in stream:
                if isinstance(piece, Frame) and piece.terminal:
                    return
                if anyio.current_time() - looked_at < LOOK_EVERY:
                    continue
                looked_at = anyio.current_time()
                progress = (await self._with.ledger.job(child)).progress
                if progress > told:
                    told = progress
                    on_progress(progress)

    async def _end(self, child: JobId) -> ChildEnd:
        summary, run = await self._runner.job_run(child)
        succeeded = {name: task for name, task in run.tasks.items() if task.state is TaskState.SUCCEEDED}
        return ChildEnd(
            state=summary.state,
            error=summary.error,
            reason=run.cancelling or "",
            outputs={
                name: msgspec.json.decode(task.output or b"null")
                for name, task in succeeded.items()
                if not task.output_artifact_id
            },
            large_outputs={
                name: artifact
                for name, task in succeeded.items()
                for artifact in task.artifacts
                if artifact.id == task.output_artifact_id
            },
            usage=places_of(run),
        )

    def _put_off(self, error: Exception, seconds: float = 0.0) -> AttemptPutOff:
        until: Instant = self._with.clock.now() + round(seconds * MICROS)
        return AttemptPutOff(WaitReason.RATE_LIMITED, f"the child job waits: {error}", until=until)


def _submission(child: ChildJob, parent: JobSummary, budgeted: Container[str]) -> Submission:
    """The child, with the labels by which its parent takes of budgets: no job gets out of them by running another."""
    inherited = {key: value for key, value in parent.labels.items() if key in budgeted}
    return Submission(
        descriptor=child.descriptor,
        content_type=child.content_type,
        request_id=child.request_id,
        priority=child.priority,
        queue=child.queue or parent.queue,
        labels={**child.labels, **inherited},
        token_budget=child.token_budget,
        deadline=parent.deadline,
        inputs=child.inputs,
        traceparent=child.traceparent,
    )


def _ended(parent: JobId) -> str:
    return f"its parent, job {parent}, has ended"
