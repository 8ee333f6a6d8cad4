"""`alt-runner schema`: the dialects as JSON Schema, for editors."""

from __future__ import annotations

import enum
import json
from typing import Annotated

import typer

from runner.cli import options, output


class Dialect(enum.StrEnum):
    """Those that have a schema."""

    TASKS = "tasks"
    SEGMENTS = "segments"
    WORKFLOW = "workflow"


def schema(
    dialect: Annotated[
        Dialect | None, typer.Argument(help="One dialect; without it a schema that takes any.", show_default=False)
    ] = None,
    as_json: options.Json = False,
) -> None:
    """Print a JSON Schema (draft 2020-12) of descriptors, for editors.

    It says which fields there are, of which types, and what they mean. Ids, dependencies and references are checked
    by `validate`.
    """
    from runner.core.alt.json_schema import schema_of, schema_of_all

    told = schema_of_all() if dialect is None else schema_of(dialect.value)
    if as_json:
        output.json_line(told)
    else:
        output.raw(f"{json.dumps(told, ensure_ascii=False, indent=2)}\n".encode())
