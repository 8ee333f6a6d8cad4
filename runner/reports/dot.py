"""A graph of tasks for Graphviz: `alt-runner last show --dot FILE | dot -Tsvg`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from runner.core.record import DependencyType
from runner.reports.sketch import Arrow, Box, Sketch
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
    """The graph in the DOT language, left to right, coloured by how the tasks ended.

    What a control task runs stands with it in a cluster; dotted edges lead to what runs first, with the body's name.
    """
    lines = [
        "digraph job {",
        f"  graph [label={_quoted(sketch.title)}, labelloc=t, rankdir=LR, fontname=Helvetica];",
        '  node [shape=box, style="rounded,filled", color="#8a8f98", fontname=Helvetica, fontsize=11];',
        '  edge [color="#8a8f98", arrowsize=0.7, fontname=Helvetica, fontsize=10];',
        *_boxes((*sketch.boxes, *sketch.functions), "  "),
        *_arrows(sketch.arrows, "  "),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _boxes(boxes: Iterable[Box], indent: str) -> Iterator[str]:
    for box in boxes:
        node = f'{_quoted(box.id)} [label={_quoted(box.name, box.line)}, fillcolor="{_FILL[box.standing]}"];'
        if not box.frames:
            yield f"{indent}{node}"
            continue
        yield f"{indent}subgraph {_quoted(f'cluster_{box.id}')} {{"
        yield f'{indent}  graph [label="", style=rounded, color="#b9bec7"];'
        yield f"{indent}  {node}"
        for frame in box.frames:
            yield from _boxes(frame.boxes, f"{indent}  ")
            yield from _arrows(frame.arrows, f"{indent}  ")
            behind = {arrow.target for arrow in frame.arrows}
            for first in frame.boxes:
                if first.id not in behind:
                    label = f", label={_quoted(frame.label)}" if frame.label else ""
                    style = _STYLE[DependencyType.CONDITIONAL]
                    yield f"{indent}  {_quoted(box.id)} -> {_quoted(first.id)} [style={style}{label}];"
        yield f"{indent}}}"


def _arrows(arrows: Iterable[Arrow], indent: str) -> Iterator[str]:
    for arrow in arrows:
        yield f"{indent}{_quoted(arrow.source)} -> {_quoted(arrow.target)} [style={_STYLE[arrow.kind]}];"


def _quoted(*lines: str) -> str:
    """A quoted string of one or more lines. In DOT a backslash begins an escape, so it is doubled."""
    escaped = (harmless(line).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for line in lines)
    return '"' + "\\n".join(escaped) + '"'
