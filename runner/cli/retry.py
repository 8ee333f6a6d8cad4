"""`alt-runner retry`: run jobs that have ended once more."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from runner.cli import options, output
from runner.cli.each import for_each
from runner.cli.exits import Exit, worst
from runner.core.errors import RunnerError


def retry(
    job: options.Jobs,
    *,
    whole: Annotated[bool, typer.Option("--whole", help="Run every task again, also those that succeeded.")] = False,
    watch: Annotated[
        bool, typer.Option("--watch/--detach", "-w/-d", help="Watch the new jobs to their end, or return at once.")
    ] = False,
    server: options.Server = "",
    as_json: options.Json = False,
) -> None:
    """Run jobs that have ended once more, as new jobs, and print their ids.

    Only what did not succeed runs again: tasks that did keep their outputs.
    """
    jobs, code = options.run(_retry(server, job, whole=whole, quiet=watch, as_json=as_json))
    if watch and jobs:
        from runner.cli import following

        ends = following.to_the_end(jobs, server, patience=options.WATCH_PATIENCE, as_json=as_json)
        code = worst([code, ends])
    raise typer.Exit(code)


async def _retry(server: str, jobs: list[str], *, whole: bool, quiet: bool, as_json: bool) -> tuple[list[str], Exit]:
    made = []
    async with options.connected(server) as client:

        async def once_more(job: str) -> None:
            response = await client.retry(job, whole=whole)
            made.append(response.job.job_id)
            _tell(job, response, server, quiet=quiet, as_json=as_json)

        return made, await for_each(jobs, once_more, hint=_hint)


def _hint(error: RunnerError) -> str:
    return " (--whole)" if getattr(error, "reason", "") in {"NOTHING_TO_RETRY", "JOB_UNREADABLE"} else ""


def _tell(earlier: str, response: Any, server: str, *, quiet: bool, as_json: bool) -> None:
    job = response.job.job_id
    if as_json:
        output.json_line({"retry_of": earlier, "job": output.message_json(response.job)})
        return
    output.notice(f"{earlier}: runs once more as {job}")
    if not quiet:
        output.line(job)
        output.notice(f"  watch it: {options.command(f'watch {job}', server)}")
