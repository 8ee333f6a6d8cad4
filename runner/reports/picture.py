"""A graph of tasks as SVG: every task while they can be told apart, layers of tasks beyond that."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from runner.reports.graph import Layout, Route, Spot, lay_out, sound_edges
from runner.reports.markup import Markup, join, tag
from runner.reports.sketch import Box, Sketch
from runner.reports.standing import Standing, counted

_WIDTH: Final = 180
_HEIGHT: Final = 46
_COLUMN: Final = _WIDTH + 58
_LINE: Final = _HEIGHT + 16
_MARGIN: Final = 6
#: Characters that fit into a box.
_FIT: Final = 22
#: A graph that is wider than the page shrinks down to this share of its size, then scrolls.
_SHRINK: Final = 0.75
#: Boxes of a collapsed graph.
_GROUPS: Final = 24


class Picture(msgspec.Struct, frozen=True):
    """What stands inside of an `svg` element of class `graph`, whose origin is its upper left corner."""

    width: int
    height: int
    content: Markup


def inline(drawn: Picture) -> Markup:
    """The picture as an element of a page, which shrinks with it."""
    return tag(
        "svg",
        drawn.content,
        class_="graph",
        viewBox=f"0 0 {drawn.width} {drawn.height}",
        style=f"max-width:{drawn.width}px;min-width:{round(drawn.width * _SHRINK)}px",
        role="img",
        aria_label="graph of the tasks",
    )


def picture(sketch: Sketch, anchors: Mapping[str, str] | None = None) -> Picture:
    """Every task as a box, left to right; the critical path stands out. `anchors` are links, by the task's id."""
    boxes = {box.id: box for box in sketch.boxes}
    critical = {(arrow.source, arrow.target) for arrow in sketch.arrows if arrow.critical}
    layout = lay_out(boxes, sketch.edges)
    links = anchors or {}
    return _picture(
        layout,
        *(_edge(route, critical=(route.source, route.target) in critical) for route in layout.routes),
        *(_task(boxes[name], spot, links.get(boxes[name].name)) for name, spot in layout.nodes.items()),
    )


def collapsed_picture(sketch: Sketch) -> Picture:
    """Layers of tasks as boxes, with what these are: what is left of a graph with too many tasks to draw."""
    boxes = {box.id: box for box in sketch.boxes}
    layers, _ = sound_edges(boxes, sketch.edges)
    deepest = max(layers.values(), default=0)
    size = -(-(deepest + 1) // _GROUPS)
    groups: dict[int, list[Box]] = {}
    for name, layer in layers.items():
        groups.setdefault(layer // size, []).append(boxes[name])
    names = {str(group): held for group, held in sorted(groups.items())}
    layout = lay_out(names, itertools.pairwise(names))
    return _picture(
        layout,
        *(_edge(route, critical=False) for route in layout.routes),
        *(_group(int(name), size, deepest, names[name], spot) for name, spot in layout.nodes.items()),
    )


def _picture(layout: Layout, *children: Markup) -> Picture:
    width = layout.layers * _COLUMN - (_COLUMN - _WIDTH) + 2 * _MARGIN
    height = round(layout.rows * _LINE - (_LINE - _HEIGHT)) + 2 * _MARGIN
    return Picture(width, height, join(*children))


def _corner(spot: Spot) -> tuple[float, float]:
    return _MARGIN + spot.layer * _COLUMN, round(_MARGIN + spot.row * _LINE, 1)


def _edge(route: Route, *, critical: bool) -> Markup:
    """A curve through the way-points; it crosses the layers between level, so that it does not cut boxes."""
    x, y = _corner(route.spots[0])
    steps = [f"M{x + _WIDTH:g} {y + _HEIGHT / 2:g}"]
    x, y = x + _WIDTH, y + _HEIGHT / 2
    for index, spot in enumerate(route.spots[1:], start=2):
        left, top = _corner(spot)
        level = top + _HEIGHT / 2
        bend = (left - x) / 2
        steps.append(f"C{x + bend:g} {y:g} {left - bend:g} {level:g} {left:g} {level:g}")
        x, y = left, level
        if index < len(route.spots):
            x += _WIDTH
            steps.append(f"H{x:g}")
    return tag("path", d=" ".join(steps), class_="edge critical" if critical else "edge")


def _task(box: Box, spot: Spot, href: str | None) -> Markup:
    return _box(spot, box.standing.name.lower(), box.name, box.line, box.told, href=href)


def _group(number: int, size: int, deepest: int, boxes: Sequence[Box], spot: Spot) -> Markup:
    first, last = number * size + 1, min((number + 1) * size, deepest + 1)
    name = f"layer {first}" if first == last else f"layers {first}–{last}"
    counts = Counter(box.standing for box in boxes)
    look = next((each for each in (Standing.FAILED, Standing.TIMEOUT) if counts[each]), counts.most_common(1)[0][0])
    told = ", ".join(f"{count:,} {sort}" for sort, count in Counter(box.sort for box in boxes).items())
    return _box(spot, look.name.lower(), f"{name}: {counted(len(boxes), 'task')}", told, f"{name}\n{told}")


def _box(spot: Spot, look: str, name: str, line: str, told: str, *, href: str | None = None) -> Markup:
    x, y = _corner(spot)
    drawn = tag(
        "g",
        tag("title", told),
        tag("rect", class_="box", x=x, y=y, width=_WIDTH, height=_HEIGHT, rx=7),
        tag("rect", class_="stripe", x=x, y=y + 8, width=4, height=_HEIGHT - 16, rx=2),
        tag("text", _cut(name), class_="title", x=x + 14, y=y + 20),
        tag("text", _cut(line, _FIT + 4), class_="line", x=x + 14, y=y + 36),
        class_=f"{look} node",
    )
    return tag("a", drawn, href=href) if href else join(drawn)


def _cut(text: str, fit: int = _FIT) -> str:
    return text if len(text) <= fit else f"{text[: fit - 1]}…"
