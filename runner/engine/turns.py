"""The turns of one job's parked tasks: each waits in a queue that is not ours, and may be called before its time."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from runner.core.errors import Turn
from runner.core.plan import TaskId


class Turns:
    """Who waits for a call, and who was called. All methods are synchronous and run on the event loop."""

    def __init__(self, ring: Callable[[], None]) -> None:
        self._ring = ring
        self._waiting: dict[TaskId, Turn] = {}
        #: In the order in which they were called.
        self._called: dict[TaskId, None] = {}

    def wait(self, task_id: TaskId, turn: Turn) -> None:
        """The task waits for this turn, and for no earlier one."""
        self.leave(task_id)
        self._waiting[task_id] = turn
        turn.call(partial(self._come, task_id, turn))

    @property
    def called(self) -> dict[TaskId, None]:
        """Those whose turn has come and who have not started yet, in that order."""
        return dict(self._called)

    def leave(self, task_id: TaskId) -> None:
        """The task waits no more: it starts, or has ended."""
        self._called.pop(task_id, None)
        turn = self._waiting.pop(task_id, None)
        if turn is not None:
            turn.leave()

    def leave_all(self) -> None:
        for task_id in tuple(self._waiting):
            self.leave(task_id)

    def _come(self, task_id: TaskId, turn: Turn) -> None:
        if self._waiting.get(task_id) is turn:
            del self._waiting[task_id]
            self._called[task_id] = None
            self._ring()
