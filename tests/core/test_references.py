"""References: parsed by stated rules, found, and resolved to values that keep their type."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.errors import AttemptError
from runner.core.plan import Plan, TaskPlan
from runner.core.references import (
    LONGEST,
    Malformed,
    Reference,
    Root,
    Scope,
    find,
    merged,
    parse,
    required_inputs,
    resolve,
)

OUTPUTS: dict[str, Any] = {
    "fetch": {"body": "merhaba", "items": [{"n": 1}, {"n": 2}], "none": None, "yes": True},
    "my.task-1": "dotted",
    "odd.output id}": 7,
}
FILES: dict[tuple[str, str], Any] = {("fetch", "body"): {"n": [1]}, ("my.output", "r.json"): [2], ("a.b", "c-d"): 3}
SCOPE = Scope(
    output=OUTPUTS.__getitem__,
    artifact=lambda task, name: FILES[task, name],
    inputs={"count": 3, "user": {"name": "Ayşe"}, "a b": [1]},
    job_id="job-1",
    secret={"KEY": "s3cret", "team/api-key.v1": "other"}.get,
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${tasks.fetch.output}", OUTPUTS["fetch"]),
        ("${tasks.fetch.output.items}", [{"n": 1}, {"n": 2}]),
        ("${tasks.fetch.output.items[0].n}", 1),
        ("${tasks.fetch.output.items[*].n}", [1, 2]),
        ("${tasks.fetch.output.yes}", True),
        ("${tasks.fetch.output.missing}", None),
        ("${ tasks.fetch.output.body }", "merhaba"),
        ("${tasks.fetch.output.{a: body, b: items[1]}}", {"a": "merhaba", "b": {"n": 2}}),
        ("${tasks.fetch.output.items[1:]}", [{"n": 2}]),
        ("${tasks.fetch.output.items[::-1].n}", [2, 1]),
        ("${tasks.fetch.output.items[?n > `1`].n | [0]}", 2),
        ("${tasks.fetch.output | length(items)}", 2),
        ('${tasks.fetch.output."items"[0]}', {"n": 1}),
        ("${tasks.fetch.output.join('}', [body, body])}", "merhaba}merhaba"),
        ("${tasks.my.task-1.output}", "dotted"),
        ('${tasks."my.task-1".output}', "dotted"),
        ('${tasks."odd.output id}".output}', 7),
        ("${tasks.fetch.artifacts.body}", {"n": [1]}),
        ("${tasks.fetch.artifacts.body.n[0]}", 1),
        ("${tasks.fetch.artifacts.body | n}", [1]),
        ("${tasks.a.b.artifacts.c-d}", 3),
        ('${tasks."my.output".artifacts."r.json"[0]}', 2),
        ("${inputs.count}", 3),
        ("${inputs}", {"count": 3, "user": {"name": "Ayşe"}, "a b": [1]}),
        ("${inputs.user.name}", "Ayşe"),
        ('${inputs."a b"}', [1]),
        ('${inputs."a b"[0]}', 1),
        ("${job.id}", "job-1"),
        ("${secrets.KEY}", "s3cret"),
        ("${secrets.team/api-key.v1}", "other"),
    ],
)
def test_a_text_that_is_one_reference_becomes_the_value(text: str, value: Any) -> None:
    assert resolve(text, SCOPE) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Çığ: ${tasks.fetch.output.body}!", "Çığ: merhaba!"),
        ("${job.id}/${inputs.count}", "job-1/3"),
        ("n=${tasks.fetch.output.none}.", "n=."),
        ("${tasks.fetch.output.items} ", '[{"n":1},{"n":2}] '),
        ("is ${tasks.fetch.output.yes}", "is true"),
        ("$${job.id}", "${job.id}"),
        ("$$${job.id}", "$${job.id}"),
        ("cost: $5 {x} $", "cost: $5 {x} $"),
        ("$${a} ${job.id}", "${a} job-1"),
        ("$${", "${"),
        ("", ""),
    ],
)
def test_inside_a_longer_text_values_are_rendered(text: str, value: str) -> None:
    assert resolve(text, SCOPE) == value


def test_references_are_resolved_wherever_they_are_nested_but_not_in_keys() -> None:
    value = {"${job.id}": [{"a": "${inputs.count}"}, 1, None, "plain"]}
    assert resolve(value, SCOPE) == {"${job.id}": [{"a": 3}, 1, None, "plain"]}


def test_a_long_path_is_followed() -> None:
    deep: Any = "end"
    for _ in range(300):
        deep = {"a": deep}
    scope = Scope(output=lambda _: deep, inputs={}, job_id="", secret=lambda _: None)
    assert resolve("${tasks.t.output" + ".a" * 300 + "}", scope) == "end"


def test_what_a_reference_brings_is_not_resolved_again() -> None:
    scope = Scope(output=lambda _: "${secrets.KEY}", inputs={}, job_id="", secret={"KEY": "x"}.get)
    assert resolve("<${tasks.a.output}>", scope) == "<${secrets.KEY}>"


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("${", "BAD_REFERENCE"),
        ("${tasks.a.output", "BAD_REFERENCE"),
        ("${tasks.a}", "BAD_REFERENCE"),
        ("${tasks..output}", "BAD_REFERENCE"),
        ("${tasks.a.outputs}", "BAD_REFERENCE"),
        ('${tasks."a.output}', "BAD_REFERENCE"),
        ('${tasks."\\x".output}', "BAD_REFERENCE"),
        ('${tasks."\\ud800".output}', "BAD_REFERENCE"),
        ('${inputs."\\ud800"}', "BAD_REFERENCE"),
        ("${tasks.a.output.}", "BAD_REFERENCE"),
        ("${tasks.a.output.[}", "BAD_REFERENCE"),
        ("${tasks.a.output.lenght(@)}", "BAD_REFERENCE"),
        ("${tasks.a.output." + "x" * LONGEST + "}", "BAD_REFERENCE"),
        ("${tasks.a.output." + "(" * 900 + ")" * 900 + "}", "BAD_REFERENCE"),
        ("${tasks.a.output." + "|".join(["[@,@][]"] * 30) + "}", "BAD_REFERENCE"),
        ("${tasks.a.output.join(@, [@, @])}", "BAD_REFERENCE"),
        ("${tasks.a.output." + "|".join(["to_string([@])"] * 30) + "}", "BAD_REFERENCE"),
        ("${tasks.a.artifacts}", "BAD_REFERENCE"),
        ("${tasks.a.artifacts.}", "BAD_REFERENCE"),
        ("${tasks.a.artifacts[0]}", "BAD_REFERENCE"),
        ("${tasks.a.artifacts.1}", "BAD_REFERENCE"),
        ("${tasks.a.artifacts.b.[}", "BAD_REFERENCE"),
        ("${tasks..artifacts.b}", "BAD_REFERENCE"),
        ("${inputs.}", "BAD_REFERENCE"),
        ("${inputs.1}", "BAD_REFERENCE"),
        ("${secrets.}", "BAD_REFERENCE"),
        ("${secrets.A B}", "BAD_REFERENCE"),
        ("${}", "UNKNOWN_REFERENCE"),
        ("${HOME}", "UNKNOWN_REFERENCE"),
        ("${task.a.output}", "UNKNOWN_REFERENCE"),
        ("${job.title}", "UNKNOWN_REFERENCE"),
        ("${variables.}", "BAD_REFERENCE"),
    ],
)
def test_what_is_no_reference_is_told_and_never_resolved(text: str, reason: str) -> None:
    (piece,) = parse(text)
    assert isinstance(piece, Malformed)
    assert piece.reason == reason
    assert len(piece.message) < 400
    with pytest.raises(AttemptError) as caught:
        resolve(text, SCOPE)
    assert (caught.value.reason, caught.value.retryable) == ("UNRESOLVED_REFERENCE", False)


@pytest.mark.parametrize(
    "text",
    [
        "${tasks.gone.output}",
        "${tasks.fetch.artifacts.gone}",
        "${tasks.gone.artifacts.body}",
        "${tasks.fetch.artifacts.body.n.length(@.x)}",
        "${inputs.gone}",
        "${secrets.GONE}",
        "a ${inputs.gone} b",
        "${tasks.fetch.output.length(yes)}",
        "${tasks.fetch.output.sort_by(items, &@)}",
        "${tasks.fetch.output.join(`1`, items)}",
        "${tasks.fetch.output.abs('a', 'b')}",
    ],
)
def test_what_is_not_there_is_an_error_that_no_retry_helps(text: str) -> None:
    with pytest.raises(AttemptError) as caught:
        resolve({"deep": [text]}, SCOPE)
    assert (caught.value.reason, caught.value.retryable) == ("UNRESOLVED_REFERENCE", False)


def test_errors_do_not_tell_secrets() -> None:
    scope = Scope(output=OUTPUTS.__getitem__, inputs={}, job_id="", secret=lambda name: "hush" if name == "A" else None)
    with pytest.raises(AttemptError) as caught:
        resolve("${secrets.A} ${secrets.B}", scope)
    assert "hush" not in str(caught.value)


def test_references_are_found_in_order() -> None:
    value = {
        "a": "x ${job.id} $${no} ${inputs.n.m}",
        "b": [1, {"c": "${tasks.t.output.x[0]} ${bad}"}],
        "d": "${secrets.S}",
    }
    assert list(find(value)) == [
        Reference(Root.JOB, "id"),
        Reference(Root.INPUTS, "n", "m"),
        Reference(Root.TASKS, "t", "x[0]"),
        Reference(Root.SECRETS, "S"),
    ]


def test_required_inputs_are_those_of_all_tasks() -> None:
    tasks = [
        TaskPlan(id=name, description="", kind="x", parameters={"p": [text]})
        for name, text in [
            ("a", "${inputs.one} ${inputs.two.deep}"),
            ("b", "${inputs.one} ${inputs}"),
            ("c", "$${inputs.no}"),
        ]
    ]
    plan = Plan(alt_id="", dialect="tasks", version="1", title="", tasks=tuple(tasks), created_at=0)
    assert required_inputs(plan) == {"one", "two"}


@settings(max_examples=66, deadline=None)
@given(st.text("${}\"'`\\.tasksoutputinputsjobid[]|@ ab", max_size=40))
def test_any_text_is_split_without_loss_or_error(text: str) -> None:
    pieces = parse(text)
    assert all(pieces)
    try:
        resolve(text, SCOPE)
    except AttemptError as e:
        assert e.reason == "UNRESOLVED_REFERENCE"  # noqa: PT017 - other texts resolve
    if "${" not in text:
        assert resolve(text, SCOPE) == text


@settings(max_examples=50, deadline=None)
@given(st.text())
def test_a_text_escaped_by_doubling_the_dollar_comes_back(text: str) -> None:
    if not text.endswith("$") and "$$" not in text and "$${" not in text:
        assert resolve(text.replace("${", "$${"), SCOPE) == text


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text("ab{}"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("a${}"), inner, max_size=3),
)


@settings(max_examples=50, deadline=None)
@given(JSON_VALUES)
def test_values_without_references_stay_as_they_are(value: Any) -> None:
    assert resolve(value, SCOPE) == value
    assert list(find(value)) == []


@pytest.mark.parametrize(
    ("outputs", "together"),
    [
        ({"a": [1]}, [1]),
        ({"a": {"x": 1}}, {"x": 1}),
        ({"a": {"x": 1, "y": 1}, "b": {"x": 2}}, {"x": 2, "y": 1}),
        ({"a": {"x": 1}, "b": "text", "c": None}, {"x": 1, "b": "text", "c": None}),
    ],
)
def test_outputs_are_merged_key_by_key_and_others_stand_under_their_task(
    outputs: dict[str, Any], together: Any
) -> None:
    assert merged(outputs) == together
