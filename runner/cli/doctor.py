"""`alt-runner doctor`: what is wrong with a setup, and what to do about it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from runner.cli import options, output, serve
from runner.cli.exits import Exit
from runner.core.errors import InvalidSettings

if TYPE_CHECKING:
    from runner.cli.checks import Check


def doctor(
    *,
    context: typer.Context,
    settings: Annotated[
        Path | None, typer.Option("--settings", metavar="FILE", help="As for serve.", show_default=False)
    ] = None,
    profile: Annotated[str | None, typer.Option("--profile", metavar="dev|prod", help="As for serve.")] = None,
    data_dir: Annotated[str | None, typer.Option("--data-dir", metavar="DIR", help="As for serve.")] = None,
    grpc_port: Annotated[int | None, typer.Option("--grpc-port", metavar="PORT", help="As for serve.")] = None,
    http_port: Annotated[int | None, typer.Option("--http-port", metavar="PORT", help="As for serve.")] = None,
    orchestrator: Annotated[str | None, typer.Option("--orchestrator", metavar="URL", help="As for serve.")] = None,
    set_: Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="As for serve.")] = None,
    server: options.Server = "",  # noqa: ARG001 -- read from `chosen`, which tells whether it was given
    as_json: options.Json = False,
) -> None:
    """Check a setup, and say what to do.

    Looks at settings, ports, disk, ledger, records, orchestrators, clock, limits and permissions.
    Works with or without a daemon; with --server there must be one. Changes nothing. Exits with 1 if a check fails.
    """
    given = {
        "data_dir": data_dir,
        "grpc.port": grpc_port,
        "http.port": http_port,
        "orchestrator.endpoints.0.url": orchestrator,
    }
    overrides = serve.overridden(given, set_)
    checks = _checks(settings, profile, overrides, options.chosen(context).server)
    failed = sum(check.verdict.value == "fail" for check in checks)
    if as_json:
        shown = [{name: str(getattr(check, name)) for name in check.__struct_fields__} for check in checks]
        output.json_line({"ok": not failed, "checks": shown})
    else:
        _tell(checks, failed)
    raise typer.Exit(Exit.ERROR if failed else Exit.OK)


def _checks(path: Path | None, profile: str | None, overrides: dict[str, str], server: str) -> list[Check]:
    from runner.cli import checks, reach

    try:
        held = serve.loaded(path, profile, overrides)
    except InvalidSettings as error:
        return [checks.fail("settings", problem, "correct it; the other checks need it") for problem in error.problems]
    told = f"profile {held.profile.value}, {len(held.origins)} set; see all: alt-runner serve --print-settings"
    return [
        checks.ok("settings", told),
        *options.run(reach.network(held, server or None)),
        *checks.machine(held),
        *checks.secrets(held),
    ]


def _tell(checks: Sequence[Check], failed: int) -> None:
    from rich.table import Table
    from rich.text import Text

    from runner.cli.checks import Verdict

    looks = {Verdict.OK: ("✓", "green"), Verdict.WARN: ("!", "yellow"), Verdict.FAIL: ("✗", "red")}
    grid = Table.grid(padding=(0, 1))
    for check in checks:
        glyph, colour = looks[check.verdict]
        told = Text(check.detail)
        if check.advice:
            told.append(f"\n→ {check.advice}", colour)
        grid.add_row(Text(glyph, f"bold {colour}"), Text(check.name, "bold"), told)
    output.show(grid)
    warned = sum(check.verdict is Verdict.WARN for check in checks)
    verdict = f"{failed} of {len(checks)} checks failed" if failed else f"all {len(checks)} checks passed"
    output.notice(verdict + (f", {warned} with a warning" if warned else ""))
