"""Bringing a database's schema up to date: a new one is made from `schema.py`, an older one by what it lacks of
`migrations/`, which ship inside the package. A test holds the two ways equal.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from runner.core.errors import LedgerDamaged
from runner.ledgers.schema import metadata

#: The newest revision. Written here so that a new or up-to-date database opens without loading Alembic.
HEAD: Final = "0007"

_KNOWN: Final = frozenset({"0001", "0002", "0003", "0004", "0005", "0006", HEAD})
_SCRIPTS: Final = Path(__file__).parent / "migrations"
#: Alembic's, letter by letter. Not in `metadata`: it is no table of the ledger's.
_VERSION: Final = sa.Table(
    "alembic_version",
    sa.MetaData(),
    sa.Column("version_num", sa.String(32), nullable=False),
    sa.PrimaryKeyConstraint("version_num", name="alembic_version_pkc"),
)


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


def bring_up_to_date(connection: Connection, place: str, *, begin: Callable[[str], None] = lambda _: None) -> None:
    """Make what is missing, inside the caller's transaction: all of it or nothing.

    `begin` is told the revision of a database with an older schema, before what may take minutes.

    Raises LedgerDamaged: if the database is newer than this program, belongs to another, or holds what no version of
    its schema held.
    """
    revision = _revision(connection, place)
    if revision == HEAD:
        return
    if revision is None:
        _make(connection)
        return
    if revision not in _KNOWN:
        raise LedgerDamaged(
            f"`{place}` has schema `{revision}`, which this version does not know (its own is `{HEAD}`):"
            " a newer alt-runner made it; install that version or a later one"
        )
    begin(revision)
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    config.attributes["connection"] = connection
    try:
        command.upgrade(config, HEAD)
    except sa.exc.IntegrityError as error:
        # Versions before the first release numbered the states of jobs otherwise, under the same revision.
        raise LedgerDamaged(
            f"`{place}` cannot be brought up to date from schema `{revision}` to `{HEAD}` ({error.orig}), and was left"
            " as it is: a version before the first release made it, or it was changed by hand; move it away together"
            " with its `-wal` and `-shm`, and the next start makes a new one"
        ) from error


def _make(connection: Connection) -> None:
    metadata.create_all(connection)
    _VERSION.create(connection)
    connection.execute(_VERSION.insert().values(version_num=HEAD))


def _revision(connection: Connection, place: str) -> str | None:
    """The schema's revision; None for an empty database."""
    tables = sa.inspect(connection).get_table_names()
    if "alembic_version" in tables:
        return connection.execute(sa.select(_VERSION.c.version_num)).scalar()
    if tables:
        raise LedgerDamaged(
            f"`{place}` is a database of another program (it has the table `{tables[0]}`);"
            " set `ledger.url` to another file"
        )
    return None
