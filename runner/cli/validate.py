"""`alt-runner validate`: everything that is wrong with descriptors, without a daemon."""

from __future__ import annotations

import typer

from runner.cli import checking, descriptors, options, output
from runner.cli.exits import worst


def validate(files: descriptors.Files, as_json: options.Json = False) -> None:
    """Check descriptors without a daemon.

    Tells all that is wrong with each of them, and where. Exits with 6 if any of
    them would be refused; warnings alone are fine.
    """
    codes = []
    found = descriptors.read(files)
    kinds = options.run(checking.installed_kinds())
    for descriptor in found:
        checked = checking.check(descriptor, kinds)
        codes.append(checked.exit)
        if as_json:
            output.json_line(checking.as_json(checked))
        else:
            output.show(*checking.told(checked))
    raise typer.Exit(worst(codes))
