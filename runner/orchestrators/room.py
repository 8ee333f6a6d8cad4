"""Who waits for an orchestrator, and whose turn it is."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from typing import Final

from runner.core.plan import JobId

#: Seconds for which the place of somebody who was called is kept.
KEEP_SECONDS: Final = 2.0

#: So many of those who wait come to be told something new, in so many seconds.
_RECALLED: Final = 10
_RECALL_SECONDS: Final = 0.1


#: A model, as tasks write it, and whether endpoints of other groups will do.
Wanted = tuple[str, bool]


class Waiter:
    """A place in a Room: of an attempt that stands there, or the Turn of a task that is parked."""

    __slots__ = ("_come", "_room", "job_id", "patience", "request_id", "told_until", "wanted")

    def __init__(self, room: Room, wanted: Wanted, job_id: JobId, request_id: str, patience: float) -> None:
        self.wanted = wanted
        self.job_id = job_id
        self.request_id = request_id
        #: As of a Turn; of no meaning for an attempt that stands there.
        self.patience = patience
        #: As of the Room when it came to stand there.
        self.told_until = 0.0
        self._room = room
        self._come: Callable[[], None] | None = None

    def call(self, come: Callable[[], None]) -> None:
        """Stand in line; `come` is called when it is this one's turn."""
        self._come = come
        self._room.join(self)

    def leave(self) -> None:
        """Leave the line. Harmless for who was called, or never stood there."""
        self._come = None
        self._room.forget(self)

    def come(self) -> None:
        """It is this one's turn."""
        come, self._come = self._come, None
        if come is not None:
            come()


class Room:
    """The line before one model of an orchestrator, or before several that are none of `max_models`.

    Jobs take turns, and within a job who came first: so a job of ten thousand calls and a job of one advance side by
    side. Whoever is called has a place for KEEP_SECONDS, which nobody else takes meanwhile.
    """

    def __init__(self, joined: Callable[[], None]) -> None:
        #: Called when somebody has joined the line.
        self._joined = joined
        self._lines: OrderedDict[JobId, OrderedDict[Waiter, None]] = OrderedDict()
        #: The latest time that those in line are told, monotonic seconds: before it, nobody need come.
        self.told_until = 0.0
        #: Those in line who have not heard of it yet.
        self._untold = 0
        self._recall_at = 0.0
        #: By request: until when its place is kept.
        self._called: OrderedDict[str, float] = OrderedDict()
        self._waiting = 0
        #: What those who wait want, and how many of them.
        self.wanted: Counter[Wanted] = Counter()

    def __len__(self) -> int:
        """Those who wait."""
        return self._waiting

    def join(self, waiter: Waiter) -> None:
        waiter.told_until = self.told_until
        self._lines.setdefault(waiter.job_id, OrderedDict())[waiter] = None
        self._waiting += 1
        self.wanted[waiter.wanted] += 1
        self._joined()

    def forget(self, waiter: Waiter) -> None:
        line = self._lines.get(waiter.job_id)
        if line is not None and waiter in line:
            del line[waiter]
            self._left(waiter)
            if not line:
                del self._lines[waiter.job_id]

    def expected(self, now: float) -> int:
        """Those who were called and have not come yet."""
        while self._called and next(iter(self._called.values())) <= now:
            self._called.popitem(last=False)
        return len(self._called)

    @property
    def next(self) -> Waiter:
        """Who is next. There is somebody."""
        return next(iter(next(iter(self._lines.values()))))

    def pass_by(self) -> None:
        """The next job's turn is later. There is one."""
        self._lines.move_to_end(next(iter(self._lines)))

    def call(self, now: float) -> None:
        """Call who is next. There is somebody."""
        waiter = self._first()
        self._called.pop(waiter.request_id, None)
        self._called[waiter.request_id] = now + KEEP_SECONDS
        waiter.come()

    def tell(self, until: float) -> None:
        """There is something new to be told to everybody who waits now; `recall` lets them come for it."""
        self.told_until, self._untold = until, self._waiting

    def recall(self, now: float) -> None:
        """Let a few of those come, though there is no place, who have not heard yet what there is to be told.

        Each costs an attempt of its job, if a short one: all at once would hold up the whole daemon.
        """
        if now < self._recall_at:
            return
        self._recall_at = now + _RECALL_SECONDS
        recalled = 0
        for _ in range(len(self._lines)):
            if recalled == _RECALLED or not self._untold:
                return
            # Who has come for it stands at the end of his job's line.
            if self.next.told_until < self.told_until:
                self._first().come()
                recalled += 1
            else:
                self.pass_by()

    def arrived(self, request_id: str, now: float) -> bool:
        """Somebody came. True if this one was called, and its place is still kept."""
        return self._called.pop(request_id, 0.0) > now

    def _first(self) -> Waiter:
        """Who is next leaves the line, and his job's turn is over."""
        job_id, line = self._lines.popitem(last=False)
        waiter, _ = line.popitem(last=False)
        if line:
            self._lines[job_id] = line
        self._left(waiter)
        return waiter

    def _left(self, waiter: Waiter) -> None:
        self._waiting -= 1
        if waiter.told_until < self.told_until and self._untold:
            self._untold -= 1
        self.wanted[waiter.wanted] -= 1
        if not self.wanted[waiter.wanted]:
            del self.wanted[waiter.wanted]
