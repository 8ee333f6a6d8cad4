"""The worker pool's slots: how many attempts may run at a time, and whose turn it is.

Jobs stand in line, one place each, and get one slot a turn, so that a job of ten thousand tasks and a job of one
advance side by side. A step of priority is a head start of so many turns: urgent jobs go first, and nobody starves.

What a bulkhead bounds has a line of its own, and who waits there holds no slot of the pool.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection, Iterable

from runner.core.plan import Priority, TaskId, TaskPlan
from runner.core.runs import TaskRun

#: Turns that one step of priority is worth.
HEAD_START = 1_000


class Place:
    """One job's place in the line."""

    def __init__(self, priority: Priority, wake: Callable[[], None]) -> None:
        self.priority = priority
        #: Called when a slot was granted.
        self.wake = wake
        self.granted = 0
        self.in_line = False


class Slots:
    """A fixed number of slots. All methods are synchronous and run on the event loop."""

    def __init__(self, total: int, *, is_pool: bool = True) -> None:
        self.total = total
        self.free = total
        #: Whether these are the worker pool's own, and not those of a bulkhead.
        self.is_pool = is_pool
        self._turn = 0
        self._line: list[tuple[int, int, Place]] = []
        self._bulkheads: dict[str, Slots] = {}

    def bulkhead(self, name: str, places: int) -> Slots:
        """The line before a bulkhead, the same one for everybody who names it."""
        line = self._bulkheads.get(name)
        if line is None:
            line = self._bulkheads[name] = Slots(places, is_pool=False)
        elif line.total != places:
            line.resize(places)
        return line

    def resize(self, total: int) -> None:
        """Change the number of slots. Attempts under way keep theirs, so there may be too many for a while."""
        self.free += total - self.total
        self.total = total
        self._grant()

    def take(self, place: Place) -> bool:
        """Take a slot, or stand in line for one: then `place.wake` is called and `take` succeeds."""
        if place.granted:
            place.granted -= 1
            return True
        if self.free > 0 and not self._line:
            self.free -= 1
            return True
        if not place.in_line:
            place.in_line = True
            self._turn += 1
            heapq.heappush(self._line, (self._turn - HEAD_START * place.priority, self._turn, place))
            self._grant()
        return False

    def keep(self, place: Place) -> None:
        """Put back what was just taken, so that the next `take` of this place succeeds again."""
        place.granted += 1

    def give_back(self) -> None:
        """Return a slot to whoever is next."""
        self.free += 1
        self._grant()

    def leave(self, place: Place) -> None:
        """Leave the line and return what was granted and not used."""
        if place.in_line:
            place.in_line = False
            self._line = [entry for entry in self._line if entry[2] is not place]
            heapq.heapify(self._line)
        self.free += place.granted
        place.granted = 0
        self._grant()

    def _grant(self) -> None:
        while self.free > 0 and self._line:
            _, _, place = heapq.heappop(self._line)
            place.in_line = False
            place.granted += 1
            self.free -= 1
            place.wake()


class Standing:
    """Where one job stands: a place in every line that one of its tasks has to pass.

    `way_of` tells a task's lines, in the order in which it passes them; it is asked once for each task that may start.
    `kinds` are all that it tells of this job's tasks at first; bulkheads come and go with the endpoints behind them.
    """

    def __init__(
        self,
        way_of: Callable[[TaskPlan], tuple[Slots, ...]],
        kinds: Collection[tuple[Slots, ...]],
        priority: Priority,
        wake: Callable[[], None],
    ) -> None:
        self._way_of = way_of
        self._ways: dict[TaskId, tuple[Slots, ...]] = {}
        self._kinds: set[tuple[Slots, ...]] = set()
        self._places: dict[Slots, Place] = {}
        self._priority = priority
        self._wake = wake
        for kind in kinds:
            self._learn(kind)

    def choose(self, tasks: Iterable[TaskRun]) -> list[TaskRun]:
        """Those of the tasks that have passed all their lines; the job stands in line for the others."""
        chosen: list[TaskRun] = []
        full: set[Slots] = set()
        awaited: set[Slots] = set()
        for task in tasks:
            way = self._way(task.plan)
            if not full.isdisjoint(way):
                continue
            refused = self._take(way)
            if refused is None:
                chosen.append(task)
                continue
            full.add(refused)
            awaited.update(way[: way.index(refused) + 1])
            # A job of ten thousand prompts must not look at each of them whenever one ends.
            if not any(full.isdisjoint(kind) for kind in self._kinds):
                break
        self._leave(but=awaited)
        return chosen

    def let_by(self, task: TaskPlan) -> None:
        """The task was called to where it goes: it has a place there, and passes the pool's line alone."""
        way = self._way_of(task)
        self._ways[task.id] = tuple(line for line in way if line.is_pool)

    def give_back(self, task_id: TaskId) -> None:
        """The task has ended: whoever is next may pass."""
        for line in self._ways.pop(task_id):
            line.give_back()

    def _way(self, task: TaskPlan) -> tuple[Slots, ...]:
        way = self._ways.get(task.id)
        if way is None:
            way = self._ways[task.id] = self._way_of(task)
            self._learn(way)
        return way

    def _learn(self, way: tuple[Slots, ...]) -> None:
        if way not in self._kinds:
            self._kinds.add(way)
            for line in way:
                if line not in self._places:
                    self._places[line] = Place(self._priority, self._wake)

    def leave(self) -> None:
        """Leave every line."""
        self._leave(but=())

    def _take(self, way: tuple[Slots, ...]) -> Slots | None:
        """Take a place in every line, or answer the first that has none now.

        Those before it are kept: given back and asked for again, two busy lines could pass a job to and fro for ever.
        """
        for line in way:
            if not line.take(self._places[line]):
                for earlier in way[: way.index(line)]:
                    earlier.keep(self._places[earlier])
                return line
        return None

    def _leave(self, *, but: Collection[Slots]) -> None:
        for line, place in self._places.items():
            if line not in but:
                line.leave(place)
