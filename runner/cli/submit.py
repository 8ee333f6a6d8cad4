"""`alt-runner submit`: hand descriptors to a daemon, and watch what becomes of them."""

from __future__ import annotations

import enum
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.cli import arguments, descriptors, options, output
from runner.cli.exits import Exit, Unusable, exit_of, worst
from runner.core.errors import RunnerError

if TYPE_CHECKING:
    from runner.cli.descriptors import Descriptor
    from runner.client import Client


class Urgency(enum.StrEnum):
    """What `--priority` takes."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


_MOMENT = "A time with a zone (RFC 3339), or one from now: +90s, +5m, +1h30m, +2d."


def submit(
    files: descriptors.Files,
    *,
    watch: Annotated[
        bool, typer.Option("--watch/--detach", "-w/-d", help="Watch the jobs to their end, or return at once.")
    ] = False,
    queue: Annotated[str, typer.Option("--queue", "-q", help="The queue to enter.")] = "",
    priority: Annotated[
        Urgency | None, typer.Option("--priority", "-p", help="Instead of the descriptor's.", case_sensitive=False)
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", metavar="KEY=VALUE", help="For filters; repeatable.")
    ] = None,
    value: Annotated[
        list[str] | None,
        typer.Option("--input", "-i", metavar="KEY=VALUE", help="For ${inputs.KEY}: JSON, else text; repeatable."),
    ] = None,
    inputs_file: Annotated[
        Path | None, typer.Option("--inputs-file", metavar="FILE", help="Inputs as a JSON object.")
    ] = None,
    not_before: Annotated[str, typer.Option("--not-before", metavar="TIME", help=f"Start no sooner. {_MOMENT}")] = "",
    deadline: Annotated[str, typer.Option("--deadline", metavar="TIME", help=f"Fail at this time. {_MOMENT}")] = "",
    request_id: Annotated[
        str, typer.Option("--request-id", help="Names the submission: sent again, it gives the same job.")
    ] = "",
    fail_fast: Annotated[
        bool | None,
        typer.Option(
            "--fail-fast/--no-fail-fast", help="Whether one failed task cancels the rest.", show_default=False
        ),
    ] = None,
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
    request: dict[str, Any] = {
        "request_id": request_id,
        "queue": queue,
        "labels": arguments.pairs(label or (), option="--label"),
        "not_before": arguments.moment(not_before, now=now, option="--not-before"),
        "deadline": arguments.moment(deadline, now=now, option="--deadline"),
        "inputs_json": arguments.inputs(value or (), inputs_file),
        "fail_fast": fail_fast,
        "validate_only": validate_only,
    }
    if priority is not None:
        request["priority"] = list(Urgency).index(priority) + 1
    found = descriptors.read(files)
    if request_id and len(found) > 1:
        raise Unusable("--request-id names one submission; give it with one file")
    jobs, code = options.run(_submit(server, found, request, quiet=watch, as_json=as_json))
    if watch and jobs:
        code = worst([code, _follow(jobs, server, as_json=as_json)])
    raise typer.Exit(code)


def _follow(jobs: list[str], server: str, *, as_json: bool) -> Exit:
    from runner.cli import following

    followed = following.Followed(jobs, following.audience(as_json=as_json))
    following.run(followed, server, patience=options.WATCH_PATIENCE)
    following.summarise(followed, server, as_json=as_json)
    return followed.exit()


async def _submit(
    server: str, found: list[Descriptor], request: dict[str, Any], *, quiet: bool, as_json: bool
) -> tuple[list[str], Exit]:
    """Submit one after the other, so that the order of the files is that of the jobs; stops if nobody answers."""
    jobs: list[str] = []
    codes = []
    async with options.connected(server) as client:
        for descriptor in found:
            try:
                response = await _sent(client, descriptor, request)
            except RunnerError as error:
                codes.append(exit_of(error))
                _tell_refused(descriptor, error, codes[-1], as_json=as_json)
                if codes[-1] is Exit.UNREACHABLE:
                    break
            else:
                _tell_accepted(descriptor, response, as_json=as_json)
                if not request["validate_only"]:
                    jobs.append(response.job.job_id)
                    if not quiet and not as_json:
                        output.line(jobs[-1])
                        output.notice(f"  watch it: {options.command(f'watch {jobs[-1]}', server)}")
    return jobs, worst(codes)


async def _sent(client: Client, descriptor: Descriptor, request: dict[str, Any]) -> Any:
    return await client.submit(descriptor.content, content_type=descriptor.content_type, **request)


def _tell_accepted(descriptor: Descriptor, response: Any, *, as_json: bool) -> None:
    from runner import frames
    from runner.cli import diagnostics

    warnings = [frames.finding(warning) for warning in response.warnings]
    only_checked = not response.HasField("job")
    if as_json:
        told: dict[str, Any] = {"file": descriptor.name, "warnings": [output.finding_json(one) for one in warnings]}
        if not only_checked:
            told |= {"job": output.message_json(response.job), "replayed": response.replayed}
        output.json_line(told)
        return
    stderr = output.console(stderr=True)
    for text in diagnostics.diagnose(descriptor, (), warnings):
        stderr.print(text)
    if only_checked:
        output.line(f"{descriptor.name}: the daemon would take it")
        return
    job = response.job
    again = ", which was submitted before" if response.replayed else ""
    tasks = f"{job.task_count} task{'s' * (job.task_count != 1)}"
    output.notice(f"{descriptor.name}: accepted “{job.title}”, {tasks}, queue {job.queue}{again}")


def _tell_refused(descriptor: Descriptor, error: RunnerError, code: Exit, *, as_json: bool) -> None:
    from runner.cli import diagnostics
    from runner.client import CallRefused

    findings = list(getattr(error, "findings", ()))
    if as_json:
        told = output.error_json(error, code)
        if findings:
            told["error"]["findings"] = [output.finding_json(finding) for finding in findings]
        output.json_line({"file": descriptor.name, **told})
        return
    stderr = output.console(stderr=True)
    if not isinstance(error, CallRefused) or error.reason != "INVALID_DESCRIPTOR":
        output.notice(f"alt-runner: {descriptor.name}: {error}")
        return
    for text in diagnostics.diagnose(descriptor, findings):
        stderr.print(text)
    count = int(error.metadata.get("findings", len(findings)))
    rest = "" if count == len(findings) else "; see all: alt-runner validate " + descriptor.name
    output.notice(f"alt-runner: {descriptor.name}: refused, {diagnostics.counted(count, 0)}{rest}")
