"""What every format gives: a value, and where its parts stand in the file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from runner.core.alt.report import NOWHERE, Locate, Path, Position, Report

BOM = b"\xef\xbb\xbf"


def nowhere(paths: Sequence[Path]) -> Mapping[Path, tuple[Position, Position]]:
    """Locate for formats without lines."""
    return dict.fromkeys(paths, (NOWHERE, NOWHERE))


class Source(msgspec.Struct, frozen=True):
    """A parsed descriptor."""

    value: Any
    locate: Locate = nowhere
    #: False if no text of it can hold a `${…}`: spares looking.
    may_refer: bool = True


def text_of(data: bytes, report: Report) -> str:
    """The text of a descriptor, without its byte order mark.

    Raises Unreadable: if it holds NUL bytes or is not UTF-8.
    """
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise report.fatal("BAD_ENCODING", "The file is UTF-16; save it as UTF-8.", position=(1, 1))
    data = data.removeprefix(BOM)
    try:
        text = data.decode()
    except UnicodeDecodeError as e:
        before = data[: e.start].decode()
        message = f"Byte {e.start} (0x{data[e.start]:02x}) is not UTF-8; save the file as UTF-8."
        raise report.fatal("BAD_ENCODING", message, position=position_at(before, len(before))) from None
    nul = text.find("\0")
    if nul >= 0:
        raise report.fatal("NUL_CHARACTER", "The file holds a NUL byte.", position=position_at(text, nul))
    return text


def position_at(text: str, index: int) -> Position:
    """Line and column of the character at `index`."""
    return text.count("\n", 0, index) + 1, index - text.rfind("\n", 0, index)
