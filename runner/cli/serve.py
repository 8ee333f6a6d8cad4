"""`alt-runner serve`: the daemon."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.cli import arguments, options, output

if TYPE_CHECKING:
    from runner.daemon import Addresses
    from runner.settings import Settings


SettingsFile = Annotated[
    Path | None,
    typer.Option("--settings", metavar="FILE", help="Settings: TOML, YAML or JSON.", show_default=False),
]
ProfileName = Annotated[str | None, typer.Option("--profile", metavar="dev|prod", help="Which defaults hold.")]
Records = Annotated[str | None, typer.Option("--records", metavar="DIR", help="Where .last records go.")]
Orchestrator = Annotated[
    str | None, typer.Option("--orchestrator", metavar="URL", help="Address of the first AI orchestrator.")
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="PATH=VALUE", help="Any setting, such as engine.max_running_jobs=10; repeatable."),
]


def serve(
    *,
    settings: SettingsFile = None,
    profile: ProfileName = None,
    data_dir: Annotated[str | None, typer.Option("--data-dir", metavar="DIR", help="Where jobs are kept.")] = None,
    records: Records = None,
    grpc_port: Annotated[int | None, typer.Option("--grpc-port", metavar="PORT", help="0 takes a free one.")] = None,
    http_port: Annotated[int | None, typer.Option("--http-port", metavar="PORT", help="0 takes a free one.")] = None,
    log_level: Annotated[
        str | None, typer.Option("--log-level", metavar="LEVEL", help="debug, info, warning or error.")
    ] = None,
    orchestrator: Orchestrator = None,
    set_: Set = None,
    print_settings: Annotated[
        bool, typer.Option("--print-settings", help="Print the settings that would hold, with their sources.")
    ] = False,
    as_json: options.Json = False,
) -> None:
    """Run the daemon.

    SIGTERM or Ctrl-C lets it finish in good order; SIGHUP reads the settings again. Logs go to standard error. With
    --json, one line on standard output tells the addresses once it is ready.
    """
    given = {
        "data_dir": data_dir,
        "records.directory": records,
        "grpc.port": grpc_port,
        "http.port": http_port,
        "log.level": log_level,
        "orchestrator.endpoints.0.url": orchestrator,
    }
    overrides = overridden(given, set_)
    reread = partial(loaded, settings, profile, overrides)
    held = reread()
    if print_settings:
        _print(held, as_json=as_json)
        return
    from runner import daemon

    told = partial(_ready, held, as_json=as_json)
    daemon.run(held, ready=told, reread=reread)


def overridden(flags: Mapping[str, Any], pairs: Sequence[str] | None) -> dict[str, Any]:
    """What flags and `--set` say about settings. Raises Unusable: if one of the pairs is none."""
    given = {name: value for name, value in flags.items() if value is not None}
    return {**given, **arguments.pairs(pairs or (), option="--set")}


def loaded(path: Path | None, profile: str | None, overrides: dict[str, Any]) -> Settings:
    """The settings of a daemon that is started with these flags. Raises InvalidSettings: with every mistake."""
    from runner import settings

    return settings.load(path, overrides=overrides, profile=profile)


def _print(held: Settings, *, as_json: bool) -> None:
    from runner import settings

    if not as_json:
        output.line(settings.describe(held))
        return
    output.json_line(
        {"settings": [{"name": one.name, "value": one.value, "source": one.source} for one in settings.entries(held)]}
    )


def _ready(held: Settings, addresses: Addresses, *, as_json: bool) -> None:
    records = held.record_directory.absolute()
    if as_json:
        output.json_line({"grpc": addresses.grpc, "http": addresses.http, "records": str(records)})
    if sys.stderr is None or not sys.stderr.isatty():  # None where it was closed
        return
    where = "" if addresses.grpc == options.DEFAULT_SERVER else f" --server {addresses.grpc}"
    output.notice(f"  gRPC     {addresses.grpc}")
    if addresses.http is not None:
        output.notice(f"  HTTP     http://{addresses.http}/metrics, /readyz")
    output.notice(f"  records  {records}")
    output.notice(f"  try      alt-runner submit FILE --watch{where}")
