"""What an earlier job has done already, for a job that retries it: kept until the task is ready, then told once more.

Outputs of tasks decide what loops go through, and tasks set variables. So what was done counts in the order in which it
was done, each when its turn has come, and not before what stands before it.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping

from runner.core.events import TaskReused, TaskState
from runner.core.plan import TaskId
from runner.core.runs import TaskRun


class Promises:
    """Tasks that need not run again, in the order in which they ended."""

    def __init__(self) -> None:
        self._kept: dict[TaskId, TaskReused] = {}
        self._places: dict[TaskId, int] = {}
        #: Those that are ready, by their places.
        self._ready: list[tuple[int, TaskId]] = []

    def __contains__(self, task_id: TaskId) -> bool:
        return task_id in self._kept

    def __iter__(self) -> Iterator[TaskReused]:
        return iter(self._kept.values())

    @property
    def waiting(self) -> bool:
        """Whether there may be one that is ready."""
        return bool(self._ready)

    def keep(self, event: TaskReused) -> None:
        """Remember one for later."""
        self._kept[event.task_id] = event
        self._places.setdefault(event.task_id, len(self._places))

    def ready(self, task_id: TaskId) -> None:
        """The task could start now."""
        heapq.heappush(self._ready, (self._places[task_id], task_id))

    def next(self, tasks: Mapping[TaskId, TaskRun]) -> TaskReused | None:
        """The event of the first that is ready and was not decided otherwise meanwhile."""
        while self._ready:
            _, task_id = heapq.heappop(self._ready)
            if task_id in self._kept and tasks[task_id].state is TaskState.PENDING:
                return TaskReused(task_id, job_id=self._kept[task_id].job_id)
        return None

    def redeem(self, event: TaskReused) -> TaskReused:
        """What was promised of the task, or the event itself if nothing was."""
        return self._kept.pop(event.task_id, event)
