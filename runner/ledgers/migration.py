"""Bringing a database's schema up to date, with the revisions of `migrations/` that ship inside the package."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from runner.core.errors import LedgerDamaged

#: The newest revision. Written here so that an up-to-date database opens without loading Alembic.
HEAD: Final = "0005"

_KNOWN: Final = frozenset({"0001", "0002", "0003", "0004", HEAD})
_SCRIPTS: Final = Path(__file__).parent / "migrations"


@contextmanager
def migrating(connection: Connection) -> Iterator[None]:
    """Foreign keys are off inside the context, which must begin and end outside of a transaction.

    Some migrations make a table anew. With foreign keys on, dropping the old one would delete what refers to it.
    """
    driver = connection.connection
    driver.execute("PRAGMA foreign_keys = OFF")
    try:
        yield
    finally:
        driver.execute("PRAGMA foreign_keys = ON")


def bring_up_to_date(connection: Connection, place: str) -> None:
    """Apply what is missing, inside the caller's transaction: all of it or nothing.

    Raises LedgerDamaged: if the database is newer than this program, or belongs to another.
    """
    revision = _revision(connection, place)
    if revision == HEAD:
        return
    if revision is not None and revision not in _KNOWN:
        raise LedgerDamaged(
            f"`{place}` has schema `{revision}`, which this version does not know (its own is `{HEAD}`):"
            " a newer alt-runner made it; install that version or a later one"
        )
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, HEAD)


def _revision(connection: Connection, place: str) -> str | None:
    """The schema's revision; None for an empty database."""
    tables = sa.inspect(connection).get_table_names()
    if "alembic_version" in tables:
        revision: str | None = connection.execute(sa.text("SELECT version_num FROM alembic_version")).scalar()
        return revision
    if tables:
        raise LedgerDamaged(
            f"`{place}` is a database of another program (it has the table `{tables[0]}`);"
            " set `ledger.url` to another file"
        )
    return None
