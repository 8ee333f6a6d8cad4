"""Whatever control flow a file has: sound, it is read in every format; damaged, there are findings and nothing else."""

from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.alt import DescriptorLimits, decode
from runner.core.errors import InvalidDescriptor
from runner.core.plan import Branch, ForEach, ForRange, Plan, While, bodies, every_task
from scripts.fuzzing.checks import Case, check
from scripts.fuzzing.descriptors import wronged
from scripts.fuzzing.flows import flow, tangle
from tests.core.alt.descriptors import as_json, as_msgpack, as_yaml

RANDOM = st.randoms(use_true_random=False)


def sound(random: Any) -> tuple[dict[str, Any], Plan] | None:
    """A file and its plan; now and then the grammar makes one that is not sound."""
    raw = flow(random)
    try:
        return raw, decode(as_json(raw)).plan
    except InvalidDescriptor:
        return None


@settings(max_examples=25, deadline=None)
@given(RANDOM)
def test_a_sound_file_is_the_same_plan_in_every_format_and_survives_being_stored(random: Any) -> None:
    made = sound(random)
    if made is None:
        return
    raw, plan = made
    assert decode(as_msgpack(raw)).plan == plan
    assert decode(as_yaml(raw), content_type="application/yaml").plan == plan
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=Plan) == plan


@settings(max_examples=25, deadline=None)
@given(RANDOM)
def test_every_segment_is_in_the_plan_once_in_the_body_that_names_it(random: Any) -> None:
    made = sound(random)
    if made is None:
        return
    raw, plan = made
    tasks = {task.id: task for task in every_task(plan)}
    assert sorted(tasks) == sorted(segment["id"] for segment in raw["segments"])
    for segment in raw["segments"]:
        control = tasks[segment["id"]].control
        lists = segment.get("condition") or segment.get("loop") or {}
        named = [lists[key] for key in ("if_body", "else_body", "body") if key in lists]
        assert [[task.id for task in body] for body in bodies(control) if body] == [ids for ids in named if ids]
        assert isinstance(control, Branch | ForEach | ForRange | While) == bool(named)
    for function, written in zip(plan.functions, raw.get("functions", ()), strict=True):
        assert [task.id for task in function.body] == written["body"]


@settings(max_examples=25, deadline=None)
@given(RANDOM)
def test_dependencies_stay_within_a_body_and_make_no_ring(random: Any) -> None:
    raw = tangle(random)
    if len(raw["segments"]) > 200:
        return
    try:
        plan = decode(as_json(raw)).plan
    except InvalidDescriptor:
        return
    waiting = [plan.tasks, *(function.body for function in plan.functions)]
    while waiting:
        body = waiting.pop()
        ended: set[str] = set()
        left = list(body)
        while ready := [task for task in left if ended.issuperset(task.dependencies)]:
            ended.update(task.id for task in ready)
            left = [task for task in left if task.id not in ended]
        assert not left
        waiting += [inner for task in body for inner in bodies(task.control)]


@settings(max_examples=60, deadline=None)
@given(RANDOM, st.integers(1, 4), st.booleans())
def test_a_damaged_file_becomes_a_plan_or_findings(random: Any, times: int, tangled: bool) -> None:
    raw = tangle(random) if tangled else flow(random)
    for _ in range(times):
        raw = wronged(random, raw)
    limits = DescriptorLimits(max_depth=random.choice((6, 8, 64)))
    check(Case(json.dumps(raw).encode("utf-8", "surrogatepass"), "application/json", limits))
