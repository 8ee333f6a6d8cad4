"""HTML and SVG as values: whatever is not Markup already is escaped, here and nowhere else."""

from __future__ import annotations

from html import escape
from importlib.resources import files
from typing import Final

from runner.reports.standing import harmless


class Markup(str):
    """Text that is markup already. Only `tag`, `join`, `stylesheet` and constants make it."""

    __slots__ = ()


#: Elements without content, which HTML wants without an end tag.
_VOID: Final = frozenset({"meta", "br"})

Child = str | None
Attribute = str | float | bool | None


def tag(name: str, /, *children: Child, **attributes: Attribute) -> Markup:
    """An element. Children and values are escaped unless they are Markup; None and False are left out.

    A trailing underscore of an attribute's name is dropped and others become hyphens: `class_`, `stroke_width`.
    """
    told = "".join(_attribute(key, value) for key, value in attributes.items())
    return Markup(f"<{name}{told}>" if name in _VOID else f"<{name}{told}>{join(*children)}</{name}>")


def join(*children: Child) -> Markup:
    """Children side by side, without an element around them."""
    return Markup("".join(_text(child) for child in children if child is not None))


def stylesheet(name: str) -> Markup:
    """A style sheet of this package."""
    return Markup(files(__package__).joinpath(name).read_text(encoding="utf-8"))


def percent(share: float) -> str:
    """A share of the width, 0–1, as SVG and CSS want it."""
    return f"{100 * min(1.0, max(0.0, share)):.3f}%"


def _attribute(key: str, value: Attribute) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    text = name if value is True else f"{value:g}" if isinstance(value, float) else str(value)
    return f' {name}="{escape(harmless(text))}"'


def _text(child: str) -> str:
    return child if isinstance(child, Markup) else escape(harmless(child))
