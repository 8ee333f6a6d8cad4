"""A plan is drawn before it runs: as layers, for Graphviz, and as a picture."""

from __future__ import annotations

import shutil
import subprocess
from xml.etree import ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from runner.core.plan import Plan, TaskPlan
from runner.reports.dot import dot
from runner.reports.layers import layers_of, text
from runner.reports.picture import is_drawn_whole
from runner.reports.sketch import of_plan, of_record
from runner.reports.svg import svg
from tests.reports.conftest import HOSTILE, PLAN, fan, task

SVG = "{http://www.w3.org/2000/svg}"


def planned(*tasks: TaskPlan, title: str = "A plan") -> Plan:
    return Plan(alt_id="a", dialect="tasks", version="1.0", title=title, created_at=0, tasks=tasks)


def parsed(drawn: str) -> ET.Element:
    return ET.fromstring(drawn)  # noqa: S314 - we wrote it


def told(plan: Plan) -> str:
    console = Console(width=160, color_system=None)
    with console.capture() as captured:
        console.print(text(of_plan(plan)))
    return captured.get()


def test_tasks_that_may_run_side_by_side_stand_in_one_bracket() -> None:
    plan = planned(
        task("getir", "http_request", ""),
        task("özetle", "ai_prompt", "", "getir"),
        task("çığ", "ai_prompt", "", "getir"),
        task("ığdır", "delay", "", "getir"),
        task("son", "ai_prompt", "", "özetle", "çığ", "getir"),
        title="Haftalık",
    )
    assert [line.rstrip() for line in told(plan).splitlines()] == [
        "Haftalık: 5 tasks in 3 layers, up to 3 at once",
        "1  ─  getir   http_request",
        "2  ┌  özetle  ai_prompt     after getir",
        "   │  çığ     ai_prompt     after getir",
        "   └  ığdır   delay         after getir",
        "3  ─  son     ai_prompt     after özetle, çığ, getir",
    ]


def test_what_waits_for_many_names_some_and_counts_the_rest() -> None:
    leaves = [f"p{number}" for number in range(40)]
    shown = told(planned(*(task(leaf, "delay", "") for leaf in leaves), task("join", "delay", "", *leaves)))
    assert "p10, p11 and 28 more" in " ".join(shown.split())


names = st.text(min_size=1, max_size=12)


@given(st.lists(names, min_size=1, max_size=6, unique=True), names)
def test_whatever_names_hold_the_drawings_are_sound(ids: list[str], title: str) -> None:
    plan = planned(*(task(name, title, HOSTILE, *ids[:place][-2:]) for place, name in enumerate(ids)), title=title)
    sketch = of_plan(plan)
    assert not set("\x1b\x9b\u202e\x07") & set(told(plan) + dot(sketch) + svg(sketch, tasks=100))
    assert sorted(box.id for layer in layers_of(sketch.boxes, sketch.arrows) for box in layer) == sorted(ids)
    for tasks in (1, 100):
        root = parsed(svg(sketch, tasks=tasks))
        assert {element.tag.removeprefix(SVG) for element in root.iter()} <= {
            *("svg", "title", "style", "rect", "text", "g", "path")
        }


def test_a_picture_draws_every_task_and_dependency_and_needs_nothing_else() -> None:
    drawn = svg(of_plan(PLAN), tasks=100)
    root = parsed(drawn)
    boxes = [element for element in root.iter(f"{SVG}rect") if element.get("class") == "box"]
    edges = list(root.iter(f"{SVG}path"))
    assert len(boxes) == len(PLAN.tasks)
    assert len(edges) == sum(len(task.dependencies) for task in PLAN.tasks)
    for foreign in ("url(", "@import", "href", "var(", "<script"):
        assert foreign not in drawn
    assert drawn.replace("http://www.w3.org/2000/svg", "").count("http:") == 0


def test_a_plan_too_large_for_a_picture_is_drawn_as_layers_that_count_kinds() -> None:
    leaves = [f"p{number}" for number in range(200)]
    plan = planned(*(task(leaf, "delay", "") for leaf in leaves), task("join", "python", "", *leaves))
    assert not is_drawn_whole(of_plan(plan), 120)
    drawn = svg(of_plan(plan), tasks=120)
    assert "layer 1: 200 tasks" in drawn
    assert "200 delay" in drawn
    assert "1 python" in drawn
    assert is_drawn_whole(of_plan(plan), 201)


def test_a_record_is_drawn_by_the_same_hand() -> None:
    record = fan(3)
    assert [box.name for box in of_record(record).boxes] == ["split", "part_0", "part_1", "part_2", "join"]
    assert "✓" in svg(of_record(record), tasks=100)


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs Graphviz's dot")
def test_graphviz_reads_a_plan() -> None:
    drawn = subprocess.run(["dot", "-Tplain"], input=dot(of_plan(PLAN)), capture_output=True, text=True, check=True)
    assert drawn.stdout.count("\nnode ") == len(PLAN.tasks)
    assert drawn.stdout.count("\nedge ") == sum(len(task.dependencies) for task in PLAN.tasks)
