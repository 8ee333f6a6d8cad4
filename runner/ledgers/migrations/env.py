"""Alembic runs this to migrate; the connection and its transaction are the caller's (`ledgers/migration.py`)."""

from __future__ import annotations

from alembic import context

from runner.ledgers.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    # SQLite cannot alter most of a table; Alembic then copies it.
    render_as_batch=True,
)
context.run_migrations()
