"""Checks that tasks and their dependencies are a graph without cycles."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping, Sequence

from runner.core.alt.dialect import Draft
from runner.core.alt.fields import UNREADABLE
from runner.core.alt.report import Report, shown

#: Tasks of a ring that a sentence names.
_LONGEST_RING = 20
#: Rings of one knot that are looked for: a hostile knot holds thousands, and each costs a pass.
_ROUNDS = 8
Edges = Sequence[Sequence[int]]


def check_graph(draft: Draft, report: Report) -> Edges:
    """Report what is wrong with ids and dependencies. Answers each task's dependencies, as indices."""
    name = draft.list_name
    count, limit = sum(map(len, draft.dependencies)), report.limits.max_dependencies
    if count > limit:
        message = f"{count} dependencies are more than setting `descriptor.max_dependencies` allows ({limit})."
        raise report.fatal("TOO_MANY_DEPENDENCIES", message, path=(name,))
    indices = _indices(draft, report)
    edges: list[list[int]] = []
    backward = True
    for index, written in enumerate(draft.dependencies):
        edges.append(into := [])
        if not written:
            continue
        for position, dependency in enumerate(written):
            target = indices.get(dependency)
            if target is not None:
                into.append(target)
                backward = backward and target < index
            elif dependency != UNREADABLE:
                path = draft.dependency_path(index, position)
                report.error(
                    "UNKNOWN_DEPENDENCY", path, f"There is no task `{shown(dependency)}`.", like=(dependency, indices)
                )
    if not backward:
        report_cycles(draft, edges, report)
    return edges


def _indices(draft: Draft, report: Report) -> dict[str, int]:
    """Where each id stands. An id that could not be read is "" and stands nowhere."""
    tasks = draft.plan.tasks
    indices = {task.id: index for index, task in enumerate(tasks)}
    if len(indices) == len(tasks) and "" not in indices:
        return indices
    indices = {}
    for index, task in enumerate(tasks):
        first = indices.setdefault(task.id, index)
        if first != index and task.id:
            message = f"The id `{shown(task.id)}` is already that of {draft.list_name}[{first}]."
            report.error("DUPLICATE_ID", (draft.list_name, index, "id"), message)
    indices.pop("", None)
    return indices


def report_cycles(draft: Draft, edges: Edges, report: Report) -> None:
    """Report rings of tasks that wait for each other."""
    for ring in rings(edges):
        _report_ring(draft, ring, report)


def rings(edges: Edges) -> Iterator[list[int]]:
    """Rings that share no node, each once, starting with its first; not all of them in a knot of thousands."""
    left = set(range(len(edges)))
    for _ in range(_ROUNDS):
        knots = _knots(edges, left)
        for knot in knots:
            ring = _ring(edges, knot)
            left.difference_update(ring)
            yield ring
        if not knots:
            return


def _report_ring(draft: Draft, ring: list[int], report: Report) -> None:
    names = [shown(draft.plan.tasks[index].id) for index in ring]
    following = draft.plan.tasks[ring[1] if len(ring) > 1 else ring[0]].id
    if len(names) > _LONGEST_RING:
        half = _LONGEST_RING // 2
        names[half:-half] = [f"… ({len(names) - 2 * half} more) …"]
    written = draft.dependencies[ring[0]]
    # Where bodies wait for each other, it may be what runs inside of them that says so.
    path = (draft.list_name, ring[0])
    report.error(
        "CYCLE",
        draft.dependency_path(ring[0], written.index(following)) if following in written else path,
        f"{'These wait' if len(ring) > 1 else 'This waits'} for {'each other' if len(ring) > 1 else 'itself'}: "
        f"{' → '.join([*names, names[0]])}.",
    )


def _knots(edges: Edges, among: set[int]) -> list[set[int]]:
    """The strongly connected components that hold a cycle, in the order of the file.

    Kosaraju's two passes, with a stack of their own: a chain of 10,000 tasks must not recurse.
    """
    forward = {node: [target for target in edges[node] if target in among] for node in among}
    backward: dict[int, list[int]] = {node: [] for node in among}
    for node, targets in forward.items():
        for target in targets:
            backward[target].append(node)
    seen: set[int] = set()
    finished = [node for root in sorted(among) for node in _finishing(root, forward, seen)]
    seen = set()
    found = (set(_finishing(root, backward, seen)) for root in reversed(finished))
    return sorted((knot for knot in found if len(knot) > 1 or any(n in forward[n] for n in knot)), key=min)


def _finishing(root: int, edges: Mapping[int, Sequence[int]], seen: set[int]) -> Iterator[int]:
    """What can be reached from `root` and was not seen, each after all that it reaches."""
    if root in seen:
        return
    seen.add(root)
    walk = [(root, iter(edges[root]))]
    while walk:
        node, targets = walk[-1]
        target = next((target for target in targets if target not in seen), None)
        if target is None:
            walk.pop()
            yield node
        else:
            seen.add(target)
            walk.append((target, iter(edges[target])))


def _ring(edges: Edges, knot: set[int]) -> list[int]:
    """A shortest ring through the first task of a strongly connected component."""
    start = min(knot)
    parent = {start: start}
    queue = deque([start])
    while queue:
        node = queue.popleft()
        for target in edges[node]:
            if target == start:
                queue.clear()
                break
            if target in knot and target not in parent:
                parent[target] = node
                queue.append(target)
    ring = [node]
    while node != start:
        node = parent[node]
        ring.append(node)
    return ring[::-1]
