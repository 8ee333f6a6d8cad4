"""A graph of tasks as SVG: every task while they can be told apart, layers of tasks beyond that.

What a control task runs is drawn inside of its box; of a graph with too many boxes the innermost are left out first.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from runner.reports.graph import Layout, Route, lay_out, sound_edges
from runner.reports.markup import Markup, join, tag
from runner.reports.sketch import Arrow, Box, Frame, Sketch, every_arrow, every_box
from runner.reports.standing import Standing, counted

_WIDTH: Final = 180
_HEIGHT: Final = 46
#: Between two columns, and between two boxes of one.
_GAP: Final = 58
_LINE: Final = _HEIGHT + 16
_MARGIN: Final = 6
#: Around what is drawn inside of a box, and the line that its label stands on.
_PADDING: Final = 12
_LABEL: Final = 20
#: Pixels of a character in a box's name, about, and in the line below.
_NAME: Final = 7.6
_SMALL: Final = 6.2
#: What a box grows to for its own texts, if something stands inside of it.
_LONGEST_LINE: Final = 420
#: A graph that is wider than the page shrinks down to this share of its size, then scrolls.
_SHRINK: Final = 0.75
#: Boxes of a collapsed graph.
_GROUPS: Final = 24
#: Arrows for each task, on average, up to which they can be told apart.
_ARROWS: Final = 5


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


def is_drawn_whole(sketch: Sketch, tasks: int, arrows: int | None = None) -> bool:
    """Whether `fitting` draws every box; otherwise it leaves out inner ones, or draws layers."""
    most = _ARROWS * tasks if arrows is None else arrows
    boxes = sum(1 for _ in every_box((*sketch.boxes, *sketch.functions)))
    return boxes <= tasks and sum(1 for _ in every_arrow(sketch)) <= most


def fitting(sketch: Sketch, tasks: int, arrows: int | None = None, anchors: Mapping[str, str] | None = None) -> Picture:
    """At most `tasks` boxes and `arrows` (five times as many): all, or without the innermost, or layers."""
    for depth in range(_depth((*sketch.boxes, *sketch.functions)), -1, -1):
        boxes = tuple(_closed(box, depth) for box in sketch.boxes)
        functions = tuple(_closed(box, depth) for box in sketch.functions)
        left = msgspec.structs.replace(sketch, boxes=boxes, functions=functions)
        if is_drawn_whole(left, tasks, arrows):
            return picture(left, anchors)
    return collapsed_picture(sketch)


def _depth(boxes: Iterable[Box]) -> int:
    return max((1 + _depth(frame.boxes) for box in boxes for frame in box.frames), default=0)


def _closed(box: Box, depth: int) -> Box:
    """The box without what stands deeper in it."""
    if not box.frames:
        return box
    if not depth:
        inside = sum(1 for frame in box.frames for _ in every_box(frame.boxes))
        return msgspec.structs.replace(box, frames=(), line=f"{inside:,} inside · {box.line}")
    frames = tuple(
        Frame(frame.label, tuple(_closed(each, depth - 1) for each in frame.boxes), frame.arrows)
        for frame in box.frames
    )
    return msgspec.structs.replace(box, frames=frames)


def picture(sketch: Sketch, anchors: Mapping[str, str] | None = None) -> Picture:
    """Every task as a box, left to right; the critical path stands out. `anchors` are links, by the task's id."""
    main = _frame(sketch.boxes, sketch.arrows, anchors or {})
    if not sketch.functions:
        return _picture(main)
    beside = _stack([_box(box, anchors or {}) for box in sketch.functions])
    return _picture(_stack([main, beside]))


