"""Where each dialect has a place for each field of a plan: one row a field, one column a dialect."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import Final, NamedTuple

from runner.core.alt.report import Path


class DialectName(enum.StrEnum):
    """A dialect, as `Plan.dialect` names it."""

    TASKS = "tasks"
    SEGMENTS = "segments"
    WORKFLOW = "workflow"


class Places(NamedTuple):
    """A row: the path of the field inside its object, in each dialect; None where a dialect cannot say it."""

    tasks: Path | None
    segments: Path | None
    workflow: Path | None

    def at(self, dialect: DialectName) -> Path | None:
        return self[_COLUMNS[dialect]]


_COLUMNS: Final = {DialectName.TASKS: 0, DialectName.SEGMENTS: 1, DialectName.WORKFLOW: 2}
#: Of what no dialect can be made to say.
NOWHERE: Final = Places(None, None, None)


def _everywhere(key: str) -> Places:
    return Places((key,), (key,), (key,))


#: Of each dialect, the key of its list, which names it.
LISTS: Final[Mapping[DialectName, str]] = {
    DialectName.TASKS: "tasks",
    DialectName.SEGMENTS: "segments",
    DialectName.WORKFLOW: "nodes",
}
#: The version that is written: in each dialect the one whose rules these are.
VERSION: Final = "1.0"

#: Of `Plan`. A field without a row here is one that no dialect is known to have.
PLAN: Final[Mapping[str, Places]] = {
    "alt_id": _everywhere("id"),
    "dialect": Places(("tasks",), ("segments",), ("nodes",)),
    "version": _everywhere("version"),
    "title": Places(("title",), ("command",), ("name",)),
    "tasks": Places(("tasks",), ("segments",), ("nodes",)),
    "created_at": Places(("created_at",), ("timestamp",), ("created_at",)),
    "description": Places(("description",), None, ("description",)),
    "mode": _everywhere("mode"),
    "persona": _everywhere("persona"),
    "language": Places(None, ("language",), None),
    "chaos_level": Places(None, ("chaos_level",), None),
    "priority": Places(("priority",), None, ("priority",)),
    "tags": Places(("tags",), None, ("tags",)),
    "expected_seconds": Places(("expected_completion_time",), None, None),
    "fail_fast": _everywhere("fail_fast"),
    "metadata": _everywhere("metadata"),
    # Of a submission; a file tells it in its metadata.
    "token_budget": NOWHERE,
    "has_variables": NOWHERE,
    "variables": NOWHERE,
    "functions": NOWHERE,
}
#: Of `TaskPlan`; paths are inside of its task, segment or node.
TASK: Final[Mapping[str, Places]] = {
    "id": _everywhere("id"),
    "description": Places(("description",), ("content",), ("description",)),
    "kind": Places(("parameters", "task_type"), ("task_type",), ("piece_type",)),
    "parameters": Places(("parameters",), ("parameters",), ("config",)),
    "dependencies": _everywhere("dependencies"),
    "timeout": Places(("timeout_seconds",), ("timeout_seconds",), None),
    "retries": Places(("retry_count",), ("retry_count",), ("config", "max_retries")),
    "retry_seconds": Places(None, None, ("config", "retry_delay_seconds")),
    "input_from": NOWHERE,
    "priority": Places(("priority",), None, None),
    "tags": Places(("tags",), None, None),
    "weight": _everywhere("weight"),
    "metadata": _everywhere("metadata"),
    "variables": NOWHERE,
    "control": NOWHERE,
}
