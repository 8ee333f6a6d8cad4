"""Token budgets: no call is made that might exceed one, whatever runs side by side and whoever dies on the way."""

from __future__ import annotations

import itertools
import json
from typing import Any

import anyio
import pytest

from runner.core.budgets import LabelBudget, OnExceeded, Period
from runner.core.errors import AttemptError, AttemptPutOff, InvalidDescriptor, InvalidRequest
from runner.core.events import AttemptFailed, AttemptParked, JobSucceeded, TaskFailed, TaskTimedOut, Usage, WaitReason
from runner.core.record import parse
from runner.engine.line import Line
from runner.engine.submission import Submission, _fingerprint
from runner.handlers.orchestrator import AskOrchestrator
from runner.ports import Attempt, Outcome
from tests.engine.stage import SECOND, START, Stage, forever, kinds, only, submission, task, times
from tests.orchestrators.stage import Stage as Fleet
from tests.orchestrators.stage import one

pytestmark = pytest.mark.timeout(30)

DAY = 24 * 3600
#: The fingerprint of a submission, as daemons made it that knew no budgets.
BEFORE = "0699e424eca15d32b9b363ad9f5ece5a3e4bd1c12d94dd08389ba872b43e58cf"
EXCEEDED = "TOKEN_BUDGET_EXCEEDED"


class Model:
    """Answers calls; counts those that were made."""

    def __init__(self, *, answer: int = 100, used: int = 100, seconds: float = 1.0) -> None:
        self.answer, self.used, self.seconds = answer, used, seconds
        self.calls = 0
        self.under_way = 0
        #: What may be taken by calls under way and was taken by others, at most.
        self.most = 0
        self.total = 0

    async def __call__(self, attempt: Attempt) -> Outcome:
        await attempt.reserve_tokens("", answer=self.answer)
        self.calls += 1
        self.under_way += 1
        self.most = max(self.most, self.total + self.under_way * self.answer)
        try:
            await anyio.sleep(self.seconds)
        finally:
            self.under_way -= 1
        self.total += self.used
        return Outcome(output="said", usage=Usage(1, total_tokens=self.used), endpoint="main", model="m")


def asking(stage: Stage, model: Model, *names: str) -> list[dict[str, Any]]:
    stage.troupe.scripts.update(dict.fromkeys(names, model))
    return [task(name) for name in names]


def chain(stage: Stage, model: Model, *names: str) -> list[dict[str, Any]]:
    tasks = asking(stage, model, *names)
    for before, after in itertools.pairwise(tasks):
        after["dependencies"] = [before["id"]]
    return tasks


async def test_a_call_that_does_not_fit_is_not_made_and_says_why() -> None:
    stage, model = Stage(), Model()
    async with stage.engine() as engine:
        history = await engine.run(*chain(stage, model, "a", "b", "c"), token_budget=250)
    (failed,) = only(history, TaskFailed)
    assert (failed.task_id, failed.failure.reason, failed.usage) == ("c", EXCEEDED, None)
    assert failed.failure.message == (
        "the job's token budget cannot take the call: 200 of 250 tokens are used, and it would take up to 100"
    )
    assert model.calls == 2


async def test_calls_side_by_side_wait_for_each_other_rather_than_fail() -> None:
    """Nine take a tenth of what they may: all fit in the end, though not at once."""
    stage, model = Stage(), Model(used=10)
    async with stage.engine() as engine:
        history = await engine.run(*asking(stage, model, *"abcdefghi"), token_budget=200)
    assert isinstance(history[-1].event, JobSucceeded)
    assert model.calls == 9
    assert model.most <= 200
    assert {parked.reason for parked in only(history, AttemptParked)} == {WaitReason.RATE_LIMITED}
    assert times(history, JobSucceeded)[0] - times(history[:1], type(history[0].event))[0] < 20, "nobody waits in vain"


