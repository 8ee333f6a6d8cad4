"""A plan written in a dialect decodes to the same plan, or it is told what cannot be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.alt import decode, segments, tasks, workflow
from runner.core.alt.dialect import LONGEST, with_prompt
from runner.core.alt.fields import Table
from runner.core.alt.losses import essence, implied_priority, without
from runner.core.alt.places import NOWHERE, PLAN, TASK, DialectName, Places
from runner.core.alt.writing import write
from runner.core.errors import InvalidDescriptor
from runner.core.plan import Definition, Function, Mode, Plan, Priority, TaskPlan, Variable
from tests.core.alt.descriptors import as_json
from tests.core.alt.test_any_bytes import TEXTS, VALUES, no_reference

CREATED = "2026-01-05T08:00:00Z"
CREATED_AT = 1_767_600_000_000_000
TITLES = st.text("abcğüşıöçİ 🎉\n'\"\\", min_size=1, max_size=12).filter(str.strip)
KINDS = st.sampled_from(["ai_prompt", "http_request", "delay", "python", "search", "çevir", "system_command"])
OBJECTS = st.dictionaries(TEXTS, VALUES.filter(no_reference), max_size=3)
PARAMETERS = st.dictionaries(
    st.sampled_from(["url", "prompt", "input", "temperature", "ölçü"]) | TEXTS.filter(str.strip),
    VALUES.filter(no_reference),
    max_size=3,
)
#: What only some dialects take as it is.
ODD_KINDS = st.sampled_from(["manual_trigger", "schedule_trigger"])
ODD_PARAMETERS = st.dictionaries(
    st.sampled_from([" ", "max_retries", "retry_delay_seconds", "task_type", "input", "url"]),
    st.sampled_from([None, 1, "search", "${inputs}"]),
    min_size=1,
)
BLANK = st.sampled_from([" ", "\u3000"])
TAGS = st.lists(TEXTS, max_size=2).map(tuple)
METADATA = st.builds(
    lambda one, more: one | more,
    OBJECTS,
    st.dictionaries(
        st.sampled_from(["priority", "position", "handles"]), st.sampled_from(["high", "LOW", 7]), max_size=2
    ),
)
#: How to draw the fields that a dialect may be without.
OF_PLAN: Mapping[str, st.SearchStrategy[Any]] = {
    "description": st.none() | TEXTS,
    "persona": st.none() | TEXTS,
    "language": st.none() | TEXTS,
    "priority": st.sampled_from(Priority),
    "tags": TAGS,
    "expected_seconds": st.none() | st.floats(0, 1e300),
    "fail_fast": st.booleans(),
    "metadata": METADATA,
}
OF_TASK: Mapping[str, st.SearchStrategy[Any]] = {
    "timeout": st.none() | st.floats(0.001, LONGEST),
    "retries": st.none() | st.integers(0, 255),
    "retry_seconds": st.none() | st.floats(0, 86_400),
    "priority": st.none() | st.sampled_from(Priority),
    "tags": TAGS,
    "weight": st.floats(0.001, 1e9),
    "metadata": METADATA,
}


@st.composite
def plans(draw: st.DrawFn, dialect: DialectName, *, beyond: bool) -> Plan:
    """A plan of another dialect. One that `dialect` can say, unless it may go `beyond`."""

    def some(of: Mapping[str, st.SearchStrategy[Any]], table: Any) -> dict[str, Any]:
        return {name: draw(values) for name, values in of.items() if beyond or table[name].at(dialect) is not None}

    # One oddity in a plan, if any: of two that stand in the way, one could go untold.
    odd = draw(st.integers(1, 6)) if beyond else 0
    merges = draw(st.booleans()) if beyond else dialect is DialectName.WORKFLOW
    ids = draw(st.lists(TITLES, min_size=1, max_size=4, unique=True))
    rows = []
    for index, name in enumerate(ids):
        kind, description = draw(ODD_KINDS if odd == 1 else KINDS), draw(BLANK if odd == 2 else TITLES)
        parameters = with_prompt(kind, draw(ODD_PARAMETERS if odd == 3 else PARAMETERS), description)
        if draw(st.booleans()):
            parameters["task_type"] = kind
        waits = tuple(draw(st.lists(st.sampled_from(ids[:index]), unique=True, max_size=2))) if index else ()
        if draw(st.integers(0, 5)) == 0:
            kind, parameters, waits = "webhook_trigger", {"input": "${inputs}"}, ()
        rows.append(
            TaskPlan(
                id=name,
                description=description,
                kind=kind,
                parameters=parameters,
                dependencies=waits,
                input_from=waits if merges and "input" not in parameters else (),
                **some(OF_TASK, TASK),
            )
        )
    mode = Mode.CHAOS if odd == 4 else draw(st.sampled_from(Mode))
    level = draw(st.integers(1, 10)) if mode is Mode.CHAOS and dialect is DialectName.SEGMENTS else None
    if beyond and mode is Mode.CHAOS:
        level = None if odd == 4 else draw(st.integers(1, 10))
    fields = some(OF_PLAN, PLAN)
    plan = Plan(
        alt_id=draw(TITLES),
        dialect="another",
        version="1",
        title=draw(TITLES),
        tasks=tuple(rows),
        created_at=CREATED_AT,
        mode=mode,
        chaos_level=level,
        **fields,
    )
    return plan if "priority" in fields else msgspec.structs.replace(plan, priority=implied_priority(plan))


def bare(plan: Plan) -> Plan:
    """As documented: the dialect's name and version, and a `task_type` that repeats the kind, do not count."""
    rows = [
        msgspec.structs.replace(task, parameters={k: v for k, v in task.parameters.items() if k != "task_type"})
        for task in plan.tasks
    ]
    return msgspec.structs.replace(plan, dialect="", version="", tasks=tuple(rows))


