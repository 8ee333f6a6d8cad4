"""Keeps credentials out of what operators read, also where nobody thought of them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any, Final

from runner.core.redaction import Redaction
from runner.core.secret import MASK

_TELLING_NAMES: Final = re.compile(r"(?i)(^|[_-])(authorization|api[_-]?key|password|passwd|secret|token|cookie)$")
_URL_PASSWORD: Final = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]*@")
_CREDENTIALS: Final = re.compile(r"(?i)\b(bearer|basic)\s+[A-Za-z0-9._~+/=-]{6,}")


class Masking:
    """Masks the secrets of the settings, passwords in addresses, authorisations, and texts that are named like one.

    What an attempt resolved is taken out before it is committed; this is the second line, for what never was an event.
    """

    def __init__(self, secrets: Mapping[str, str] | None = None) -> None:
        self._known = Redaction(secrets or {})

    def learn(self, secrets: Mapping[str, str]) -> None:
        """Mask these as well."""
        self._known = self._known.knowing(secrets)

    def text(self, text: str) -> str:
        """The text without what is known to be secret, or looks so, in it."""
        text = self._known.text(text)
        if "://" in text:
            text = _URL_PASSWORD.sub(rf"\1:{MASK}@", text)
        return _CREDENTIALS.sub(rf"\1 {MASK}", text) if " " in text else text

    def value(self, value: Any) -> Any:
        """A field's value, with all that it holds. What is no JSON value becomes a text."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return self.fields(value)
        if isinstance(value, list | tuple):
            return [self.value(inner) for inner in value]
        return value if isinstance(value, int | float | None) else self.text(str(value))

    def fields(self, fields: Mapping[str, Any]) -> dict[str, Any]:
        """Fields by name; a text that is named like a credential is masked whole."""
        return {
            name: MASK if isinstance(value, str) and _telling(str(name)) else self.value(value)
            for name, value in fields.items()
        }


@lru_cache(maxsize=1024)
def _telling(name: str) -> bool:
    return _TELLING_NAMES.search(name) is not None