async def test_those_who_wait_fail_together_once_none_of_them_can_fit() -> None:
    """Each that is called in vain calls the next; none sits its time out."""
    stage, model = Stage(), Model()
    async with stage.engine() as engine:
        history = await engine.run(*asking(stage, model, *"abcdefghi"), token_budget=150)
    failed = only(history, TaskFailed)
    assert [each.failure.reason for each in failed] == [EXCEEDED] * 8
    assert model.calls == 1
    assert history[-1].time - history[0].time < 2 * SECOND


async def test_what_an_attempt_used_before_it_failed_counts() -> None:
    stage = Stage()

    async def fails(attempt: Attempt) -> Outcome:
        await attempt.reserve_tokens("x" * 30, answer=40)
        raise AttemptError("TRUNCATED", "broke off", retryable=True, usage=Usage(1, total_tokens=50))

    stage.troupe.scripts["ask"] = fails
    async with stage.engine() as engine:
        history = await engine.run(task("ask", retry_count=9), token_budget=100)
    assert len(only(history, AttemptFailed)) == 2
    (failed,) = only(history, TaskFailed)
    assert failed.failure.reason == EXCEEDED


async def test_usage_that_is_told_of_a_time_out_counts() -> None:
    stage = Stage()

    async def slow(_: Attempt) -> Outcome:
        raise AttemptError("TIMED_OUT", "too slow", retryable=False, usage=Usage(1, total_tokens=50))

    stage.troupe.scripts["ask"] = slow
    async with stage.engine() as engine:
        job_id = await engine.submit(task("ask"), token_budget=100)
        (late,) = only(await engine.end(job_id), TaskTimedOut)
        assert late.usage == Usage(1, total_tokens=50)
        assert (await stage.record(job_id))["usage"]["total_tokens"] == 50


async def test_the_tokens_of_a_call_that_is_stopped_are_free_again() -> None:
    stage, model = Stage(), Model()

    async def hangs(attempt: Attempt) -> Outcome:
        await attempt.reserve_tokens("", answer=200)
        return await forever(attempt)

    async with stage.engine() as engine:
        hanging = task("hang", timeout_seconds=5)
        stage.troupe.scripts["hang"] = hangs
        history = await engine.run(hanging, *asking(stage, model, "a"), token_budget=250)
    assert kinds(history, of="a")[-1] == "AttemptSucceeded"


async def test_what_was_used_before_a_crash_counts_after_it() -> None:
    stage, model = Stage(), Model()
    tasks = chain(stage, model, "a", "b", "c")
    reached = anyio.Event()

    async def hangs(attempt: Attempt) -> Outcome:
        reached.set()
        return await forever(attempt)

    stage.troupe.scripts["b"] = hangs
    async with stage.engine() as engine:
        job_id = await engine.submit(*tasks, token_budget=250)
        await reached.wait()
    stage.troupe.scripts["b"] = model
    async with stage.engine() as engine:
        history = await engine.end(job_id)
    assert [failed.task_id for failed in only(history, TaskFailed)] == ["c"]
    assert model.calls == 2


async def test_the_submitter_comes_before_the_descriptor_and_that_before_the_settings() -> None:
    stage, model = Stage(), Model()
    told = json.loads(submission(*asking(stage, model, "a")).descriptor)
    in_file = json.dumps(told | {"metadata": {"token_budget": 50}}).encode()
    plain = json.dumps(told).encode()
    async with stage.engine(default_token_budget=10) as engine:

        async def ended(descriptor: bytes, **fields: Any) -> list[TaskFailed]:
            accepted = await engine.runner.submit(Submission(descriptor=descriptor, **fields))
            return only(await engine.end(accepted.job.id), TaskFailed)

        assert await ended(in_file, token_budget=100) == []
        assert "of 50 tokens" in (await ended(in_file))[0].failure.message
        assert "of 10 tokens" in (await ended(plain))[0].failure.message
        with pytest.raises(InvalidRequest, match="token_budget"):
            await ended(plain, token_budget=-1)
        with pytest.raises(InvalidDescriptor, match="whole number"):
            await ended(in_file.replace(b"50", b'"50"'))


