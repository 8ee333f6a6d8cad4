"""Control flow in reports: each body once, rounds counted, and every task still to be found."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from xml.etree import ElementTree as ET

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from runner.core.plan import Branch, Call, Condition, Definition, ForRange, Operator, TaskPlan, Value, While
from runner.core.record import LastRecord, ResultStatus, TaskRecord
from runner.reports.dot import dot
from runner.reports.html import PageSettings, html
from runner.reports.layers import text
from runner.reports.sketch import Box, critical_path, every_box, of_plan, of_record
from runner.reports.svg import svg
from runner.reports.timeline import in_order, span_of
from runner.reports.tree import shapes, told_times, tree_of
from runner.reports.wording import of_answer, of_condition, of_control
from tests.reports.flows import asking, counting, recorded, step, tickets, triage
from tests.reports.test_html import Page, assert_harmless
from tests.reports.test_terminal import shown

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="session")
def few() -> LastRecord:
    return recorded(triage(), tickets(4))


@pytest.fixture(scope="session")
def broken() -> LastRecord:
    """Thirty rounds, of which one failed."""
    return recorded(triage(), tickets(30), fails=lambda name: "[7]/rate" in name)


@pytest.fixture(scope="session")
def huge() -> LastRecord:
    """5,000 rounds with a call and a condition in each; eleven failed."""
    bad = {f"each_ticket[{number}]/rate/weigh" for number in range(3, 5_000, 487)}
    return recorded(triage(), tickets(5_000), fails=bad.__contains__)


def boxes_of(record: LastRecord) -> dict[str, Box]:
    return {box.name: box for box in every_box(of_record(record).boxes)}


# --------------------------------------------------------------------------------------------------------- the graph


def test_a_loop_is_one_box_with_its_body_inside_of_it_once(broken: LastRecord) -> None:
    boxes = boxes_of(broken)
    assert list(boxes) == ["fetch", "each_ticket", "rate", "weigh", "urgent", "page", "file", "report"]
    assert boxes["each_ticket"].line == "for each ticket · 30 rounds · ✗ failed · 28 ms"
    assert boxes["rate"].line == "calls score · ✓ 29  ✗ 1"
    assert boxes["urgent"].line == "condition · ✓ 29  ⊘ 1"
    assert boxes["page"].line == "✓ 13  ↷ 16"
    assert [frame.label for frame in boxes["urgent"].frames] == ["if: taken 13 times", "else: taken 16 times"]


def test_within_a_body_arrows_are_drawn_once_and_from_a_control_task_into_its_body_never(few: LastRecord) -> None:
    sketch = of_record(few)
    assert [(arrow.source, arrow.target) for arrow in sketch.arrows] == [("0", "1"), ("1", "2")]
    assert all(arrow.critical for arrow in sketch.arrows)
    loop = sketch.boxes[1]
    assert [len(frame.arrows) for frame in loop.frames] == [1]
    assert critical_path(few) == ["fetch", "each_ticket", "report"]


def test_a_plan_draws_bodies_branches_and_functions() -> None:
    console = Console(width=160, color_system=None)
    with console.capture() as captured:
        console.print(text(of_plan(triage())))
    assert [line.rstrip() for line in captured.get().splitlines()] == [
        "Triage: 3 tasks in 3 layers, and 5 tasks within these",
        "1  ─  fetch         delay",
        "2  ─  each_ticket   for each ticket in ${inputs.tickets}, 16 at once  after fetch",
        "       ─  rate      calls score",
        "       ─  urgent    if ticket.severity ≥ 3                            after rate",
        "           if",
        "           ─  page  delay",
        "           else",
        "           ─  file  delay",
        "3  ─  report        delay                                             after each_ticket",
        "   score(of)        function",
        "       ─  weigh     delay",
    ]


def test_pictures_keep_boxes_within_what_runs_them_and_apart_from_each_other(broken: LastRecord) -> None:
    for sketch in (of_plan(triage()), of_record(broken)):
        root = ET.fromstring(svg(sketch, tasks=100))  # noqa: S314 - we wrote it
        rectangles = rectangles_of(root)
        assert len(rectangles) == sum(1 for _ in every_box((*sketch.boxes, *sketch.functions)))
        for one, (left, top, right, bottom) in enumerate(rectangles):
            for x0, y0, x1, y1 in rectangles[one + 1 :]:
                apart = x0 >= right or x1 <= left or y0 >= bottom or y1 <= top
                within = (x0 > left and y0 > top and x1 < right and y1 < bottom) or (
                    left > x0 and top > y0 and right < x1 and bottom < y1
                )
                assert apart or within


def rectangles_of(root: ET.Element) -> list[tuple[float, float, float, float]]:
    """Where the boxes stand on the whole picture: left, top, right, bottom."""
    found: list[tuple[float, float, float, float]] = []

    def visit(element: ET.Element, x: float, y: float) -> None:
        if moved := re.fullmatch(r"translate\((\S+) (\S+)\)", element.get("transform", "")):
            x, y = x + float(moved[1]), y + float(moved[2])
        if "box" in element.get("class", "").split():
            found.append((x, y, x + float(element.get("width", 0)), y + float(element.get("height", 0))))
        for child in element:
            visit(child, x, y)

    visit(root, 0, 0)
    return found


def test_a_picture_without_room_leaves_out_the_innermost_first() -> None:
    whole, outer, layers = (svg(of_plan(triage()), tasks=tasks) for tasks in (9, 4, 2))
    assert ">page<" in whole
    assert ">page<" not in outer
    assert "4 inside" in outer
    assert "layer 1: 1 task" in layers


def test_graphviz_gets_clusters(few: LastRecord) -> None:
    for sketch in (of_plan(triage()), of_record(few)):
        drawn = dot(sketch)
        assert drawn.count("subgraph ") == sum(1 for box in every_box((*sketch.boxes, *sketch.functions)) if box.frames)
        assert drawn.count("style=dotted") == sum(
            1 for box in every_box((*sketch.boxes, *sketch.functions)) for frame in box.frames for _ in frame.boxes
        ) - sum(len(frame.arrows) for box in every_box(sketch.boxes) for frame in box.frames)
        if shutil.which("dot"):
            told = subprocess.run(["dot", "-Tplain"], input=drawn, capture_output=True, text=True, check=True)
            assert told.stdout.count("\nnode ") == sum(1 for _ in every_box((*sketch.boxes, *sketch.functions)))
            assert told.stderr == ""


def test_what_control_tasks_do_is_told_in_words() -> None:
    points = Condition(Operator.GTE, Value("${variables.points}"), Value(3))
    named = Condition(Operator.STARTS_WITH, Value("${tasks.a.output}"), Value("x"))
    both = Condition(Operator.OR, points, Condition(Operator.NOT, Condition(Operator.AND, points, named)))
    assert of_condition(both) == ('points ≥ 3 or (not (points ≥ 3 and ${tasks.a.output} starts with "x"))')
    body = (step("x"),)
    counted = ForRange(variable="n", start=Value(1), end=Value("${inputs.n}"), step=Value(2), body=body, parallel=4)
    assert of_control(counted) == "for n from 1 up to ${inputs.n} by 2, 4 at once"
    assert of_control(While(variable="n", condition=points, body=body)) == "while points ≥ 3"
    assert of_control(Branch(condition=points, then=body)) == "if points ≥ 3"
    assert of_control(Call(function="score")) == "calls score"
    assert of_control(Definition()) == "defines a function"


# ------------------------------------------------------------------------------------------------------ the terminal


def test_on_a_terminal_what_a_task_ran_stands_indented_below_it(few: LastRecord) -> None:
    lines = shown(few).splitlines()
    names = [line[5:55].rstrip() for line in lines[lines.index("") + 3 :] if line[:1] in "✓✗↷⋮"]
    assert names[:9] == [
        "fetch",
        "each_ticket  for each ticket",
        "  [0] rate  calls score · id: T-0, severity: 1",
        "    weigh",
        "  [0] urgent  took else",
        "    file",
        "    page",
        "  [1] rate  calls score · id: T-1, severity: 2",
        "    weigh",
    ]


def test_on_a_terminal_a_long_loop_is_summed_up_and_its_failed_rounds_are_shown(huge: LastRecord) -> None:
    told = shown(huge)
    assert "rounds 0–4,999: 4,989 completed, 11 failed" in told
    assert "[490] rate" in told
    assert "6 more rounds failed" in told
    assert "rate ×5,000" in told
    assert "urgent 4,989 ran, 11 cancelled" in told
    assert "page 2,494 ran, 2,495 skipped" in told
    assert told.count("⌀ 7 ms") > 2
    assert "✗ each_ticket[3]/rate/weigh  BAD_TICKET" in told
    assert "BODY_FAILED" not in told
    assert len(told.splitlines()) < 50
    assert "where 4.4 s went" in told
    everything = shown(recorded(triage(), tickets(30)), tasks=1_000)
    assert "⋮" not in everything
    assert "[29] rate" in everything


def test_on_a_terminal_an_approval_tells_who_answered_and_a_reused_task_where_it_ran() -> None:
    told = shown(asking(4))
    assert "✓ each[2]/urgent/ask  approved by ayşe: go\n" in told
    assert "✓ each[3]/urgent/ask  rejected by ayşe, goes on\n" in told
    assert "↺ reused from job earlier: fetch\n" in told
    assert re.search(r"^✓ +fetch +– +– +reused *$", told, re.MULTILINE)
    default = {"approved": True, "by": "default", "comment": "", "data": None}
    task = TaskRecord(task_id="a", status=ResultStatus.COMPLETED, task_type="approval", output=default)
    assert of_answer(task) == "approved by default, as nobody answered"


@pytest.mark.parametrize("width", [20, 72, 100])
def test_rows_of_loops_keep_to_the_width_of_the_console(broken: LastRecord, width: int) -> None:
    assert max(map(len, shown(broken, width).splitlines())) <= width


# ------------------------------------------------------------------------------------------------------------ the page


def test_a_page_of_a_huge_loop_is_small_whole_and_soon_there(huge: LastRecord) -> None:
    begun = time.monotonic()
    written = html(huge)
    assert time.monotonic() - begun < 30
    assert len(huge.task_results) > 20_000
    assert len(written) < 2_000_000
    page = Page(written)
    assert_harmless(page)
    told = "".join(page.text)
    for words in (
        "for each ticket · 5,000 rounds",
        "rounds 0–4,999: 4,989 completed, 11 failed",
        "rounds 4,750–4,999: 249 completed, 1 failed",
        "if: taken 2,494 times",
        "✓ 4,989  ✗ 11",
        "id: T-4999, severity: 4",
        "each_ticket[3]/rate/weigh: BAD_TICKET",
        "99.8%",
    ):
        assert words in told
    assert told.count("each_ticket[3]/rate/weigh") > 1
    rows = [attributes for name, attributes in page.tags if name == "tr"]
    assert len(rows) < 6_500


def test_what_ran_in_many_rounds_has_one_row_of_the_timeline(huge: LastRecord) -> None:
    page = Page(html(huge))
    names = [attributes for _, attributes in page.tags if "name" in (attributes.get("class") or "").split()]
    assert len(names) == 8
    slices = [attributes for _, attributes in page.tags if "activity" in (attributes.get("class") or "").split()]
    assert 0 < len(slices) <= 5 * 240
    assert any("failed" in (attributes["class"] or "") for attributes in slices)


def test_a_row_of_many_rounds_tells_what_ran_and_draws_waits_as_waits() -> None:
    page = Page(html(asking(8)))
    told = "".join(page.text)
    assert "ask 4 ran, 4 skipped" in told
    assert "ask ×8" not in told
    assert "urgent ×8" in told
    waits = [attributes for _, attributes in page.tags if (attributes.get("class") or "") == "wait"]
    waited = sum(float((each["x2"] or "")[:-1]) - float((each["x1"] or "")[:-1]) for each in waits)
    assert waited > 90, "four minutes of four and a little"
    busy = [attributes for _, attributes in page.tags if "running activity" in (attributes.get("class") or "")]
    asked = [each for each in busy if "control" not in (each["class"] or "")]
    assert sum(float((each["width"] or "")[:-1]) for each in asked) < 10


def test_under_way_has_a_colour_of_its_own_whatever_came_of_it(huge: LastRecord) -> None:
    classes = {attributes.get("class") or "" for _, attributes in Page(html(huge)).tags}
    assert {name for name in classes if "activity" in name} == {
        "running activity",
        "failed activity",
        "running activity control",
        "failed activity control",
    }


def test_what_did_not_run_is_told_apart() -> None:
    def times(**fates: int) -> str:
        return told_times(task for fate, count in fates.items() for task in [some[fate]] * count)

    some = {
        "ran": TaskRecord(task_id="a", status=ResultStatus.COMPLETED, duration_ms=3),
        "skipped": TaskRecord(task_id="a", status=ResultStatus.CANCELLED, metadata={"skipped": True}),
        "cancelled": TaskRecord(task_id="a", status=ResultStatus.CANCELLED, duration_ms=0),
        "reused": TaskRecord(task_id="a", status=ResultStatus.COMPLETED, metadata={"reused_from": "j"}),
    }
    assert times(ran=8) == "×8"
    assert times(ran=3, skipped=5) == "3 ran, 5 skipped"
    assert times(skipped=5) == "5 skipped"
    assert times(cancelled=1, reused=1, ran=1, skipped=1) == "1 ran, 1 cancelled, 1 reused, 1 skipped"


def test_cards_stand_below_what_ran_them_and_rounds_fold(few: LastRecord, broken: LastRecord) -> None:
    def depths(record: LastRecord) -> dict[str, int]:
        found = re.finditer(r'class="inner|<b title="([^"]+)"|</div>|</details>|<details|<div', html(record))
        within: list[bool] = []
        names = {}
        for each in found:
            if each[0].startswith("</"):
                within.pop()
            elif each[0].startswith("<b"):
                names[each[1]] = sum(within)
            elif each[0].startswith("class"):
                within[-1] = True
            else:
                within.append(False)
        return names

    names = depths(few)
    assert list(names) == list(tree_order(few))
    assert (names["each_ticket"], names["each_ticket[1]/rate"], names["each_ticket[1]/rate/weigh"]) == (0, 2, 3)
    assert not folded(few)["open"]
    assert folded(broken)["open"]
    told = "".join(Page(html(few)).text)
    assert "round 1 · id: T-1, severity: 2" in told
    assert "output" in told
    assert "metadata" in told


def tree_order(record: LastRecord) -> Iterator[str]:
    tree = tree_of(record)
    return (task.task_id for top in in_order(tree.top, span_of(record)) for task in tree.under(top))


def folded(record: LastRecord) -> dict[str, bool]:
    [loop] = [attributes for _, attributes in Page(html(record)).tags if attributes.get("class") == "inner loop"]
    return {"open": "open" in loop}


def test_a_card_tells_who_answered_and_where_a_reused_task_ran() -> None:
    told = "".join(Page(html(asking(4))).text)
    assert "approved by ayşe: go" in told
    assert "rejected by ayşe, goes on" in told
    assert "reused from job earlier" in told


def test_links_from_rounds_lead_to_tasks(broken: LastRecord) -> None:
    page = Page(html(broken))
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {(attributes["href"] or "")[1:] for name, attributes in page.tags if name == "a"} <= ids


def test_more_rounds_than_a_page_holds_show_those_that_failed_and_say_so(broken: LastRecord) -> None:
    told = "".join(Page(html(broken, PageSettings(rounds=5))).text)
    assert "29 rounds more are in the record (setting rounds)" in told
    assert "each_ticket[7]/rate/weigh: BAD_TICKET" in told


def test_all_outputs_together_have_a_bound(few: LastRecord) -> None:
    large = {
        name: msgspec.structs.replace(task, output="x" * 20_000, error="y" * 20_000)
        for name, task in few.task_results.items()
    }
    record = msgspec.structs.replace(few, task_results=large)
    assert len(html(record, PageSettings(all_characters=100_000))) < 250_000


def test_a_page_is_bounded_also_where_every_round_fails_at_length() -> None:
    long = {"tickets": [{"id": f"T-{number}", "text": "x" * 120, "severity": 1} for number in range(2_000)]}
    record = recorded(triage(), long, fails=lambda name: name.endswith("/weigh"))
    wordy = {
        name: msgspec.structs.replace(task, error=task.error and task.error * 40)
        for name, task in record.task_results.items()
    }
    assert len(html(msgspec.structs.replace(record, task_results=wordy))) < 2_500_000


def test_a_while_is_shown_like_any_loop() -> None:
    record = recorded(counting(3), {})
    assert "while · 3 rounds" in "".join(Page(html(record)).text)
    assert "[2] again" in shown(record)


# --------------------------------------------------------------------------------------------------------- from files

ids = st.sampled_from(["a", "a/b", "a[0]/b", "a/b/c", "b", "a/b[1]/a"])


@given(st.dictionaries(ids, st.tuples(ids, st.sampled_from(["if", "round", "", None]), st.none() | st.integers(0, 2))))
@settings(max_examples=30, deadline=None)
def test_whatever_a_file_says_of_bodies_every_task_is_somewhere(
    few: LastRecord, told: dict[str, tuple[str, str | None, int | None]]
) -> None:
    """Rings, strangers and odd words in the metadata of a record must not hurt."""
    some = few.task_results["fetch"]
    results: dict[str, TaskRecord] = {
        name: msgspec.structs.replace(
            some, task_id=name, metadata={"body_of": owner, "body": body, "round": number, "control": "for_each"}
        )
        for name, (owner, body, number) in told.items()
    }
    record = msgspec.structs.replace(few, task_results=results)
    found = [task.task_id for top in tree_of(record).top for task in tree_of(record).under(top)]
    assert sorted(found) == sorted(results)
    assert sum(len(shape.tasks) for shape in shapes(tree_of(record))) <= len(results)
    assert_harmless(Page(html(record)))
    shown(record)
    dot(of_record(record))


def test_bodies_as_deep_as_a_file_likes_are_shown(few: LastRecord) -> None:
    some = few.task_results["fetch"]
    names = ["a" + "/a" * depth for depth in range(3_000)]
    results = {
        name: msgspec.structs.replace(some, task_id=name, metadata={"body_of": name[:-2], "body": "call"})
        for name in names
    }
    record = msgspec.structs.replace(few, task_results=results)
    assert len(html(record)) < 3_000_000
    shown(record)


def test_names_in_bodies_do_not_become_markup() -> None:
    nasty = "</pre><script>alert(1)</script>\x1b[2J"
    plan = triage()
    inputs = {"tickets": [{nasty: nasty, "severity": 1}]}
    record = recorded(plan, inputs, fails=lambda name: name.endswith("/weigh"))
    assert_harmless(Page(html(record)))
    assert "\x1b" not in shown(record)
    named: TaskPlan = msgspec.structs.replace(plan.tasks[0], id="x\x1b[2J")
    assert "\x1b" not in dot(of_plan(msgspec.structs.replace(plan, tasks=(named, *plan.tasks[1:]))))
