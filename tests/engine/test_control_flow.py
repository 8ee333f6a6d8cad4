"""Jobs with loops, branches, calls and variables, from their descriptor to their end."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import anyio
import pytest

from runner.core.errors import AttemptError, InvalidRequest
from runner.core.events import (
    AttemptParked,
    AttemptSucceeded,
    BodyStarted,
    JobPartiallySucceeded,
    JobSucceeded,
    TaskFailed,
    TaskReused,
)
from runner.core.job import Signal
from runner.engine.again import Retry
from runner.engine.submission import Submission
from runner.ports import Attempt, Outcome
from tests.engine.stage import Engine, Stage, only
from tests.engine.test_approval import waiting
from tests.engine.test_recovery import MortalLedger, finish

pytestmark = pytest.mark.timeout(30)


def segment(name: str, *dependencies: str, **fields: Any) -> dict[str, Any]:
    parameters = [{"name": key, "value": value} for key, value in fields.pop("parameters", {}).items()]
    row = {"id": name, "task_type": "scripted", "content": f"do {name}", "parameters": parameters}
    return row | {"dependencies": list(dependencies)} | fields


def each(name: str, *body: str, over: Any = "numbers", parallel: bool = False) -> dict[str, Any]:
    loop = {"type": "for_each", "variable": "item", "iterable": over, "body": list(body)}
    return segment(name, loop=loop, metadata={"parallel": parallel})


def flow(*segments: dict[str, Any], variables: dict[str, Any] | None = None, **fields: Any) -> Submission:
    told = {"numbers": [1, 2, 3]} if variables is None else variables
    descriptor = {
        "id": "alt",
        "version": "2.0",
        "command": "Özet",
        "timestamp": "2026-01-01T00:00:00Z",
        "global_variables": [{"name": name, "value": value} for name, value in told.items()],
        "segments": list(segments),
    }
    return Submission(descriptor=json.dumps(descriptor).encode(), **fields)


async def submitted(engine: Engine, *segments: dict[str, Any], **fields: Any) -> str:
    return (await engine.runner.submit(flow(*segments, **fields))).job.id


async def tell(attempt: Attempt) -> Outcome:
    """Gives what it was given."""
    await anyio.lowlevel.checkpoint()
    return Outcome(output={key: value for key, value in attempt.parameters.items() if key != "prompt"})


def script(stage: Stage, count: int, template: str, what: Any) -> None:
    for number in range(count):
        stage.troupe.scripts[template.format(number)] = what


async def test_each_round_is_given_its_own_value_and_what_it_gives_can_be_referred_to_as_a_list() -> None:
    stage = Stage()
    script(stage, 3, "each[{}]/double", tell)
    stage.troupe.scripts["sum"] = tell
    async with stage.engine() as engine:
        job_id = await submitted(
            engine,
            each("each", "double"),
            segment("double", parameters={"n": "${variables.item}"}),
            segment("sum", "each", parameters={"all": "${tasks.each.output}"}),
        )
        history = await engine.end(job_id)
    assert isinstance(history[-1].event, JobSucceeded)
    results = (await stage.record(job_id))["task_results"]
    assert results["sum"]["output"] == {"all": [{"n": 1}, {"n": 2}, {"n": 3}]}
    assert stage.troupe.order == ["each[0]/double", "each[1]/double", "each[2]/double", "sum"]
    assert set(stage.troupe.calls) == {f"{job_id}/{name}" for name in stage.troupe.order}


async def test_parallel_rounds_run_side_by_side() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        job_id = await submitted(engine, each("each", "a", parallel=True), segment("a"))
        await engine.end(job_id)
    assert stage.troupe.most_on_stage == 3


async def test_a_task_sets_variables_that_a_loop_looks_at() -> None:
    async def more(attempt: Attempt) -> Outcome:
        return Outcome(output={"variables": {"n": attempt.parameters["n"] + 1}, "said": "yes"})

    stage = Stage()
    script(stage, 3, "loop[{}]/more", more)
    condition = {"operator": "lt", "left": "n", "right": 2}
    loop = {"type": "while", "variable": "i", "condition": condition, "body": ["more"]}
    async with stage.engine() as engine:
        job_id = await submitted(
            engine,
            segment("loop", loop=loop),
            segment("more", parameters={"n": "${variables.n}"}),
            variables={"n": 0},
        )
        history = await engine.end(job_id)
    assert isinstance(history[-1].event, JobSucceeded)
    assert [event.round for event in only(history, BodyStarted)] == [0, 1]
    assert [event.variables for event in only(history, AttemptSucceeded)] == [b'{"n":1}', b'{"n":2}']


@pytest.mark.parametrize(
    ("variables", "limit", "said"),
    [
        ({"unknown": 1}, 1000, "there is no variable `unknown`"),
        ({"n": "text"}, 1000, "the variable `n` is of type number"),
        ({"n": 10**20}, 10, "engine.max_variable_bytes"),
    ],
)
async def test_a_variable_that_cannot_be_set_fails_its_task_for_good(variables: Any, limit: int, said: str) -> None:
    async def wrong(_: Attempt) -> Outcome:
        return Outcome(output={"variables": variables})

    stage = Stage()
    stage.troupe.scripts["a"] = wrong
    raw = json.loads(flow(segment("a"), variables={}).descriptor)
    raw["global_variables"] = [{"name": "n", "type": "number", "value": 1}]
    async with stage.engine(max_variable_bytes=limit, default_retries=3) as engine:
        accepted = await engine.runner.submit(Submission(descriptor=json.dumps(raw).encode()))
        history = await engine.end(accepted.job.id)
    [failed] = only(history, TaskFailed)
    assert failed.failure.reason == "BAD_VARIABLE"
    assert said in failed.failure.message


async def test_a_plain_output_with_variables_in_it_sets_none_where_there_are_none() -> None:
    async def innocent(_: Attempt) -> Outcome:
        return Outcome(output={"variables": {"x": 1}})

    stage = Stage()
    stage.troupe.scripts["a"] = innocent
    async with stage.engine() as engine:
        history = await engine.run({"id": "a", "description": "do", "parameters": {"task_type": "scripted"}})
    assert isinstance(history[-1].event, JobSucceeded)


async def test_what_became_an_artifact_is_within_reach_of_tasks_and_too_large_for_control_flow() -> None:
    async def large(_: Attempt) -> Outcome:
        return Outcome(output=["x" * 3_000])

    stage = Stage()
    script(stage, 2, "each[{}]/big", large)
    stage.troupe.scripts |= {"look": tell, "many": large}
    async with stage.engine(inline_output_bytes=2_000) as engine:
        job_id = await submitted(
            engine,
            each("each", "big", over="${inputs.two}"),
            segment("big"),
            segment("look", "each", parameters={"first": "${tasks.each.output[1][0]}"}),
            segment("many"),
            each("again", "never", over="${tasks.many.output}") | {"dependencies": ["many"]},
            segment("never"),
            inputs=b'{"two": [1, 2]}',
        )
        history = await engine.end(job_id)
    assert isinstance(history[-1].event, JobPartiallySucceeded)
    [failed] = only(history, TaskFailed)
    assert (failed.task_id, failed.failure.reason) == ("again", "VALUE_TOO_LARGE")
    _, run = await engine.runner.job_run(job_id)
    assert run.tasks["look"].artifacts[0].size_bytes > 3_000


@pytest.mark.parametrize("after", [False, True], ids=["before-the-commit", "after-the-commit"])
@pytest.mark.parametrize("commit", range(1, 6))
async def test_a_crash_at_any_commit_repeats_no_finished_round_and_forgets_no_variable(
    commit: int, after: bool
) -> None:
    async def add(attempt: Attempt) -> Outcome:
        await anyio.lowlevel.checkpoint()
        return Outcome(output={"variables": {"sum": attempt.parameters["sum"] + attempt.parameters["item"]}})

    ledger = MortalLedger()
    stage = Stage(ledger)
    script(stage, 3, "each[{}]/add", add)
    stage.troupe.scripts["told"] = tell
    ledger.dies_at, ledger.after = commit, after
    async with stage.engine() as engine:
        job_id = await submitted(
            engine,
            each("each", "add"),
            segment("add", parameters={"sum": "${variables.sum}", "item": "${variables.item}"}),
            segment("told", "each", parameters={"sum": "${variables.sum}"}),
            variables={"numbers": [1, 2, 3], "sum": 0},
        )
        await ledger.died.wait()
    ledger.thaw()
    await finish(stage, [job_id])
    history = await stage.history(job_id)
    assert isinstance(history[-1].event, JobSucceeded)
    assert (await stage.record(job_id))["task_results"]["told"]["output"] == {"sum": 6}
    succeeded = Counter(event.task_id for event in only(history, AttemptSucceeded))
    assert succeeded == Counter({"each[0]/add": 1, "each[1]/add": 1, "each[2]/add": 1, "told": 1})


async def test_a_retry_runs_the_rounds_that_failed_with_the_variables_that_the_others_set() -> None:
    async def bad(_: Attempt) -> Outcome:
        raise AttemptError("BAD", "no", retryable=False)

    async def count(attempt: Attempt) -> Outcome:
        return Outcome(output={"variables": {"n": attempt.parameters["n"] + 1}})

    stage = Stage()
    script(stage, 3, "each[{}]/a", count)
    stage.troupe.scripts |= {"each[1]/b": bad, "last": tell}
    segments = (
        each("each", "a", "b"),
        segment("a", parameters={"n": "${variables.n}"}),
        segment("b", "a"),
        segment("last", "each", parameters={"n": "${variables.n}"}),
    )
    async with stage.engine() as engine:
        first = await submitted(engine, *segments, variables={"numbers": [1, 2, 3], "n": 0})
        assert isinstance((await engine.end(first))[-1].event, JobPartiallySucceeded)
        stage.troupe.order.clear()
        del stage.troupe.scripts["each[1]/b"]
        second = (await engine.runner.retry(Retry(job_id=first))).job.id
        history = await engine.end(second)
    assert isinstance(history[-1].event, JobSucceeded)
    assert stage.troupe.order == ["each[1]/b", "each[2]/a", "each[2]/b", "last"]
    assert (await stage.record(second))["task_results"]["last"]["output"] == {"n": 3}
    assert {event.task_id for event in only(history, TaskReused)} == {"each[0]/a", "each[0]/b", "each[1]/a"}


async def test_somebody_may_answer_for_a_round_that_has_not_begun() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        job_id = await submitted(engine, each("each", "ask"), segment("ask", task_type="approval"))
        for round_ in (2, 0, 1):
            await engine.runner.signal(job_id, Signal(f"each[{round_}]/ask", approved=True))
        history = await engine.end(job_id)
        assert isinstance(history[-1].event, JobSucceeded)
        for wrong in ("ask", "each", "each/ask", "each[0]", "each[x]/ask", "each[0]/gone"):
            with pytest.raises(InvalidRequest):
                await engine.runner.signal(job_id, Signal(wrong, approved=True))


async def test_an_answer_that_can_never_arrive_is_refused_with_those_that_can() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        job_id = await submitted(
            engine,
            each("done", "quick"),
            segment("quick", task_type="approval"),
            each("each", "ask", parallel=True) | {"dependencies": ["done"]},
            segment("ask", task_type="approval"),
        )
        for round_ in range(3):
            await engine.runner.signal(job_id, Signal(f"done[{round_}]/quick", approved=True))
        await waiting(engine, job_id, "each[1]/ask")
        for wrong in ("each[3]/ask", "each[01]/ask", "done[3]/quick"):
            with pytest.raises(InvalidRequest, match=r"waiting for approval, now: `each\[0\]/ask`"):
                await engine.runner.signal(job_id, Signal(wrong, approved=True))
        for round_ in range(3):
            await engine.runner.signal(job_id, Signal(f"each[{round_}]/ask", approved=True))
        assert isinstance((await engine.end(job_id))[-1].event, JobSucceeded)


async def test_the_question_of_a_round_is_that_of_its_own_values() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        ask = segment("ask", task_type="approval", content="Pay ${variables.item}?")
        job_id = await submitted(engine, each("each", "ask"), ask, variables={"numbers": [42]})
        await waiting(engine, job_id, "each[0]/ask")
        await engine.runner.signal(job_id, Signal("each[0]/ask", approved=True))
        history = await engine.end(job_id)
    [parked] = only(history, AttemptParked)
    assert parked.message == "Pay 42?"


async def test_what_all_rounds_gave_is_reached_only_within_a_limit() -> None:
    async def large(_: Attempt) -> Outcome:
        return Outcome(output="x" * 3_000)

    stage = Stage()
    script(stage, 3, "each[{}]/big", large)
    stage.troupe.scripts["look"] = tell
    async with stage.engine(inline_output_bytes=2_000, max_referenced_bytes=7_000) as engine:
        job_id = await submitted(
            engine,
            each("each", "big"),
            segment("big"),
            segment("look", "each", parameters={"all": "${tasks.each.output}"}),
        )
        history = await engine.end(job_id)
    [failed] = only(history, TaskFailed)
    assert failed.failure.reason == "UNRESOLVED_REFERENCE"
    assert "engine.max_referenced_bytes" in failed.failure.message


async def test_a_variable_that_begins_too_large_is_refused_at_once() -> None:
    stage = Stage()
    async with stage.engine(max_variable_bytes=100) as engine:
        with pytest.raises(InvalidRequest, match="max_variable_bytes"):
            await submitted(engine, segment("a"), variables={"text": "x" * 200})


async def test_what_instances_have_in_common_stands_once_in_the_record() -> None:
    stage = Stage()
    async with stage.engine() as engine:
        long = segment("a", content="do " + "x" * 5_000, metadata={"about": "y" * 5_000})
        job_id = await submitted(engine, each("each", "a"), long)
        await engine.end(job_id)
    results = (await stage.record(job_id))["task_results"]
    whole, *others = (results[f"each[{round_}]/a"] for round_ in range(3))
    assert len(whole["description"]) > 5_000
    assert whole["metadata"]["alt_about"] == "y" * 5_000
    assert all(len(other["description"]) < 210 and "alt_about" not in other["metadata"] for other in others)


async def test_a_retry_of_a_retry_that_never_began_takes_over_what_the_first_job_did() -> None:
    async def bad(_: Attempt) -> Outcome:
        raise AttemptError("BAD", "no", retryable=False)

    stage = Stage()
    stage.troupe.scripts["bad"] = bad
    async with stage.engine(max_running_jobs=1) as engine:
        first = await submitted(engine, each("each", "a"), segment("a"), segment("bad", "each"))
        await engine.end(first)
        busy = await submitted(engine, segment("wait", task_type="approval"))
        second = (await engine.runner.retry(Retry(job_id=first))).job.id
        await engine.runner.cancel(second, "enough")
        await engine.runner.signal(busy, Signal("wait", approved=True))
        await engine.end(second)
        stage.troupe.order.clear()
        del stage.troupe.scripts["bad"]
        third = (await engine.runner.retry(Retry(job_id=second))).job.id
        history = await engine.end(third)
    assert isinstance(history[-1].event, JobSucceeded)
    assert stage.troupe.order == ["bad"]
