"""Task kind `delay`: waits, and tells how far it is."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

import anyio
import msgspec

from runner.core.alt import ParameterProblem
from runner.handlers.parameters import invalid, read
from runner.ports import Attempt, Outcome

#: Reports over the whole wait, at most; and seconds between two of them, at least and at most.
_REPORTS: Final = 20
_SHORTEST_STEP: Final = 0.5
_LONGEST_STEP: Final = 5.0

_Duration = Annotated[float, msgspec.Meta(ge=0, le=10 * 365 * 86_400)]


class DelayParameters(msgspec.Struct, frozen=True, kw_only=True):
    """`seconds`, or under the name that workflow files use, `duration_seconds`."""

    #: How long to wait. Required, under one of its names.
    seconds: _Duration | None = None
    #: The same.
    duration_seconds: _Duration | None = None


class Delay:
    """A Handler; its output is `{"seconds": …}`."""

    #: It holds nothing but a timer, and jobs that wait for days must not keep others from working.
    needs_slot: Final = False
    parameters: Final = DelayParameters

    def check(self, parameters: Mapping[str, Any]) -> Iterator[ParameterProblem]:
        if "seconds" not in parameters and "duration_seconds" not in parameters:
            yield ParameterProblem(name="seconds", message="`seconds` is required.", missing=True)

    async def run(self, attempt: Attempt) -> Outcome:
        parameters = read(attempt.parameters, DelayParameters)
        seconds = parameters.duration_seconds if parameters.seconds is None else parameters.seconds
        if seconds is None:
            raise invalid("seconds", "is missing")
        await _wait(attempt, seconds)
        return Outcome(output={"seconds": seconds})


async def _wait(attempt: Attempt, seconds: float) -> None:
    began = anyio.current_time()
    step = min(max(seconds / _REPORTS, _SHORTEST_STEP), _LONGEST_STEP)
    while (left := began + seconds - anyio.current_time()) > 0:
        await anyio.sleep(min(step, left))
        attempt.progress(min(1.0, (anyio.current_time() - began) / seconds))
    await anyio.lowlevel.checkpoint()
