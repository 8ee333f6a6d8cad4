"""A line of tasks that wait, parked, for something that calls under way give back."""

from __future__ import annotations

from collections.abc import Callable

from runner.core.errors import Turn


class Line:
    """Who waits for room in a budget; first come, first called."""

    def __init__(self) -> None:
        self._waiting: dict[_Place, Callable[[], None]] = {}
        #: Whether somebody was called while nobody waited: who is just coming need not wait.
        self._missed = False
        #: How often all were called: who had a place before, and enters it after that, comes at once.
        self._calls_of_all = 0

    def place(self) -> Turn:
        """A place at its end, once it is waited in."""
        return _Place(self, self._calls_of_all)

    def call_next(self) -> None:
        """There is room for one more, perhaps."""
        first = next(iter(self._waiting), None)
        self._missed = first is None
        if first is not None:
            self._waiting.pop(first)()

    def call_all(self) -> None:
        """What they wait for has changed."""
        self._calls_of_all += 1
        waiting, self._waiting = self._waiting, {}
        for come in waiting.values():
            come()

    def _enter(self, place: _Place, come: Callable[[], None]) -> None:
        if place.calls_of_all != self._calls_of_all:
            come()
        elif self._missed:
            self._missed = False
            come()
        else:
            self._waiting[place] = come

    def _leave(self, place: _Place) -> None:
        self._waiting.pop(place, None)


class _Place:
    """A Turn in the line."""

    #: Nobody need be called: room may come without a word.
    patience = 0.0

    def __init__(self, line: Line, calls_of_all: int) -> None:
        self._line = line
        self.calls_of_all = calls_of_all

    def call(self, come: Callable[[], None]) -> None:
        self._line._enter(self, come)  # noqa: SLF001  the two ends of one thing

    def leave(self) -> None:
        self._line._leave(self)  # noqa: SLF001  the two ends of one thing
