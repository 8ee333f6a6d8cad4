"""What is drawn of a graph of tasks, whoever tells it: the record of a job that ended, or the plan of one to come.

What a control task runs stands inside of its box, once: of a loop the body and not its rounds, of which a record's
boxes tell how many ended how.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

import msgspec

from runner.core.plan import Branch, ForEach, ForRange, Plan, TaskPlan, While
from runner.core.record import DependencyType, GraphNode, LastRecord, TaskRecord, duration_text
from runner.reports import wording
from runner.reports.graph import Edge, sound_edges
from runner.reports.standing import Standing, counted, standing_of
from runner.reports.tree import Shape, Tree, shapes, tree_of

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
    #: What it runs.
    frames: tuple[Frame, ...] = ()


class Arrow(msgspec.Struct, frozen=True):
    """`target` waits for `source`; both are ids of boxes."""

    source: str
    target: str
    kind: DependencyType = DependencyType.REQUIRED
    #: On the chain that the job's end waited for.
    critical: bool = False


class Frame(msgspec.Struct, frozen=True):
    """A body: what stands inside of a box."""

    #: `if`, `else`, or nothing where there is only one.
    label: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]


class Sketch(msgspec.Struct, frozen=True):
    """A graph of tasks to be drawn. Records come from files: its arrows may close rings or lead nowhere."""

    title: str
    boxes: tuple[Box, ...]
    arrows: tuple[Arrow, ...]
    #: What calls run, beside the rest: of each function its body.
    functions: tuple[Box, ...] = ()

    @property
    def edges(self) -> list[Edge]:
        return [(arrow.source, arrow.target) for arrow in self.arrows]


def every_box(boxes: Iterable[Box]) -> Iterator[Box]:
    """The boxes and all that are inside of them."""
    for box in boxes:
        yield box
        for frame in box.frames:
            yield from every_box(frame.boxes)


def every_arrow(sketch: Sketch) -> Iterator[Arrow]:
    """The arrows between all boxes."""
    yield from sketch.arrows
    for box in every_box((*sketch.boxes, *sketch.functions)):
        for frame in box.frames:
            yield from frame.arrows


# ------------------------------------------------------------------------------------------------------------- plans


def of_plan(plan: Plan) -> Sketch:
    """A job before it runs: of each task its kind, or what it controls."""
    functions = tuple(
        Box(
            id=f"function {function.name}",
            standing=Standing.PENDING,
            name=f"{function.name}({', '.join(parameter.name for parameter in function.parameters)})",
            line="function",
            told=_cut(f"function {function.name}\n{function.description}"),
            sort="function",
            frames=(_planned_frame("", function.body),),
        )
        for function in plan.functions
    )
    return Sketch(plan.title, tuple(map(_planned, plan.tasks)), tuple(_waits(plan.tasks)), functions)


def _waits(tasks: Iterable[TaskPlan]) -> Iterator[Arrow]:
    return (Arrow(source, task.id) for task in tasks for source in task.dependencies)


def _planned_frame(label: str, tasks: Sequence[TaskPlan]) -> Frame:
    return Frame(label, tuple(map(_planned, tasks)), tuple(_waits(tasks)))


def _planned(task: TaskPlan) -> Box:
    words = "" if task.control is None else wording.of_control(task.control)
    return Box(
        id=task.id,
        standing=Standing.PENDING,
        name=task.id,
        line=words or task.kind,
        told=_cut(f"{task.id}\n{words or task.kind}\n{task.description}"),
        sort=task.kind,
        frames=_planned_frames(task),
    )


def _planned_frames(task: TaskPlan) -> tuple[Frame, ...]:
    match task.control:
        case Branch(then=then, otherwise=otherwise):
            other = (_planned_frame("else", otherwise),) if otherwise else ()
            return (_planned_frame("if", then), *other)
        case ForEach(body=body) | ForRange(body=body) | While(body=body):
            return (_planned_frame("", body),)
    return ()


# ----------------------------------------------------------------------------------------------------------- records


def of_record(record: LastRecord) -> Sketch:
    """A job that ended: of each task how it did and how long it took, and the critical path."""
    graph = record.execution_graph
    names = {node.id: node.task_id for node in graph.nodes}
    critical = set(itertools.pairwise(critical_path(record)))
    tree = tree_of(record)
    if not tree.runs:
        boxes = tuple(_ended(node, record.task_results.get(node.task_id)) for node in graph.nodes)
        return Sketch(record.title, boxes, tuple(_arrows(record, critical)))
    shaped = shapes(tree)
    places = _places(shaped)
    inner: dict[str, dict[Edge, Arrow]] = {}
    for arrow in _arrows(record, critical):
        source, target = places.get(names.get(arrow.source, "")), places.get(names.get(arrow.target, ""))
        # What an arrow from a control task into its own body says, the box around that says as well.
        if source is None or target is None or _around(source) != _around(target):
            continue
        found = inner.setdefault(_around(source), {})
        critical_before = (source, target) in found and found[source, target].critical
        found[source, target] = Arrow(source, target, arrow.kind, arrow.critical or critical_before)
    arrows = {place: tuple(found.values()) for place, found in inner.items()}
    boxes = tuple(_shaped(shape, str(number), arrows) for number, shape in enumerate(shaped))
    return Sketch(record.title, boxes, arrows.get("", ()))


def _arrows(record: LastRecord, critical: set[Edge]) -> Iterator[Arrow]:
    tasks = {node.id: node.task_id for node in record.execution_graph.nodes}
    for edge in record.execution_graph.edges:
        ends = (tasks.get(edge.source, ""), tasks.get(edge.target, ""))
        yield Arrow(edge.source, edge.target, edge.dependency_type, critical=ends in critical)


def _places(shaped: Sequence[Shape], within: str = "") -> dict[str, str]:
    """By task, the id of the box in which it is drawn: `0/1/2`, by the numbers of the boxes around it."""
    found: dict[str, str] = {}
    for number, shape in enumerate(shaped):
        place = f"{within}/{number}" if within else str(number)
        found |= {task.task_id: place for task in shape.tasks}
        for index, body in enumerate(shape.bodies.values()):
            found |= _places(body, f"{place}/{index}")
    return found


def _around(place: str) -> str:
    return place.rpartition("/")[0]


def _shaped(shape: Shape, place: str, arrows: dict[str, tuple[Arrow, ...]]) -> Box:
    frames = tuple(
        Frame(
            _frame_label(shape, body),
            tuple(_shaped(each, f"{place}/{index}/{number}", arrows) for number, each in enumerate(inner)),
            arrows.get(f"{place}/{index}", ()),
        )
        for index, (body, inner) in enumerate(shape.bodies.items())
    )
    task = shape.tasks[0]
    about = f"{shape.name}\n{task.description}" if task.description else shape.name
    return Box(
        id=place,
        standing=shape.standing,
        name=shape.name if len(shape.tasks) > 1 else task.task_id,
        line=_line(shape),
        told=_cut(about if len(shape.tasks) == 1 else f"{about}\n{_ends(shape)}"),
        sort=shape.standing.word,
        frames=frames,
    )


def _frame_label(shape: Shape, body: str) -> str:
    if body not in {"if", "else"}:
        return ""
    taken = sum(task.metadata.get("branch") == body for task in shape.tasks)
    if len(shape.tasks) > 1:
        return f"{body}: taken {counted(taken, 'time')}"
    return f"{body}: taken" if taken else f"{body}: not taken"


def _line(shape: Shape) -> str:
    task = shape.tasks[0]
    if len(shape.tasks) == 1 and not shape.control:
        return _how(standing_of(task), task.duration_ms, len(task.attempts))
    words = wording.of_metadata(task.metadata) if len(shape.tasks) == 1 or shape.control != "condition" else "condition"
    rounds = sum(each.metadata.get("rounds", 0) for each in shape.tasks if isinstance(each.metadata.get("rounds"), int))
    parts = [words] if words else []
    parts += [counted(rounds, "round")] if "rounds" in task.metadata else []
    if len(shape.tasks) > 1:
        return " · ".join([*parts, _ends(shape)])
    return " · ".join([*parts, _how(standing_of(task), task.duration_ms, 0)])


def _ends(shape: Shape) -> str:
    return "  ".join(f"{standing.glyph} {count:,}" for standing, count in shape.counts.items())


def _ended(node: GraphNode, task: TaskRecord | None) -> Box:
    standing = Standing[node.status.name] if task is None else standing_of(task)
    return Box(
        id=node.id,
        standing=standing,
        name=node.task_id,
        line=_how(standing, node.duration_ms, 0 if task is None else len(task.attempts)),
        told=node.task_id if task is None or not task.description else f"{node.task_id}\n{task.description}",
        sort=standing.word,
    )


def _how(standing: Standing, duration_ms: int | None, attempts: int) -> str:
    parts = [standing.word]
    if duration_ms and standing is not Standing.CANCELLED:
        took = duration_text(duration_ms)
        parts = [took] if standing is Standing.COMPLETED else [*parts, took]
    if attempts > 1:
        parts.append(f"{attempts} attempts")
    return f"{standing.glyph} {' · '.join(parts)}"


def critical_path(record: LastRecord) -> list[str]:
    """The chain of the file's own tasks that the job's end waited for: from the last one to end, back to what each
    waited for last.
    """
    tree = tree_of(record)
    ended = {task.task_id: task.end_time for task in tree.top if task.end_time and _ran(task, tree)}
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


def _ran(task: TaskRecord, tree: Tree) -> bool:
    return bool(task.attempts) or task.task_id in tree.runs


def _cut(told: str) -> str:
    return told if len(told) <= _LONGEST_TOLD else f"{told[:_LONGEST_TOLD]}…"
