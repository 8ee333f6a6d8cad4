"""`alt-runner graph`: the plan of a descriptor, drawn before it runs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.cli import checking, descriptors, options, output
from runner.cli.exits import Unusable, worst

if TYPE_CHECKING:
    from runner.cli.checking import Checked
    from runner.core.plan import Plan, TaskPlan
    from runner.reports.sketch import Sketch


def graph(
    files: descriptors.Files,
    *,
    text: Annotated[bool, typer.Option("--text", help="For people: layers of tasks (the default).")] = False,
    dot: Annotated[bool, typer.Option("--dot", help="For Graphviz.")] = False,
    svg: Annotated[bool, typer.Option("--svg", help="As a picture that needs nothing else.")] = False,
    to: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            metavar="FILE",
            help="Write to a file, of the kind that its name ends in; - is standard output.",
        ),
    ] = None,
    tasks: Annotated[
        int,
        typer.Option(
            "--tasks", min=1, help="With --svg: of more tasks than this, draw only the outer ones, or layers."
        ),
    ] = 120,
    as_json: options.Json = False,
) -> None:
    """Draw which tasks of a descriptor wait for which, and what runs which, without running it.

    A descriptor that is wrong is told about as `validate` does, and the exit code is 6.
    """
    if not (text or dot or svg or as_json) and to is not None:
        dot, svg, as_json = (to.suffix.lower() in endings for endings in ((".dot", ".gv"), (".svg",), (".json",)))
    if text + dot + svg + as_json > 1:
        raise Unusable("--text, --dot, --svg and --json exclude each other; give one of them")
    found = descriptors.read(files)
    if svg and len(found) > 1:
        raise Unusable("--svg draws one descriptor into one picture; name one FILE")
    checked = [checking.check(descriptor) for descriptor in found]
    if not as_json:
        _tell_findings(checked)
    plans = [one.plan for one in checked if one.plan is not None]
    if as_json:
        _written(to, "".join(f"{output.as_json(_as_json(one))}\n" for one in checked))
    elif dot:
        _written(to, _dots(plans))
    elif svg:
        _written(to, "".join(_svg(plan, tasks) for plan in plans))
    elif plans:
        _show(plans, to)
    raise typer.Exit(worst(one.exit for one in checked))


def _tell_findings(checked: Iterable[Checked]) -> None:
    """To standard error: only the drawing is the result."""
    stderr = output.console(stderr=True)
    for one in checked:
        *findings, verdict = checking.told(one)
        for told in findings if one.plan is not None else [*findings, verdict]:
            stderr.print(told)


def _written(to: Path | None, text: str) -> None:
    if not text:
        return
    if to is None or str(to) == "-":
        output.raw(text.encode())
        return
    output.write_file(to, text)
    output.notice(f"wrote {to}")


def _sketch(plan: Plan) -> Sketch:
    from runner.reports.sketch import of_plan

    return of_plan(plan)


def _dots(plans: Iterable[Plan]) -> str:
    from runner.reports.dot import dot

    return "".join(dot(_sketch(plan)) for plan in plans)


def _svg(plan: Plan, tasks: int) -> str:
    from runner.reports.picture import is_drawn_whole
    from runner.reports.sketch import every_arrow, every_box
    from runner.reports.standing import counted
    from runner.reports.svg import svg

    sketch = _sketch(plan)
    if not is_drawn_whole(sketch, tasks):
        boxes = sum(1 for _ in every_box((*sketch.boxes, *sketch.functions)))
        arrows = sum(1 for _ in every_arrow(sketch))
        size = f"{counted(boxes, 'task')} and {counted(arrows, 'dependency', 'dependencies')}"
        how = "as layers" if boxes == len(sketch.boxes) else "without what is inside of some"
        output.notice(f"{size} are drawn {how}; to draw them one by one: --tasks {boxes}")
    return svg(sketch, tasks=tasks)


def _show(plans: Iterable[Plan], to: Path | None) -> None:
    from rich.text import Text

    from runner.reports.layers import text

    parts = [part for plan in plans for part in (text(_sketch(plan)), Text())][:-1]
    if to is None or str(to) == "-":
        output.show(*parts)
    else:
        _written(to, output.plain(*parts))


def _as_json(checked: Checked) -> dict[str, Any]:
    told = checking.as_json(checked)
    if checked.plan is None:
        return told
    from runner.reports.layers import layers_of

    sketch = _sketch(checked.plan)
    layers = layers_of(sketch.boxes, sketch.arrows)
    bodies = list(_bodies(checked.plan))
    return told | {
        "nodes": [node for body in bodies for node in _nodes(*body)],
        "edges": [
            {"source": source, "target": task.id}
            for _, tasks in bodies
            for task in tasks
            for source in task.dependencies
        ],
        "layers": [[box.id for box in layer] for layer in layers],
    }


def _bodies(plan: Plan) -> Iterator[tuple[dict[str, str], tuple[TaskPlan, ...]]]:
    """All bodies, each with where it stands: nothing for the file's own tasks; the task that runs it, or a function."""
    from runner.core.plan import Branch, bodies

    waiting: list[tuple[dict[str, str], tuple[TaskPlan, ...]]] = [
        ({}, plan.tasks),
        *(({"function": function.name, "body": "call"}, function.body) for function in plan.functions),
    ]
    while waiting:
        place, tasks = waiting.pop(0)
        yield place, tasks
        for task in tasks:
            words = ("if", "else") if isinstance(task.control, Branch) else ("round",)
            waiting += [
                ({"body_of": task.id, "body": word}, inner)
                for word, inner in zip(words, bodies(task.control), strict=False)
            ]


def _nodes(place: dict[str, str], tasks: tuple[TaskPlan, ...]) -> Iterator[dict[str, Any]]:
    """The tasks of one body; layers count within it."""
    from runner.core.plan import Call
    from runner.reports.graph import sound_edges
    from runner.reports.wording import of_control

    waits = [(source, task.id) for task in tasks for source in task.dependencies]
    layers, _ = sound_edges([task.id for task in tasks], waits)
    for task in tasks:
        node = {"id": task.id, "kind": task.kind, "description": task.description, "layer": layers[task.id] + 1}
        if task.control is not None:
            node["control"] = of_control(task.control)
        if isinstance(task.control, Call):
            node["calls"] = task.control.function
        yield node | place
