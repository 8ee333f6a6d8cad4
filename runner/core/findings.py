"""What is worth telling about a descriptor or a request: an error refuses it, a warning rides along."""

from __future__ import annotations

import msgspec


class Finding(msgspec.Struct, frozen=True, omit_defaults=True):
    """One thing that is wrong or odd, and where."""

    #: Stable and machine-readable: CYCLE, UNKNOWN_DEPENDENCY, DUPLICATE_ID, BAD_TYPE, UNSUPPORTED_VERSION, …
    reason: str
    #: `tasks[3].dependencies[0]`; empty for the whole.
    path: str
    #: A sentence for a person.
    message: str
    #: What was probably meant.
    suggestion: str = ""
    #: From 1; 0 where the format has none.
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        place = f"{self.line}:{self.column}: " if self.line else ""
        path = f"{self.path}: " if self.path else ""
        hint = f" Did you mean `{self.suggestion}`?" if self.suggestion else ""
        return f"{place}{path}{self.message}{hint} [{self.reason}]"
