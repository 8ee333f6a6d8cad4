"""MessagePack. It has no lines."""

from __future__ import annotations

import msgspec

from runner.core.alt.report import Path, Report, shown
from runner.core.alt.source import Source
from runner.core.alt.values import checked, too_deep

#: Lead byte → (bytes of the length that follows it, bytes of the payload besides what the length counts).
_SIZED = {
    **{0xC4 + n: (1 << n, 0) for n in range(3)},
    **{0xC7 + n: (1 << n, 1) for n in range(3)},
    **{0xD9 + n: (1 << n, 0) for n in range(3)},
    **{0xCC + n: (0, 1 << n) for n in range(4)},
    **{0xD0 + n: (0, 1 << n) for n in range(4)},
    **{0xD4 + n: (0, (1 << n) + 1) for n in range(5)},
    **{0xA0 + n: (0, n) for n in range(32)},
    0xCA: (0, 4),
    0xCB: (0, 8),
}
#: Lead byte → what it begins, and of how many.
_SMALL = {**{0x80 + n: (dict, n) for n in range(16)}, **{0x90 + n: (list, n) for n in range(16)}}
#: Lead byte → what it begins, and the bytes that tell of how many.
_LARGE = {0xDC: (list, 2), 0xDD: (list, 4), 0xDE: (dict, 2), 0xDF: (dict, 4)}


def read_msgpack(data: bytes, report: Report) -> Source:
    """Parse MessagePack.

    Raises Unreadable: if it is no MessagePack, or nested too deep.
    """
    try:
        value = msgspec.msgpack.decode(data)
    except RecursionError:
        raise report.fatal("TOO_DEEP", too_deep(report)) from None
    except UnicodeDecodeError as e:
        message = f"A text is not UTF-8 (byte {e.start} of it)."
        raise report.fatal("BAD_ENCODING", message) from None
    except msgspec.DecodeError as e:
        raise report.fatal("SYNTAX", f"Not valid MessagePack: {e}.") from None
    checked_value = checked(value, report)
    # Written again it is the same only if no key was lost; where it differs, other reasons are likelier.
    if not report.errors and msgspec.msgpack.encode(checked_value) != data:
        _Doubled(data, report).look(0, ())
    return Source(checked_value)


class _Doubled:
    """Reports keys that stand twice in their map, in data that is known to be sound otherwise."""

    def __init__(self, data: bytes, report: Report) -> None:
        self._data = data
        self._report = report

    def look(self, index: int, path: Path) -> int:
        """Look at the value at `index`; answers the index after it."""
        lead = self._data[index]
        index += 1
        if lead in _SMALL:
            container, count = _SMALL[lead]
        elif lead in _LARGE:
            container, size = _LARGE[lead]
            count, index = self._length(index, size)
        else:
            size, more = _SIZED.get(lead, (0, 0))
            length, index = self._length(index, size)
            return index + length + more
        if container is dict:
            return self._map(count, index, path)
        for position in range(count):
            index = self.look(index, (*path, position))
        return index

    def _map(self, count: int, index: int, path: Path) -> int:
        seen: set[str] = set()
        for _ in range(count):
            after = self.look(index, path)
            key = msgspec.msgpack.decode(self._data[index:after], type=str)
            if key in seen:
                self._report.error("DUPLICATE_KEY", (*path, key), f"The key `{shown(key)}` stands twice in its map.")
            seen.add(key)
            index = self.look(after, (*path, key))
        return index

    def _length(self, index: int, size: int) -> tuple[int, int]:
        return int.from_bytes(self._data[index : index + size]), index + size
