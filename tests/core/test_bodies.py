"""Control flow under a runner that dies after any event: what runs comes out of the plan and the events alone."""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runner.core.control import DEFAULT_LIMITS, ControlLimits
from runner.core.events import (
    AttemptStarted,
    AttemptSucceeded,
    BodyStarted,
    ControlSucceeded,
    Event,
    Failure,
    JobAccepted,
    JobCancelling,
    JobPaused,
    JobResumed,
    JobStarted,
    JobState,
    Recorded,
    TaskCancelled,
    TaskFailed,
    TaskReused,
    TaskSkipped,
    TaskState,
    TaskTimedOut,
)
from runner.core.interpreter import JobRun
from runner.core.plan import (
    Branch,
    Call,
    Condition,
    ForEach,
    ForRange,
    Function,
    Operator,
    Parameter,
    Plan,
    Priority,
    TaskPlan,
    Type,
    Value,
    Variable,
    While,
)
from runner.core.runs import TaskRun
from tests.core.drama import MAX_LOST, START, Driver, played, view
from tests.core.flows import control, flow_of, flows, step, when

ENDS_A_TASK: Final = (
    AttemptSucceeded,
    ControlSucceeded,
    TaskFailed,
    TaskTimedOut,
    TaskCancelled,
    TaskReused,
    TaskSkipped,
)

often = settings(max_examples=60, deadline=None)


# ------------------------------------------------------------------------------------------------- properties


@often
@given(played(flows()))
def test_every_task_that_came_into_being_ends_exactly_once_and_the_job_after_all_of_them(driver: Driver) -> None:
    history = driver.play()
    ended = Counter(name for name, _ in of_tasks(history, *ENDS_A_TASK))
    assert ended == Counter(driver.run.tasks.keys())
    assert driver.run.state is not None
    assert driver.run.state.terminal
    assert driver.run.settle(now=driver.now, max_lost=MAX_LOST) == []


