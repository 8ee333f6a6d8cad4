"""A file of version 2.0 in another format is the same job; into another dialect control flow does not go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.alt import decode
from runner.core.alt.conversion import convert
from runner.core.alt.media import Format
from runner.core.alt.places import DialectName
from runner.core.errors import InvalidDescriptor
from scripts.fuzzing.flows import flow
from tests.core.alt.descriptors import as_json, as_yaml
from tests.core.alt.flows import GLOBALS, branch, call, each, flow_file, function, step, variable

TRIAGE = Path(__file__).parents[3] / "examples" / "triage.alt.yaml"
OTHERS = [DialectName.TASKS, DialectName.WORKFLOW]


def told(raw: Any, dialect: DialectName, *, lossy: bool = False) -> list[tuple[str, str, int]]:
    with pytest.raises(InvalidDescriptor) as caught:
        convert(raw if isinstance(raw, bytes) else as_json(raw), None, dialect=dialect, lossy=lossy)
    return [(finding.reason, finding.path, finding.line) for finding in caught.value.findings]


@pytest.mark.parametrize("to", Format)
def test_the_example_is_the_same_plan_and_the_same_file_in_every_format(to: Format) -> None:
    plain = convert(TRIAGE.read_bytes(), Format.JSON).content
    there = convert(plain, to)
    assert decode(there.content, content_type=to).plan == decode(TRIAGE.read_bytes()).plan
    assert convert(there.content, Format.JSON, content_type=to).content == plain


@settings(max_examples=30, deadline=None)
@given(random=st.randoms(use_true_random=False), to=st.sampled_from(Format))
def test_any_control_flow_is_the_same_in_every_format(random: Any, to: Format) -> None:
    data = as_json(flow(random))
    try:
        content = convert(data, to).content
    except InvalidDescriptor as refused:
        sound = [finding for finding in refused.findings if "TOML" not in finding.message]
        if sound:  # not all of the grammar is sound, but then it is not by any format
            with pytest.raises(InvalidDescriptor):
                decode(data)
        return
    assert repr(decode(content, content_type=to).plan) == repr(decode(data).plan)


@pytest.mark.parametrize("lossy", [False, True])
@pytest.mark.parametrize("dialect", OTHERS)
def test_every_place_of_control_flow_is_told_those_inside_of_bodies_as_well(dialect: DialectName, lossy: bool) -> None:
    raw = flow_file(
        step("a", loop=each(["b"])),
        step("b", condition=branch(["c", "x"]), variables=[variable("own")]),
        step("c", function_call=call("f")),
        step("d", function_def=function("g", "z")),
        *map(step, "xyz"),
        global_variables=GLOBALS[:4],
        functions=[function("f", "y")],
    )
    found = told(as_yaml(raw), dialect, lossy=lossy)
    assert {reason for reason, _, _ in found} == {"CANNOT_BE_WRITTEN"}
    assert {path for _, path, _ in found} == {
        "global_variables[0]",
        "global_variables[1]",
        "global_variables[2]",
        "global_variables[3]",
        "functions[0]",
        "segments[0].loop",
        "segments[1].condition",
        "segments[1].variables[0]",
        "segments[2].function_call",
        "segments[3].function_def",
    }
    assert all(line > 4 for _, _, line in found)


@pytest.mark.parametrize("dialect", OTHERS)
def test_a_file_that_only_might_set_variables_is_refused_at_its_version(dialect: DialectName) -> None:
    assert told(flow_file(step("a")), dialect) == [("CANNOT_BE_WRITTEN", "version", 1)]
    convert(as_json(flow_file(step("a"), version="1.0")), None, dialect=dialect)


def test_into_its_own_dialect_it_stays_as_it_is() -> None:
    converted = convert(TRIAGE.read_bytes(), None, dialect=DialectName.SEGMENTS)
    assert decode(converted.content).plan == decode(TRIAGE.read_bytes()).plan
    assert converted.lost == ()
