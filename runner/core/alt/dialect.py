"""What every dialect gives to the checks that are the same for all."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from runner.core.alt.fields import UNREADABLE, Field, Integer, Number, Spot, Word
from runner.core.alt.outline import Flow
from runner.core.alt.report import Path, Report, kind_of, shown
from runner.core.plan import Mode, Plan, Priority, TaskId
from runner.core.quoting import quoted

MODES = {mode.value: mode for mode in Mode}
PRIORITIES = {priority.name.lower(): priority for priority in Priority}

read_mode = Word(MODES, "UNKNOWN_MODE")
read_priority = Word(PRIORITIES, "UNKNOWN_PRIORITY")

#: A task's weight is relative; greater ones are a mistake, and their sum must stay a number.
HEAVIEST = 1e9

#: Ten years: beyond it a number of seconds is a mistake, or was meant as milliseconds since 1970.
LONGEST = 315_360_000
#: What a task or segment says of its attempts, in the same words.
ATTEMPTS: Final[Mapping[str, Field]] = {
    "timeout_seconds": Field("timeout", Number(above=0, most=LONGEST, unit=" of seconds")),
    "retry_count": Field("retries", Integer(0, 255)),
}
#: What people call these instead.
ATTEMPTS_ALSO_KNOWN: Final = {
    "timeout": "timeout_seconds",
    "retries": "retry_count",
    "max_retries": "retry_count",
}

#: The kind that runs a descriptor of its own, as a child of the job.
JOB = "job"

#: The kind that waits for a person's answer.
APPROVAL = "approval"

#: The kind that asks an AI, and says no more about how.
PROMPT = "ai_prompt"

#: Kinds that are handled here; every other one goes to the orchestrator, unless a handler was added that claims it.
LOCAL_KINDS = frozenset(
    {
        "http_request",
        "python",
        "delay",
        "data_processing",
        APPROVAL,
        "file_operation",
        "system_command",
        "code_executor",
        JOB,
    }
)


#: Kinds that begin a workflow; each passes the job's inputs on.
TRIGGERS = frozenset({"manual_trigger", "schedule_trigger", "webhook_trigger"})


class Draft(msgspec.Struct, frozen=True):
    """A plan that is not checked yet."""

    plan: Plan
    #: `tasks`, `segments` or `nodes`.
    list_name: str
    #: Of each task as written, doubles and all: positions in it are those of the file.
    dependencies: list[tuple[TaskId, ...]]
    #: (index of a task, path inside its parameters) → path in the file.
    locate_parameter: Callable[[int, Path], Path]
    #: (index of a task, position among its dependencies) → path in the file; None: in its `dependencies`.
    locate_dependency: Callable[[int, int], Path] | None = None
    #: Of files with control flow: which tasks stand in the bodies of others.
    flow: Flow | None = None

    def dependency_path(self, index: int, position: int) -> Path:
        """Where a dependency stands in the file."""
        if self.locate_dependency is not None:
            return self.locate_dependency(index, position)
        return (self.list_name, index, "dependencies", position)


def with_prompt(kind: str, parameters: dict[str, Any], text: str) -> dict[str, Any]:
    """The parameters as the plan has them.

    For a kind that goes to the orchestrator `text` is the prompt if none is given, and what an approval asks, where
    references stand in it. The descriptor of a child job is quoted: its references are the child's.
    """
    if kind == APPROVAL and "${" in text and not parameters.get("message"):
        return {**parameters, "message": text}
    if kind == JOB and isinstance(parameters.get("descriptor"), dict):
        return {**parameters, "descriptor": quoted(parameters["descriptor"])}
    if kind in LOCAL_KINDS or kind in TRIGGERS or parameters.get("prompt") is not None:
        return parameters
    return {**parameters, "prompt": text}


def check_version(version: str | None, pattern: re.Pattern[str], name: str, supported: str, report: Report) -> None:
    """Report a version that this dialect is not read in. What else is wrong by the rules of ours is told too."""
    if version is not None and not pattern.fullmatch(version):
        message = f"Version `{shown(version)}` of dialect `{name}` is not supported; supported is {supported}."
        report.error("UNSUPPORTED_VERSION", ("version",), message)


def rows(raw: Mapping[str, Any], list_name: str, report: Report) -> list[Any] | None:
    """The list of tasks, or None after it was reported why there is none."""
    listed = raw.get(list_name)
    if type(listed) is not list:
        message = f"`{list_name}` must be a list, not {kind_of(listed)}."
        report.error("BAD_TYPE", (list_name,), message)
        return None
    if not listed:
        report.error("NO_TASKS", (list_name,), f"`{list_name}` is empty; a job needs at least one.")
        return None
    limit = report.limits.max_tasks
    if len(listed) > limit:
        message = f"{len(listed)} {list_name} are more than setting `descriptor.max_tasks` allows ({limit})."
        report.error("TOO_MANY_TASKS", (list_name,), message)
        return None
    return listed


def without_doubles(names: tuple[str, ...], spot: Spot) -> tuple[str, ...]:
    """Dependencies, each once; a double is told."""
    if len(names) == len(set(names)):
        return names
    seen: set[str] = set()
    for index, name in enumerate(names):
        if name != UNREADABLE and name in seen:
            path = (*spot.path, "dependencies", index)
            spot.report.warn("DUPLICATE_DEPENDENCY", path, f"`{shown(name)}` is listed more than once.")
        seen.add(name)
    return tuple(dict.fromkeys(names))


def kept(unknown: dict[str, Any], metadata: dict[str, Any] | None) -> dict[str, Any]:
    """Metadata and unknown fields together. A field whose name the metadata has gets underscores before it."""
    if not unknown:
        return metadata or {}
    together = dict(metadata or {})
    for key, value in unknown.items():
        free = key
        while free in together:
            free = f"_{free}"
        together[free] = value
    return together


def settle_priority(known: dict[str, Any], report: Report) -> None:
    """Take the priority from the metadata, where the file itself tells none."""
    told = known.get("metadata", {}).get("priority")
    if told is None or "priority" in known:
        return
    priority = PRIORITIES.get(told.lower()) if isinstance(told, str) else None
    if priority is not None:
        known["priority"] = priority
        return
    quoted = f"`{shown(told)}`" if isinstance(told, str) else kind_of(told).capitalize()
    report.warn(
        "UNKNOWN_PRIORITY",
        ("metadata", "priority"),
        f"{quoted} is no priority, so the job's is medium; there are {', '.join(f'`{name}`' for name in PRIORITIES)}.",
        like=(told, PRIORITIES) if isinstance(told, str) else None,
    )