@often
@given(played(flows()))
def test_replaying_any_prefix_gives_the_same_tasks_and_the_same_state(driver: Driver) -> None:
    history = driver.play()
    assert view(JobRun(driver.plan, deadline=driver.deadline).replay(history)) == view(driver.run)
    cut = driver.luck.randint(1, len(history))
    early = JobRun(driver.plan, deadline=driver.deadline).replay(history[:cut])
    twice = JobRun(driver.plan, deadline=driver.deadline).replay(history[: cut // 2]).replay(history[cut // 2 : cut])
    assert view(early) == view(twice)


@often
@given(played(flows()))
def test_counts_and_progress_hold_after_every_event(driver: Driver) -> None:
    history = driver.play()
    run = JobRun(driver.plan, deadline=driver.deadline)
    for entry in history:
        run.apply(entry)
        states = Counter(one.state for one in run.tasks.values())
        assert run.counts == {state: states[state] for state in TaskState}
        under_way = {name for name, one in run.tasks.items() if one.state is TaskState.RUNNING}
        assert set(run.running) == {name for name in under_way if run.tasks[name].plan.control is None}
        assert 0.0 <= run.progress <= 1.0
    assert run.progress == pytest.approx(1.0)


@often
@given(played(flows()))
def test_a_control_task_ends_after_all_that_it_runs(driver: Driver) -> None:
    history = driver.play()
    ended = {name: place for place, (name, _) in enumerate(of_tasks(history, *ENDS_A_TASK))}
    for name, one in driver.run.tasks.items():
        place = driver.run.bodies.place(name)
        if place.control and one.state is not TaskState.SKIPPED:
            assert ended[name] < ended[place.control]


@often
@given(played(flows()))
def test_no_more_rounds_are_under_way_than_a_loop_may_have(driver: Driver) -> None:
    history = driver.play()
    run = JobRun(driver.plan, deadline=driver.deadline)
    for entry in history:
        run.apply(entry)
        if isinstance(entry.event, BodyStarted) and entry.event.body == "round":
            loop = run.tasks[entry.event.task_id].plan.control
            assert run.bodies.control(entry.event.task_id).open <= getattr(loop, "parallel", 1)


@often
@given(flows(), st.integers(0, 2**32), st.integers(0, 2**32))
def test_what_runs_is_the_same_whatever_dies_and_in_whatever_order_things_happen(
    plan: Plan, one: int, other: int
) -> None:
    """As long as every task succeeds: rounds, branches, calls and the end of the job."""
    ends = [all_well(plan, seed, mishaps) for seed, mishaps in ((one, 0.0), (other, 0.1))]
    (calm, calm_state), (stormy, stormy_state) = ends
    assert calm == stormy
    assert calm_state is stormy_state is JobState.SUCCEEDED


@often
@given(played(flows()), st.integers(0, 2**32))
def test_a_retry_of_any_job_runs_nothing_again_that_had_succeeded(driver: Driver, seed: int) -> None:
    """However the first one ended, and whatever dies while the second one runs."""
    driver.play()
    done = {name: driver.run.tasks[name] for name in driver.run.succeeded}
    retry = Driver(driver.plan, random.Random(seed), deadline=None, steady_clock=True)  # noqa: S311  no secret
    retry.sickness = retry.cancel_chance = retry.pause_chance = 0.0
    retry.max_lost = 1_000
    retry.taken_over = [
        TaskReused(name, output=one.output, variables=one.variables, job_id="first") for name, one in done.items()
    ]
    history = retry.play()
    assert retry.run.state is JobState.SUCCEEDED
    assert not done.keys() & {entry.event.task_id for entry in history if isinstance(entry.event, AttemptStarted)}
    assert done.keys() <= set(retry.run.succeeded)


def all_well(plan: Plan, seed: int, mishaps: float) -> tuple[dict[str, TaskState], JobState | None]:
    driver = Driver(plan, random.Random(seed), deadline=None, steady_clock=True)  # noqa: S311  no secret
    driver.sickness = driver.cancel_chance = driver.pause_chance = 0.0
    driver.mishaps, driver.max_lost = mishaps, 1_000
    driver.reuse = lambda: None  # type: ignore[method-assign]
    driver.play()
    return {name: one.state for name, one in driver.run.tasks.items()}, driver.run.state


# ------------------------------------------------------------------------------------------------------ cases


def range_of(start: Any, end: Any, by: int, *body: TaskPlan, parallel: int = 1) -> ForRange:
    bounds = {"start": Value(start), "end": Value(end), "step": Value(by)}
    return ForRange(variable="i", body=body or (step("a"),), parallel=parallel, **bounds)


def test_the_branch_is_taken_that_the_condition_says_and_the_other_is_skipped() -> None:
    branch = Branch(
        condition=when(Operator.GT, "${variables.n}", 2),
        then=(step("yes"),),
        otherwise=(step("no"), step("never", "no")),
    )
    for n, taken in ((3, {"check/yes"}), (2, {"check/no", "check/never"})):
        run = play(flow_of(control("check", branch), variables=(Variable(name="n", value=n),)))
        assert {
            name for name, one in run.tasks.items() if one.state is TaskState.SKIPPED
        } == run.tasks.keys() - taken - {"check"}
        assert run.state is JobState.SUCCEEDED


def test_a_branch_without_tasks_is_a_branch_all_the_same() -> None:
    branch = Branch(condition=when(Operator.EQ, 1, 2), then=(step("yes"),))
    run = play(flow_of(control("check", branch), step("after", "check")))
    assert states(run) == {"check": TaskState.SUCCEEDED, "check/yes": TaskState.SKIPPED, "after": TaskState.SUCCEEDED}


def test_a_loop_goes_through_its_items_one_after_the_other_and_each_round_sees_its_own() -> None:
    loop = ForEach(variable="item", items=Value(["a", {"b": 1}, None]), body=(step("look"), step("then", "look")))
    run = started(flow_of(control("each", loop)))
    seen = []
    while run.running or ready(run):
        (one,) = ready(run)
        if one.plan.id.endswith("look"):
            seen.append((one.plan.id, run.bodies.variables(one.plan.id).read("item")))
        succeed(run, one)
    assert seen == [("each[0]/look", "a"), ("each[1]/look", {"b": 1}), ("each[2]/look", None)]


def test_a_range_counts_up_or_down_without_its_end() -> None:
    up, down, none = range_of(1, "${variables.end}", 2), range_of(3, 0, -1), range_of(3, 0, 1)
    plan = flow_of(
        control("up", up), control("down", down), control("none", none), variables=(Variable(name="end", value=6),)
    )
    run = play(plan)
    values = {name: run.bodies.variables(name).read("i") for name, one in run.tasks.items() if one.plan.control is None}
    assert values == {"up[0]/a": 1, "up[1]/a": 3, "up[2]/a": 5, "down[0]/a": 3, "down[1]/a": 2, "down[2]/a": 1}


def test_a_while_loop_sees_what_its_body_sets_and_ends_at_its_limit() -> None:
    loop = While(variable="round", condition=when(Operator.LT, "${variables.n}", 3), body=(step("a"),))
    plan = flow_of(control("loop", loop), variables=(Variable(name="n", value=0),))
    run = play(plan, outputs={"loop[2]/a": ("1", '{"n": 7}')})
    assert run.state is JobState.SUCCEEDED
    assert len(run.tasks) == 1 + 3
    endless = play(plan, limits=ControlLimits(max_rounds=5))
    assert failure_of(endless, "loop") == "TOO_MANY_ROUNDS"
    assert len(endless.tasks) == 1 + 5


def test_the_condition_of_a_while_loop_sees_how_many_rounds_there_were() -> None:
    inner = While(variable="i", condition=when(Operator.LT, "${variables.i}", "${variables.round}"), body=(step("a"),))
    outer = While(
        variable="round", condition=when(Operator.LT, "${variables.round}", 3), body=(control("inner", inner),)
    )
    run = play(flow_of(control("outer", outer)))
    assert run.state is JobState.SUCCEEDED
    rounds = [len(run.bodies.control(f"outer[{round_}]/inner").runs) for round_ in range(3)]
    assert rounds == [0, 1, 2]
    assert run.bodies.variables("outer[2]/inner[1]/a").read("i") == 1


def test_a_function_sees_its_arguments_and_the_files_variables_and_gives_its_last_tasks_output() -> None:
    called = Function(
        name="f", parameters=(Parameter(name="x"), Parameter(name="y", default=2)), body=(step("inner"), step("last"))
    )
    call = Call(function="f", arguments={"x": ["${variables.item}", "${inputs.who}"]}, result="got")
    loop = ForEach(variable="item", items=Value([10, 20]), body=(control("call", call), step("use", "call")))
    plan = flow_of(control("each", loop), functions=(called,), variables=(Variable(name="file", value="here"),))
    run = play(plan, inputs={"who": "me"}, outputs={"each[1]/call/last": ('{"ok": true}', "")})
    inner, use = run.bodies.variables("each[1]/call/inner"), run.bodies.variables("each[1]/use")
    assert (inner.read("x"), inner.read("y"), inner.read("file")) == ([20, "me"], 2, "here")
    assert inner.find("item") is None, "a function sees nothing of its caller"
    assert use.read("got") == {"ok": True}
    assert run.bodies.variables("each[0]/use").read("got") == 1
    assert run.bodies.variables("each").find("got") is None


def test_a_references_id_is_looked_for_in_the_same_round_first_then_around_it() -> None:
    loop = ForEach(variable="i", items=Value([1, 2]), body=(step("a"), step("b", "a")))
    run = play(flow_of(step("before"), control("each", loop, "before")))
    assert run.bodies.find("each[1]/b", "a").plan.id == "each[1]/a"
    assert run.bodies.find("each[1]/b", "before").plan.id == "before"
    with pytest.raises(KeyError):
        run.bodies.find("before", "a")


def test_the_value_of_a_loop_is_the_list_of_its_rounds_and_of_a_branch_what_was_taken() -> None:
    inner = Branch(condition=when(Operator.EQ, "${variables.i}", 1), then=(step("yes"),), otherwise=())
    loop = ForEach(variable="i", items=Value([1, 2]), body=(control("check", inner),))
    run = play(flow_of(control("each", loop)), outputs={"each[0]/check/yes": ('"taken"', "")})
    outputs = {leaf.plan.id: leaf.output for leaf in run.bodies.leaves(run.tasks["each"]) if leaf.output}
    assert run.bodies.value(run.tasks["each"], outputs) == [b'"taken"', None]


def test_a_round_that_fails_ends_a_loop_that_goes_one_by_one_and_no_other_round_of_a_parallel_one() -> None:
    for parallel, begun in ((1, 2), (2, 4)):
        loop = ForEach(variable="i", items=Value([0, 1, 2, 3]), body=(step("a"), step("b", "a")), parallel=parallel)
        run = play(flow_of(control("each", loop), step("after", "each")), fails={"each[1]/a"})
        assert len(run.bodies.control("each").runs) == begun
        assert failure_of(run, "each") == "BODY_FAILED"
        assert run.tasks["each[1]/b"].reason == "dependency `each[1]/a` failed"
        assert run.tasks["after"].state is TaskState.CANCELLED
        assert run.error is not None
        assert run.error.task_id == "each[1]/a"
        assert run.state is JobState.PARTIALLY_SUCCEEDED


@pytest.mark.parametrize(
    ("runs", "reason"),
    [
        (ForEach(variable="i", items=Value("${variables.n}"), body=(step("a"),)), "BAD_OPERAND"),
        (ForEach(variable="i", items=Value("${inputs.gone}"), body=(step("a"),)), "UNRESOLVED_REFERENCE"),
        (
            ForRange(variable="i", start=Value(0), end=Value(10**12), step=Value(1), body=(step("a"),)),
            "TOO_MANY_ROUNDS",
        ),
        (ForRange(variable="i", start=Value(0), end=Value(1.5), step=Value(1), body=(step("a"),)), "BAD_OPERAND"),
        (ForRange(variable="i", start=Value(0), end=Value(3), step=Value(0), body=(step("a"),)), "BAD_OPERAND"),
        (Branch(condition=when(Operator.GT, "${variables.n}", "2"), then=(step("a"),)), "BAD_OPERAND"),
        (Branch(condition=Condition(Operator.NOT, Value("${variables.n}")), then=(step("a"),)), "BAD_OPERAND"),
        (
            While(variable="i", condition=when(Operator.EQ, "${variables.unset}", 1), body=(step("a"),)),
            "UNRESOLVED_REFERENCE",
        ),
        (Call(function="f", arguments={"x": "${variables.n}"}), "BAD_ARGUMENT"),
        (Call(function="f"), "BAD_ARGUMENT"),
        (Call(function="f", arguments={"x": "y" * 300}), "VALUE_TOO_LARGE"),
        (Call(function="f", arguments={"x": "y"}, result="n"), "BAD_VALUE"),
        (Call(function="endless", arguments={}), "BODY_FAILED"),
    ],
)
def test_what_cannot_go_on_fails_with_its_reason_and_the_rest_goes_on(runs: Any, reason: str) -> None:
    functions = (
        Function(name="f", parameters=(Parameter(name="x", type=Type.STRING, required=True),), body=(step("inner"),)),
        Function(name="endless", body=(control("again", Call(function="endless")),)),
    )
    variables = (Variable(name="n", type=Type.NUMBER, value=1), Variable(name="unset"))
    plan = flow_of(control("bad", runs), step("other"), functions=functions, variables=variables)
    run = play(plan, limits=ControlLimits(max_depth=4, max_variable_bytes=200), outputs={"bad/inner": ('"text"', "")})
    assert failure_of(run, "bad") == reason
    assert run.tasks["other"].state is TaskState.SUCCEEDED
    assert run.state is JobState.PARTIALLY_SUCCEEDED


def test_a_function_that_calls_itself_without_end_stops_at_its_depth() -> None:
    run = play(
        flow_of(
            control("first", Call(function="endless")),
            functions=(Function(name="endless", body=(control("again", Call(function="endless")),)),),
        ),
        limits=ControlLimits(max_depth=4),
    )
    assert failure_of(run, "first/again/again/again/again") == "TOO_DEEP"
    assert run.state is JobState.FAILED


def test_a_job_has_no_more_tasks_than_it_may() -> None:
    loop = range_of(0, 100, 1, parallel=3)
    run = play(flow_of(control("loop", loop)), limits=ControlLimits(max_tasks=10))
    assert len(run.tasks) == 10
    assert failure_of(run, "loop") == "TOO_MANY_TASKS"


def test_a_cancelled_job_begins_no_further_round() -> None:
    loop = ForEach(variable="i", items=Value([1, 2, 3]), body=(step("a"),))
    run = started(flow_of(control("each", loop), step("after", "each")))
    run.record(AttemptStarted("each[0]/a", 1, "fake"), time=START)
    run.record(JobCancelling("enough"), time=START)
    assert settle(run)
    assert run.tasks["each"].state is TaskState.RUNNING
    run.record(AttemptSucceeded("each[0]/a", attempt=1), time=START)
    settle(run)
    assert run.state is JobState.CANCELLED
    assert states(run)["each"] is TaskState.CANCELLED
    assert len(run.tasks) == 3


def test_what_an_earlier_job_has_done_of_a_round_is_not_done_again() -> None:
    """A retry: the tasks of bodies are promised before they are there, with the variables that they set."""
    loop = While(variable="i", condition=when(Operator.LT, "${variables.n}", 2), body=(step("a"), step("b", "a")))
    plan = flow_of(control("loop", loop), variables=(Variable(name="n", value=0),))
    done = (("loop[0]/a", b'{"n":1}'), ("loop[0]/b", b""), ("loop[1]/a", b'{"n":2}'))
    reused = (TaskReused(name, output=b'"old"', variables=set_, job_id="earlier") for name, set_ in done)
    run = promised(plan, *reused)
    assert [one.plan.id for one in ready(run)] == ["loop[1]/b"]
    assert run.tasks["loop[0]/b"].output == b'"old"'
    assert run.tasks["loop[1]/a"].reused_from == "earlier"
    finish(run)
    assert run.state is JobState.SUCCEEDED
    assert len(run.tasks) == 5


def promised(plan: Plan, *reused: TaskReused) -> JobRun:
    """A job that retries another, which had done so much."""
    run = JobRun(plan)
    run.record(JobAccepted("x", 1, "default", Priority.MEDIUM), time=START)
    for event in reused:
        run.record(event, time=START)
    run.record(JobStarted("r", 1), time=START)
    settle(run)
    return run


def test_what_is_taken_over_sets_variables_in_the_order_in_which_it_was_done_and_in_its_turn() -> None:
    """`reset` ended after the loop, so the loop must not see what it set; `late` ended last, after `early`."""
    loop = While(variable="i", condition=when(Operator.LT, "${variables.n}", 2), body=(step("inc"),))
    plan = flow_of(
        step("late"), step("early"), control("w", loop), step("reset", "w"), step("bad"),
        variables=(Variable(name="n", value=0), Variable(name="who")),
    )  # fmt: skip
    run = promised(
        plan,
        TaskReused("early", variables=b'{"who":"early"}', job_id="x"),
        TaskReused("w[0]/inc", variables=b'{"n":1}', job_id="x"),
        TaskReused("w[1]/inc", variables=b'{"n":2}', job_id="x"),
        TaskReused("reset", variables=b'{"n":100}', job_id="x"),
        TaskReused("late", variables=b'{"who":"late"}', job_id="x"),
    )
    assert [one.plan.id for one in ready(run)] == ["bad"]
    assert len(run.bodies.control("w").runs) == 2
    assert run.bodies.variables("bad").read("who") == "late"
    assert list(run.promises) == []


def test_what_is_taken_over_and_was_not_come_to_goes_on_to_the_next_retry() -> None:
    plan = flow_of(step("a"), step("b", "a"))
    run = JobRun(plan)
    run.record(JobAccepted("x", 1, "default", Priority.MEDIUM), time=START)
    for name in ("a", "b"):
        run.record(TaskReused(name, output=b"1", job_id="first"), time=START)
    assert [event.task_id for event in run.promises] == ["a", "b"]
    assert run.succeeded == []


def test_a_cancelled_job_takes_nothing_over_and_ends() -> None:
    run = JobRun(flow_of(step("a"), step("b", "a")))
    run.record(JobAccepted("x", 1, "default", Priority.MEDIUM), time=START)
    run.record(TaskReused("a", output=b"1", job_id="first"), time=START)
    run.record(JobStarted("r", 1), time=START)
    run.record(JobCancelling("enough"), time=START)
    settle(run)
    assert run.state is JobState.CANCELLED
    assert states(run) == {"a": TaskState.CANCELLED, "b": TaskState.CANCELLED}


def test_a_pause_before_a_loop_keeps_nothing_of_what_the_loop_would_have_seen() -> None:
    loop = ForEach(variable="i", items=Value("${variables.list}"), body=(step("a"),))
    plan = flow_of(
        step("first"),
        step("other"),
        control("each", loop, "first"),
        variables=(Variable(name="list", value=[1, 2, 3]),),
    )
    run = started(plan)
    for name in ("first", "other"):
        run.record(AttemptStarted(name, 1, "fake"), time=START)
    run.record(JobPaused(), time=START)
    run.record(AttemptSucceeded("first", attempt=1), time=START)
    settle(run)
    assert run.bodies.control("each").runs == []
    run.record(AttemptSucceeded("other", attempt=1, variables=b'{"list":[7]}'), time=START)
    run.record(JobResumed(held=True), time=START)
    settle(run)
    finish(run)
    assert run.state is JobState.SUCCEEDED
    assert [name for name in run.tasks if name.startswith("each[")] == ["each[0]/a"]


def test_values_that_are_nested_without_end_are_refused() -> None:
    deep: Any = 1
    for _ in range(500):
        deep = [deep]
    branch = Branch(condition=when(Operator.EQ, "${inputs.a}", "${inputs.a}"), then=(step("x"),))
    loop = ForEach(variable="i", items=Value(["${inputs.a}"]), body=(step("x"),))
    run = play(flow_of(control("check", branch), control("each", loop), step("other")), inputs={"a": deep})
    assert failure_of(run, "check") == failure_of(run, "each") == "BAD_OPERAND"


def test_a_control_task_looks_at_no_more_than_it_may_and_settling_has_pauses() -> None:
    many = ForRange(variable="i", start=Value(0), end=Value(50), step=Value(1), body=(step("a"),))
    look = Branch(condition=when(Operator.NEQ, "${tasks.many.output}", 1), then=(step("x"),))
    outputs = {f"many[{round_}]/a": (f'"{"x" * 100}"', "") for round_ in range(50)}
    plan = flow_of(control("many", many), control("look", look, "many"))
    assert play(plan, outputs=outputs).state is JobState.SUCCEEDED
    run = play(plan, outputs=outputs, limits=ControlLimits(max_looked_at_bytes=5_000))
    assert failure_of(run, "look") == "VALUE_TOO_LARGE"


@pytest.mark.parametrize("left", ["${inputs.big}", "${inputs}", "${variables.big}", "${tasks.big.output}"])
def test_settling_has_pauses_whatever_conditions_look_at(left: str) -> None:
    """Or a condition in each of thousands of rounds would hold up the leases of all jobs."""
    big = ["x" * 100] * 2_000
    look = Branch(condition=when(Operator.NEQ, left, 1), then=(step("x"),))
    loop = range_of(0, 100, 1, control("look", look), parallel=100)
    plan = flow_of(step("big"), control("loop", loop, "big"), variables=(Variable(name="big", value=big),))
    run = started(plan, inputs={"big": big})
    run.record(AttemptStarted("big", 1, "fake"), time=START)
    run.record(AttemptSucceeded("big", attempt=1, output=json.dumps(big).encode()), time=START)
    settle(run)
    settles = 1
    while run.next_wakeup(settled=START) == START:
        settles += 1
        settle(run)
    assert 4 <= settles <= 10
    assert len(ready(run)) == 100


def test_the_ids_of_instances_do_not_grow_without_end() -> None:
    again = Branch(condition=when(Operator.EQ, 1, 1), then=(control("z" * 30, Call(function="f")),))
    function = Function(name="f", body=(control("y" * 30, again),))
    plan = flow_of(control("x" * 30, Call(function="f")), functions=(function,))
    run = play(plan, limits=ControlLimits(max_id=100))
    assert max(map(len, run.tasks)) <= 100 + 31 + 1
    assert run.state is JobState.FAILED


def test_the_cost_of_a_loop_is_linear_in_its_rounds() -> None:
    """Counted in calls of functions, not in time: ten times the instances are at most eleven times the calls."""

    def calls(rounds: int) -> int:
        check = Branch(
            condition=when(Operator.GT, "${variables.i}", rounds // 2), then=(step("a"),), otherwise=(step("b"),)
        )
        loop = ForRange(
            variable="i", start=Value(0), end=Value(rounds), step=Value(1), body=(control("c", check),), parallel=7
        )
        run = started(flow_of(control("loop", loop)))
        counted = 0

        def count(*_: object) -> None:
            nonlocal counted
            counted += 1

        sys.setprofile(count)
        try:
            finish(run, limits=ControlLimits(max_rounds=rounds))
        finally:
            sys.setprofile(None)
        assert len(run.tasks) == 1 + 3 * rounds
        return counted

    assert calls(3_333) <= 11 * calls(333)


# ------------------------------------------------------------------------------------------------------ playing


def of_tasks(history: list[Recorded], *kinds: type[Event]) -> Iterator[tuple[str, Any]]:
    begun = False
    for entry in history:
        begun |= isinstance(entry.event, JobStarted)
        # What an earlier job has done is promised at first, and told once more when its turn has come.
        if isinstance(entry.event, kinds) and (begun or not isinstance(entry.event, TaskReused)):
            yield getattr(entry.event, "task_id", ""), entry.event


def started(plan: Plan, *, inputs: dict[str, Any] | None = None, limits: ControlLimits = DEFAULT_LIMITS) -> JobRun:
    run = JobRun(plan, inputs=inputs or {}, job_id="job")
    run.record(JobAccepted(plan.title, len(plan.tasks), "default", plan.priority), time=START)
    run.record(JobStarted("r", 1), time=START)
    settle(run, limits)
    return run


def settle(run: JobRun, limits: ControlLimits = DEFAULT_LIMITS) -> list[Recorded]:
    return run.settle(now=START, max_lost=MAX_LOST, limits=limits)


def ready(run: JobRun) -> list[TaskRun]:
    return list(run.runnable(START))


def succeed(run: JobRun, one: TaskRun, output: str = "1", variables: str = "") -> None:
    number = len(one.attempts) + 1
    run.record(AttemptStarted(one.plan.id, number, "fake"), time=START)
    event = AttemptSucceeded(one.plan.id, attempt=number, output=output.encode(), variables=variables.encode())
    run.record(event, time=START)
    settle(run)


def finish(
    run: JobRun,
    *,
    outputs: dict[str, tuple[str, str]] | None = None,
    fails: set[str] | None = None,
    limits: ControlLimits = DEFAULT_LIMITS,
) -> None:
    """Run what is ready until nothing is, by (output, variables) of each instance, or 1."""
    while batch := ready(run):
        for one in batch:
            name, number = one.plan.id, len(one.attempts) + 1
            run.record(AttemptStarted(name, number, "fake"), time=START)
            output, variables = (outputs or {}).get(name, ("1", ""))
            event: Event = AttemptSucceeded(name, attempt=number, output=output.encode(), variables=variables.encode())
            if name in (fails or ()):
                event = TaskFailed(name, attempt=number, failure=Failure("X", "x"))
            run.record(event, time=START)
        settle(run, limits)
    while settle(run, limits):
        pass


def play(
    plan: Plan,
    *,
    inputs: dict[str, Any] | None = None,
    limits: ControlLimits = DEFAULT_LIMITS,
    **how: Any,
) -> JobRun:
    run = started(plan, inputs=inputs, limits=limits)
    finish(run, limits=limits, **how)
    return run


def states(run: JobRun) -> dict[str, TaskState]:
    return {name: one.state for name, one in run.tasks.items()}


def failure_of(run: JobRun, name: str) -> str:
    failure = run.tasks[name].failure
    assert failure is not None
    return failure.reason
