"""Descriptors inside of descriptors: checked with the file that holds them, their references left to them."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from runner.core.alt import decode
from runner.core.alt.media import Format
from runner.core.errors import InvalidDescriptor
from runner.core.findings import Finding
from runner.core.references import Reference, Root, Scope, find, required_inputs, resolve

HEAD = {"id": "a", "version": "1.0", "title": "t", "created_at": "2026-01-01T00:00:00Z"}


def task(name: str, *dependencies: str, **parameters: Any) -> dict[str, Any]:
    return {"id": name, "description": name, "dependencies": list(dependencies), "parameters": parameters}


def file(*tasks: dict[str, Any]) -> dict[str, Any]:
    return {**HEAD, "tasks": list(tasks)}


def running(descriptor: Any, **parameters: Any) -> dict[str, Any]:
    return task("run", task_type="job", descriptor=descriptor, **parameters)


def refused(descriptor: dict[str, Any]) -> list[tuple[str, str]]:
    with pytest.raises(InvalidDescriptor) as caught:
        decode(json.dumps(descriptor).encode())
    return [(finding.reason, finding.path) for finding in caught.value.findings]


def nothing(name: str) -> Any:
    raise KeyError(name)


def test_the_references_of_a_child_are_its_own_and_reach_it_as_they_were_written() -> None:
    child = file(
        task("fetch", url="http://127.0.0.1/${inputs.page}", header="${secrets.token}", literal="$${x}"),
        task("say", "fetch", prompt="${tasks.fetch.output}"),
    )
    for encoded in (json.dumps, yaml.safe_dump):
        plan = decode(encoded(file(running(child, inputs={"page": "${inputs.start}"}))).encode()).plan
        assert required_inputs(plan) == {"start"}
        [run] = plan.tasks
        assert [found.name for found in find(run.parameters)] == ["start"]
        scope = Scope(output=nothing, inputs={"start": 7}, job_id="j", secret=nothing)
        resolved = resolve(run.parameters, scope)
        assert resolved["descriptor"] == child
        assert resolved["inputs"] == {"page": 7}


def test_every_dialect_runs_jobs_of_every_dialect() -> None:
    segments = {
        "id": "s", "version": "1.0", "timestamp": "2026-01-01T00:00:00Z", "command": "c",
        "segments": [
            {"id": "run", "task_type": "job", "content": "c",
             "parameters": [{"name": "descriptor", "type": "object", "value": file(task("x", prompt="${inputs.a}"))},
                            {"name": "inputs", "type": "object", "value": {"a": 1}}]},
        ],
    }  # fmt: skip
    workflow = {
        "id": "w", "version": "1.0", "name": "n", "edges": [],
        "nodes": [{"id": "run", "type": "action", "piece_type": "job", "config": {"descriptor": segments}}],
    }  # fmt: skip
    plan = decode(json.dumps(file(running(workflow))).encode()).plan
    assert required_inputs(plan) == set()
    segments["segments"][0]["parameters"][0]["value"]["tasks"][0]["id"] = ""  # type: ignore[index]  # a literal of ours
    inner = "descriptor.nodes[0].config.descriptor.segments[0].parameters[0].value.tasks[0].id"
    assert refused(file(running(workflow))) == [("BLANK", f"tasks[0].parameters.{inner}")]


def test_what_is_wrong_with_a_child_is_told_with_its_place_in_the_file() -> None:
    text = """\
id: a
version: '1.0'
title: t
created_at: 2026-01-01T00:00:00Z
tasks:
  - id: run
    description: d
    parameters:
      task_type: job
      descriptor:
        id: c
        version: '1.0'
        title: t
        created_at: 2026-01-01T00:00:00Z
        tsks:
          - {id: x, description: d, dependencies: [y]}
"""
    with pytest.raises(InvalidDescriptor) as caught:
        decode(text.encode(), content_type=Format.YAML)
    assert [(found.reason, found.path, found.line) for found in caught.value.findings] == [
        ("UNSUPPORTED_DIALECT", "tasks[0].parameters.descriptor.tsks", 15),
        ("UNKNOWN_DEPENDENCY", "tasks[0].parameters.descriptor.tsks[0].dependencies[0]", 16),
    ]


def test_what_is_odd_about_a_child_is_told_and_does_not_refuse_the_file() -> None:
    child = file(task("x")) | {"colour": "red"}
    decoded = decode(json.dumps(file(running(child))).encode())
    [warning] = decoded.warnings
    assert isinstance(warning, Finding)
    assert (warning.reason, warning.path) == ("UNKNOWN_FIELD", "tasks[0].parameters.descriptor.colour")


def test_a_reference_may_bring_the_descriptor_and_no_other_text_is_one() -> None:
    run = running("${tasks.make.output.text}") | {"dependencies": ["make"]}
    plan = decode(json.dumps(file(task("make"), run)).encode()).plan
    assert list(find(plan.tasks[1].parameters)) == [Reference(Root.TASKS, "make", "text")]
    assert refused(file(running("id: a"))) == [("BAD_TYPE", "tasks[0].parameters.descriptor")]


def test_inputs_that_the_child_needs_and_does_not_get_are_told() -> None:
    child = file(task("x", prompt="${inputs.a} ${inputs.b}"))
    assert refused(file(running(child))) == [("MISSING_INPUT", "tasks[0].parameters.descriptor")] * 2
    assert refused(file(running(child, inputs={"a": 1}))) == [("MISSING_INPUT", "tasks[0].parameters.inputs")]
    decode(json.dumps(file(running(child, inputs="${inputs}"))).encode())


def test_a_secret_may_stand_inside_of_the_child_and_nowhere_else() -> None:
    child = file(task("x", prompt="${secrets.token}"))
    decode(json.dumps(file(running(child))).encode())
    assert refused(file(running(child, inputs={"a": ["${secrets.token}"]}))) == [
        ("SECRET_STORED", "tasks[0].parameters.inputs.a[0]")
    ]
    assert refused(file(running("${secrets.token}"))) == [("SECRET_STORED", "tasks[0].parameters.descriptor")]


@pytest.mark.parametrize("levels", [1, 14])
def test_what_is_deep_inside_is_told_with_its_place_and_looked_at_once(levels: int) -> None:
    """A walk over all that is below, at each level, would take minutes for a large one."""
    descriptor: dict[str, Any] = file(task("x", "nobody", prompt="${inputs.a} ${secrets.b}"))
    for _ in range(levels):
        descriptor = file(running(descriptor))
    assert refused(descriptor) == [
        ("UNKNOWN_DEPENDENCY", f"{'tasks[0].parameters.descriptor.' * levels}tasks[0].dependencies[0]")
    ]
    del descriptor
    large: dict[str, Any] = file(task("x", task_type="delay", data=["${inputs.a}"] * 3_000))
    for _ in range(levels):
        large = file(running(large, inputs={"a": 1}))
    plan = decode(json.dumps(large).encode()).plan
    scope = Scope(output=nothing, inputs={}, job_id="j", secret=nothing)
    assert resolve(plan.tasks[0].parameters, scope) == large["tasks"][0]["parameters"]


def test_what_looks_like_a_child_in_other_places_is_none() -> None:
    child = file(task("x", "nobody"))
    node = {"id": "n", "type": "action", "piece_type": "delay", "config": {"task_type": "job", "descriptor": child}}
    workflow = {"id": "w", "version": "1.0", "name": "n", "edges": [], "nodes": [node]}
    decode(json.dumps(file(running(workflow))).encode())
    assert refused(file(running({**HEAD, "tsks": [running(child)]})))[-1][0] == "UNKNOWN_DEPENDENCY"
