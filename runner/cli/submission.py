"""What `submit` and `run` share: the options of a submission, and what is told about each file."""

from __future__ import annotations

import enum
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from runner.cli import arguments, output
from runner.cli.exits import Exit, exit_of, worst
from runner.core.errors import InvalidDescriptor, RunnerError

if TYPE_CHECKING:
    from runner.cli.descriptors import Descriptor
    from runner.client import Client
    from runner.core.findings import Finding


class Urgency(enum.StrEnum):
    """What `--priority` takes."""

    LOW = "low"
    MEDIUM = "medium"
    HIGH = "high"
    CRITICAL = "critical"


#: What a daemon calls a wrong descriptor.
_DESCRIPTOR: Final = "INVALID_DESCRIPTOR"
#: And that it refers to an input which was not passed.
_INPUT: Final = "MISSING_INPUT"
MOMENT: Final = "A time with a zone (RFC 3339), or one from now: +90s, +5m, +1h30m, +2d."

Queue = Annotated[str, typer.Option("--queue", "-q", help="The queue to enter.")]
Priority = Annotated[
    Urgency | None, typer.Option("--priority", "-p", help="Instead of the descriptor's.", case_sensitive=False)
]
Labels = Annotated[
    list[str] | None, typer.Option("--label", "-l", metavar="KEY=VALUE", help="For filters; repeatable.")
]
Inputs = Annotated[
    list[str] | None,
    typer.Option("--input", "-i", metavar="KEY=VALUE", help="For ${inputs.KEY}: JSON, else text; repeatable."),
]
InputsFile = Annotated[Path | None, typer.Option("--inputs-file", metavar="FILE", help="Inputs as a JSON object.")]
Deadline = Annotated[str, typer.Option("--deadline", metavar="TIME", help=f"Fail at this time. {MOMENT}")]
FailFast = Annotated[
    bool | None,
    typer.Option("--fail-fast/--no-fail-fast", help="Whether one failed task cancels the rest.", show_default=False),
]
TokenBudget = Annotated[
    int | None,
    typer.Option(
        "--token-budget",
        metavar="N",
        min=1,
        help="Tokens that all AI calls of a job may take together; instead of the descriptor's.",
        show_default=False,
    ),
]


def request(
    *,
    now: datetime,
    queue: str,
    priority: Urgency | None,
    label: Sequence[str] | None,
    value: Sequence[str] | None,
    inputs_file: Path | None,
    deadline: str,
    fail_fast: bool | None,
    token_budget: int | None,
) -> dict[str, Any]:
    """What these options mean to `Client.submit`. Raises Unusable: if one of them means nothing."""
    meant: dict[str, Any] = {
        "queue": queue,
        "labels": arguments.pairs(label or (), option="--label"),
        "deadline": arguments.moment(deadline, now=now, option="--deadline"),
        "inputs_json": arguments.inputs(value or (), inputs_file),
        "fail_fast": fail_fast,
        "token_budget": token_budget or 0,
    }
    return meant if priority is None else meant | {"priority": list(Urgency).index(priority) + 1}


async def submit_all(
    client: Client,
    found: Sequence[Descriptor],
    request: dict[str, Any],
    *,
    accepted: Callable[[str], None] = lambda _: None,
    as_json: bool,
) -> tuple[list[str], Exit]:
    """Submit one after the other, so that the order of the files is that of the jobs; stops if nobody answers.

    Tells about each file; `accepted` is told the id of each job.
    """
    jobs: list[str] = []
    codes = []
    for descriptor in found:
        try:
            response = await client.submit(descriptor.content, content_type=descriptor.content_type, **request)
        except RunnerError as error:
            codes.append(tell_refused(descriptor, error, as_json=as_json))
            if codes[-1] is Exit.UNREACHABLE:
                break
        else:
            _tell_accepted(descriptor, response, as_json=as_json)
            if response.HasField("job"):
                jobs.append(response.job.job_id)
                accepted(jobs[-1])
    return jobs, worst(codes)


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


def tell_refused(descriptor: Descriptor, error: RunnerError, *, as_json: bool) -> Exit:
    """Tell why there is no job of a file. Answers the exit code that this is."""
    code = exit_of(error)
    findings = list(getattr(error, "findings", ()))
    reason = _DESCRIPTOR if isinstance(error, InvalidDescriptor) else getattr(error, "reason", "")
    if as_json:
        told = output.error_json(error, code)
        told["error"]["reason"] = reason
        if findings:
            told["error"]["findings"] = [output.finding_json(finding) for finding in findings]
        output.json_line({"file": descriptor.name, **told})
    elif reason == _DESCRIPTOR:
        _show_findings(descriptor, error, findings)
    else:
        output.notice(f"alt-runner: {descriptor.name}: {error}{_how(findings)}")
    return code


def _how(findings: Sequence[Finding]) -> str:
    """By which options a submission lacks inputs no more."""
    missing = [found.path.removeprefix("inputs.") for found in findings if found.reason == _INPUT]
    return "\n  pass what is missing: " + " ".join(f"--input {name}=VALUE" for name in missing) if missing else ""


def _show_findings(descriptor: Descriptor, error: RunnerError, findings: Sequence[Finding]) -> None:
    from runner.cli import diagnostics

    stderr = output.console(stderr=True)
    warnings = getattr(error, "warnings", ())
    for text in diagnostics.diagnose(descriptor, findings, warnings):
        stderr.print(text)
    # A daemon tells the first of many, and how many there are.
    count = int(getattr(error, "metadata", {}).get("findings", len(findings)))
    rest = "" if count == len(findings) else "; see all: alt-runner validate " + descriptor.name
    output.notice(f"alt-runner: {descriptor.name}: refused, {diagnostics.counted(count, len(warnings))}{rest}")
