"""Groups of commands that list when no command is named, and names that a shell completes."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from runner.cli import options
from runner.core.errors import RunnerError

#: Seconds that a shell is kept waiting for names.
_PATIENCE = 0.5


class ListsByDefault(TyperGroup):
    """`alt-runner breakers orchestrator-a` is `alt-runner breakers list orchestrator-a`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args:
            listing = args[0] not in self.commands and args[0] not in ctx.help_option_names
        else:
            listing = not ctx.resilient_parsing  # A shell that completes is to be offered the commands.
        if listing:
            args = ["list", *args]
        return super().parse_args(ctx, args)


def endpoint_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """The endpoints of the daemon that begin so; none if no daemon answers at once."""

    async def names() -> list[str]:
        async with options.connected(options.chosen(ctx).server or options.DEFAULT_SERVER, patience=0.0) as client:
            client.timeout = _PATIENCE
            return [endpoint.name for endpoint in await client.endpoints()]

    try:
        return [name for name in options.run(names()) if name.startswith(incomplete)]
    except RunnerError:
        return []
