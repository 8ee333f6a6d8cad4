"""Tries that never reached an endpoint are counted there, once each, whoever makes them good."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
import trio.testing

from runner.core.errors import AttemptError
from runner.core.events import Usage
from runner.core.fleet import EndpointHealth
from tests.orchestrators.stage import BROKEN, GONE, REFUSED, Stage, one


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


def pool(**settings: Any) -> Stage:
    return Stage(*(one(name, group="pool", **settings) for name in "ab"))


def unreached(stage: Stage) -> dict[str, int]:
    return {view.name: view.unreached for view in stage.fleet.endpoints()}


async def test_a_try_that_another_endpoint_makes_good_is_counted() -> None:
    async with pool().open() as stage:
        stage.behind["a"].error = REFUSED
        answers = [await stage.ask() for _ in range(4)]
        assert {(answer.endpoint, answer.usage) for answer in answers} == {("b", Usage(calls=1))}
        assert stage.calls["a"] > 0
        assert unreached(stage) == {"a": stage.calls["a"], "b": 0}


async def test_tries_that_fail_their_attempt_are_counted_at_every_endpoint_that_was_tried() -> None:
    async with pool().open() as stage:
        stage.behind["a"].error = stage.behind["b"].error = REFUSED
        with pytest.raises(AttemptError):
            await stage.ask()
        assert unreached(stage) == stage.calls == {"a": 1, "b": 1}


async def test_a_second_call_that_never_reached_its_endpoint_is_counted() -> None:
    async with pool(hedge=True).open() as stage:
        stage.behind["a"].seconds = stage.behind["b"].seconds = 1
        for _ in range(40):
            await stage.ask(of="a")
        stage.behind["a"].seconds, stage.behind["b"].error = 10, REFUSED
        answer = await stage.ask()
        assert (answer.endpoint, answer.usage) == ("a", Usage(calls=1))
        assert unreached(stage) == {"a": 0, "b": 1}


@pytest.mark.parametrize("error", [GONE, BROKEN], ids=["it broke off", "it answered with an error"])
async def test_a_call_that_failed_later_was_no_such_try(error: AttemptError) -> None:
    async with Stage().open() as stage:
        await stage.fail(error)
        await stage.ask(of="main", model="other")
        assert unreached(stage) == {"main": 0}


@pytest.mark.parametrize(
    ("told", "seconds", "counted"),
    [
        ([Usage()], 5, 1),
        ([Usage(), Usage(calls=1)], 5, 0),
        ([Usage()], 2, 0),
    ],
    ids=["it connected for all its time", "it was sent", "it was not wanted any more"],
)
async def test_a_try_that_is_cut_off_counts_if_its_time_was_up_before_there_was_a_connection(
    told: list[Usage], seconds: float, counted: int
) -> None:
    async with Stage().open() as stage:
        stage.main.seconds, stage.main.tells = 100, told
        with anyio.move_on_after(seconds) as scope:
            await stage.ask(within=5)
        assert scope.cancelled_caught
        assert unreached(stage) == {"main": counted}


async def test_health_checks_do_not_count() -> None:
    async with Stage(one(health_interval_seconds=1.0)).open(looked_after=True) as stage:
        stage.main.sickness = REFUSED
        await anyio.sleep(10)
        [view] = stage.fleet.endpoints()
        assert (view.health, view.unreached) == (EndpointHealth.UNHEALTHY, 0)
