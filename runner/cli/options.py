"""The options that every command shares. They may stand before the command or after it."""

from __future__ import annotations

import re
from collections.abc import Coroutine
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

if TYPE_CHECKING:
    from runner.client import Client

Result = TypeVar("Result")

DEFAULT_SERVER: Final = "127.0.0.1:50051"
SERVER_VARIABLE: Final = "RUNNER_ADDRESS"
#: Seconds that a command waits for a daemon that does not answer, and that a watch waits for one that went away.
PATIENCE: Final = 3.0
WATCH_PATIENCE: Final = 60.0

_SERVER: Final = re.compile(r"(?:\w+://)?(?P<host>\[[0-9A-Fa-f:]+\]|[^\s:/]+)(?::(?P<port>\d{1,5}))?/?")


@dataclass
class Chosen:
    """What was said so far, before and after the command's name."""

    server: str = ""
    json: bool = False


def chosen(context: typer.Context) -> Chosen:
    """What was said about the whole command line."""
    return context.find_root().ensure_object(Chosen)


def _server(context: typer.Context, value: str | None) -> str:
    said = chosen(context)
    said.server = address(value) if value else said.server
    return said.server or DEFAULT_SERVER


def _json(context: typer.Context, value: bool) -> bool:
    said = chosen(context)
    said.json = said.json or value
    return said.json


def address(text: str) -> str:
    """`host:port` of what a person wrote.

    Raises BadParameter: if that is no address.
    """
    found = _SERVER.fullmatch(text.strip())
    if found is None:
        raise typer.BadParameter(f"`{text}` is no address; write it as host:port, such as {DEFAULT_SERVER}")
    return f"{found['host']}:{found['port'] or '50051'}"


_ABOUT_SERVER: Final = f"The daemon's address, host:port; without it ${SERVER_VARIABLE}, or {DEFAULT_SERVER}."
_ABOUT_JSON: Final = "Print JSON, one object a line, for scripts."

Server = Annotated[
    str, typer.Option("--server", "-s", metavar="HOST:PORT", help=_ABOUT_SERVER, callback=_server, show_default=False)
]
RootServer = Annotated[
    str,
    typer.Option(
        "--server",
        "-s",
        metavar="HOST:PORT",
        help=_ABOUT_SERVER,
        callback=_server,
        show_default=False,
        envvar=SERVER_VARIABLE,
        show_envvar=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help=_ABOUT_JSON, callback=_json, show_default=False)]
Jobs = Annotated[list[str], typer.Argument(metavar="JOB", help="Ids of jobs.", show_default=False)]
Job = Annotated[str, typer.Argument(metavar="JOB", help="The job's id.", show_default=False)]


def run(main: Coroutine[Any, Any, Result]) -> Result:
    """Run to the end. Ctrl-C cancels it, then raises KeyboardInterrupt."""
    import asyncio

    return asyncio.run(main)


def command(words: str, server: str) -> str:
    """A command line for the same daemon, to be copied."""
    return f"alt-runner {words}" + ("" if server == DEFAULT_SERVER else f" --server {server}")


def connected(server: str, *, patience: float = PATIENCE) -> Client:
    """A client, to be opened with `async with`."""
    from runner.client import Client

    return Client(server, patience=patience)
