"""Findings about a descriptor, shown as a compiler shows them: the place, the line, a caret, what was meant."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rich.text import Text

    from runner.cli.descriptors import Descriptor
    from runner.core.findings import Finding

#: Columns of the source shown around the place of a finding.
_WINDOW: Final = 96


def diagnose(descriptor: Descriptor, errors: Iterable[Finding], warnings: Iterable[Finding] = ()) -> list[Text]:
    """One text for each finding, in the order of the file."""
    lines = descriptor.content.decode("utf-8", "replace").split("\n")
    told = [(finding, "error") for finding in errors] + [(finding, "warning") for finding in warnings]
    told.sort(key=lambda entry: (entry[0].line, entry[0].column))
    return [_diagnosis(descriptor.name, lines, finding, severity) for finding, severity in told]


def _diagnosis(name: str, lines: list[str], finding: Finding, severity: str) -> Text:
    from rich.text import Text

    from runner.reports.standing import harmless

    colour = "bold red" if severity == "error" else "bold yellow"
    place = f"{name}:{finding.line}:{finding.column}" if finding.line else name
    text = Text.assemble(
        (f"{place}: ", "bold"), (f"{severity}: ", colour), harmless(finding.message), (f" [{finding.reason}]", "dim")
    )
    if 1 <= finding.line <= len(lines):
        shown, caret = _excerpt(lines[finding.line - 1].rstrip("\r"), finding.column)
        margin = f"{finding.line:>5} "
        text.append(f"\n{margin}│ ", "blue").append(shown)
        text.append(f"\n{' ' * len(margin)}│ ", "blue").append(f"{' ' * caret}^", colour)
    hints = [f"at {finding.path}"] if finding.path else []
    if finding.suggestion:
        hints.append(f"did you mean `{finding.suggestion}`?")
    if hints:
        text.append("\n      = ", "blue").append(harmless("; ".join(hints)))
    return text


def _excerpt(line: str, column: int) -> tuple[str, int]:
    """The part of a line around a column, printable, and the cells before that column."""
    from rich.cells import cell_len

    from runner.reports.standing import harmless

    place = min(max(0, column - 1), len(line))
    start = 0 if len(line) <= _WINDOW else max(0, min(place - _WINDOW // 2, len(line) - _WINDOW))
    end = start + _WINDOW
    before = ("…" if start else "") + harmless(line[start:place].replace("\t", " "))
    after = harmless(line[place:end].replace("\t", " ")) + ("…" if end < len(line) else "")
    return before + after, cell_len(before)


def counted(errors: int, warnings: int) -> str:
    """`2 errors, 1 warning`; empty where there is neither."""
    parts = [(errors, "error"), (warnings, "warning")]
    return ", ".join(f"{number} {word}{'s' * (number > 1)}" for number, word in parts if number)