async def test_without_max_tokens_an_answer_is_taken_to_cost_what_the_setting_says() -> None:
    stage = Stage()
    tried: list[int] = []

    async def ask(attempt: Attempt) -> Outcome:
        tried.append(attempt.number)
        await attempt.reserve_tokens("xxxx")
        return Outcome(output=attempt.tokens_left())

    stage.troupe.scripts["ask"] = ask
    async with stage.engine(default_answer_tokens=98) as engine:
        assert kinds(await engine.run(task("ask"), token_budget=100))[-1] == "JobSucceeded"
        assert kinds(await engine.run(task("ask"), token_budget=99))[-1] == "JobFailed"
        assert kinds(await engine.run(task("ask")))[-1] == "JobSucceeded"


# ------------------------------------------------------------------------------------------------------------ labels


def budget(tokens: int, per: Period = Period.DAY, **more: Any) -> LabelBudget:
    return LabelBudget(label="team", value="blue", tokens=tokens, per=per, **more)


BLUE: dict[str, Any] = {"labels": {"team": "blue"}}


async def test_all_jobs_with_a_label_share_its_budget_and_others_do_not_care() -> None:
    stage, model = Stage(), Model(used=60)
    stage.budgets = (budget(150),)
    tasks = asking(stage, model, "a")
    async with stage.engine() as engine:
        ends = [kinds(await engine.run(*tasks, **BLUE))[-1] for _ in range(3)]
        assert ends == ["JobSucceeded", "JobFailed", "JobFailed"]
        (failed,) = only(await engine.run(*tasks, **BLUE), TaskFailed)
        assert failed.failure.reason == EXCEEDED
        assert failed.failure.message.startswith(
            "budget `team=blue/day` cannot take the call: 60 of 150 tokens are used"
        )
        assert kinds(await engine.run(*tasks, labels={"team": "red"}))[-1] == "JobSucceeded"
    assert model.calls == 2


async def test_a_budget_of_a_label_outlives_its_daemons() -> None:
    stage, model = Stage(), Model()
    stage.budgets = (budget(150),)
    async with stage.engine() as engine:
        assert kinds(await engine.run(*asking(stage, model, "a"), **BLUE))[-1] == "JobSucceeded"
    async with stage.engine() as engine:
        assert kinds(await engine.run(*asking(stage, model, "a"), **BLUE))[-1] == "JobFailed"


async def test_many_jobs_at_once_never_take_more_than_the_budget() -> None:
    stage, model = Stage(), Model(used=50)
    stage.budgets = (budget(1_000),)
    ends = []
    async with stage.engine() as engine, anyio.create_task_group() as jobs:

        async def one() -> None:
            ends.append(kinds(await engine.run(*asking(stage, model, "a", "b"), **BLUE))[-1])

        for _ in range(15):
            jobs.start_soon(one)
    assert model.most <= 1_000
    assert model.total <= 1_000
    assert model.calls == 19, "the last hundred would not fit beside what is used"
    assert ends.count("JobSucceeded") >= 4


async def test_a_budget_that_waits_parks_its_tasks_until_the_period_ends() -> None:
    stage, model = Stage(), Model()
    stage.budgets = (budget(150, on_exceeded=OnExceeded.WAIT),)
    async with stage.engine() as engine:
        history = await engine.run(*chain(stage, model, "a", "b"), **BLUE)
    assert isinstance(history[-1].event, JobSucceeded)
    (parked,) = only(history, AttemptParked)
    assert 0 <= parked.until - (START + DAY * SECOND) <= 10 * SECOND, "tests begin at midnight"
    assert "team=blue/day" in parked.message


