"""Keeps secrets out of what is stored: every value that is known to be secret is replaced wherever it comes back.

An orchestrator may echo a key in its answer, an HTTP server in its error page, and either may quote it: inside JSON, in
an address, in HTML. What is committed, logged, traced or recorded has passed through here.
"""

from __future__ import annotations

import html
import json
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from copy import copy
from functools import cached_property
from typing import Any, Final
from urllib.parse import quote, quote_plus

#: Shorter values would blank out ordinary words; a secret of less than this is none.
MIN_LENGTH: Final = 4
#: Characters of a secret's beginning that tell something of it.
MIN_BEGINNING: Final = 6
#: Characters of a line that is as good as the whole of a secret of many lines.
MIN_LINE: Final = 12


class Redaction:
    """Replaces the given secrets by `[secret NAME]`: as they stand, as others quote them, and line by line."""

    def __init__(self, secrets: Mapping[str, str], *, beside: Redaction | None = None) -> None:
        """`beside` gives its secrets too; where both know one, it goes by its name among `secrets`."""
        #: Names by value: after a rotation two values have one name.
        self.names: dict[str, str] = {**(beside.names if beside else {}), **{secrets[name]: name for name in secrets}}
        self._marks = {value: f"[secret {name}]" for value, name in self.names.items() if len(value) >= MIN_LENGTH}
        for value, mark in list(self._marks.items()):
            for form in _forms(value):
                self._marks.setdefault(form, mark)
        # Longest first: of a secret that begins another one, the rest must not stay.
        longest_first = sorted(self._marks, key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None
        self._longest_first = longest_first
        #: Characters that may be the beginning of a secret and must wait for what follows.
        self._reach = len(longest_first[0]) - 1 if longest_first else 0
        self._starts: defaultdict[str, list[str]] = defaultdict(list)
        for value in longest_first:
            self._starts[value[0]].append(value)
        self._held = ""

    def knowing(self, more: Mapping[str, str]) -> Redaction:
        """The same and more secrets, for another stream. Without more of them it costs next to nothing."""
        if more:
            return Redaction(more, beside=self)
        fresh = copy(self)
        fresh._held = ""  # noqa: SLF001  it is one of these
        return fresh

    def text(self, text: str) -> str:
        """A whole text."""
        if self._pattern is None:
            return text
        return self._pattern.sub(lambda match: self._marks[match[0]], text)

    def excerpt(self, text: str) -> str:
        """A text that others may have cut off: where it ends with the beginning of a secret, that goes too."""
        whole = self.text(text)
        begun = self._begun(whole, 0)
        return whole if len(whole) - begun < MIN_BEGINNING else f"{whole[:begun]}[secret, cut off]"

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
        """Bytes: each secret in UTF-8."""
        if self._pattern is None:
            return data
        pattern, marks = self._for_bytes
        return pattern.sub(lambda match: marks[match[0]], data)

    @cached_property
    def _for_bytes(self) -> tuple[re.Pattern[bytes], dict[bytes, bytes]]:
        # Made when there is a file: for a key of many lines a pattern takes tens of milliseconds.
        marks = {_utf8(value): self._marks[value].encode() for value in self._longest_first}
        return re.compile(b"|".join(map(re.escape, marks))), marks

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
            values = self._starts.get(text[start])
            if values is not None:
                end = text[start:]
                if any(len(value) > len(end) and value.startswith(end) for value in values):
                    return start
        return len(text)


def _forms(value: str) -> Iterator[str]:
    """A secret as others write it, and the long lines of one that has several, which are often shown one by one."""
    # Headers lose the space around a value, and an excerpt is one line.
    for whole in (value, value.strip(), " ".join(value.split())):
        if len(whole) >= MIN_LENGTH:
            yield whole
            yield from _quoted(whole)
    lines = value.splitlines()
    for line in map(str.strip, lines if len(lines) > 1 else ()):
        # The frame of a PEM file is the same for everybody's.
        if len(line) >= MIN_LINE and not line.startswith("-----"):
            yield line
            yield from _quoted(line)


def _quoted(value: str) -> Iterator[str]:
    """A text inside JSON (some escape the slash as well), in what Python shows, in addresses and forms, in HTML."""
    escaped = json.dumps(value)[1:-1]
    yield from (escaped, escaped.replace("/", "\\/"), json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1])
    yield from (quote(value, safe="", errors="surrogateescape"), quote(value, errors="surrogateescape"))
    yield quote_plus(value, errors="surrogateescape")
    yield from (html.escape(value), html.escape(value, quote=False))


def _utf8(text: str) -> bytes:
    # An environment variable may hold bytes that are no UTF-8; they come as lone surrogates and go as what they were.
    return text.encode("utf-8", "surrogateescape")
