"""A second call, at another endpoint, for a call that takes longer than most: the first answer wins.

Source: Dean and Barroso, "The Tail at Scale", 2013: hedged after the 95th percentile, a twentieth more calls cut the
tail to that of the better of two.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

import anyio

from runner.core.errors import AttemptError, AttemptPutOff
from runner.core.prompt import Answer
from runner.orchestrators.call import Call

OnText = Callable[[str], Awaitable[None]]


async def hedged(calls: list[Call], second: Callable[[], Call | None], after: float, on_text: OnText) -> Answer:
    """Make the call that is in `calls`, and a second one, put there too, if it takes longer than `after` seconds.

    The second one is made once its prompt's `reserve` allows it. At the end, each call that was made knows its usage.

    Whichever gives text first goes on alone, so that watchers never see two answers mixed. A call that fails changes
    nothing as long as the other one goes on.

    Raises AttemptError: of the call that failed first, if none was answered; of the one that streamed, if it broke off.
    """
    race = _Race(on_text)
    try:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(race.run, calls[0])
            with anyio.move_on_after(after):
                await race.decided.wait()
            if not race.decided.is_set() and (other := second()) is not None:
                calls.append(other)
                tasks.start_soon(race.join, other)
    finally:
        # One that was cancelled before it could begin.
        for call in calls:
            call.give_up()
    return race.result()


class _Race:
    """Calls side by side."""

    def __init__(self, on_text: OnText) -> None:
        #: Set once a call gave text, or has ended.
        self.decided = anyio.Event()
        self._on_text = on_text
        self._scopes: dict[Call, anyio.CancelScope] = {}
        self._winner: Call | None = None
        self._answer: Answer | None = None
        self._errors: list[AttemptError] = []

    async def run(self, call: Call) -> None:
        if self._winner is not None:
            # Decided between its start and its first step.
            return
        with anyio.CancelScope() as scope:
            self._scopes[call] = scope
            try:
                answer = await call.make(partial(self._text, call))
            except AttemptError as error:
                if self._may_win(call):
                    self._errors.append(error)
            else:
                if self._win(call):
                    self._answer = answer
        self.decided.set()

    async def join(self, call: Call) -> None:
        """Run as a second call, if the tokens for it are to be had before the first one has decided the race."""
        with anyio.CancelScope() as scope:
            self._scopes[call] = scope
            if self._winner is not None or not await _afforded(call):
                call.give_up()
                return
        await self.run(call)

    def result(self) -> Answer:
        if self._answer is not None:
            return self._answer
        raise self._errors[0]

    async def _text(self, call: Call, text: str) -> None:
        # One that lost may have had a piece at hand in the instant before it was cancelled.
        if self._win(call):
            await self._on_text(text)

    def _may_win(self, call: Call) -> bool:
        return self._winner is None or self._winner is call

    def _win(self, call: Call) -> bool:
        if self._winner is None:
            self._winner = call
            self._errors.clear()
            self.decided.set()
            for other, scope in self._scopes.items():
                if other is not call:
                    scope.cancel()
        return self._winner is call


async def _afforded(call: Call) -> bool:
    """Whether budgets have the tokens for a second call; if not, the first one goes on alone."""
    if call.prompt.reserve is None:
        return True
    try:
        await call.prompt.reserve()
    except AttemptError as refusal:
        if isinstance(refusal, AttemptPutOff) and refusal.turn is not None:
            refusal.turn.leave()
        return False
    return True