@pytest.mark.parametrize("way", ["reloaded", "restarted"])
async def test_a_budget_that_is_raised_is_asked_at_once_by_those_who_wait_for_a_period(way: str) -> None:
    """An operator who gives more, by SIGHUP or a restart, need not wait for the next month."""
    stage, model = Stage(), Model()
    stage.budgets = (budget(150, Period.MONTH, on_exceeded=OnExceeded.WAIT),)
    async with stage.engine() as engine:
        job_id = await engine.submit(*chain(stage, model, "a", "b"), **BLUE)
        await anyio.sleep(60)
        assert model.calls == 1
        stage.budgets = (budget(250, Period.MONTH, on_exceeded=OnExceeded.WAIT),)
        if way == "reloaded":
            engine.equipment.take_budgets(stage.budgets)
            history = await engine.end(job_id)
    if way == "restarted":
        async with stage.engine() as engine:
            history = await engine.end(job_id)
    assert isinstance(history[-1].event, JobSucceeded)
    assert times(history, JobSucceeded)[0] < 600


async def test_a_call_that_no_period_could_take_fails_at_once() -> None:
    stage, model = Stage(), Model()
    stage.budgets = (budget(50, on_exceeded=OnExceeded.WAIT),)
    async with stage.engine() as engine:
        (failed,) = only(await engine.run(*asking(stage, model, "a"), **BLUE), TaskFailed)
    assert failed.failure.reason == EXCEEDED
    assert model.calls == 0


async def test_a_call_that_a_label_refuses_takes_nothing_of_the_jobs_own_budget() -> None:
    stage = Stage()
    stage.budgets = (budget(50),)
    left: list[int | None] = []

    async def ask(attempt: Attempt) -> Outcome:
        with pytest.raises(AttemptError, match="team=blue"):
            await attempt.reserve_tokens("", answer=60)
        left.append(attempt.tokens_left())
        await attempt.reserve_tokens("", answer=40)
        left.append(attempt.tokens_left())
        return Outcome()

    stage.troupe.scripts["ask"] = ask
    async with stage.engine() as engine:
        await engine.run(task("ask"), token_budget=100, **BLUE)
    assert left == [100, 60]


# ---------------------------------------------------------------------------------------------------------- children


def running(*tasks: dict[str, Any], name: str = "run", after: tuple[str, ...] = (), **more: Any) -> dict[str, Any]:
    """A task that runs these tasks as a job."""
    descriptor = json.loads(submission(*tasks).descriptor)
    return task(name, *after, parameters={"task_type": "job", "descriptor": descriptor, **more})


async def test_a_child_has_what_is_left_of_its_parents_budget_and_what_it_uses_is_gone() -> None:
    stage, model = Stage(), Model()
    inner = asking(stage, model, "ask")
    async with stage.engine() as engine:
        job_id = await engine.submit(
            running(*inner, name="one"), running(*inner, name="two", after=("one",)), token_budget=150
        )
        (failed,) = only(await engine.end(job_id), TaskFailed)
        assert failed.task_id == "two"
        assert "of 50 tokens" in failed.failure.message
        assert (await stage.record(job_id))["usage"] == {"calls": 1, "total_tokens": 100}
    assert model.calls == 1


async def test_a_child_takes_of_the_budgets_of_its_parents_labels_once() -> None:
    stage, model = Stage(), Model()
    stage.budgets = (budget(1_000),)
    inner = asking(stage, model, "ask")
    async with stage.engine() as engine:
        await engine.run(running(*inner, labels={"team": "red", "size": "s"}), **BLUE)
    assert await stage.ledger.spent_tokens("team=blue/day", "2026-01-01") == 100


# ------------------------------------------------------------------------------------------------------------ others


def test_who_waits_is_called_in_turn_and_nobody_twice() -> None:
    line = Line()
    called: list[str] = []
    places = {name: line.place() for name in "abc"}
    for name, place in places.items():
        place.call(lambda name=name: called.append(name))  # type: ignore[misc]  # a default binds the name
    places["b"].leave()
    line.call_next()
    line.call_next()
    assert called == ["a", "c"]
    line.call_next()
    line.place().call(lambda: called.append("late"))
    assert called == ["a", "c", "late"], "room came before it did"


