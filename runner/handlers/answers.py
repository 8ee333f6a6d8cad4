"""What the body of an HTTP answer becomes: a JSON value, a text, or an artifact."""

from __future__ import annotations

import enum
import re
from typing import Any, Final

import msgspec
from multidict import CIMultiDictProxy

from runner.core.errors import AttemptError
from runner.ports import FileLeft, Outcome

#: A header's value may be a session of its own; nobody asked for it to be recorded.
_UNTOLD_HEADERS: Final = frozenset({"set-cookie", "set-cookie2"})
_CHARSET: Final = re.compile(r"charset=\"?([\w.:-]+)", re.IGNORECASE)


class Shape(enum.StrEnum):
    """What is made of a body."""

    #: JSON and text by the answer's own word, if it is true; anything else is an artifact.
    AUTO = "auto"
    #: Whatever the answer calls itself.
    JSON = "json"
    #: Whatever the answer calls itself; bytes that are none become U+FFFD.
    TEXT = "text"
    ARTIFACT = "artifact"


def outcome_of(status: int, headers: CIMultiDictProxy[str], content: bytes, shape: Shape, who: str) -> Outcome:
    """The outcome; an empty body is null, and no artifact, in every shape.

    Raises AttemptError: INVALID_ANSWER if JSON is asked for and it is none.
    """
    names = dict.fromkeys(name.lower() for name in headers)
    told = {name: ", ".join(headers.getall(name)) for name in names if name not in _UNTOLD_HEADERS}
    content_type = told.get("content-type", "")
    media_type = content_type.partition(";")[0].strip().lower()
    is_inline, body = _body(content, content_type, media_type, shape, who)
    output = {"status": status, "headers": told, "body": body}
    return Outcome(output=output, files=() if is_inline else (_left(content, media_type),))


def _body(content: bytes, content_type: str, media_type: str, shape: Shape, who: str) -> tuple[bool, Any]:
    """Whether the content stands in the output, and as what."""
    if not content:
        return True, None
    match shape:
        case Shape.ARTIFACT:
            return False, None
        case Shape.TEXT:
            return True, _text(content, content_type, errors="replace").replace("\x00", "\ufffd")
        case Shape.JSON:
            try:
                return True, msgspec.json.decode(content)
            except (ValueError, RecursionError) as error:
                raise AttemptError(
                    "INVALID_ANSWER", f"{who} did not answer in JSON: {error}", retryable=False
                ) from error
    return _by_itself(content, content_type, media_type)


def _by_itself(content: bytes, content_type: str, media_type: str) -> tuple[bool, Any]:
    if _is_json(media_type):
        try:
            return True, msgspec.json.decode(content)
        except (ValueError, RecursionError):
            pass
    try:
        text = _text(content, content_type, errors="strict")
        text.encode()
    except (ValueError, LookupError):
        return False, None
    return ("\x00" not in text, text if "\x00" not in text else None)


def _text(content: bytes, content_type: str, *, errors: str) -> str:
    charset = _CHARSET.search(content_type)
    try:
        return content.decode(charset[1] if charset else "utf-8", errors)
    except LookupError:
        if errors == "strict":
            raise
    return content.decode("utf-8", errors)


def _is_json(media_type: str) -> bool:
    return media_type == "application/json" or media_type.endswith("+json")


def _left(content: bytes, media_type: str) -> FileLeft:
    kinds = {"image": "image", "text": "text"}
    kind = "json" if _is_json(media_type) else kinds.get(media_type.partition("/")[0], "file")
    return FileLeft("body", content, media_type or "application/octet-stream", kind)
