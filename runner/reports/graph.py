"""Where the tasks of a graph stand when it is drawn from left to right.

After Sugiyama, Tagawa and Toda (1981), in its simplest useful form: layers by longest path, invisible way-points where
an edge passes a layer, barycentre sweeps for the order within a layer, and rows pulled towards their neighbours.
Records come from files, so edges that close a ring or lead nowhere must not hurt: they are left out.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

_SWEEPS: Final = 6
#: Rows that an edge takes where it passes a layer.
_LANE: Final = 0.4

#: Source and target.
Edge = tuple[str, str]
#: A node's id, or (edge, layer) for the way-point of an edge in a layer.
_Place = str | tuple[int, int]


class Spot(msgspec.Struct, frozen=True):
    """Where a node stands."""

    #: From 0, left to right; every edge leads to a higher one.
    layer: int
    #: From 0.0, top to bottom, in rows: two nodes of one layer are at least 1 apart, way-points may be closer. A node
    #: that is higher than one row has as much above as below this one.
    row: float


class Route(msgspec.Struct, frozen=True):
    """The way of an edge: from its source, by way-points in the layers between, to its target."""

    source: str
    target: str
    spots: tuple[Spot, ...]


class Layout(msgspec.Struct, frozen=True):
    """A drawn graph, in layers and rows."""

    nodes: dict[str, Spot]
    routes: tuple[Route, ...]
    #: In rows, of the nodes that take more than one.
    heights: Mapping[str, float] = {}

    @property
    def layers(self) -> int:
        return 1 + max((spot.layer for spot in self.nodes.values()), default=-1)

    @property
    def rows(self) -> float:
        lowest = [spot.row + _beyond(self.heights, node) for node, spot in self.nodes.items()]
        lowest += [spot.row for route in self.routes for spot in route.spots]
        return 1 + max(lowest, default=-1.0)


def sound_edges(nodes: Iterable[str], edges: Iterable[Edge]) -> tuple[dict[str, int], list[Edge]]:
    """The layer of each node, and the edges that lead forward: none that closes a ring or names an unknown node.

    Linear in nodes and edges.
    """
    after: dict[str, list[str]] = {node: [] for node in nodes}
    known = list(dict.fromkeys((source, target) for source, target in edges if source in after and target in after))
    missing = dict.fromkeys(after, 0)
    for source, target in known:
        after[source].append(target)
        missing[target] += 1
    layers = {node: 0 for node, count in missing.items() if not count}
    ready = list(layers)
    for node in ready:
        for target in after[node]:
            layers[target] = max(layers.get(target, 0), layers[node] + 1)
            missing[target] -= 1
            if not missing[target]:
                ready.append(target)
    # What is left waits for itself: a ring, or behind one.
    settled = set(ready)
    for node in after:
        if node not in settled:
            layers[node] = 0
    return layers, [edge for edge in known if layers[edge[0]] < layers[edge[1]]]


def lay_out(nodes: Iterable[str], edges: Iterable[Edge], heights: Mapping[str, float] | None = None) -> Layout:
    """Place the nodes; the same graph always gives the same picture. `heights` are in rows; without one it is 1."""
    tall = heights or {}
    layers, sound = sound_edges(nodes, edges)
    columns: list[list[_Place]] = [[] for _ in range(1 + max(layers.values(), default=-1))]
    for node, layer in layers.items():
        columns[layer].append(node)
    chains = [_chain(number, edge, layers, columns) for number, edge in enumerate(sound)]
    left: dict[_Place, list[_Place]] = {place: [] for column in columns for place in column}
    right: dict[_Place, list[_Place]] = {place: [] for column in columns for place in column}
    for chain in chains:
        for here, there in itertools.pairwise(chain):
            right[here].append(there)
            left[there].append(here)
    _order(columns, left, right)
    rows = _pull(columns, left, right, tall)
    spots = {place: Spot(layer, rows[place]) for layer, column in enumerate(columns) for place in column}
    return Layout(
        nodes={node: spots[node] for node in layers},
        routes=tuple(
            Route(source, target, tuple(spots[place] for place in chain))
            for (source, target), chain in zip(sound, chains, strict=True)
        ),
        heights=tall,
    )


def _chain(number: int, edge: Edge, layers: Mapping[str, int], columns: Sequence[list[_Place]]) -> list[_Place]:
    source, target = edge
    between: list[_Place] = []
    for layer in range(layers[source] + 1, layers[target]):
        between.append((number, layer))
        columns[layer].append((number, layer))
    return [source, *between, target]


def _order(
    columns: Sequence[list[_Place]],
    left: Mapping[_Place, Sequence[_Place]],
    right: Mapping[_Place, Sequence[_Place]],
) -> None:
    """Sort each layer by the mean position of its neighbours, back and forth."""
    position = {place: float(index) for column in columns for index, place in enumerate(column)}
    for sweep in range(_SWEEPS):
        forth = sweep % 2 == 0
        neighbours = left if forth else right
        for column in columns if forth else reversed(columns):
            means = {place: _mean(position, neighbours[place], position[place]) for place in column}
            column.sort(key=means.__getitem__)
            position.update((place, float(index)) for index, place in enumerate(column))


def _pull(
    columns: Sequence[list[_Place]],
    left: Mapping[_Place, Sequence[_Place]],
    right: Mapping[_Place, Sequence[_Place]],
    heights: Mapping[str, float],
) -> dict[_Place, float]:
    """Rows close to those of the neighbours, in the order of each layer, the topmost at 0."""
    rows = {place: float(index) for column in columns for index, place in enumerate(column)}
    for sweep in range(_SWEEPS):
        forth = sweep % 2 == 0
        neighbours = left if forth else right
        for column in columns if forth else reversed(columns):
            wanted = [_mean(rows, neighbours[place], rows[place]) for place in column]
            rows.update(zip(column, _spread(column, wanted, heights), strict=True))
    top = min((row - _beyond(heights, place) for place, row in rows.items()), default=0.0)
    return {place: row - top for place, row in rows.items()}


def _spread(column: Sequence[_Place], wanted: Sequence[float], heights: Mapping[str, float]) -> list[float]:
    """Rows far enough apart, in order, as near to the wanted ones as one pass down and one shift get them."""
    rows: list[float] = []
    for index, row in enumerate(wanted):
        between = (_height(column[index - 1], heights) + _height(column[index], heights)) / 2
        above = rows[-1] + between if rows else row
        rows.append(max(row, above))
    shift = sum(rows) - sum(wanted)
    return [row - shift / len(rows) for row in rows]


def _height(place: _Place, heights: Mapping[str, float]) -> float:
    return heights.get(place, 1.0) if isinstance(place, str) else _LANE


def _beyond(heights: Mapping[str, float], place: _Place) -> float:
    """How far a place reaches above and below its row."""
    return max(0.0, heights.get(place, 1.0) - 1) / 2 if isinstance(place, str) else 0.0


def _mean(position: Mapping[_Place, float], places: Sequence[_Place], otherwise: float) -> float:
    return sum(position[place] for place in places) / len(places) if places else otherwise
