"""`alt-runner endpoints`: see the endpoints of AI orchestrators, drain them, and keep one registered."""

from __future__ import annotations

import signal
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import urlsplit

import typer

from runner.cli import options, output
from runner.cli.breakers import Endpoints, SomeEndpoints, Watch
from runner.cli.each import for_each
from runner.cli.exits import Exit, Unusable
from runner.cli.listing import ListsByDefault

if TYPE_CHECKING:
    import asyncio

#: Seconds that a registration waits for its first daemon.
_PATIENCE: Final = 60.0
#: Seconds after which that is told.
_QUIET: Final = 1.0


def commands() -> typer.Typer:
    """The commands under `endpoints`."""
    told = "See and steer the endpoints of AI orchestrators. Without a command: list."
    app = typer.Typer(cls=ListsByDefault, help=told)
    app.command("list")(list_endpoints)
    app.command("drain")(drain)
    app.command("undrain")(undrain)
    app.command("register")(register)
    return app


def list_endpoints(
    endpoint: SomeEndpoints = None,
    *,
    watch: Watch = False,
    server: options.Server = "",
    as_json: options.Json = False,
) -> None:
    """List endpoints: how each stands, its calls, who waits for it, its models, and how it came to be known.

    With --watch a table that stays up to date on a terminal, a line for each change in a pipe.
    """
    options.run(_list(endpoint or [], server, watch=watch, as_json=as_json))


async def _list(names: list[str], server: str, *, watch: bool, as_json: bool) -> None:
    from runner.cli import fleet

    async with options.connected(server, patience=options.WATCH_PATIENCE if watch else options.PATIENCE) as client:
        if not watch:
            fleet.show(fleet.ENDPOINTS, await client.endpoints(names), server, as_json=as_json)
            return
        notices = fleet.Notices()
        responses = client.watch_endpoints(names, figures=fleet.figures(as_json=as_json), on_notice=notices)
        async with aclosing(responses):
            await fleet.follow(fleet.ENDPOINTS, responses, server, notices, as_json=as_json)


def drain(endpoint: Endpoints, *, server: options.Server = "", as_json: options.Json = False) -> None:
    """Give endpoints no new calls; those under way finish.

    Others of the group take over; where there are none, tasks wait. Harmless to repeat. It holds until the daemon ends.
    """
    raise typer.Exit(options.run(_drain(endpoint, server, draining=True, as_json=as_json)))


def undrain(endpoint: Endpoints, *, server: options.Server = "", as_json: options.Json = False) -> None:
    """Give endpoints calls again. Harmless to repeat."""
    raise typer.Exit(options.run(_drain(endpoint, server, draining=False, as_json=as_json)))


async def _drain(endpoints: list[str], server: str, *, draining: bool, as_json: bool) -> Exit:
    from runner.cli import fleet

    async with options.connected(server) as client:
        verb = client.drain if draining else client.undrain

        async def steer(endpoint: str) -> None:
            fleet.told(fleet.ENDPOINTS, [await verb(endpoint)], as_json=as_json)

        return await for_each(endpoints, steer)


def register(
    url: Annotated[str, typer.Argument(metavar="URL", help="Where it is called.", show_default=False)],
    *,
    group: Annotated[str, typer.Option("--group", "-g", help="The group that it is to stand in for.")],
    name: Annotated[str, typer.Option("--name", "-n", help="Its name; without it, host:port of the URL.")] = "",
    model: Annotated[
        list[str] | None,
        typer.Option("--model", "-m", metavar="MODEL", help="A model that it serves; may be repeated."),
    ] = None,
    weight: Annotated[float, typer.Option("--weight", help="Its share of the group's calls.")] = 1.0,
    lease: Annotated[
        float | None,
        typer.Option("--lease", min=1.0, metavar="SECONDS", help="How long it is known without a heartbeat."),
    ] = None,
    server: options.Server = "",
    as_json: options.Json = False,
) -> None:
    """Register an endpoint, and keep it registered until Ctrl-C or SIGTERM, which take it out again.

    For a server that does not do so itself: run this beside it. A daemon that is away or was restarted is told again.
    The daemon's settings must let the group take registrations.
    """
    wanted = {"group": group, "url": url, "weight": weight, "models": model or [], "lease_seconds": lease}
    raise typer.Exit(options.run(_register(name or _host(url), server, wanted, as_json=as_json)))


def _host(url: str) -> str:
    """Raises Unusable: if the URL has none."""
    host = urlsplit(url).netloc.rpartition("@")[2]
    if not host:
        raise Unusable(f"`{url}` is no URL; write it as http://host:port")
    return host


async def _register(name: str, server: str, wanted: dict[str, Any], *, as_json: bool) -> Exit:
    """Until a signal. It ends the wait for a daemon as well as the registration."""
    import asyncio

    loop = asyncio.get_running_loop()
    registered = asyncio.Event()
    keeping = asyncio.create_task(_keep(name, server, wanted, registered, as_json=as_json))
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, keeping.cancel)
    await asyncio.wait([keeping])
    if not keeping.cancelled():
        keeping.result()
    if not registered.is_set():
        return Exit.INTERRUPTED
    output.notice(f"{name} is not registered any more")
    return Exit.OK


async def _keep(name: str, server: str, wanted: dict[str, Any], registered: asyncio.Event, *, as_json: bool) -> None:
    """Keep it registered until cancelled; `registered` is set once it is."""
    import asyncio

    from runner.cli import fleet

    waits = f"no daemon answers yet; it is asked again for up to {_PATIENCE:g} s"
    impatient = asyncio.get_running_loop().call_later(_QUIET, output.notice, waits)
    try:
        async with (
            options.connected(server, patience=_PATIENCE) as client,
            client.register(name, **wanted, on_notice=output.notice) as endpoint,
        ):
            impatient.cancel()
            registered.set()
            fleet.told(fleet.ENDPOINTS, [endpoint], as_json=as_json)
            output.notice("it stays registered until Ctrl-C")
            await asyncio.Event().wait()
    finally:
        impatient.cancel()
