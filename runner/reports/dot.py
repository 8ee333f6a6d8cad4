"""The execution graph for Graphviz: `alt-runner last show --dot FILE | dot -Tsvg`."""

from __future__ import annotations

from typing import Final

from runner.core.record import DependencyType, GraphNode, LastRecord, duration_text
from runner.reports.standing import Standing, harmless, standing_of

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


def dot(record: LastRecord) -> str:
    """The graph in the DOT language, left to right, coloured by how the tasks ended."""
    lines = [
        "digraph execution {",
        f"  graph [label={_quoted(record.title)}, labelloc=t, rankdir=LR, fontname=Helvetica];",
        '  node [shape=box, style="rounded,filled", color="#8a8f98", fontname=Helvetica, fontsize=11];',
        '  edge [color="#8a8f98", arrowsize=0.7];',
        *(f"  {_quoted(node.id)} [{_look(record, node)}];" for node in record.execution_graph.nodes),
        *(
            f"  {_quoted(edge.source)} -> {_quoted(edge.target)} [style={_STYLE[edge.dependency_type]}];"
            for edge in record.execution_graph.edges
        ),
        "}",
    ]
    return "\n".join(lines) + "\n"


def _look(record: LastRecord, node: GraphNode) -> str:
    result = record.task_results.get(node.task_id)
    standing = Standing[node.status.name] if result is None else standing_of(result)
    told = [node.task_id, f"{standing.glyph} {standing.word}"]
    if node.duration_ms:
        told[1] += f", {duration_text(node.duration_ms)}"
    return f'label={_quoted(*told)}, fillcolor="{_FILL[standing]}"'


def _quoted(*lines: str) -> str:
    """A quoted string of one or more lines. In DOT a backslash begins an escape, so it is doubled."""
    escaped = (harmless(line).replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") for line in lines)
    return '"' + "\\n".join(escaped) + '"'
