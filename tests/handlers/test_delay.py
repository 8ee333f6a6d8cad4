from __future__ import annotations

import math
from typing import Any

import anyio
import pytest
import trio.testing

from runner.core.errors import AttemptError
from runner.handlers.delay import Delay
from runner.testing import FakeAttempt


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, Any]]:
    return "trio", {"clock": trio.testing.MockClock(autojump_threshold=0)}


@pytest.mark.parametrize("name", ["seconds", "duration_seconds"])
async def test_it_waits_as_long_as_it_is_told_and_reports_on_the_way(name: str) -> None:
    attempt = FakeAttempt({name: 100})
    before = anyio.current_time()
    outcome = await Delay().run(attempt)
    assert anyio.current_time() - before == pytest.approx(100)
    assert outcome.output == {"seconds": 100}
    fractions = [report["fraction"] for report in attempt.reports]
    assert fractions == sorted(fractions)
    assert len(fractions) == 20
    assert fractions[-1] == 1


async def test_no_time_at_all_is_no_wait_and_no_report() -> None:
    attempt = FakeAttempt({"seconds": 0})
    await Delay().run(attempt)
    assert attempt.reports == []


async def test_a_short_wait_reports_seldom_and_a_long_one_often_enough() -> None:
    short, long = FakeAttempt({"seconds": 0.2}), FakeAttempt({"seconds": 3600})
    await Delay().run(short)
    await Delay().run(long)
    assert len(short.reports) <= 3
    assert len(long.reports) == pytest.approx(3600 / 5, rel=0.01)


@pytest.mark.parametrize("value", ["2", None, -1, True, math.nan, math.inf, 1e300, []])
async def test_a_wrong_duration_is_told_by_name(value: object) -> None:
    with pytest.raises(AttemptError, match="parameter `seconds`") as caught:
        await Delay().run(FakeAttempt({"seconds": value}))
    assert (caught.value.reason, caught.value.retryable) == ("INVALID_PARAMETERS", False)


async def test_it_holds_no_slot_while_it_waits() -> None:
    assert Delay().needs_slot is False


async def test_a_missing_duration_is_told() -> None:
    with pytest.raises(AttemptError, match="parameter `seconds` is missing"):
        await Delay().run(FakeAttempt())
