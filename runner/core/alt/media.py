"""Which of the four formats a descriptor is written in."""

from __future__ import annotations

import enum
import re

from runner.core.alt.report import Report, shown
from runner.core.alt.source import BOM


class Format(enum.StrEnum):
    """How a descriptor is written down."""

    JSON = "application/json"
    YAML = "application/yaml"
    TOML = "application/toml"
    MSGPACK = "application/msgpack"


_BY_SUBTYPE = {
    "json": Format.JSON,
    "yaml": Format.YAML,
    "x-yaml": Format.YAML,
    "vnd.yaml": Format.YAML,
    "toml": Format.TOML,
    "x-toml": Format.TOML,
    "msgpack": Format.MSGPACK,
    "x-msgpack": Format.MSGPACK,
    "vnd.msgpack": Format.MSGPACK,
}
#: What senders say who do not know: look at the bytes.
_UNTOLD = frozenset({"", "application/octet-stream", "text/plain", "application/x-alt", "*/*"})
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "ascii"})

_JSON_START = re.compile(rb'\s*(?:\{\s*["}]|\[\s*[\[{"\]0-9])')
_TOML_START = re.compile(
    rb"""(?:[ \t]*+(?:\#[^\n]*+)?\r?\n)*+
    [ \t]*(?:
        (?:[A-Za-z0-9_-]+|"[^"\n]*"|'[^'\n]*')(?:[ \t]*+\.[ \t]*+(?:[A-Za-z0-9_-]++|"[^"\n]*"|'[^'\n]*'))*+[ \t]*=
      | \[\[?[ \t]*[A-Za-z0-9_"'][^\],:\n]*\]\]?[ \t]*(?:\#[^\n]*)?(?:\r?\n|\Z)
    )""",
    re.VERBOSE,
)


_CHARSET = re.compile(r"charset\s*=\s*\"?([^\s;\"]+)", re.IGNORECASE)


def format_of(data: bytes, content_type: str, report: Report) -> Format:
    """The format that the content type names, or else that the bytes look like.

    Raises Unreadable: if the content type names none of ours.
    """
    essence, _, parameters = content_type.partition(";")
    essence = essence.strip().lower()
    charset = _CHARSET.search(parameters) if parameters else None
    if charset and charset[1].lower() not in _CHARSETS:
        message = f"The charset `{shown(charset[1])}` is not supported; send UTF-8."
        raise report.fatal("UNSUPPORTED_CONTENT_TYPE", message)
    if essence in _UNTOLD:
        return _looks_like(data)
    kind, _, subtype = essence.partition("/")
    known = _BY_SUBTYPE.get(subtype.rpartition("+")[2]) if kind in {"application", "text"} else None
    if known is None:
        message = (
            f"The content type `{shown(content_type)}` is not supported; there are "
            f"{', '.join(f'`{known}`' for known in Format)}, or none to have it recognised."
        )
        raise report.fatal("UNSUPPORTED_CONTENT_TYPE", message)
    return known


def _looks_like(data: bytes) -> Format:
    data = data.removeprefix(BOM)
    if _is_msgpack(data):
        return Format.MSGPACK
    if _JSON_START.match(data):
        return Format.JSON
    return Format.TOML if _TOML_START.match(data) else Format.YAML


def _is_msgpack(data: bytes) -> bool:
    """No UTF-8 text begins like a MessagePack map or list.

    fixmap, fixarray, array16 and array32 are no lead bytes, but for the last two, which as map16 and map32 are lead
    bytes of two, are never followed by a continuation byte unless they count more than 32,767 keys.
    """
    first, second = (*data[:2], 0, 0)[:2]
    return 0x80 <= first <= 0x9F or (0xDC <= first <= 0xDF and not 0x80 <= second <= 0xBF)  # noqa: PLR2004 - bytes
