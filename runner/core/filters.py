"""Which jobs: the AIP-160 subset of ListJobs and WatchJobs, as values that a ledger turns into its own query."""

from __future__ import annotations

import msgspec

from runner.core.plan import Instant


class Comparison(msgspec.Struct, frozen=True):
    """One restriction: `state = RUNNING`, `labels.team : *`."""

    #: A column's name, or `labels`.
    field: str
    #: The label's name, where `field` is `labels`.
    key: str
    #: `=`, `!=`, `<`, `<=`, `>`, `>=` or `:` (has; for text: contains).
    operator: str
    value: str | int


class Not(msgspec.Struct, frozen=True):
    """The opposite."""

    operand: Filter


class And(msgspec.Struct, frozen=True):
    """All of them."""

    operands: tuple[Filter, ...]


class Or(msgspec.Struct, frozen=True):
    """Any of them."""

    operands: tuple[Filter, ...]


Filter = Comparison | Not | And | Or


class JobQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A page of jobs."""

    filter: Filter | None = None
    #: Newest first, unless set.
    ascending: bool = False
    #: The place of the last job of the page before: its time of acceptance and id.
    after: tuple[Instant, str] | None = None
    limit: int = 50
