"""A graph of tasks as an SVG file that needs nothing else: no fonts, no scripts, no requests.

Many programs that draw SVG know no custom properties, and some no media queries, so its colours are plain and light.
"""

from __future__ import annotations

import re
from typing import Final

from runner.reports.markup import Markup, stylesheet, tag
from runner.reports.picture import Picture, fitting
from runner.reports.sketch import Sketch

_MARGIN: Final = 14
#: Of the line that the title stands on.
_HEAD: Final = 34
_FONT: Final = "system-ui, 'Segoe UI', Roboto, Helvetica, 'DejaVu Sans', sans-serif"
#: Pixels of a title's character, about.
_CHARACTER: Final = 9
#: What XML has not, though it is text.
_NOT_XML: Final = re.compile("[\ufffe\uffff]")


def svg(sketch: Sketch, *, tasks: int) -> str:
    """The file; of more than `tasks` tasks, or five times as many dependencies, not all are drawn one by one."""
    return _NOT_XML.sub("\N{REPLACEMENT CHARACTER}", _file(fitting(sketch, tasks), sketch.title))


def _file(drawn: Picture, title: str) -> str:
    width, height = drawn.width + 2 * _MARGIN, drawn.height + _HEAD + 2 * _MARGIN
    fit = max(8, drawn.width // _CHARACTER)
    told = title if len(title) <= fit else f"{title[: fit - 1]}…"
    text = tag("text", told, class_="title", x=_MARGIN, y=_MARGIN + 16, style="font-size:16px")
    return tag(
        "svg",
        tag("title", title),
        tag("style", _style()),
        tag("rect", class_="page", width=width, height=height),
        text,
        tag("g", drawn.content, transform=f"translate({_MARGIN} {_MARGIN + _HEAD})"),
        xmlns="http://www.w3.org/2000/svg",
        class_="graph",
        width=width,
        height=height,
        viewBox=f"0 0 {width} {height}",
        role="img",
    )


def _style() -> Markup:
    light, _, _ = stylesheet("palette.css").partition("@media")
    colours = dict(re.findall(r"--(\w+): (#\w+)", light))
    rules = f"{stylesheet('graph.css')}.graph .page {{ fill: var(--card); }}\n.graph {{ font-family: {_FONT}; }}\n"
    return Markup(re.sub(r"var\(--(\w+)\)", lambda found: colours[found[1]], rules))
