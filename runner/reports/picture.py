"""The execution graph as SVG: every task while they can be told apart, layers of tasks beyond that."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping
from typing import Final

from runner.core.record import GraphNode, LastRecord, TaskRecord, duration_text
from runner.reports.graph import Layout, Route, Spot, lay_out, sound_edges
from runner.reports.markup import Markup, join, tag
from runner.reports.standing import Standing, counted, standing_of

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

Edge = tuple[str, str]


def edges_of(record: LastRecord) -> list[Edge]:
    """Pairs of task ids."""
    tasks = {node.id: node.task_id for node in record.execution_graph.nodes}
    return [
        (tasks[edge.source], tasks[edge.target])
        for edge in record.execution_graph.edges
        if edge.source in tasks and edge.target in tasks
    ]


def critical_path(record: LastRecord) -> list[str]:
    """The chain that the job's end waited for: from the last task to end, back to what each waited for last."""
    ended = {task_id: task.end_time for task_id, task in record.task_results.items() if task.end_time and task.attempts}
    before: dict[str, list[str]] = {}
    _, sound = sound_edges(ended, edges_of(record))
    for source, target in sound:
        before.setdefault(target, []).append(source)
    path = [max(ended, key=lambda task_id: ended[task_id])] if ended else []
    while path and (sources := before.get(path[-1])):
        path.append(max(sources, key=lambda task_id: ended[task_id]))
    return path[::-1]


def picture(record: LastRecord, anchors: Mapping[str, str]) -> Markup:
    """Every task as a box, left to right; the critical path stands out."""
    nodes = {node.task_id: node for node in record.execution_graph.nodes}
    layout = lay_out(list(nodes), edges_of(record))
    path = critical_path(record)
    critical = set(itertools.pairwise(path))
    return _svg(
        layout,
        *(_edge(route, critical=(route.source, route.target) in critical) for route in layout.routes),
        *(
            _node(nodes[task_id], record.task_results.get(task_id), spot, anchors.get(task_id))
            for task_id, spot in layout.nodes.items()
        ),
    )


def collapsed_picture(record: LastRecord) -> Markup:
    """Layers of tasks as boxes, with how their tasks ended: what is left of a graph with too many tasks to draw."""
    layers, _ = sound_edges([node.task_id for node in record.execution_graph.nodes], edges_of(record))
    deepest = max(layers.values(), default=0)
    size = -(-(deepest + 1) // _GROUPS)
    groups: dict[int, Counter[Standing]] = {}
    for task_id, layer in layers.items():
        task = record.task_results.get(task_id)
        ended = Standing.PENDING if task is None else standing_of(task)
        groups.setdefault(layer // size, Counter())[ended] += 1
    names = {str(group): counts for group, counts in sorted(groups.items())}
    layout = lay_out(list(names), list(itertools.pairwise(names)))
    return _svg(
        layout,
        *(_edge(route, critical=False) for route in layout.routes),
        *(_group(int(name), size, deepest, names[name], spot) for name, spot in layout.nodes.items()),
    )


def _svg(layout: Layout, *children: Markup) -> Markup:
    width = layout.layers * _COLUMN - (_COLUMN - _WIDTH) + 2 * _MARGIN
    height = round(layout.rows * _LINE - (_LINE - _HEIGHT)) + 2 * _MARGIN
    return tag(
        "svg",
        *children,
        class_="graph",
        viewBox=f"0 0 {width} {height}",
        style=f"max-width:{width}px;min-width:{round(width * _SHRINK)}px",
        role="img",
        aria_label="graph of the tasks",
    )


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


def _node(node: GraphNode, task: TaskRecord | None, spot: Spot, href: str | None) -> Markup:
    standing = Standing[node.status.name] if task is None else standing_of(task)
    parts = [standing.word]
    if node.duration_ms and standing is not Standing.CANCELLED:
        parts = (
            [duration_text(node.duration_ms)]
            if standing is Standing.COMPLETED
            else [*parts, duration_text(node.duration_ms)]
        )
    if task is not None and len(task.attempts) > 1:
        parts.append(f"{len(task.attempts)} attempts")
    told = node.task_id if task is None or not task.description else f"{node.task_id}\n{task.description}"
    return _box(spot, standing.name.lower(), node.task_id, f"{standing.glyph} {' · '.join(parts)}", told, href=href)


def _group(number: int, size: int, deepest: int, counts: Counter[Standing], spot: Spot) -> Markup:
    first, last = number * size + 1, min((number + 1) * size, deepest + 1)
    name = f"layer {first}" if first == last else f"layers {first}–{last}"
    look = next((each for each in (Standing.FAILED, Standing.TIMEOUT) if counts[each]), counts.most_common(1)[0][0])
    told = ", ".join(f"{count:,} {standing.word}" for standing, count in counts.items())
    return _box(spot, look.name.lower(), f"{name}: {counted(counts.total(), 'task')}", told, f"{name}\n{told}")


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
