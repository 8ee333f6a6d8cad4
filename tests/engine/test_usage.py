"""What attempts tell of calls at several endpoints: checked before it is stored, and told on from child to parent."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from runner.core.budgets import LabelBudget, Period
from runner.core.errors import AttemptError, AttemptPutOff
from runner.core.events import (
    AttemptFailed,
    AttemptParked,
    AttemptSucceeded,
    JobFailed,
    TaskCancelled,
    TaskFailed,
    TaskTimedOut,
    Usage,
    UsageAt,
    WaitReason,
)
from runner.core.record import UsageRecord, parse
from runner.ports import Attempt, Outcome
from tests.engine.stage import Script, Stage, forever, only, submission, task

pytestmark = pytest.mark.timeout(30)

#: One call at another endpoint than the one that is named.
TWICE = Usage(2, 3, 4, 9, (UsageAt("spare", "n", 1, total_tokens=2),))

MANY = tuple(UsageAt(f"e{number}", "m", 1) for number in range(65))
HOSTILE: list[Any] = [
    {"calls": 1},
    "none",
    UsageAt("e", "m", 1),
    Usage(1, elsewhere=(Usage(1),)),  # type: ignore[arg-type]
    Usage(calls=None),  # type: ignore[arg-type]
    Usage(elsewhere=(UsageAt("e", "m", 1),)),
    Usage(1, elsewhere=(UsageAt("e", "m", 1, 1),)),
    Usage(9, elsewhere=(UsageAt("e", "m", 5), UsageAt("f", "m", 5))),
    Usage(1, elsewhere=(UsageAt("e", "m", -1),)),
    Usage(2**63 - 1, elsewhere=(UsageAt("e", "m", 2**63),)),
    Usage(1, total_tokens=2**48 + 1),
    Usage(1, elsewhere=(UsageAt("e", None, 1),)),  # type: ignore[arg-type]
    Usage(1, elsewhere=(UsageAt([], "m", 1),)),  # type: ignore[arg-type]
    Usage(1, elsewhere=({"calls": 1},)),  # type: ignore[arg-type]
    Usage(1, elsewhere=[UsageAt("e", "m", 1)]),  # type: ignore[arg-type]
    Usage(1, elsewhere=None),  # type: ignore[arg-type]
    Usage(99, elsewhere=MANY),
]


def giving(outcome: Outcome) -> Script:
    async def script(_: Attempt) -> Outcome:
        return outcome

    return script


def raising(error: AttemptError) -> Script:
    async def script(_: Attempt) -> Outcome:
        raise error

    return script


@pytest.mark.parametrize("usage", HOSTILE, ids=lambda usage: str(usage)[:70])
async def test_a_usage_that_cannot_be_fails_its_task_or_is_not_told(usage: Any) -> None:
    stage = Stage()
    stage.troupe.scripts["gives"] = giving(Outcome(usage=usage))
    stage.troupe.scripts["fails"] = raising(AttemptError("X", "m", retryable=False, usage=usage))
    async with stage.engine() as engine:
        job_id = await engine.submit(task("gives"), task("fails"))
        history = await engine.end(job_id)
    assert isinstance(history[-1].event, JobFailed)
    failed = {event.task_id: (event.failure.reason, event.usage) for event in only(history, TaskFailed)}
    assert failed == {"gives": ("HANDLER_ERROR", None), "fails": ("X", None)}
    assert (await stage.record(job_id))["usage_by"] == []


async def test_the_places_of_a_usage_are_made_fit_to_be_stored() -> None:
    """Their names are short and of UTF-8, and the attempt's own is not among them."""
    parts = (UsageAt("e", "m", 1), UsageAt("f" * 300, "\ud83d", 2), UsageAt("f" * 400, "?", 3))
    stage = Stage()
    stage.troupe.scripts["a"] = giving(Outcome(usage=Usage(9, elsewhere=parts), endpoint="e", model="m"))
    async with stage.engine() as engine:
        history = await engine.run(task("a"))
    (done,) = only(history, AttemptSucceeded)
    assert done.usage == Usage(9, elsewhere=(UsageAt("f" * 256, "?", 5),))


async def test_every_attempt_tells_where_it_called_whatever_became_of_it() -> None:
    stage = Stage()
    ends: list[Script] = [
        raising(AttemptError("X", "m", retryable=True, endpoint="main", model="m", usage=TWICE)),
        raising(put_off()),
        giving(Outcome(usage=TWICE, endpoint="main", model="m")),
    ]

    async def next_of_all(attempt: Attempt) -> Outcome:
        return await ends.pop(0)(attempt)

    stage.troupe.scripts["a"] = next_of_all
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a", retry_count=1))
        history = await engine.end(job_id)
    for kind in (AttemptFailed, AttemptParked, AttemptSucceeded):
        assert [event.usage for event in only(history, kind)] == [TWICE]
    record = parse(json.dumps(await stage.record(job_id)).encode())
    assert record.usage == Usage(6, 9, 12, 27)
    assert record.usage_by == (
        row("main", "m", Usage(2, 6, 8, 14)),
        row("main", "", Usage(1, 3, 4, 7)),
        row("spare", "n", Usage(3, 0, 0, 6)),
    )
    assert [attempt.elsewhere for attempt in record.task_results["a"].attempts] == [TWICE.elsewhere] * 3


