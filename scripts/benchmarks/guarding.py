"""P11: what breaker, rates, retry budget and latencies cost around one call that passes."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from runner.core.balance import Candidate, choose
from runner.core.breaker import Breaker, BreakerPolicy, CallOutcome, Permit
from runner.core.events import Usage
from runner.core.latency import Latency
from runner.core.prompt import Answer, Prompt
from runner.core.rates import RateLimit, Taken
from runner.core.retry_budget import RetryBudget, RetryBudgetPolicy
from runner.orchestrators.fleet import Connected, Fleet
from runner.orchestrators.settings import EndpointSettings, OrchestratorSettings
from runner.ports import Quiet
from scripts.benchmarks.report import Judged, Row, Side, Target, Unit
from scripts.benchmarks.settings import Bench

Call = Callable[[], Awaitable[object]]

_PROMPT: Final = Prompt(request_id="job/task", text="How are you?", task_type="ai_prompt", job_id="job", timeout=60.0)
_ANSWER: Final = Answer(text="Well.", model="m", endpoint="main", usage=Usage(1, 4, 2, 6))

#: Calls of one batch, and batches of one run: the quickest batch counts, because all that is not ours only adds.
_BATCH: Final = 5_000
_BATCHES: Final = 9
#: Every so many-th call is a repetition.
_REPEATED: Final = 10


class Guards:
    """Everything that decides about a call, as an endpoint has it: three candidates, one of them called."""

    def __init__(self) -> None:
        self._breaker = Breaker(BreakerPolicy(), time.monotonic())
        self._rates = RateLimit(requests_per_minute=1e9, tokens_per_minute=1e12)
        self._budget = RetryBudget(RetryBudgetPolicy())
        self._latency = Latency()
        self._candidates = [Candidate(calls, weight) for calls, weight in ((3, 1.0), (2, 1.0), (5, 2.0))]
        self._number = 0

    async def call(self) -> None:
        """An empty call with all around it that may refuse it, and all that learns from its end."""
        self._number += 1
        began = time.monotonic()
        choose(self._candidates, 0.3, 0.7)
        permit, taken = self._breaker.permit(began), self._rates.take(1000, began)
        if self._number % _REPEATED:
            self._budget.called(began)
        else:
            assert self._budget.take(began), "the retry budget refused a call"
        assert isinstance(permit, Permit), "the breaker refused a call"
        assert isinstance(taken, Taken), "the rates refused a call"
        await empty()
        now = time.monotonic()
        self._rates.correct(taken, 900, now)
        self._breaker.record(permit, CallOutcome.ANSWERED, now - began, now, chance=0.5)
        self._latency.add(now - began)
        self._latency.quantile(0.95)


async def empty() -> None:
    """The call itself."""


async def measure(bench: Bench) -> list[Row]:
    """Rows P11."""
    guards = Guards()
    bare, guarded, asked, routed = [], [], [], []
    async with _fleet() as fleet:
        router, speaker = fleet.directory["main"], _AtOnce()
        for _ in range(bench.runs):
            bare.append(await _microseconds(bench, empty))
            guarded.append(await _microseconds(bench, guards.call))
            asked.append(await _microseconds(bench, partial(speaker.ask, _PROMPT, _forget)))
            routed.append(await _microseconds(bench, partial(router.ask, _PROMPT, _forget)))
    return [
        _row("breaker, rates, retry budget, balance", "a call with all of them", guarded, "an empty async call", bare),
        _row("the same, and all else that a router does", "asked by a router", routed, "asked at once", asked),
    ]


def _row(what: str, ours: str, guarded: list[float], other: str, bare: list[float]) -> Row:
    return Row(
        number="P11",
        what=what,
        ours=Side(ours, Unit.MICROSECONDS, tuple(guarded)),
        other=Side(other, Unit.MICROSECONDS, tuple(bare)),
        target=Target(Judged.ADDED, 20, least=False),
    )


class _AtOnce:
    """A Speaker that answers at once."""

    async def ask(self, prompt: Prompt, on_text: Callable[[str], Awaitable[None]]) -> Answer:
        return _ANSWER

    async def health(self) -> None:
        """Well."""

    async def models(self) -> tuple[str, ...]:
        return ()


class _Clock:
    """Wall time."""

    def now(self) -> int:
        return time.time_ns() // 1000


@asynccontextmanager
async def _fleet() -> AsyncIterator[Fleet]:
    """One endpoint with rates."""
    endpoint = EndpointSettings(name="main", url="http://127.0.0.1:1", requests_per_minute=1e9, tokens_per_minute=1e12)
    fleet = Fleet(
        OrchestratorSettings(endpoints=(endpoint,)),
        _opened,
        clock=_Clock(),
        observer=Quiet(),
        chance=random.random,
        new_id=str,
        time=asyncio.get_running_loop().time,
    )
    async with fleet.open():
        yield fleet


@asynccontextmanager
async def _opened(settings: EndpointSettings, address: str | None) -> AsyncIterator[Connected]:  # noqa: ARG001  an Opener
    yield Connected(_AtOnce(), lambda _: None)


async def _forget(text: str) -> None:
    """Nobody reads it."""


async def _microseconds(bench: Bench, call: Call) -> float:
    """Of one call, in the quickest batch."""
    return min([await _batch(call) for _ in range(bench.sized(_BATCHES, 3))])


async def _batch(call: Call) -> float:
    began = time.perf_counter()
    for _ in range(_BATCH):
        await call()
    return (time.perf_counter() - began) / _BATCH * 1e6
