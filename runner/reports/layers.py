"""A graph of tasks for a terminal: layer by layer, what may run side by side in one bracket.

A task stands in the layer after the last of those that it waits for. What a control task runs stands indented below
it, in layers of its own; functions stand below all. Names and titles cannot steer the terminal.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from runner.reports.graph import sound_edges
from runner.reports.sketch import Arrow, Box, Sketch, every_box
from runner.reports.standing import counted, one_line

#: Dependencies that are told by name.
_NAMED: Final = 12
_INDENT: Final = "    "


def layers_of(boxes: Sequence[Box], arrows: Sequence[Arrow]) -> list[list[Box]]:
    """The boxes of one body by layer, each in the order of the file."""
    layers, _ = sound_edges([box.id for box in boxes], [(arrow.source, arrow.target) for arrow in arrows])
    found: list[list[Box]] = [[] for _ in range(1 + max(layers.values(), default=-1))]
    for box in boxes:
        found[layers[box.id]].append(box)
    return found


def text(sketch: Sketch) -> RenderableType:
    """A row for each task, under a line that sums up."""
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(justify="right", style="bright_black", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    for row in _rows(sketch.boxes, sketch.arrows):
        table.add_row(*row)
    for function in sketch.functions:
        table.add_row("", Text(one_line(function.name), style="bold"), Text("function"), Text())
        for frame in function.frames:
            for row in _rows(frame.boxes, frame.arrows, _INDENT):
                table.add_row(*row)
    return Group(_headline(sketch), table)


def _headline(sketch: Sketch) -> Text:
    layers = layers_of(sketch.boxes, sketch.arrows)
    widest = max(map(len, layers), default=0)
    together = f", up to {widest:,} at once" if widest > 1 else ""
    inside = sum(1 for _ in every_box((*sketch.boxes, *sketch.functions))) - len(sketch.boxes) - len(sketch.functions)
    within = f", and {counted(inside, 'task')} within these" if inside else ""
    told = f"{counted(len(sketch.boxes), 'task')} in {counted(len(layers), 'layer')}{together}{within}"
    return Text.assemble((one_line(sketch.title), "bold"), f": {told}")


def _rows(boxes: Sequence[Box], arrows: Sequence[Arrow], indent: str = "") -> Iterator[tuple[Text, Text, Text, Text]]:
    """Layer, bracket and name, what it does, what it waits for; below a control task, what it runs."""
    before: dict[str, list[str]] = {}
    names = {box.id: box.name for box in boxes}
    for arrow in arrows:
        before.setdefault(arrow.target, []).append(names.get(arrow.source, arrow.source))
    for number, layer in enumerate(layers_of(boxes, arrows), start=1):
        for place, (box, bracket) in enumerate(_bracketed(layer)):
            told = Text.assemble(f"{indent}", (f"{bracket}  ", "bright_black"), (one_line(box.name), "bold"))
            layer_number = Text(str(number) if place == 0 and not indent else "")
            yield layer_number, told, Text(one_line(box.line)), _waits(before.get(box.id, ()))
            for frame in box.frames:
                if frame.label:
                    yield (
                        Text(),
                        Text(f"{indent}{_INDENT}{one_line(frame.label)}", style="bright_black"),
                        Text(),
                        Text(),
                    )
                yield from _rows(frame.boxes, frame.arrows, f"{indent}{_INDENT}")


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
