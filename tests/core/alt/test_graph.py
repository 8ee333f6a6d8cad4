"""Ids, dependencies and cycles."""

from __future__ import annotations

import time

from runner.core.alt import DescriptorLimits, decode
from tests.core.alt.descriptors import as_json, plan_of, reasons, refused, task, tasks_file


def rings(*tasks: object) -> list[str]:
    return [f.message.partition(": ")[2].rstrip(".") for f in refused(tasks_file(*tasks)) if f.reason == "CYCLE"]


def test_a_cycle_is_shown_as_its_ring() -> None:
    assert rings(task("a", "b"), task("b", "c"), task("c", "a")) == ["a → b → c → a"]
    (finding,) = refused(tasks_file(task("x"), task("a", "x", "b"), task("b", "a")))
    assert finding.path == "tasks[1].dependencies[1]"


def test_a_task_that_waits_for_itself_is_a_cycle() -> None:
    assert rings(task("a", "a")) == ["a → a"]


def test_each_independent_cycle_is_told_once() -> None:
    assert rings(
        task("a", "b"), task("b", "a"), task("between", "b"), task("c", "d", "between"), task("d", "c"), task("e", "e")
    ) == ["a → b → a", "c → d → c", "e → e"]


def test_rings_of_one_knot_that_share_no_task_are_all_told() -> None:
    assert rings(task("a", "b"), task("b", "a", "c"), task("c", "d"), task("d", "c", "a")) == [
        "a → b → a",
        "c → d → c",
    ]


def test_a_task_that_only_leads_into_a_cycle_is_not_in_the_ring() -> None:
    assert rings(task("first", "a"), task("a", "b"), task("b", "a"), task("last", "first")) == ["a → b → a"]


def test_forward_dependencies_without_a_cycle_are_fine() -> None:
    assert [t.id for t in plan_of(tasks_file(task("a", "b"), task("b", "c"), task("c"))).tasks] == ["a", "b", "c"]


def test_a_long_ring_is_shortened() -> None:
    size = 5_000
    (ring,) = rings(*(task(f"t{n}", f"t{(n + 1) % size}") for n in range(size)))
    assert ring.startswith("t0 → t1 → ")
    assert "(4980 more)" in ring
    assert ring.endswith("→ t4999 → t0")


def test_many_cycles_are_capped() -> None:
    found = refused(tasks_file(*(task(f"t{n}", f"t{n}") for n in range(500))))
    assert len(found) == 101
    assert found[-1].reason == "TOO_MANY_FINDINGS"


def test_too_many_dependencies_are_refused() -> None:
    names = [f"t{n}" for n in range(20)]
    raw = tasks_file(*(task(name, *names[:n]) for n, name in enumerate(names)))
    assert reasons(raw, limits=DescriptorLimits(max_dependencies=100)) == ["TOO_MANY_DEPENDENCIES"]


def test_a_dense_knot_is_refused_in_bounded_time() -> None:
    names = [f"t{n}" for n in range(300)]
    started = time.monotonic()
    assert "CYCLE" in reasons(tasks_file(*(task(name, *names) for name in names)))
    assert time.monotonic() - started < 10


def test_unknown_dependencies_in_a_large_plan_are_told_in_bounded_time() -> None:
    started = time.monotonic()
    found = refused(tasks_file(*(task(f"task_{n:05}", f"tusk_{n:05}") for n in range(10_000))))
    assert time.monotonic() - started < 10
    assert found[0].suggestion.startswith("task_")


def test_ten_thousand_tasks_with_references_are_checked_in_bounded_time() -> None:
    """A chain in which every task refers to the first and to the one before."""
    size = 10_000
    tasks = [task("t0")] + [
        task(f"t{n}", f"t{n - 1}", parameters={"prompt": f"${{tasks.t0.output}} ${{tasks.t{n // 2}.output}}"})
        for n in range(1, size)
    ]
    started = time.monotonic()
    assert len(plan_of(tasks_file(*tasks)).tasks) == size
    assert time.monotonic() - started < 10


def test_a_reference_to_a_task_that_does_not_end_before_is_refused() -> None:
    (finding,) = refused(
        tasks_file(
            task("a"),
            task("b", "a"),
            task("c", "b", parameters={"prompt": "${tasks.a.output} ${tasks.d.output}"}),
            task("d"),
        )
    )
    assert (finding.reason, finding.path) == ("NOT_AN_ANCESTOR", "tasks[2].parameters.prompt")
    assert finding.suggestion == "dependencies: [b, d]"


def test_a_task_cannot_refer_to_itself() -> None:
    (finding,) = refused(tasks_file(task("a", parameters={"prompt": "${tasks.a.output}"})))
    assert finding.reason == "NOT_AN_ANCESTOR"


def test_a_reference_to_an_unknown_task_suggests_the_near_one() -> None:
    (finding,) = refused(tasks_file(task("fetch"), task("b", "fetch", parameters={"prompt": "${tasks.fetsh.output}"})))
    assert (finding.reason, finding.suggestion) == ("UNKNOWN_TASK", "fetch")


def test_a_malformed_reference_in_the_description_is_told_there() -> None:
    (finding,) = refused(tasks_file({"id": "a", "description": "Sum ${tasks.b}"}))
    assert (finding.reason, finding.path) == ("BAD_REFERENCE", "tasks[0].description")


def test_too_many_references_are_refused() -> None:
    raw = tasks_file(task("a"), task("b", "a", parameters={"prompt": "${tasks.a.output.x} " * 20}))
    assert reasons(raw, limits=DescriptorLimits(max_references=19)) == ["TOO_MANY_REFERENCES"]
    assert reasons(raw, limits=DescriptorLimits(max_reference_characters=39)) == ["TOO_MANY_REFERENCES"]
    assert decode(as_json(raw), limits=DescriptorLimits(max_references=20, max_reference_characters=40)).warnings == ()
