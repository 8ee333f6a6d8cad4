"""`alt-runner validate`: everything that is wrong with descriptors, without a daemon."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from runner.cli import arguments, checking, descriptors, options, output, serve
from runner.cli.exits import worst

if TYPE_CHECKING:
    from runner.core.alt import DescriptorLimits, Kinds


def validate(
    files: descriptors.Files,
    *,
    settings: serve.SettingsFile = None,
    profile: serve.ProfileName = None,
    set_: serve.Set = None,
    as_json: options.Json = False,
) -> None:
    """Check descriptors without a daemon.

    Tells all that is wrong with each of them, and where. Exits with 6 if any of
    them would be refused; warnings alone are fine. With settings it checks as a
    daemon that has them, and what they do not allow is an error.
    """
    codes = []
    found = descriptors.read(files)
    told = settings is not None or profile is not None or set_
    limits, kinds = _of_daemon(settings, profile, set_ or ()) if told else _of_installation()
    for descriptor in found:
        checked = checking.check(descriptor, kinds, limits)
        codes.append(checked.exit)
        if as_json:
            output.json_line(checking.as_json(checked))
        else:
            output.show(*checking.told(checked))
    raise typer.Exit(worst(codes))


def _of_installation() -> tuple[DescriptorLimits | None, Kinds]:
    return None, options.run(checking.installed_kinds())


def _of_daemon(path: Path | None, profile: str | None, entries: Sequence[str]) -> tuple[DescriptorLimits, Kinds]:
    """Of one that is started with these flags, its environment and its file in this directory included."""
    from runner.daemon import kinds_known

    held = serve.loaded(path, profile, arguments.pairs(entries, option="--set"))
    return held.descriptors, options.run(kinds_known(held))
