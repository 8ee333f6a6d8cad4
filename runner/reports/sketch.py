"""What is drawn of a graph of tasks, whoever tells it: the record of a job that ended, or the plan of one to come."""

from __future__ import annotations

import itertools
from typing import Final

import msgspec

from runner.core.plan import Plan, TaskPlan
from runner.core.record import DependencyType, GraphNode, LastRecord, TaskRecord, duration_text
from runner.reports.graph import Edge, sound_edges
from runner.reports.standing import Standing, standing_of

#: Characters of a tooltip.
_LONGEST_TOLD: Final = 1_000


class Box(msgspec.Struct, frozen=True, kw_only=True):
    """One task."""

    #: What arrows name.
    id: str
    #: Its colours.
    standing: Standing
    #: The task's id.
    name: str
    #: What stands below the name: how it ended, or what it does.
    line: str
    #: What a tooltip says.
    told: str
    #: The word under which it is counted where boxes are summed up.
    sort: str


class Arrow(msgspec.Struct, frozen=True):
    """`target` waits for `source`; both are ids of boxes."""

    source: str
    target: str
    kind: DependencyType = DependencyType.REQUIRED
    #: On the chain that the job's end waited for.
    critical: bool = False


class Sketch(msgspec.Struct, frozen=True):
    """A graph of tasks to be drawn. Records come from files: its arrows may close rings or lead nowhere."""

    title: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]

    @property
    def edges(self) -> list[Edge]:
        return [(arrow.source, arrow.target) for arrow in self.arrows]


def of_plan(plan: Plan) -> Sketch:
    """A job before it runs: of each task its kind."""
    arrows = (Arrow(source, task.id) for task in plan.tasks for source in task.dependencies)
    return Sketch(plan.title, tuple(_planned(task) for task in plan.tasks), tuple(arrows))


def _planned(task: TaskPlan) -> Box:
    told = f"{task.id}\n{task.kind}\n{task.description}"
    return Box(
        id=task.id,
        standing=Standing.PENDING,
        name=task.id,
        line=task.kind,
        told=told if len(told) <= _LONGEST_TOLD else f"{told[:_LONGEST_TOLD]}…",
        sort=task.kind,
    )


def of_record(record: LastRecord) -> Sketch:
    """A job that ended: of each task how it did and how long it took, and the critical path."""
    graph = record.execution_graph
    tasks = {node.id: node.task_id for node in graph.nodes}
    critical = set(itertools.pairwise(critical_path(record)))
    return Sketch(
        record.title,
        tuple(_ended(node, record.task_results.get(node.task_id)) for node in graph.nodes),
        tuple(
            Arrow(
                edge.source,
                edge.target,
                edge.dependency_type,
                critical=(tasks.get(edge.source), tasks.get(edge.target)) in critical,
            )
            for edge in graph.edges
        ),
    )


def _ended(node: GraphNode, task: TaskRecord | None) -> Box:
    standing = Standing[node.status.name] if task is None else standing_of(task)
    parts = [standing.word]
    if node.duration_ms and standing is not Standing.CANCELLED:
        took = duration_text(node.duration_ms)
        parts = [took] if standing is Standing.COMPLETED else [*parts, took]
    if task is not None and len(task.attempts) > 1:
        parts.append(f"{len(task.attempts)} attempts")
    return Box(
        id=node.id,
        standing=standing,
        name=node.task_id,
        line=f"{standing.glyph} {' · '.join(parts)}",
        told=node.task_id if task is None or not task.description else f"{node.task_id}\n{task.description}",
        sort=standing.word,
    )


def critical_path(record: LastRecord) -> list[str]:
    """The chain that the job's end waited for: from the last task to end, back to what each waited for last."""
    ended = {task_id: task.end_time for task_id, task in record.task_results.items() if task.end_time and task.attempts}
    tasks = {node.id: node.task_id for node in record.execution_graph.nodes}
    edges = [
        (tasks[edge.source], tasks[edge.target])
        for edge in record.execution_graph.edges
        if edge.source in tasks and edge.target in tasks
    ]
    before: dict[str, list[str]] = {}
    _, sound = sound_edges(ended, edges)
    for source, target in sound:
        before.setdefault(target, []).append(source)
    path = [max(ended, key=lambda task_id: ended[task_id])] if ended else []
    while path and (sources := before.get(path[-1])):
        path.append(max(sources, key=lambda task_id: ended[task_id]))
    return path[::-1]