@pytest.mark.parametrize("dialect", DialectName)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_a_plan_that_a_dialect_can_say_decodes_to_itself(dialect: DialectName, data: st.DataObject) -> None:
    plan = data.draw(plans(dialect, beyond=False))
    written = write(plan, dialect, created_at=CREATED)
    assert written.lost == ()
    again = decode(as_json(written.value)).plan
    assert (again.dialect, again.version) == (dialect, "1.0")
    assert bare(again) == bare(plan)
    assert essence(again) == essence(plan)


@pytest.mark.parametrize("dialect", DialectName)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_what_is_told_to_be_lost_is_lost_and_nothing_else(dialect: DialectName, data: st.DataObject) -> None:
    plan = data.draw(plans(dialect, beyond=True))
    written = write(plan, dialect, created_at=CREATED)
    droppable = tuple(loss for loss in written.lost if not loss.obstacle)
    rest = without(plan, droppable)
    for loss in droppable:
        owner, of = (plan, rest) if loss.task is None else (plan.tasks[loss.task], rest.tasks[loss.task])
        assert getattr(owner, loss.field) != getattr(of, loss.field)
    try:
        says_the_rest = essence(decode(as_json(written.value)).plan) == essence(rest)
    except InvalidDescriptor:
        says_the_rest = False
    assert says_the_rest == (droppable == written.lost)


@pytest.mark.parametrize(("struct", "table"), [(Plan, PLAN), (TaskPlan, TASK)])
def test_every_field_of_a_plan_has_a_row(struct: type, table: Mapping[str, object]) -> None:
    """A new field belongs into the table: with its places, or as one that no dialect can be made to say."""
    assert {field.name for field in msgspec.structs.fields(struct)} == set(table)


@pytest.mark.parametrize(
    ("dialect", "file", "row", "settings_of_a_row"),
    [
        (DialectName.TASKS, tasks.FILE, tasks.TASK, None),
        (DialectName.SEGMENTS, segments.FILE, segments.SEGMENT, None),
        (DialectName.WORKFLOW, workflow.FILE, workflow.NODE, workflow.RETRIES),
    ],
)
def test_the_places_are_those_that_are_read(
    dialect: DialectName, file: Table, row: Table, settings_of_a_row: Table | None
) -> None:
    read = {field.becomes: (key,) for key, field in file.fields.items()}
    assert {name: PLAN[name].at(dialect) for name in read if name in PLAN} == {
        name: place for name, place in read.items() if name in PLAN
    }
    inner = {field.becomes: ("config", key) for key, field in (settings_of_a_row or Table({})).fields.items()}
    found = {field.becomes: (key,) for key, field in row.fields.items()} | inner
    assert {name: TASK[name].at(dialect) for name in found if name in TASK} == {
        name: place for name, place in found.items() if name in TASK
    }


@pytest.mark.parametrize("table", [PLAN, TASK])
def test_the_places_are_documented(table: Mapping[str, Places]) -> None:
    document = (Path(__file__).parents[3] / "docs" / "formats.md").read_text()
    for name, row in table.items():
        if name in {"dialect", "dependencies"} or row == NOWHERE:
            continue
        cells = ["–" if place is None else f"`{'.'.join(map(str, place))}`" for place in row]
        assert f"\n| {' | '.join(cells)} |\n" in document


@pytest.mark.parametrize("dialect", DialectName)
def test_control_flow_is_refused_and_not_dropped(dialect: DialectName) -> None:
    variables = (Variable(name="n"),)
    row = TaskPlan(id="a", description="a", kind="delay", variables=variables, control=Definition())
    plan = Plan(
        alt_id="a",
        dialect="another",
        version="2.0",
        title="t",
        tasks=(row,),
        created_at=CREATED_AT,
        has_variables=True,
        variables=variables,
        functions=(Function(name="f", body=(row,)),),
    )
    lost = write(plan, dialect, created_at=CREATED).lost
    assert {(loss.field, loss.task) for loss in lost if loss.obstacle} == {
        ("has_variables", None),
        ("variables", None),
        ("functions", None),
        ("variables", 0),
        ("control", 0),
    }


@pytest.mark.parametrize("dialect", DialectName)
def test_a_field_that_came_after_these_writers_is_refused_and_not_dropped(dialect: DialectName) -> None:
    newer = msgspec.defstruct("Newer", [("brand_new", int, 0)], bases=(TaskPlan,), frozen=True, kw_only=True)
    told, untold = (cast("TaskPlan", newer(id="a", description="a", kind="delay", brand_new=value)) for value in (1, 0))
    plan = Plan(alt_id="a", dialect="another", version="1", title="t", tasks=(told,), created_at=CREATED_AT)
    (loss,) = write(plan, dialect, created_at=CREATED).lost
    assert (loss.field, loss.task) == ("brand_new", 0)
    assert loss.obstacle
    plan = msgspec.structs.replace(plan, tasks=(untold,))
    assert write(plan, dialect, created_at=CREATED).lost == ()
    assert essence(plan) != essence(msgspec.structs.replace(plan, tasks=(told,)))
