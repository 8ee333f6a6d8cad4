"""`alt-runner validate`: everything that is wrong with descriptors, without a daemon."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from runner.cli import descriptors, options, output
from runner.cli.exits import Exit, worst

if TYPE_CHECKING:
    from runner.cli.descriptors import Descriptor
    from runner.core.findings import Finding
    from runner.core.plan import Plan


def validate(files: descriptors.Files, as_json: options.Json = False) -> None:
    """Check descriptors without a daemon.

    Tells all that is wrong with each of them, and where. Exits with 6 if any of
    them would be refused; warnings alone are fine.
    """
    codes = [_validate(descriptor, as_json=as_json) for descriptor in descriptors.read(files)]
    raise typer.Exit(worst(codes))


def _validate(descriptor: Descriptor, *, as_json: bool) -> Exit:
    from runner.core.alt import decode
    from runner.core.errors import InvalidDescriptor

    plan: Plan | None = None
    errors: tuple[Finding, ...] = ()
    try:
        decoded = decode(descriptor.content, content_type=descriptor.content_type)
        plan, warnings = decoded.plan, decoded.warnings
    except InvalidDescriptor as refused:
        errors, warnings = refused.findings, refused.warnings
    if as_json:
        output.json_line(_as_json(descriptor, plan, errors, warnings))
    else:
        _tell(descriptor, plan, errors, warnings)
    return Exit.REJECTED if plan is None else Exit.OK


def _as_json(
    descriptor: Descriptor, plan: Plan | None, errors: tuple[Finding, ...], warnings: tuple[Finding, ...]
) -> dict[str, Any]:
    told: dict[str, Any] = {"file": descriptor.name, "valid": plan is not None}
    if plan is not None:
        told |= {"alt_id": plan.alt_id, "title": plan.title, "dialect": plan.dialect, "version": plan.version}
        told |= {"task_count": len(plan.tasks)}
    return told | {
        "errors": [output.finding_json(finding) for finding in errors],
        "warnings": [output.finding_json(finding) for finding in warnings],
    }


def _tell(
    descriptor: Descriptor, plan: Plan | None, errors: tuple[Finding, ...], warnings: tuple[Finding, ...]
) -> None:
    from rich.text import Text

    from runner.cli import diagnostics
    from runner.reports.standing import harmless

    findings = diagnostics.diagnose(descriptor, errors, warnings)
    count = diagnostics.counted(len(errors), len(warnings))
    if plan is None:
        verdict = Text.assemble(("✗ ", "red"), (descriptor.name, "bold"), f": {count}")
    else:
        tasks = f"{len(plan.tasks)} task{'s' * (len(plan.tasks) > 1)}"
        verdict = Text.assemble(
            ("✓ ", "green"),
            (descriptor.name, "bold"),
            f": “{harmless(plan.title)}”, {tasks}, dialect {plan.dialect} {plan.version}",
            f"; {count}" if count else "",
        )
    output.show(*findings, verdict)
