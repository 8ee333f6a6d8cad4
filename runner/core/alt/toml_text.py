"""TOML 1.0. Its parser tells the place of syntax errors only, so other findings have no line."""

from __future__ import annotations

import re
import tomllib

from runner.core.alt.report import NOWHERE, Report
from runner.core.alt.source import Source, position_at, text_of
from runner.core.alt.values import checked, too_deep

_PLACE = re.compile(r" \(at (?:line (\d+), column (\d+)|end of document)\)$")
_TOKEN = re.compile(
    r"""
    \"\"\"(?:[^"\\]++|\\.|"(?!""))*+(?:\"\"\")? | '\'\'(?:[^']++|'(?!''))*+(?:'\'\')?
    | "(?:[^"\\\n]++|\\.)*+"? | '[^'\n]*+'? | \#[^\n]*+ | [\[{.,=\]}\n]
    """,
    re.DOTALL | re.VERBOSE,
)


def read_toml(data: bytes, report: Report) -> Source:
    """Parse TOML.

    Raises Unreadable: if it is no TOML, or nested too deep.
    """
    text = text_of(data, report)
    _check_depth(text, report)
    try:
        value = tomllib.loads(text)
    except RecursionError:
        raise report.fatal("TOO_DEEP", too_deep(report)) from None
    except ValueError as e:  # tomllib.TOMLDecodeError is one; a date or a number of too many digits raises its own
        place = _PLACE.search(str(e))
        sentence = str(e)[: place.start()] if place else str(e)
        position = (int(place[1]), int(place[2])) if place and place[1] else NOWHERE
        if place and not place[1]:
            position = position_at(text, len(text))
        raise report.fatal(
            "SYNTAX", f"Not valid TOML: {sentence[:1].lower()}{sentence[1:]}.", position=position
        ) from None
    return Source(checked(value, report))


def _check_depth(text: str, report: Report) -> None:
    """Before parsing: tomllib recurses, and takes time quadratic in the dots of one key."""
    limit, depth, dots = report.depth, 0, 0
    for match in _TOKEN.finditer(text):
        mark = match[0]
        depth += (mark in {"[", "{"}) - (mark in {"]", "}"})
        if mark == ".":
            dots += 1
        elif mark in {"=", ",", "\n"}:
            dots = 0
        if depth > limit or dots > limit:
            raise report.fatal("TOO_DEEP", too_deep(report), position=position_at(text, match.start()))