def test_when_all_are_called_those_who_were_just_coming_are_called_too() -> None:
    line = Line()
    called: list[str] = []
    places = {name: line.place() for name in "ab"}
    places["a"].call(lambda: called.append("a"))
    line.call_all()
    places["b"].call(lambda: called.append("b"))
    line.place().call(lambda: called.append("later"))
    assert called == ["a", "b"]


def test_a_submission_without_a_budget_is_the_same_as_it_was_before_there_were_budgets() -> None:
    """So that a request id that is repeated to a newer daemon finds its job."""
    plain = Submission(descriptor=b"{}", request_id="r", labels={"b": "1", "a": "2"}, traceparent="x")
    assert _fingerprint(plain).hex() == BEFORE
    assert _fingerprint(Submission(descriptor=b"{}", request_id="r", token_budget=1)) != _fingerprint(
        Submission(descriptor=b"{}", request_id="r")
    )


@pytest.mark.parametrize("way", ["put off", "bad output"])
async def test_what_an_attempt_used_counts_however_it_ends(way: str) -> None:
    stage = Stage()

    async def ask(attempt: Attempt) -> Outcome:
        await attempt.reserve_tokens("", answer=50)
        if way == "put off" and attempt.number == 1:
            later = AttemptPutOff(WaitReason.BREAKER_OPEN, "another endpoint is open", until=0)
            later.usage = Usage(1, total_tokens=40)
            raise later
        output = "said" if way == "put off" else {1, 2, object()}
        return Outcome(output=output, usage=Usage(1, total_tokens=40))

    stage.troupe.scripts["ask"] = ask
    async with stage.engine() as engine:
        job_id = await engine.submit(task("ask"), task("then", "ask"), token_budget=100)
        await engine.end(job_id)
    expected = 80 if way == "put off" else 40
    assert (await stage.record(job_id))["usage"]["total_tokens"] == expected


async def test_a_call_that_is_made_twice_is_counted_once_for_each_endpoint_and_never_exceeds_the_budget() -> None:
    """Each of both may take 40 and takes 40. Once only one fits, only one is made; then none."""
    stage, fleet = Stage(), Fleet(one("a", group="pool", hedge=True), one("b", group="pool"))
    async with fleet.open(), stage.engine() as engine:
        a, b = fleet.behind["a"], fleet.behind["b"]
        for _ in range(40):
            await fleet.ask(of="a")
        before = a.calls + b.calls
        a.seconds, a.tokens, a.tells, b.tokens = 100, 40, [Usage(1, total_tokens=40)], 40
        names = ["t1", "t2", "t3", "t4"]
        stage.troupe.scripts.update(dict.fromkeys(names, AskOrchestrator(fleet.fleet.directory).run))
        asked = {"prompt": "xyz", "max_tokens": 39, "model": "m"}
        tasks = [
            task(name, *names[:number][-1:], parameters=asked, timeout_seconds=1000)
            for number, name in enumerate(names)
        ]
        job_id = await engine.submit(*tasks, token_budget=200)
        history = await engine.end(job_id)
        record = parse(json.dumps(await stage.record(job_id)).encode())
    (failed,) = only(history, TaskFailed)
    assert (failed.task_id, failed.failure.reason) == ("t4", EXCEEDED)
    assert "200 of 200 tokens are used" in failed.failure.message
    assert a.calls + b.calls - before == 5
    assert record.usage == Usage(5, total_tokens=200)
    assert [(row.endpoint, row.calls, row.total_tokens) for row in record.usage_by] == [("a", 3, 120), ("b", 2, 80)]
    assert [len(result.attempts[0].elsewhere) for result in record.task_results.values() if result.usage] == [1, 1, 0]
