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
        self._names = {value: name for name, value in secrets.items() if len(value) >= MIN_LENGTH}
        longest_first = sorted(self._names, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        #: Characters that may be the beginning of a secret and must wait for what follows.
        self._reach = len(longest_first[0]) - 1 if longest_first else 0
        self._held = ""

    def text(self, text: str) -> str:
        """A whole text."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: f"[secret {self._names[match[0]]}]", text)

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
        for value, name in self._names.items():
            data = data.replace(value.encode(), f"[secret {name}]".encode())
        return data

    def feed(self, piece: str) -> str:
        """A piece of a stream; what may be half a secret is held back until the next piece or `flush`."""
        if self._pattern is None:
            return piece
        text = self.text(self._held + piece)
        keep = self._begun(text)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        """What was held back."""
        held, self._held = self._held, ""
        return held

    def _begun(self, text: str) -> int:
        """Length of the longest end of `text` that begins a secret."""
        for length in range(min(self._reach, len(text)), 0, -1):
            end = text[-length:]
            if any(value.startswith(end) for value in self._names):
                return length
        return 0
