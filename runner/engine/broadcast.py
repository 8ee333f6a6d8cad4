"""Replay, then live. A slow watcher delays nobody: there is no queue for each watcher, only one tail for each job.

A watcher is a position. It takes what the tail of its job holds after that position, as one response however many
frames that is; if the tail has moved past it, it reads on from the ledger. So a watcher that does not read costs
nothing, and a thousand that do share every byte.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import anyio
import msgspec

from runner import frames
from runner.core.errors import Draining, InvalidRequest
from runner.core.findings import Finding
from runner.core.job import Frame
from runner.core.plan import JobId, Sequence
from runner.ports import Ledger, Observer

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Bytes of events in one response, a little under the 1 MiB that is promised: a frame may overshoot it.
RESPONSE_BYTES = 512 * 1024


class CaughtUp(msgspec.Struct, frozen=True):
    """The replay is over; what follows happens now."""

    last_sequence: Sequence


class Idle(msgspec.Struct, frozen=True):
    """Nothing happened for a while."""


class _Tail:
    """The newest frames of one job that is being watched here."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._frames: deque[Frame] = deque()
        self._size = 0
        self.changed = anyio.Event()
        self.watchers = 0

    def append(self, frame: Frame) -> None:
        if self._frames and frame.first != self._frames[-1].last + 1:
            # Committed and never shown: its execution was dropped in between, or another daemon had the job meanwhile.
            self._frames.clear()
            self._size = 0
        self._frames.append(frame)
        self._size += len(frame.data)
        while self._size > self._limit and len(self._frames) > 1:
            self._size -= len(self._frames.popleft().data)
        self.wake()

    def wake(self) -> None:
        self.changed.set()
        self.changed = anyio.Event()

    def after(self, position: Sequence) -> list[Frame]:
        """Frames that follow on from a position, about a response's worth; none if the tail does not reach back."""
        if not self._frames or self._frames[0].first > position + 1:
            return []
        taken: list[Frame] = []
        size = 0
        for frame in self._frames:
            if frame.last <= position:
                continue
            size += len(frame.data)
            if taken and size > RESPONSE_BYTES:
                break
            taken.append(frame)
        return taken

    def newest(self) -> Sequence:
        return self._frames[-1].last if self._frames else 0


class Broadcast:
    """Committed frames, to everyone who watches."""

    def __init__(self, ledger: Ledger, observer: Observer, *, tail_bytes: int = 1024 * 1024) -> None:
        self._ledger = ledger
        self._observer = observer
        self._tail_bytes = tail_bytes
        self._tails: dict[JobId, _Tail] = {}
        self._closed = False

    def publish(self, job_id: JobId, frame: Frame) -> None:
        """Show a frame. Only ever called after its commit, and in the order of commits."""
        tail = self._tails.get(job_id)
        if tail is not None:
            tail.append(frame)

    def close(self) -> None:
        """Send every watcher away with Draining."""
        self._closed = True
        for tail in self._tails.values():
            tail.wake()

    async def follow(
        self, job_id: JobId, *, after: Sequence, heartbeat: float
    ) -> AsyncGenerator[Frame | CaughtUp | Idle, None]:
        """Replay the frames after `after`, then follow the job until it ends.

        Frames are committed ones only, in order, without gaps or doubles, joined where several are at hand. One
        CaughtUp separates replay from live; Idle comes after every `heartbeat` seconds without a frame. Ends after
        the terminal frame; at once if `after` is the terminal event already.

        Raises JobNotFound: if no such job was accepted or it was pruned.
        Raises InvalidRequest: if the job has no event number `after`.
        Raises Draining: when the daemon shuts down.
        Closing the generator frees everything it held.
        """
        with self._tail(job_id) as tail:
            position = after
            #: Whether the ledger may hold frames that the tail does not.
            behind, announced = True, False
            while True:
                # Taken before looking: a frame that comes while we read the ledger must wake us.
                changed = tail.changed
                found = tail.after(position) or await self._missed(job_id, tail, position, behind=behind)
                if found:
                    joined = frames.trim(frames.join(found), after=position)
                    position = joined.last
                    self._observer.frames_sent(len(found), len(joined.data))
                    yield joined
                    if joined.terminal:
                        return
                    continue
                behind = False
                if not announced:
                    # Whoever was sent a frame knows: the last one would have been the terminal one.
                    if position == after and await self._over(job_id, position):
                        return
                    announced = True
                    yield CaughtUp(position)
                if self._closed:
                    raise Draining
                with anyio.move_on_after(heartbeat) as idle:
                    await changed.wait()
                if idle.cancelled_caught:
                    # Notices can be lost where another daemon runs the job: look before saying that nothing happened.
                    behind = bool(await self._ledger.frames(job_id, after=position, max_bytes=1))
                    if not behind:
                        yield Idle()

    @contextmanager
    def _tail(self, job_id: JobId) -> Iterator[_Tail]:
        tail = self._tails.get(job_id)
        if tail is None:
            tail = self._tails[job_id] = _Tail(self._tail_bytes)
        tail.watchers += 1
        self._observer.watchers(+1)
        try:
            yield tail
        finally:
            tail.watchers -= 1
            self._observer.watchers(-1)
            if not tail.watchers:
                del self._tails[job_id]

    async def _missed(self, job_id: JobId, tail: _Tail, position: Sequence, *, behind: bool) -> list[Frame]:
        """What only the ledger has: all of it at first, and whatever the tail has let go since."""
        if not behind and tail.newest() <= position:
            return []
        return await self._ledger.frames(job_id, after=position, max_bytes=RESPONSE_BYTES)

    async def _over(self, job_id: JobId, position: Sequence) -> bool:
        job = await self._ledger.job(job_id)
        if position > job.last_sequence:
            message = f"job `{job_id}` has {job.last_sequence} events so far; there is no number {position}"
            raise InvalidRequest(Finding("OUT_OF_RANGE", "after_sequence", message))
        return job.state.terminal and position == job.last_sequence
