"""A descriptor, checked without a daemon, and what is told of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from runner.cli import output
from runner.cli.exits import Exit

if TYPE_CHECKING:
    from rich.text import Text

    from runner.cli.descriptors import Descriptor
    from runner.core.alt import DescriptorLimits, Kinds
    from runner.core.findings import Finding
    from runner.core.plan import Plan


@dataclass(frozen=True)
class Checked:
    """What a descriptor says, and what is wrong or odd about it."""

    descriptor: Descriptor
    #: None if it is refused.
    plan: Plan | None
    errors: tuple[Finding, ...]
    warnings: tuple[Finding, ...]

    @property
    def exit(self) -> Exit:
        return Exit.REJECTED if self.plan is None else Exit.OK


async def installed_kinds() -> Kinds:
    """What the handlers of this installation take; what a daemon's settings allow is not known.

    Raises InvalidSettings: if an installed package's handler cannot be loaded.
    """
    from runner.handlers.checks import kinds_of
    from runner.handlers.registry import open_handlers

    async with open_handlers({}) as handlers:
        return kinds_of(handlers, settings_known=False)


def check(descriptor: Descriptor, kinds: Kinds | None = None, limits: DescriptorLimits | None = None) -> Checked:
    """Decode it, by the default limits or these; with `kinds`, the parameters of its tasks are checked."""
    from runner.core.alt import DescriptorLimits, decode
    from runner.core.alt.parameters import NO_KINDS
    from runner.core.errors import InvalidDescriptor

    try:
        decoded = decode(
            descriptor.content,
            content_type=descriptor.content_type,
            limits=limits or DescriptorLimits(),
            kinds=kinds or NO_KINDS,
        )
    except InvalidDescriptor as refused:
        return Checked(descriptor, None, refused.findings, refused.warnings)
    return Checked(descriptor, decoded.plan, (), decoded.warnings)


def as_json(checked: Checked) -> dict[str, Any]:
    """The verdict, what it is if it is one, and all findings."""
    plan = checked.plan
    told: dict[str, Any] = {"file": checked.descriptor.name, "valid": plan is not None}
    if plan is not None:
        told |= {"alt_id": plan.alt_id, "title": plan.title, "dialect": plan.dialect, "version": plan.version}
        told |= {"task_count": len(plan.tasks)}
    return told | {
        "errors": [output.finding_json(finding) for finding in checked.errors],
        "warnings": [output.finding_json(finding) for finding in checked.warnings],
    }


def told(checked: Checked) -> list[Text]:
    """All findings, and last the verdict."""
    from rich.text import Text

    from runner.cli import diagnostics
    from runner.reports.standing import harmless

    plan, name = checked.plan, checked.descriptor.name
    findings = diagnostics.diagnose(checked.descriptor, checked.errors, checked.warnings)
    count = diagnostics.counted(len(checked.errors), len(checked.warnings))
    if plan is None:
        return [*findings, Text.assemble(("✗ ", "red"), (name, "bold"), f": {count}")]
    tasks = f"{len(plan.tasks)} task{'s' * (len(plan.tasks) > 1)}"
    verdict = Text.assemble(
        ("✓ ", "green"),
        (name, "bold"),
        f": “{harmless(plan.title)}”, {tasks}, dialect {plan.dialect} {plan.version}",
        f"; {count}" if count else "",
    )
    return [*findings, verdict]
