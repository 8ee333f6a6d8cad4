"""Checks the references of a plan: each names a task that has ended by then."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial

from runner.core.alt.dialect import Draft
from runner.core.alt.flow import apart
from runner.core.alt.graph import Edges
from runner.core.alt.limits import too_many_references
from runner.core.alt.report import Path, Report, shown
from runner.core.references import Malformed, Reference, Root, scan

_LONGEST_SUGGESTION = 80
_NOT_STORED = "Control flow keeps the values that it works with; refer to a secret in the task that needs it."
_NOT_READ = "Control flow reads no files; let a task read it, and refer to the output of that."


def check_references(draft: Draft, edges: Edges, report: Report) -> None:
    """Report references that are malformed, name no task, or name one that is no ancestor of theirs."""
    indices = {task.id: index for index, task in reversed(list(enumerate(draft.plan.tasks)))}
    distant: list[tuple[int, Path, int]] = []
    characters = 0
    limits = report.limits
    for count, (index, path, found) in enumerate(_references(draft), 1):
        characters += 0 if isinstance(found, Malformed) else len(found.name) + len(found.path) + len(found.artifact)
        if count > limits.max_references or characters > limits.max_reference_characters:
            raise report.fatal("TOO_MANY_REFERENCES", too_many_references(limits), path=(draft.list_name,))
        if isinstance(found, Malformed):
            report.error(found.reason, path(), found.message, like=(found.word, found.meant) if found.word else None)
        elif found.root is Root.TASKS:
            target = indices.get(found.name)
            if target is None:
                message = f"There is no task `{shown(found.name)}`."
                report.error("UNKNOWN_TASK", path(), message, like=(found.name, indices))
            elif target not in edges[index]:
                distant.append((index, path(), target))
        elif found.root is Root.VARIABLES:
            _check_variable(draft, index, found.name, path, report)
    if distant:
        _check_ancestors(draft, edges, distant, report)


def _references(draft: Draft) -> Iterator[tuple[int, Callable[[], Path], Reference | Malformed]]:
    """Every reference, with its task and the way to its place in the file."""
    for index, task in enumerate(draft.plan.tasks):
        for place, found in scan(task.parameters):
            yield index, partial(draft.locate_parameter, index, place), found
        for value, path in draft.flow.operands.get(index, ()) if draft.flow is not None else ():
            for place, found in scan(value):
                if isinstance(found, Reference) and found.root is Root.SECRETS:
                    found = Malformed("SECRET_STORED", _NOT_STORED)  # noqa: PLW2901  told like all others
                elif isinstance(found, Reference) and found.artifact:
                    found = Malformed("BAD_REFERENCE", _NOT_READ)  # noqa: PLW2901  told like all others
                yield index, partial(_joined, path, place), found


def _joined(path: Path, place: Path) -> Path:
    return (*path, *place)


def _check_variable(draft: Draft, index: int, name: str, path: Callable[[], Path], report: Report) -> None:
    if draft.flow is None:
        message = f"There is no variable `{shown(name)}`: only dialect `segments` 2.0 has variables."
        report.error("UNKNOWN_VARIABLE", path(), message)
        return
    names = draft.flow.names(index)
    if names.find(name) is None and draft.flow.homes[index].reached:
        message = f"There is no variable `{shown(name)}` here."
        report.error("UNKNOWN_VARIABLE", path(), message, like=(name, names))


def _check_ancestors(draft: Draft, edges: Edges, distant: list[tuple[int, Path, int]], report: Report) -> None:
    bits = {target: 1 << number for number, target in enumerate(sorted({target for _, _, target in distant}))}
    ancestors = _ancestors(edges, bits)
    for index, path, target in distant:
        if index not in ancestors or ancestors[index] & bits[target]:
            continue
        task, name = draft.plan.tasks[index], draft.plan.tasks[target].id
        if index == target:
            report.error("NOT_AN_ANCESTOR", path, f"Task `{shown(name)}` cannot refer to its own output.")
            continue
        if draft.flow is not None and (hint := apart(draft.plan, draft.flow, index, target)):
            report.error("NOT_AN_ANCESTOR", path, hint)
            continue
        message = f"Task `{shown(task.id)}` does not wait for `{shown(name)}`; add it to the dependencies."
        suggestion = ", ".join([*task.dependencies, name])
        suggestion = f"dependencies: [{suggestion}]" if len(suggestion) <= _LONGEST_SUGGESTION else ""
        report.error("NOT_AN_ANCESTOR", path, message, suggestion=suggestion)


def _ancestors(edges: Edges, bits: Mapping[int, int]) -> dict[int, int]:
    """Of each task, which of those that have a bit are its ancestors. Tasks in or behind a cycle are left out.

    One pass in the order of dependencies; a set of ten thousand is a number of 1.25 kB, so that joining two is cheap.
    """
    waiting = [len(into) for into in edges]
    behind: list[list[int]] = [[] for _ in edges]
    for index, into in enumerate(edges):
        for target in into:
            behind[target].append(index)
    ready = deque(index for index, count in enumerate(waiting) if not count)
    ancestors: dict[int, int] = {}
    while ready:
        index = ready.popleft()
        found = 0
        for target in edges[index]:
            found |= ancestors[target] | bits.get(target, 0)
        ancestors[index] = found
        for follower in behind[index]:
            waiting[follower] -= 1
            if not waiting[follower]:
                ready.append(follower)
    return ancestors
