"""When waiting tasks are due."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Iterator

from runner.core.events import TaskState
from runner.core.plan import Instant
from runner.core.runs import TaskRun


class Wakeups:
    """Waiting tasks by the time at which their wait ends by itself. Each has one such time, the last it was given."""

    def __init__(self) -> None:
        #: Entries of tasks that wait no more, or for another time, are dropped when they surface.
        self._heap: list[tuple[Instant, int, TaskRun]] = []
        self._count = itertools.count()

    def add(self, task: TaskRun, due: Instant) -> None:
        task.due = due
        heapq.heappush(self._heap, (due, next(self._count), task))

    def take(self, now: Instant) -> Iterator[TaskRun]:
        """Those that are due."""
        while (due := self.next()) is not None and due <= now:
            yield heapq.heappop(self._heap)[2]

    def next(self) -> Instant | None:
        """The earliest time, if anybody waits."""
        while self._heap:
            due, _, task = self._heap[0]
            if task.state is TaskState.WAITING and task.due == due:
                return due
            heapq.heappop(self._heap)
        return None
