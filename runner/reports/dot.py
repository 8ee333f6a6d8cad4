"""A graph of tasks for Graphviz: `alt-runner last show --dot FILE | dot -Tsvg`."""

from __future__ import annotations

from typing import Final

from runner.core.record import DependencyType
from runner.reports.sketch import Sketch
from runner.reports.standing import Standing, harmless

_FILL: Final = {
    Standing.COMPLETED: "#d3f3df",
    Standing.FAILED: "#fbd5d5",
    Standing.TIMEOUT: "#fdecc8",
    Standing.CANCELLED: "#e7e8ec",
    Standing.SKIPPED: "#f4f4f6",
    Standing.RUNNING: "#d5e5fd",
    Standing.PENDING: "#ffffff",
}
_STYLE: Final = {
    DependencyType.REQUIRED: "solid",
    DependencyType.OPTIONAL: "dashed",
    DependencyType.CONDITIONAL: "dotted",
}


def dot(sketch: Sketch) -> str:
    """The graph in the DOT language, left to right, coloured by how the tasks ended."""
    lines = [
        "digraph job {",
        f"  graph [label={_quoted(sketch.title)}, labelloc=t, rankdir=LR, fontname=Helvetica];",
        '  node [shape=box, style="rounded,filled", color="#8a8f98", fontname=Helvetica, fontsize=11];',
        '  edge [color="#8a8f98", arrowsize=0.7];',
        *(
            f'  {_quoted(box.id)} [label={_quoted(box.name, box.line)}, fillcolor="{_FILL[box.standing]}"];'
            for box in sketch.boxes
        ),
        *(
            f"  {_quoted(arrow.source)} -> {_quoted(arrow.target)} [style={_STYLE[arrow.kind]}];"
            for arrow in sketch.arrows
        ),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _quoted(*lines: str) -> str:
    """A quoted string of one or more lines. In DOT a backslash begins an escape, so it is doubled."""
    escaped = (harmless(line).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for line in lines)
    return '"' + "\\n".join(escaped) + '"'
