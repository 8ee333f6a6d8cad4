"""`alt-runner pause` and `resume`."""

from __future__ import annotations

from typing import Any

import typer

from runner.cli import options, output
from runner.cli.each import for_each
from runner.cli.exits import Exit


def pause(job: options.Jobs, *, server: options.Server = "", as_json: options.Json = False) -> None:
    """Pause jobs: nothing new of them starts, what runs may finish.

    Harmless to repeat. Deadlines are not moved by it.

    Exits with 0 once the wish is durable.
    """
    raise typer.Exit(options.run(_steer(server, job, paused=True, as_json=as_json)))


def resume(job: options.Jobs, *, server: options.Server = "", as_json: options.Json = False) -> None:
    """Let paused jobs go on.

    Harmless to repeat, and on jobs that are not paused.

    Exits with 0 once the wish is durable.
    """
    raise typer.Exit(options.run(_steer(server, job, paused=False, as_json=as_json)))


async def _steer(server: str, jobs: list[str], *, paused: bool, as_json: bool) -> Exit:
    async with options.connected(server) as client:
        verb = client.pause if paused else client.resume

        async def steer(job: str) -> None:
            _tell(await verb(job), paused=paused, as_json=as_json)

        return await for_each(jobs, steer)


def _tell(job: Any, *, paused: bool, as_json: bool) -> None:
    if as_json:
        output.json_line(output.message_json(job))
        return
    from runner.cli.sentences import JOB_LOOKS
    from runner.core.events import JobState

    state = JobState(job.state)
    glyph, word, _ = JOB_LOOKS[state]
    told = f"is {word}"
    if paused and state is not JobState.PAUSED:
        told = "is being paused"
    elif not paused and state is JobState.PAUSED:
        told = "is being resumed"
    output.line(f"{glyph} {job.job_id} {told}")
