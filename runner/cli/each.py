"""One command for several jobs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable

from runner.cli import output
from runner.cli.exits import Exit, exit_of, worst
from runner.core.errors import RunnerError


async def for_each(
    jobs: Iterable[str], act: Callable[[str], Awaitable[None]], *, hint: Callable[[RunnerError], str] = lambda _: ""
) -> Exit:
    """Act on each job. One that is refused is told of and keeps no other from it; a daemon that is away ends it."""
    codes = []
    for job in jobs:
        try:
            await act(job)
            codes.append(Exit.OK)
        except RunnerError as error:
            codes.append(exit_of(error))
            output.notice(f"alt-runner: {error}{hint(error)}")
            if codes[-1] is Exit.UNREACHABLE:
                break
    return worst(codes)
