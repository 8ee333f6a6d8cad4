from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from runner.reports.graph import lay_out, sound_edges

names = st.sampled_from([f"n{number}" for number in range(9)])
graphs = st.tuples(st.lists(names, unique=True, max_size=9), st.lists(st.tuples(names, names), max_size=20))


@given(graphs)
def test_every_node_has_a_place_of_its_own_whatever_the_edges(graph: tuple[list[str], list[tuple[str, str]]]) -> None:
    nodes, edges = graph
    layout = lay_out(nodes, edges)
    assert set(layout.nodes) == set(nodes)
    places = sorted((spot.layer, spot.row) for spot in layout.nodes.values())
    for (layer, row), (other_layer, other_row) in itertools.pairwise(places):
        assert layer != other_layer or other_row - row > 0.99
    assert all(0 <= spot.layer < layout.layers and 0 <= spot.row < layout.rows for spot in layout.nodes.values())


@given(graphs)
def test_every_edge_leads_forward_by_one_layer_at_a_time(graph: tuple[list[str], list[tuple[str, str]]]) -> None:
    layout = lay_out(*graph)
    assert len({(route.source, route.target) for route in layout.routes}) == len(layout.routes)
    for route in layout.routes:
        first, last = layout.nodes[route.source].layer, layout.nodes[route.target].layer
        assert [spot.layer for spot in route.spots] == list(range(first, last + 1))


@given(graphs)
def test_a_graph_without_rings_keeps_all_its_edges(graph: tuple[list[str], list[tuple[str, str]]]) -> None:
    nodes, edges = graph
    forward = {(a, b) for a, b in edges if a in nodes and b in nodes and nodes.index(a) < nodes.index(b)}
    layers, sound = sound_edges(nodes, forward)
    assert set(sound) == forward
    assert all(layers[source] < layers[target] for source, target in forward)


def test_rings_and_strangers_are_left_out() -> None:
    layers, sound = sound_edges(["a", "b", "c", "d"], [("a", "b"), ("b", "c"), ("c", "b"), ("c", "d"), ("x", "a")])
    assert sound == []
    assert layers == {"a": 0, "b": 0, "c": 0, "d": 0}


def test_a_chain_stands_in_one_row_and_a_fork_is_balanced() -> None:
    chain = lay_out(["a", "b", "c"], [("a", "b"), ("b", "c")])
    assert {spot.row for spot in chain.nodes.values()} == {0.0}
    fork = lay_out(["a", "b", "c", "d"], [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")])
    assert fork.nodes["a"].row == fork.nodes["d"].row == (fork.nodes["b"].row + fork.nodes["c"].row) / 2


def test_no_nodes_are_an_empty_picture() -> None:
    assert (lay_out([], []).layers, lay_out([], []).rows) == (0, 0.0)


def test_a_crossing_that_need_not_be_is_undone() -> None:
    layout = lay_out(["a", "b", "c", "d"], [("a", "d"), ("b", "c")])
    assert (layout.nodes["a"].row < layout.nodes["b"].row) == (layout.nodes["d"].row < layout.nodes["c"].row)
