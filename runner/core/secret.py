"""A string that must not be seen."""

from __future__ import annotations

from typing import Final

#: What stands where a secret would.
MASK: Final = "***"


class Secret:
    """A credential. Printing, formatting and logging it give `***`; only `reveal` gives the text.

    Not a `str`, so that joining or serialising it by accident is a type error and not a leak.
    """

    __slots__ = ("_text",)

    def __init__(self, text: str = "") -> None:
        self._text = text

    def reveal(self) -> str:
        """The text itself, for the one place that sends it."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash((Secret, self._text))

    def __repr__(self) -> str:
        return MASK

    __str__ = __repr__
