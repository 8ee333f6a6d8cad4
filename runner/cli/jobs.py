"""`alt-runner get`, `list` and `cancel`."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from runner.cli import options, output
from runner.cli.each import for_each
from runner.cli.exits import Exit

if TYPE_CHECKING:
    pass

_PAGE: Final = 200


def get(
    job: options.Job,
    *,
    tasks: Annotated[bool, typer.Option("--tasks", help="Show every task.")] = False,
    server: options.Server = "",
    as_json: options.Json = False,
) -> None:
    """Show a job as it stands.

    With --tasks --json, each task's output is there too, base64 of JSON.
    """
    found = options.run(_get(server, job, full=tasks))
    if as_json:
        output.json_line(output.message_json(found))
        return
    from runner.cli import tables

    output.show(tables.facts(found))
    if tasks:
        if found.tasks:
            output.show("", tables.tasks(found))
        if found.tasks_left_out:
            told = f"{found.tasks_left_out:,} more tasks are not shown; `alt-runner last show` has all at the end"
            output.notice(told)


async def _get(server: str, job: str, *, full: bool) -> Any:
    async with options.connected(server) as client:
        return await client.get(job, full=full)


def list_jobs(
    *,
    where: Annotated[
        str,
        typer.Option("--filter", "-f", metavar="FILTER", help="Such as 'state = FAILED AND labels.team = \"blue\"'."),
    ] = "",
    limit: Annotated[int, typer.Option("--limit", "-n", min=1, help="At most this many jobs.")] = 20,
    everything: Annotated[bool, typer.Option("--all", "-a", help="All jobs that match.")] = False,
    oldest_first: Annotated[bool, typer.Option("--oldest-first", help="Oldest first, not newest first.")] = False,
    page_token: Annotated[str, typer.Option("--page-token", help="Go on after an earlier list.")] = "",
    follow: Annotated[bool, typer.Option("--watch", "-w", help="Then follow the state changes until Ctrl-C.")] = False,
    server: options.Server = "",
    as_json: options.Json = False,
) -> None:
    """List jobs, newest first.

    Fields of a filter: state, queue, priority, title, alt_id, request_id, labels.KEY, create_time, end_time;
    with = != < <= > >= : (contains) and AND, OR, NOT, parentheses. OR binds tighter than AND. A word by itself is
    looked for in titles.
    """
    order = "create_time" if oldest_first else "create_time desc"
    count = None if everything else limit
    options.run(_list(server, where, order, page_token, count, follow=follow, as_json=as_json))


async def _list(
    server: str, where: str, order: str, token: str, count: int | None, *, follow: bool, as_json: bool
) -> None:
    async with options.connected(server, patience=options.WATCH_PATIENCE if follow else options.PATIENCE) as client:
        changes = client.watch_jobs(where=where)
        if follow:
            # Begun before the list: a change between the two is told twice rather than not at all.
            await anext(changes)
        found: list[Any] = []
        while True:
            size = _PAGE if count is None else min(_PAGE, count - len(found))
            page = await client.list(where=where, order_by=order, page_size=size, page_token=token)
            found += page.jobs
            token = page.next_page_token
            if not token or len(found) == count:
                break
        _tell_list(found, token, where, as_json=as_json)
        if follow:
            async for response in changes:
                for change in response.changes:
                    _tell_change(change, as_json=as_json)


def _tell_list(found: list[Any], token: str, where: str, *, as_json: bool) -> None:
    if as_json:
        output.json_line({"jobs": [output.message_json(job) for job in found], "next_page_token": token})
        return
    if found:
        from runner.cli import tables

        output.show(tables.jobs(found))
    elif where:
        output.notice("no jobs match the filter")
    else:
        output.notice("there are no jobs yet; submit one: alt-runner submit FILE")
    if token:
        output.notice(f"there are more; show them with --all, or --page-token {token}")


def _tell_change(change: Any, *, as_json: bool) -> None:
    if as_json:
        output.json_line(output.message_json(change))
        return
    from runner.cli.sentences import JOB_LOOKS
    from runner.core.events import JobState

    glyph, word, _ = JOB_LOOKS[JobState(change.state)]
    output.line(f"{datetime.now(UTC):%H:%M:%S} {change.job.job_id} {glyph} {word:<19} {change.job.title}")


def cancel(
    job: options.Jobs,
    *,
    reason: Annotated[str, typer.Option("--reason", "-r", help="For the event and the record.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Return when the jobs have ended.")] = False,
    server: options.Server = "",
    as_json: options.Json = False,
) -> None:
    """Cancel jobs.

    Running tasks get their grace time, then are stopped. Harmless to repeat.

    Exits with 0 once the wish is durable, or with --wait once the jobs have ended, however they did.
    """
    raise typer.Exit(options.run(_cancel(server, job, reason, wait=wait, as_json=as_json)))


async def _cancel(server: str, jobs: list[str], reason: str, *, wait: bool, as_json: bool) -> Exit:
    from runner.core.events import JobState

    async with options.connected(server) as client:

        async def cancel(job: str) -> None:
            found = await client.cancel(job, reason=reason)
            if wait and not JobState(found.state).terminal:
                # What came before may be what cannot be read, and the reason for cancelling it.
                async for _ in client.watch(job, after=found.last_sequence):
                    pass
                found = await client.get(job)
            _tell_cancelled(found, as_json=as_json)

        return await for_each(jobs, cancel)


def _tell_cancelled(job: Any, *, as_json: bool) -> None:
    if as_json:
        output.json_line(output.message_json(job))
        return
    from runner.cli.sentences import JOB_LOOKS
    from runner.core.events import JobState

    state = JobState(job.state)
    glyph, word, _ = JOB_LOOKS[state]
    output.line(f"{glyph} {job.job_id} {'has ended: ' + word if state.terminal else 'is being cancelled'}")
