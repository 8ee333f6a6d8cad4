"""`alt-runner submit`: hand descriptors to a daemon, and watch what becomes of them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.cli import arguments, descriptors, options, output, submission
from runner.cli.exits import Exit, Unusable, worst

if TYPE_CHECKING:
    from runner.cli.descriptors import Descriptor


def submit(
    files: descriptors.Files,
    *,
    watch: Annotated[
        bool, typer.Option("--watch/--detach", "-w/-d", help="Watch the jobs to their end, or return at once.")
    ] = False,
    queue: submission.Queue = "",
    priority: submission.Priority = None,
    label: submission.Labels = None,
    value: submission.Inputs = None,
    inputs_file: submission.InputsFile = None,
    not_before: Annotated[
        str, typer.Option("--not-before", metavar="TIME", help=f"Start no sooner. {submission.MOMENT}")
    ] = "",
    deadline: submission.Deadline = "",
    request_id: Annotated[
        str, typer.Option("--request-id", help="Names the submission: sent again, it gives the same job.")
    ] = "",
    fail_fast: submission.FailFast = None,
    token_budget: submission.TokenBudget = None,
    validate_only: Annotated[
        bool, typer.Option("--validate-only", help="Let the daemon check the files; accept nothing.")
    ] = False,
    server: options.Server = "",
    as_json: options.Json = False,
) -> None:
    """Submit descriptors as jobs, and print their ids.

    A job is on the daemon's disk once its id is printed. Files that are refused do not hold up the others.
    """
    now = datetime.now(UTC)
    request = submission.request(
        now=now,
        queue=queue,
        priority=priority,
        label=label,
        value=value,
        inputs_file=inputs_file,
        deadline=deadline,
        fail_fast=fail_fast,
        token_budget=token_budget,
    )
    request |= {
        "request_id": request_id,
        "not_before": arguments.moment(not_before, now=now, option="--not-before"),
        "validate_only": validate_only,
    }
    found = descriptors.read(files)
    if request_id and len(found) > 1:
        raise Unusable("--request-id names one submission; give it with one file")
    jobs, code = options.run(_submit(server, found, request, quiet=watch or as_json, as_json=as_json))
    if watch and jobs:
        from runner.cli import following

        ends = following.to_the_end(jobs, server, patience=options.WATCH_PATIENCE, as_json=as_json)
        code = worst([code, ends])
    raise typer.Exit(code)


async def _submit(
    server: str, found: list[Descriptor], request: dict[str, Any], *, quiet: bool, as_json: bool
) -> tuple[list[str], Exit]:
    def accepted(job: str) -> None:
        if not quiet:
            output.line(job)
            output.notice(f"  watch it: {options.command(f'watch {job}', server)}")

    async with options.connected(server) as client:
        return await submission.submit_all(client, found, request, accepted=accepted, as_json=as_json)
