"""A graph of tasks for a terminal: layer by layer, what may run side by side in one bracket.

A task stands in the layer after the last of those that it waits for. Names and titles cannot steer the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from runner.reports.graph import sound_edges
from runner.reports.sketch import Box, Sketch
from runner.reports.standing import counted, one_line

#: Dependencies that are told by name.
_NAMED: Final = 12


def layers_of(sketch: Sketch) -> list[list[Box]]:
    """The boxes by layer, each in the order of the file."""
    layers, _ = sound_edges([box.id for box in sketch.boxes], sketch.edges)
    found: list[list[Box]] = [[] for _ in range(1 + max(layers.values(), default=-1))]
    for box in sketch.boxes:
        found[layers[box.id]].append(box)
    return found


def text(sketch: Sketch) -> RenderableType:
    """A row for each task, under a line that sums up."""
    layers = layers_of(sketch)
    before: dict[str, list[str]] = {}
    names = {box.id: box.name for box in sketch.boxes}
    for arrow in sketch.arrows:
        before.setdefault(arrow.target, []).append(names.get(arrow.source, arrow.source))
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right", style="bright_black", no_wrap=True)
    table.add_column(style="bright_black", no_wrap=True)
    table.add_column(style="bold", overflow="fold")
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for number, layer in enumerate(layers, start=1):
        for place, (box, bracket) in enumerate(_bracketed(layer)):
            told = (str(number) if place == 0 else "", bracket, one_line(box.name), one_line(box.line))
            table.add_row(*map(Text, told), _waits(before.get(box.id, ())))
    return Group(_headline(sketch, layers), table)


def _headline(sketch: Sketch, layers: Sequence[Sequence[Box]]) -> Text:
    widest = max(map(len, layers), default=0)
    together = f", up to {widest:,} at once" if widest > 1 else ""
    told = f"{counted(len(sketch.boxes), 'task')} in {counted(len(layers), 'layer')}{together}"
    return Text.assemble((one_line(sketch.title), "bold"), f": {told}")


def _bracketed(layer: Sequence[Box]) -> Iterator[tuple[Box, str]]:
    last = len(layer) - 1
    for place, box in enumerate(layer):
        yield box, "─" if not last else "┌" if place == 0 else "└" if place == last else "│"


def _waits(names: Iterable[str]) -> Text:
    listed = [one_line(name) for name in names]
    if not listed:
        return Text()
    more = f" and {len(listed) - _NAMED:,} more" if len(listed) > _NAMED else ""
    return Text.assemble(("after ", "bright_black"), ", ".join(listed[:_NAMED]), more)