def collapsed_picture(sketch: Sketch) -> Picture:
    """Layers of tasks as boxes, with what these are: what is left of a graph with too many tasks to draw."""
    boxes = {box.id: box for box in sketch.boxes}
    layers, _ = sound_edges(boxes, sketch.edges)
    deepest = max(layers.values(), default=0)
    size = -(-(deepest + 1) // _GROUPS)
    groups: dict[int, list[Box]] = {}
    for name, layer in layers.items():
        groups.setdefault(layer // size, []).append(boxes[name])
    drawn = tuple(_group(number, size, deepest, held) for number, held in sorted(groups.items()))
    arrows = tuple(Arrow(here.id, there.id) for here, there in itertools.pairwise(drawn))
    return _picture(_frame(drawn, arrows, {}))


def _group(number: int, size: int, deepest: int, boxes: Sequence[Box]) -> Box:
    first, last = number * size + 1, min((number + 1) * size, deepest + 1)
    name = f"layer {first}" if first == last else f"layers {first}–{last}"
    counts = Counter(box.standing for box in boxes)
    look = next((each for each in (Standing.FAILED, Standing.TIMEOUT) if counts[each]), counts.most_common(1)[0][0])
    told = ", ".join(f"{count:,} {sort}" for sort, count in Counter(box.sort for box in boxes).items())
    name = f"{name}: {counted(len(boxes), 'task')}"
    return Box(id=str(number), standing=look, name=name, line=told, told=f"{name}\n{told}", sort="")


def _picture(drawn: Picture) -> Picture:
    content = tag("g", drawn.content, transform=f"translate({_MARGIN} {_MARGIN})")
    return Picture(drawn.width + 2 * _MARGIN, drawn.height + 2 * _MARGIN, content)


def _stack(parts: Sequence[Picture]) -> Picture:
    """One below the other."""
    top, moved = 0, []
    for part in parts:
        moved.append(tag("g", part.content, transform=f"translate(0 {top})"))
        top += part.height + _LINE - _HEIGHT
    return Picture(max(part.width for part in parts), top - (_LINE - _HEIGHT), join(*moved))


# ------------------------------------------------------------------------------------------------------------- boxes


def _frame(boxes: Sequence[Box], arrows: Sequence[Arrow], links: Mapping[str, str]) -> Picture:
    """Boxes from left to right, with the arrows between them."""
    drawn = {box.id: _box(box, links) for box in boxes}
    heights = {name: (each.height + _LINE - _HEIGHT) / _LINE for name, each in drawn.items() if each.height > _HEIGHT}
    layout = lay_out(drawn, [(arrow.source, arrow.target) for arrow in arrows], heights)
    columns = _columns(layout, drawn)
    critical = {(arrow.source, arrow.target) for arrow in arrows if arrow.critical}
    edges = [_edge(route, columns, drawn, critical=(route.source, route.target) in critical) for route in layout.routes]
    nodes = []
    for name, spot in layout.nodes.items():
        top = round(spot.row * _LINE + _HEIGHT / 2 - drawn[name].height / 2, 1)
        nodes.append(tag("g", drawn[name].content, transform=f"translate({columns[spot.layer][0]:g} {top:g})"))
    width = columns[-1][0] + columns[-1][1] if columns else 0
    return Picture(width, max(0, round(layout.rows * _LINE - (_LINE - _HEIGHT))), join(*edges, *nodes))


def _columns(layout: Layout, drawn: Mapping[str, Picture]) -> list[tuple[int, int]]:
    """Where each layer begins, and how wide it is."""
    widths = [_WIDTH] * layout.layers
    for name, spot in layout.nodes.items():
        widths[spot.layer] = max(widths[spot.layer], drawn[name].width)
    begins = itertools.accumulate((width + _GAP for width in widths), initial=0)
    return list(zip(begins, widths, strict=False))


def _edge(route: Route, columns: Sequence[tuple[int, int]], drawn: Mapping[str, Picture], *, critical: bool) -> Markup:
    """A curve through the way-points; it crosses the layers between level, so that it does not cut boxes."""
    spot = route.spots[0]
    x, y = columns[spot.layer][0] + drawn[route.source].width, spot.row * _LINE + _HEIGHT / 2
    steps = [f"M{x:g} {y:g}"]
    for before, spot in itertools.pairwise(route.spots):
        left, width = columns[before.layer]
        if x < left + width:
            x = left + width
            steps.append(f"H{x:g}")
        target, level = columns[spot.layer][0], spot.row * _LINE + _HEIGHT / 2
        bend = (target - x) / 2
        steps.append(f"C{x + bend:g} {y:g} {target - bend:g} {level:g} {target:g} {level:g}")
        x, y = target, level
    return tag("path", d=" ".join(steps), class_="edge critical" if critical else "edge")


def _box(box: Box, links: Mapping[str, str]) -> Picture:
    """A box with its upper left corner at the origin, as large as what stands inside of it."""
    inside = _inside(box, links)
    width = _WIDTH
    if box.frames:
        told = min(_LONGEST_LINE, max(round(len(box.name) * _NAME), round(len(box.line) * _SMALL)) + 22)
        width = max(_WIDTH, told, inside.width + 2 * _PADDING)
    height = _HEIGHT + (inside.height + _PADDING if box.frames else 0)
    drawn = tag(
        "g",
        tag("title", box.told),
        tag("rect", class_="box frame" if box.frames else "box", width=width, height=height, rx=7),
        tag("rect", class_="stripe", y=8, width=4, height=height - 16, rx=2),
        tag("text", _cut(box.name, width, _NAME), class_="title", x=14, y=20),
        tag("text", _cut(box.line, width, _SMALL), class_="line", x=14, y=36),
        class_=f"{box.standing.name.lower()} node",
    )
    href = links.get(box.name)
    linked = tag("a", drawn, href=href) if href else drawn
    within = tag("g", inside.content, transform=f"translate({_PADDING} {_HEIGHT})") if box.frames else None
    return Picture(width, height, join(linked, within))


def _inside(box: Box, links: Mapping[str, str]) -> Picture:
    """What a box runs: its bodies, one below the other, under their labels."""
    top, width = 0, 0
    parts: list[Markup] = []
    for frame in box.frames:
        if frame.label:
            parts.append(tag("text", frame.label, class_="line label", x=2, y=top + 13))
            top += _LABEL
            width = max(width, round(len(frame.label) * _SMALL))
        drawn = _frame(frame.boxes, frame.arrows, links)
        parts.append(tag("g", drawn.content, transform=f"translate(0 {top})"))
        top += drawn.height + _PADDING
        width = max(width, drawn.width)
    return Picture(width, max(0, top - _PADDING), join(*parts))


def _cut(text: str, width: int, character: float) -> str:
    fit = int((width - 20) / character)
    return text if len(text) <= fit else f"{text[: fit - 1]}…"
