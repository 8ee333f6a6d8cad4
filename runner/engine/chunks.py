"""Events into frames of bounded size, so that every response stays under 1 MiB."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

import msgspec

from runner.core.events import Event, Recorded

#: Bounds of one frame.
FRAME_EVENTS: Final = 2_000
FRAME_BYTES: Final = 384 * 1024


def chunks(recorded: Iterable[Recorded]) -> Iterator[list[Recorded]]:
    """Cut what was recorded into what one frame may hold."""
    chunk: list[Recorded] = []
    size = 0
    for entry in recorded:
        cost = _cost(entry.event)
        if chunk and (size + cost > FRAME_BYTES or len(chunk) >= FRAME_EVENTS):
            yield chunk
            chunk, size = [], 0
        chunk.append(entry)
        size += cost
    if chunk:
        yield chunk


def _cost(event: Event) -> int:
    """About how many bytes an event takes."""
    return 50 + len(msgspec.msgpack.encode(event))
