"""Control flow that is made to take long, much memory or a deep stack: it is read or refused within bounds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

import msgspec
import pytest

from runner.core.alt import DescriptorLimits, decode
from runner.core.interpreter import JobRun
from runner.core.plan import Plan, every_task
from runner.core.references import required_inputs
from tests.core.alt.descriptors import as_json, refused
from tests.core.alt.flows import (
    GLOBALS,
    branch,
    call,
    compared,
    counted,
    flow_file,
    function,
    parameter,
    step,
    variable,
)

SIZE: Final = 10_000
DEEP: Final = 60
X: Final = step("x")
LOOPED: Final = [step(f"t{n}", loop=counted([f"t{n + 1}"])) for n in range(DEEP - 1)]
LEAVES: Final = [f"t{DEEP - 1}", *(f"x{n}" for n in range(400))]


def long_path(number: int) -> str:
    return f"v.{'.'.join(['a'] * 900)}{number}"


PATHS: Final = {f"p{n}": f"${{variables.{long_path(n)}}}" for n in range(1_000)}
#: Files, each with the reason for which it is refused; none: it is read.
HOSTILE: Final[dict[str, tuple[Callable[[], dict[str, Any]], str]]] = {
    "bodies in bodies": (
        lambda: flow_file(*(step(f"t{n}", loop=counted([f"t{n + 1}"])) for n in range(SIZE - 1)), step(f"t{SIZE - 1}")),
        "TOO_DEEP",
    ),
    "conditions in conditions": (
        lambda: flow_file(
            *(step(f"t{n}", condition=branch([f"t{n + 1}"])) for n in range(4_999)),
            step("t4999"),
            global_variables=GLOBALS,
        ),
        "TOO_DEEP",
    ),
    "a ring of bodies that wait for each other": (
        lambda: flow_file(
            *(
                step(f"t{n}", *(f"t{(n * 7 + k) % SIZE}" for k in range(12)), loop=counted([f"t{(n + 1) % SIZE}"]))
                for n in range(SIZE)
            )
        ),
        "CYCLE",
    ),
    "dependencies across deep bodies": (
        lambda: flow_file(
            *LOOPED[:-1],
            step(f"t{DEEP - 2}", loop=counted(LEAVES)),
            step(LEAVES[0]),
            *(step(name, loop=counted([f"y{name}"])) for name in LEAVES[1:]),
            *(step(f"y{name}", *(f"y{other}" for other in LEAVES[1:n])) for n, name in enumerate(LEAVES) if n),
        ),
        "",
    ),
    "many that wait for many": (
        lambda: flow_file(
            *(step(f"t{n}") for n in range(9_980)),
            *(step(f"u{n}", *(f"t{other}" for other in range(9_980))) for n in range(20)),
        ),
        "",
    ),
    "unknown ids in a body": (
        lambda: flow_file(step("a", loop=counted([f"x{n}" for n in range(150_000)]))),
        "UNKNOWN_DEPENDENCY",
    ),
    "ids in functions": (lambda: flow_file(X, functions=[function("f", *["x"] * 200_001)]), "TOO_MANY_DEPENDENCIES"),
    "unknown names among many": (
        lambda: flow_file(
            step(
                "a",
                parameters=[{"name": f"p{n}", "value": f"${{variables.w{n}}}"} for n in range(15_000)],
            ),
            X,
            global_variables=[variable(f"v{n}") for n in range(60_000)],
        ),
        "UNKNOWN_VARIABLE",
    ),
    "functions that call each other": (
        lambda: flow_file(
            *(step(f"t{n}", function_call=call(f"f{(n + 1) % 5_000}")) for n in range(5_000)),
            step("begin", function_call=call("f0")),
            functions=[function(f"f{n}", f"t{n}") for n in range(5_000)],
        ),
        "RECURSION",
    ),
    "functions that call themselves": (
        lambda: flow_file(
            *(step(f"t{n}", function_call=call(f"f{n}")) for n in range(9_000)),
            step("begin", function_call=call("f0")),
            functions=[function(f"f{n}", f"t{n}") for n in range(9_000)],
        ),
        "RECURSION",
    ),
    "many calls that lack many arguments": (
        lambda: flow_file(
            *(step(f"t{n}", function_call=call("f")) for n in range(5_000)),
            X,
            functions=[function("f", "x", parameters=[parameter(f"p{n}", required=True) for n in range(30_000)])],
        ),
        "MISSING_ARGUMENT",
    ),
    "many calls without many arguments": (
        lambda: flow_file(
            *(step(f"t{n}", function_call=call("f")) for n in range(5_000)),
            X,
            functions=[function("f", "x", parameters=[parameter(f"p{n}") for n in range(30_000)])],
        ),
        "",
    ),
    "arguments that look like names, deep inside": (
        lambda: flow_file(
            *LOOPED,
            step(f"t{DEEP - 1}", function_call=call("f", **{f"p{n}": "q" for n in range(100_000)})),
            X,
            functions=[function("f", "x")],
        ),
        "UNKNOWN_ARGUMENT",
    ),
    "long paths in conditions": (
        lambda: flow_file(
            *(step(f"t{n}", condition=branch([f"x{n}"], condition=compared(left=long_path(n)))) for n in range(999)),
            *(step(f"x{n}") for n in range(999)),
            global_variables=GLOBALS,
        ),
        "TOO_MANY_REFERENCES",
    ),
    "long paths in arguments": (
        lambda: flow_file(
            step("a", function_call=call("f", **PATHS)),
            X,
            global_variables=GLOBALS,
            functions=[function("f", "x", parameters=[parameter(name, "number") for name in PATHS])],
        ),
        "TOO_MANY_REFERENCES",
    ),
    "long paths in variables": (
        lambda: flow_file(X, global_variables=[variable(name, value) for name, value in PATHS.items()]),
        "BAD_VALUE",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_read_or_refused_in_bounded_time(name: str) -> None:
    make, reason = HOSTILE[name]
    data = as_json(make())
    started = time.monotonic()
    if reason:
        assert reason in {finding.reason for finding in refused(data)}
    else:
        plan = decode(data).plan
        assert msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=Plan) == plan
    assert time.monotonic() - started < 10


def nested_file(depth: int, innermost: dict[str, Any]) -> dict[str, Any]:
    loops = [step(f"t{n}", loop=counted([f"t{n + 1}"])) for n in range(depth - 1)]
    return flow_file(*loops, innermost | {"id": f"t{depth - 1}"}, step("z"), global_variables=GLOBALS)


def deep_list(depth: int) -> Any:
    return [deep_list(depth - 1)] if depth else 1


def deep_condition(depth: int) -> dict[str, Any]:
    return compared("and", deep_condition(depth - 1), True) if depth else compared()


@pytest.mark.parametrize("depth", [64, 200])
def test_the_deepest_plan_that_is_accepted_can_be_stored_and_read_again(depth: int) -> None:
    """Bodies and what stands inside of the innermost are nested as deep as the limit allows, both."""
    inside = depth - 10
    for innermost in (
        step("last", parameters=[{"name": "p", "value": deep_list(inside)}]),
        step("last", condition=branch(["z"], condition=deep_condition(inside))),
    ):
        # The condition's own body is one more.
        raw = nested_file(depth - 1, innermost)
        plan = decode(as_json(raw), limits=DescriptorLimits(max_depth=depth)).plan
        again = msgspec.msgpack.decode(msgspec.msgpack.encode(plan), type=Plan)
        assert again == plan
        assert sum(1 for _ in every_task(again)) == depth
        assert required_inputs(again) == set()
        assert "t0" in JobRun(again).tasks


def test_bodies_are_nested_as_deep_as_the_limit_and_no_deeper() -> None:
    limits = DescriptorLimits(max_depth=5)
    raw = nested_file(6, step("last"))
    decode(as_json(raw), limits=limits)
    (finding,) = refused(nested_file(7, step("last")), limits=limits)
    assert (finding.reason, finding.path) == ("TOO_DEEP", "segments[5].loop.body")
    assert "`descriptor.max_depth`" in finding.message
