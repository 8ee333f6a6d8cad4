"""Dialect `workflow` 1.x."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.alt import decode
from runner.core.plan import Priority
from tests.core.alt.descriptors import (
    as_json,
    as_msgpack,
    as_yaml,
    edge,
    node,
    plan_of,
    reasons,
    refused,
    workflow_file,
)


def test_a_whole_file_becomes_a_plan() -> None:
    decoded = decode(
        as_json(
            workflow_file(
                node("start", "manual_trigger"),
                node("çek", config={"url": "http://127.0.0.1/a", "max_retries": 3, "retry_delay_seconds": 1.5}),
                node("özetle", "ai_prompt", config={"temperature": 0.2}) | {"name": "Özetle"},
                edges=[edge("start", "çek"), edge("çek", "özetle", source_handle="ok")],
                description="what for",
                metadata={"priority": "high", "team": "a"},
            )
        )
    )
    plan = decoded.plan
    assert decoded.warnings == ()
    assert (plan.dialect, plan.alt_id, plan.title, plan.version) == ("workflow", "alt_3", "A workflow", "1.0")
    assert (plan.description, plan.priority, plan.created_at) == ("what for", Priority.HIGH, None)
    start, fetch, digest = plan.tasks
    assert (start.kind, start.parameters, start.dependencies) == ("manual_trigger", {"input": "${inputs}"}, ())
    assert (fetch.dependencies, fetch.input_from) == (("start",), ("start",))
    assert (fetch.retries, fetch.retry_seconds) == (3, 1.5)
    assert fetch.parameters == {"url": "http://127.0.0.1/a"}
    assert digest.parameters == {"temperature": 0.2, "prompt": "Özetle"}
    assert digest.metadata == {"position": {"x": 1, "y": 2}, "handles": [{"from": "çek", "source_handle": "ok"}]}


def test_an_input_of_its_own_is_kept() -> None:
    plan = plan_of(workflow_file(node("a"), node("b", config={"input": 1}), edges=[edge("a", "b")]))
    assert (plan.tasks[1].parameters, plan.tasks[1].input_from) == ({"input": 1}, ())


def test_two_edges_between_two_nodes_are_one_dependency() -> None:
    edges = [edge("a", "b", source_handle="x"), edge("a", "b", source_handle="y")]
    second = plan_of(workflow_file(node("a"), node("b"), edges=edges)).tasks[1]
    assert (second.dependencies, second.input_from) == (("a",), ("a",))
    assert [handle["source_handle"] for handle in second.metadata["handles"]] == ["x", "y"]


def test_a_schedule_is_told_to_be_the_submitters() -> None:
    raw = workflow_file(node("daily", "schedule_trigger", config={"cron": "0 8 * * *"}))
    (warning,) = decode(as_json(raw)).warnings
    assert (warning.reason, warning.path) == ("SCHEDULE_IGNORED", "nodes[0].config")


def test_every_mistake_is_told_at_its_place() -> None:
    raw = workflow_file(
        node("a", "manual_trigger"),
        node("b", config={"max_retries": 300, "retry_delay_seconds": -1}),
        node("b"),
        node("c", type="action", piece_type="webhook_trigger"),
        node("d", type="trigger", piece_type="manual_triger"),
        "no node",
        edges=[edge("b", "a"), edge("b", "bb"), {"source_node_id": "b"}, 7],
    )
    found = {(finding.reason, finding.path): finding.suggestion for finding in refused(raw)}
    assert found == {
        ("UNKNOWN_NODE", "edges[1].target_node_id"): "b",
        ("MISSING_FIELD", "edges[2].target_node_id"): "",
        ("BAD_TYPE", "edges[3]"): "",
        ("BAD_PIECE", "nodes[0].id"): "",
        ("OUT_OF_RANGE", "nodes[1].config.max_retries"): "",
        ("OUT_OF_RANGE", "nodes[1].config.retry_delay_seconds"): "",
        ("BAD_PIECE", "nodes[3].piece_type"): "",
        ("BAD_PIECE", "nodes[4].piece_type"): "manual_trigger",
        ("BAD_TYPE", "nodes[5]"): "",
        ("DUPLICATE_ID", "nodes[2].id"): "",
    }


def test_a_cycle_is_shown_at_one_of_its_edges() -> None:
    edges = [edge("a", "b"), edge("b", "c"), edge("c", "a")]
    (finding,) = refused(workflow_file(node("a"), node("b"), node("c"), edges=edges))
    assert (finding.reason, finding.path) == ("CYCLE", "edges[2]")
    assert "a → c → b → a" in finding.message


def test_a_reference_to_a_node_that_does_not_lead_here_is_refused() -> None:
    raw = workflow_file(node("a"), node("b", config={"url": "${tasks.a.output.body}"}))
    (finding,) = refused(raw)
    assert (finding.reason, finding.path) == ("NOT_AN_ANCESTOR", "nodes[1].config.url")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"nodes": []}, ["NO_TASKS"]),
        ({"nodes": {}}, ["BAD_TYPE"]),
        ({"edges": {}}, ["BAD_TYPE"]),
        ({"edges": None}, ["MISSING_FIELD"]),
        ({"name": " "}, ["BLANK"]),
        ({"version": "2.0"}, ["UNSUPPORTED_VERSION"]),
    ],
)
def test_what_is_wrong_with_the_file_itself(fields: dict[str, Any], expected: list[str]) -> None:
    assert reasons(workflow_file() | fields) == expected


@settings(max_examples=30, deadline=None)
@given(count=st.integers(1, 8), data=st.data())
def test_any_graph_without_cycles_becomes_its_plan_in_every_format(count: int, data: st.DataObject) -> None:
    pairs = [(source, target) for target in range(count) for source in range(target)]
    chosen = data.draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    raw = workflow_file(*(node(str(n)) for n in range(count)), edges=[edge(str(s), str(t)) for s, t in chosen])
    plan = plan_of(raw)
    for n, task in enumerate(plan.tasks):
        assert task.dependencies == tuple(str(source) for source, target in chosen if target == n)
    assert decode(as_yaml(raw)).plan == decode(as_msgpack(raw)).plan == plan
