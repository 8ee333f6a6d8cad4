"""`alt-runner watch`: follow jobs to their end."""

from __future__ import annotations

from typing import Annotated

import typer

from runner.cli import options

After = Annotated[int, typer.Option("--after", min=0, metavar="N", help="Only events after number N.")]
Patience = Annotated[
    float,
    typer.Option("--patience", min=0, metavar="SECONDS", help="How long to try to reach a daemon that went away."),
]


def watch(
    job: options.Jobs,
    *,
    after: After = 0,
    patience: Patience = options.WATCH_PATIENCE,
    server: options.Server = "",
    as_json: options.Json = False,
) -> None:
    """Follow jobs to their end.

    Bars on a terminal, a line for each event in a pipe, an object for each event with --json. Replays what happened
    before. Ctrl-C leaves the jobs running. The exit code tells how they ended, the worst of them.
    """
    from runner.cli import following

    raise typer.Exit(following.to_the_end(job, server, patience=patience, after=after, as_json=as_json))
