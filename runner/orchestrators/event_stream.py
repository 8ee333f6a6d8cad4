"""Server-sent events, as far as AI orchestrators use them: the data of each event, from bytes cut anywhere.

Source: WHATWG HTML, 9.2.6 "Interpreting an event stream". Names, ids and retry times are read over.
"""

from __future__ import annotations

import re
from typing import Final

_EMPTY_LINES: Final = re.compile(rb"\n{3,}")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class EventStream:
    """Takes chunks, gives events. Holds at most one unfinished event, which the caller's limit on bytes bounds."""

    def __init__(self) -> None:
        self._unread = bytearray()
        self._seen = 0
        #: Bytes, as lines that hold nothing would each take more memory than they took on the wire.
        self._data = bytearray()
        self._has_data = False
        self._at_start = True

    def feed(self, chunk: bytes) -> list[bytes]:
        """The data of every event that this chunk completes. Text is UTF-8, still encoded, and never cut."""
        self._unread += chunk
        if self._at_start and len(self._unread) >= len(_BYTE_ORDER_MARK):
            self._at_start = False
            if self._unread.startswith(_BYTE_ORDER_MARK):
                del self._unread[: len(_BYTE_ORDER_MARK)]
                self._seen = 0
        events = []
        for line in self._lines():
            if line:
                self._field(line)
            elif self._has_data:
                events.append(bytes(self._data))
                self._data.clear()
                self._has_data = False
        return events

    def _lines(self) -> list[bytes]:
        """Mostly in C: a hostile stream may hold a line for each byte, and must not hold up the loop."""
        unread = self._unread
        # What was searched before holds no line's end: a line that comes byte by byte is not searched again and again.
        # The \n of a \r at the very end may be in the next chunk.
        end = max(unread.rfind(b"\n", self._seen), unread.rfind(b"\r", self._seen, -1)) + 1
        whole = bytes(unread[:end])
        del unread[:end]
        self._seen = max(0, len(unread) - 1)
        whole = _EMPTY_LINES.sub(b"\n\n", whole.replace(b"\r\n", b"\n").replace(b"\r", b"\n"))
        return whole.split(b"\n")[:-1]

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            if self._has_data:
                self._data += b"\n"
            self._data += value.removeprefix(b" ")
            self._has_data = True
