from __future__ import annotations

import re
import shutil
import subprocess

import msgspec
import pytest

from runner.core.record import DependencyType, ExecutionGraph, GraphEdge, GraphNode, LastRecord, ResultStatus
from runner.reports.dot import dot
from runner.reports.sketch import of_record

NASTY = 'a"b\\N\\"; } <x> \x1b[2J\nnext'
#: A statement of the DOT language whose ids and values are quoted strings or plain words.
QUOTED = r'"(?:[^"\\]|\\.)*"'
STATEMENT = re.compile(rf"  (?:graph|node|edge|{QUOTED})(?: -> {QUOTED})? \[(?:\w+=(?:{QUOTED}|[\w.]+)(?:, )?)+\];")


def with_graph(record: LastRecord, graph: ExecutionGraph) -> LastRecord:
    return msgspec.structs.replace(record, title=NASTY, task_results={}, execution_graph=graph)


def nasty(record: LastRecord) -> LastRecord:
    nodes = tuple(GraphNode(id=name, task_id=name, status=ResultStatus.FAILED) for name in (NASTY, "b"))
    return with_graph(record, ExecutionGraph(nodes, (GraphEdge(NASTY, "b", DependencyType.OPTIONAL),)))


def test_every_task_and_dependency_stands_in_it(digest: LastRecord) -> None:
    text = dot(of_record(digest))
    assert text.count(" -> ") == len(digest.execution_graph.edges)
    assert '"fetch_tickets" -> "triage" [style=solid];' in text
    assert '"escalate" [label="escalate\\n↷ skipped"' in text


def test_nothing_breaks_out_of_its_quotes(digest: LastRecord) -> None:
    lines = dot(of_record(nasty(digest))).splitlines()
    assert lines[0] == "digraph job {"
    assert lines[-1] == "}"
    assert all(STATEMENT.fullmatch(line) for line in lines[1:-1])
    assert "\x1b" not in "".join(lines)
    assert "style=dashed" in lines[-2]


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs Graphviz's dot")
def test_graphviz_reads_it(digest: LastRecord) -> None:
    for record in (digest, nasty(digest)):
        drawn = subprocess.run(
            ["dot", "-Tplain"], input=dot(of_record(record)), capture_output=True, text=True, check=True
        )
        assert drawn.stdout.count("\nnode ") == len(record.execution_graph.nodes)
        assert drawn.stderr == ""
