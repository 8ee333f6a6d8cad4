"""Keeps secrets out of what is stored: every value that an attempt resolved is replaced wherever it comes back.

An orchestrator may echo a key in its answer, an HTTP server in its error page. What is committed, logged, traced or
recorded has passed through here.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

#: Shorter values would blank out ordinary words; a secret of less than this is none.
MIN_LENGTH = 4


class Redaction:
    """Replaces the given secrets by `[secret NAME]`."""

    def __init__(self, secrets: Mapping[str, str]) -> None:
        self._marks = {value: f"[secret {name}]" for name, value in secrets.items() if len(value) >= MIN_LENGTH}
        # Longest first: of a secret that begins another one, the rest must not stay.
        longest_first = sorted(self._marks, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self._encoded = {_utf8(value): mark.encode() for value, mark in self._marks.items()}
        self._bytes = re.compile(b"|".join(re.escape(_utf8(value)) for value in longest_first))
        #: Characters that may be the beginning of a secret and must wait for what follows.
        self._reach = len(longest_first[0]) - 1 if longest_first else 0
        self._held = ""

    def text(self, text: str) -> str:
        """A whole text."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: self._marks[match[0]], text)

    def value(self, value: Any) -> Any:
        """Every string of a JSON value, keys included."""
        if self._pattern is None:
            return value
        match value:
            case str():
                return self.text(value)
            case dict():
                return {self.value(key): self.value(item) for key, item in value.items()}
            case list() | tuple():
                return [self.value(item) for item in value]
        return value

    def data(self, data: bytes) -> bytes:
        """Bytes: each secret in UTF-8, as it stands."""
        if self._pattern is None:
            return data
        return self._bytes.sub(lambda match: self._encoded[match[0]], data)

    def feed(self, piece: str) -> str:
        """A piece of a stream; what may be part of a secret is held back until the next piece or `flush`.

        However a text is cut, all pieces and `flush` together are what `text` makes of the whole.
        """
        if self._pattern is None:
            return piece
        raw = self._held + piece
        told: list[str] = []
        position = 0
        for match in self._pattern.finditer(raw):
            # Looked for before replacing: what is a secret by itself may be the beginning of a longer one.
            if self._begun(raw, position) <= match.start():
                break
            told += (raw[position : match.start()], self._marks[match[0]])
            position = match.end()
        begun = self._begun(raw, position)
        self._held = raw[begun:]
        return "".join((*told, raw[position:begun]))

    def flush(self) -> str:
        """What was held back."""
        held, self._held = self._held, ""
        return self.text(held)

    def _begun(self, text: str, position: int) -> int:
        """Where, from a position on, an end of `text` starts that begins a secret; its length if none does."""
        for start in range(max(position, len(text) - self._reach), len(text)):
            end = text[start:]
            if any(len(value) > len(end) and value.startswith(end) for value in self._marks):
                return start
        return len(text)


def _utf8(text: str) -> bytes:
    # An environment variable may hold bytes that are no UTF-8; they come as lone surrogates and go as what they were.
    return text.encode("utf-8", "surrogateescape")