@pytest.mark.parametrize(
    ("told", "place", "usage"),
    [
        (Usage(1, elsewhere=(UsageAt("main", "m", 1),)), ("main", "m"), Usage(1)),
        (Usage(3, elsewhere=(UsageAt("main", "m", 1), UsageAt("spare", "m", 2))), ("", ""), None),
    ],
    ids=["at one place", "at several"],
)
async def test_an_attempt_that_ran_out_of_time_tells_what_its_calls_had_consumed(
    told: Usage, place: tuple[str, str], usage: Usage | None
) -> None:
    stage = Stage()

    async def calls(attempt: Attempt) -> Outcome:
        attempt.consumed(told)
        return await forever(attempt)

    stage.troupe.scripts["a"] = calls
    async with stage.engine() as engine:
        history = await engine.run(task("a", timeout_seconds=5))
    (late,) = only(history, TaskTimedOut)
    assert (late.endpoint, late.model) == place
    assert late.usage == (usage or told)


async def test_a_call_that_a_cancellation_cuts_off_is_told() -> None:
    stage, called = Stage(), anyio.Event()

    async def calls(attempt: Attempt) -> Outcome:
        attempt.consumed(Usage(1, total_tokens=7, elsewhere=(UsageAt("main", "m", 1, total_tokens=7),)))
        called.set()
        return await forever(attempt)

    stage.troupe.scripts["a"] = calls
    async with stage.engine() as engine:
        job_id = await engine.submit(task("a"))
        await called.wait()
        await engine.runner.cancel(job_id, "enough")
        history = await engine.end(job_id)
    (stopped,) = only(history, TaskCancelled)
    assert (stopped.endpoint, stopped.model, stopped.usage) == ("main", "m", Usage(1, total_tokens=7))
    record = parse(json.dumps(await stage.record(job_id)).encode())
    assert record.usage_by == (row("main", "m", Usage(1, total_tokens=7)),)


@pytest.mark.parametrize("usage", [None, *HOSTILE], ids=lambda usage: str(usage)[:70])
async def test_what_cannot_be_consumed_fails_who_tells_it(usage: Any) -> None:
    stage = Stage()

    async def calls(attempt: Attempt) -> Outcome:
        attempt.consumed(usage)
        return await forever(attempt)

    stage.troupe.scripts["a"] = calls
    async with stage.engine() as engine:
        history = await engine.run(task("a", timeout_seconds=5))
    assert [failed.failure.reason for failed in only(history, TaskFailed)] == ["HANDLER_ERROR"]


async def test_a_parent_tells_what_its_children_consumed_where_they_consumed_it() -> None:
    stage = Stage()
    stage.troupe.scripts["inner"] = giving(Outcome(usage=TWICE, endpoint="main", model="m"))
    child = json.loads(submission(task("inner")).descriptor)
    middle = task("middle", parameters={"task_type": "job", "descriptor": child})
    grandparent = json.loads(submission(middle, task("inner")).descriptor)
    async with stage.engine() as engine:
        job_id = await engine.submit(task("outer", parameters={"task_type": "job", "descriptor": grandparent}))
        history = await engine.end(job_id)
    (done,) = only(history, AttemptSucceeded)
    parts = (UsageAt("main", "m", 2, 6, 8, 14), UsageAt("spare", "n", 2, total_tokens=4))
    assert (done.endpoint, done.model, done.usage) == ("", "", Usage(4, 6, 8, 18, parts))
    record = parse(json.dumps(await stage.record(job_id)).encode())
    assert record.usage == Usage(4, 6, 8, 18)
    assert record.usage_by == (row("main", "m", Usage(2, 6, 8, 14)), row("spare", "n", Usage(2, 0, 0, 4)))


async def test_a_job_whose_tasks_tell_as_much_as_they_may_ends_and_so_does_the_one_that_runs_it() -> None:
    """In one commit, and of one budget: the sums must fit what ledgers and the wire can hold."""
    stage = Stage()
    most = Usage(2**48, 2**48, 2**48, 2**48)
    stage.budgets = (LabelBudget(label="team", value="blue", tokens=2**63 - 1, per=Period.EVER),)
    names = [f"t{number}" for number in range(40)]
    stage.troupe.scripts.update(dict.fromkeys(names, giving(Outcome(usage=most, endpoint="main", model="m"))))
    child = json.loads(submission(*map(task, names)).descriptor)
    async with stage.engine() as engine:
        outer = task("outer", parameters={"task_type": "job", "descriptor": child})
        history = await engine.run(outer, labels={"team": "blue"})
    (done,) = only(history, AttemptSucceeded)
    assert done.usage.total_tokens == 40 * 2**48
    assert await stage.ledger.spent_tokens("team=blue/ever", "") == 40 * 2**49, "the parts are more than their sum says"


@pytest.mark.parametrize("answer", [-1, 2**63, 0.5, True, "9"])
async def test_a_handler_that_reserves_what_cannot_be_fails_and_makes_no_room(answer: Any) -> None:
    stage = Stage()
    left: list[int | None] = []

    async def reserves(attempt: Attempt) -> Outcome:
        left.append(attempt.tokens_left())
        await attempt.reserve_tokens("", answer=answer)
        return Outcome()

    stage.troupe.scripts.update(a=reserves, b=reserves)
    async with stage.engine() as engine:
        history = await engine.run(task("a"), task("b"), token_budget=100)
    assert [failed.failure.reason for failed in only(history, TaskFailed)] == ["HANDLER_ERROR"] * 2
    assert left == [100, 100]


def put_off() -> AttemptPutOff:
    waits = AttemptPutOff(WaitReason.OUT_OF_SERVICE, "later", until=0, endpoint="main")
    waits.usage = TWICE
    return waits


def row(endpoint: str, model: str, usage: Usage) -> UsageRecord:
    return UsageRecord(
        endpoint=endpoint,
        model=model,
        calls=usage.calls,
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
        total_tokens=usage.total_tokens,
    )
