"""`alt-runner graph`: the plan of a descriptor, drawn before it runs."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from runner.cli import checking, descriptors, options, output
from runner.cli.exits import Unusable, worst

if TYPE_CHECKING:
    from runner.cli.checking import Checked
    from runner.core.plan import Plan
    from runner.reports.sketch import Sketch


def graph(
    files: descriptors.Files,
    *,
    text: Annotated[bool, typer.Option("--text", help="For people: layers of tasks (the default).")] = False,
    dot: Annotated[bool, typer.Option("--dot", help="For Graphviz.")] = False,
    svg: Annotated[bool, typer.Option("--svg", help="As a picture that needs nothing else.")] = False,
    to: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write to a file; - is standard output.")
    ] = None,
    tasks: Annotated[
        int, typer.Option("--tasks", min=1, help="With --svg: of more tasks than this, draw layers only.")
    ] = 120,
    as_json: options.Json = False,
) -> None:
    """Draw which tasks of a descriptor wait for which, without running it.

    A descriptor that is wrong is told about as `validate` does, and the exit code is 6.
    """
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
    from runner.reports.standing import counted
    from runner.reports.svg import is_drawn_whole, svg

    sketch = _sketch(plan)
    if not is_drawn_whole(sketch, tasks):
        size = f"{counted(len(sketch.boxes), 'task')} and {counted(len(sketch.arrows), 'dependency', 'dependencies')}"
        output.notice(f"{size} are drawn as layers; to draw them one by one: --tasks {len(sketch.boxes)}")
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

    layers = layers_of(_sketch(checked.plan))
    layer_of = {box.id: number for number, layer in enumerate(layers, start=1) for box in layer}
    return told | {
        "nodes": [
            {"id": task.id, "kind": task.kind, "description": task.description, "layer": layer_of[task.id]}
            for task in checked.plan.tasks
        ],
        "edges": [{"source": source, "target": task.id} for task in checked.plan.tasks for source in task.dependencies],
        "layers": [[box.id for box in layer] for layer in layers],
    }
