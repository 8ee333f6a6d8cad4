"""Rows of the table: both sides of every figure, run by run, and the verdict."""

from __future__ import annotations

import enum
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from scripts.benchmarks.machine import Machine


class Unit(enum.StrEnum):
    """What a figure is measured in."""

    CALLS = "calls/s"
    JOBS = "jobs/s"
    TASKS = "tasks/s"
    SECONDS = "s"
    MILLISECONDS = "ms"
    MICROSECONDS = "µs"


class Side(msgspec.Struct, frozen=True):
    """One side of a figure."""

    name: str
    unit: Unit
    #: One figure for each run, in their order.
    runs: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.runs)

    def __str__(self) -> str:
        return f"{_figure(self.median)} {self.unit}"


class Judged(enum.StrEnum):
    """What a target speaks of."""

    RATIO = "ratio"
    ADDED = "added"
    OURS = "ours"


class Target(msgspec.Struct, frozen=True):
    """A bound of the median over all runs."""

    judged: Judged
    bound: float
    #: Whether more is better.
    least: bool

    def __str__(self) -> str:
        return f"{self.judged} {'≥' if self.least else '≤'} {self.bound:,g}"

    def met(self, figure: float) -> bool:
        return figure >= self.bound if self.least else figure <= self.bound


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the table. Run i of ours and run i of the other side were taken one right after the other."""

    #: `P1`, `P2`, …
    number: str
    what: str
    ours: Side
    other: Side
    target: Target

    @property
    def ratios(self) -> tuple[float, ...]:
        return tuple(ours / other for ours, other in zip(self.ours.runs, self.other.runs, strict=True))

    @property
    def judged(self) -> tuple[float, ...]:
        """What the target speaks of, run by run."""
        match self.target.judged:
            case Judged.RATIO:
                return self.ratios
            case Judged.ADDED:
                return tuple(ours - other for ours, other in zip(self.ours.runs, self.other.runs, strict=True))
            case Judged.OURS:
                return self.ours.runs

    @property
    def met(self) -> bool:
        return self.target.met(statistics.median(self.judged))


def as_table(machine: Machine, rows: Sequence[Row]) -> str:
    """A Markdown table under a few lines that say where it was measured."""
    head = ("", "what", "ours", "the other side", "ratio", "spread", "sync", "target", "met")
    return "\n".join([*machine.lines(), "", *as_rows([head, *(_cells(machine, row) for row in rows)])])


def as_rows(cells: Sequence[Sequence[str]]) -> list[str]:
    """The lines of a Markdown table; the first one is its head."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = [
        "| " + " | ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)) + " |" for line in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return lines


def _cells(machine: Machine, row: Row) -> tuple[str, ...]:
    least, most = min(row.judged), max(row.judged)
    judged = statistics.median(row.judged)
    return (
        row.number,
        row.what,
        str(row.ours),
        f"{row.other.name}: {row.other}",
        _figure(statistics.median(row.ratios)),
        f"{row.target.judged} {_figure(least)}–{_figure(most)}",
        f"{machine.synchronous}, {machine.file_system}",
        str(row.target),
        f"{'yes' if row.met else 'no'} ({_figure(judged)})",
    )


def as_json(machine: Machine, rows: Sequence[Row], outages: Sequence[Mapping[str, Any]] = ()) -> str:
    """Everything that was measured."""
    content = {
        "machine": msgspec.to_builtins(machine),
        "rows": [
            msgspec.to_builtins(row) | {"ratios": row.ratios, "judged": row.judged, "met": row.met} for row in rows
        ],
        "outages": outages,
    }
    return msgspec.json.format(msgspec.json.encode(content)).decode()


def _figure(value: float) -> str:
    """Three significant digits, and no more than are worth reading."""
    decimals = 2 - len(str(int(abs(value)))) + 1 if abs(value) >= 1 else 2
    return f"{value:,.{max(0, decimals)}f}"
