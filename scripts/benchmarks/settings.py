"""What all measurements share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from scripts.benchmarks.load import Load


class Bench(msgspec.Struct, frozen=True, kw_only=True):
    """One call of `scripts/bench`."""

    #: Emptied and removed at the end; each daemon has a directory of its own in it.
    directory: Path
    #: How often each measurement is repeated.
    runs: int
    quick: bool
    #: What sends unary calls.
    load: Load
    #: `P1`, `P2`, …
    wanted: frozenset[str]

    def sized(self, full: int, quick: int) -> int:
        """How many of something: `quick` where that was asked for."""
        return quick if self.quick else full
