"""`alt-runner approve` and `reject`: answer tasks that wait for a person."""

from __future__ import annotations

import getpass
from typing import Annotated, Any

import msgspec
import typer

from runner.cli import options, output
from runner.cli.exits import Unusable

Job = options.Job
Task = Annotated[str, typer.Argument(metavar="TASK", help="The task's id.", show_default=False)]
Comment = Annotated[str, typer.Option("--comment", "-c", help="What there is to say.")]
Sender = Annotated[str, typer.Option("--as", metavar="NAME", help="Who answers; without it, your user's name.")]
Data = Annotated[str, typer.Option("--data", metavar="JSON", help="A value for the task's output.")]


def approve(
    job: Job,
    task: Task,
    *,
    comment: Comment = "",
    sender: Sender = "",
    data: Data = "",
    server: options.Server = "",
    as_json: options.Json = False,
) -> None:
    """Approve what a task asks for, now or as soon as it asks. The first answer counts."""
    _answer(job, task, approved=True, comment=comment, sender=sender, data=data, server=server, as_json=as_json)


def reject(
    job: Job,
    task: Task,
    *,
    comment: Comment = "",
    sender: Sender = "",
    data: Data = "",
    server: options.Server = "",
    as_json: options.Json = False,
) -> None:
    """Reject what a task asks for. It fails, unless its parameter `on_reject` is `continue`."""
    _answer(job, task, approved=False, comment=comment, sender=sender, data=data, server=server, as_json=as_json)


def _answer(job: str, task: str, *, server: str, data: str, sender: str, as_json: bool, **answer: Any) -> None:
    try:
        encoded = msgspec.json.encode(msgspec.json.decode(data)) if data else b""
    except msgspec.DecodeError as error:
        raise Unusable(f"--data is not JSON: {error}; quote texts: --data '\"text\"'") from error

    async def signal() -> Any:
        async with options.connected(server) as client:
            return await client.signal(job, task, sender=sender or getpass.getuser(), data_json=encoded, **answer)

    told = options.run(signal())
    if as_json:
        output.json_line(output.message_json(told))
    else:
        output.line(f"{task} of {job} is {'approved' if answer['approved'] else 'rejected'}")
