"""`alt-runner breakers`: see circuit breakers, set them by hand, and reset them."""

from __future__ import annotations

import enum
from contextlib import aclosing
from typing import Annotated

import typer

from runner.cli import options
from runner.cli.each import for_each
from runner.cli.exits import Exit
from runner.cli.listing import ListsByDefault, endpoint_names
from runner.core.breaker import BreakerState


class Settable(enum.StrEnum):
    """What can be set by hand."""

    CLOSED = "closed"
    OPEN = "open"
    FORCED_OPEN = "forced-open"
    DISABLED = "disabled"
    METRICS_ONLY = "metrics-only"


Endpoints = Annotated[
    list[str],
    typer.Argument(metavar="ENDPOINT", help="Names of endpoints.", show_default=False, autocompletion=endpoint_names),
]
SomeEndpoints = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[ENDPOINT]...", help="Only these; without any, all.", show_default=False, autocompletion=endpoint_names
    ),
]
Models = Annotated[
    list[str] | None,
    typer.Option("--model", "-m", metavar="MODEL", help="Only of this model; may be repeated. Without it, of all."),
]
Watch = Annotated[bool, typer.Option("--watch", "-w", help="Follow the changes until Ctrl-C.")]


def commands() -> typer.Typer:
    """The commands under `breakers`."""
    told = "See and set the circuit breakers of AI endpoints. Without a command: list."
    app = typer.Typer(cls=ListsByDefault, help=told)
    app.command("list")(list_breakers)
    app.command("set")(set_breakers)
    app.command("reset")(reset)
    return app


def list_breakers(
    endpoint: SomeEndpoints = None,
    *,
    watch: Watch = False,
    server: options.Server = "",
    as_json: options.Json = False,
) -> None:
    """List circuit breakers: how each stands, since when, until when, and how many tasks wait for it.

    With --watch a table that stays up to date on a terminal, a line for each change in a pipe.
    """
    options.run(_list(endpoint or [], server, watch=watch, as_json=as_json))


async def _list(endpoints: list[str], server: str, *, watch: bool, as_json: bool) -> None:
    from runner.cli import fleet

    async with options.connected(server, patience=options.WATCH_PATIENCE if watch else options.PATIENCE) as client:
        if not watch:
            fleet.show(fleet.BREAKERS, await client.breakers(endpoints), server, as_json=as_json)
            return
        notices = fleet.Notices()
        responses = client.watch_breakers(endpoints, figures=fleet.figures(as_json=as_json), on_notice=notices)
        async with aclosing(responses):
            await fleet.follow(fleet.BREAKERS, responses, server, notices, as_json=as_json)


def set_breakers(
    state: Annotated[Settable, typer.Argument(help="What to set.", show_default=False)],
    endpoint: Endpoints,
    *,
    model: Models = None,
    server: options.Server = "",
    as_json: options.Json = False,
) -> None:
    """Set circuit breakers by hand.

    forced-open refuses all calls, disabled and metrics-only let all pass, until they are set again. open lasts as long
    as a first opening does. closed is a reset: what was counted is forgotten. It holds until the daemon ends.
    """
    chosen = BreakerState[state.name]
    raise typer.Exit(options.run(_set(endpoint, chosen, model or [], server, as_json=as_json)))


def reset(
    endpoint: Endpoints,
    *,
    model: Models = None,
    server: options.Server = "",
    as_json: options.Json = False,
) -> None:
    """Close circuit breakers and forget what they counted: the tasks that wait for them try again."""
    raise typer.Exit(options.run(_set(endpoint, BreakerState.CLOSED, model or [], server, as_json=as_json)))


async def _set(endpoints: list[str], state: BreakerState, models: list[str], server: str, *, as_json: bool) -> Exit:
    from runner.cli import fleet, output

    async with options.connected(server) as client:

        async def set_one(endpoint: str) -> None:
            changed = await client.set_breaker(endpoint, state, models=models)
            fleet.told(fleet.BREAKERS, changed, as_json=as_json)
            if not changed and not as_json:
                output.notice(f"{endpoint} has no circuit breakers yet; a model's comes to be with its first call")

        return await for_each(endpoints, set_one)
