"""A stage for the fleet: real endpoints, routers and upkeep; what answers is a fake, and time is trio's that jumps."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import anyio
import msgspec
import pytest

from runner.core.breaker import BreakerPolicy, BreakerState
from runner.core.errors import AttemptError, AttemptPutOff
from runner.core.events import Usage
from runner.core.fleet import BreakerView
from runner.core.prompt import Answer, Prompt
from runner.core.secret import Secret
from runner.orchestrators.fleet import Connected, Fleet, Opener
from runner.orchestrators.hedge import OnText
from runner.orchestrators.settings import EndpointSettings, OrchestratorSettings
from runner.orchestrators.upkeep import upkeep
from tests.orchestrators.hostile import BreakerEar, Pieces, prompt

START = 1_000_000_000
GONE = AttemptError("CONNECTION_FAILED", "gone", retryable=True)
#: As GONE, of an endpoint that nothing could be asked of.
REFUSED = AttemptError("CONNECTION_FAILED", "refused", retryable=True)
REFUSED.connected = False
BROKEN = AttemptError("HTTP_STATUS", "503", retryable=True)


class RunningClock:
    """Wall time that goes with the event loop's, from START."""

    def __init__(self) -> None:
        self._began = anyio.current_time()

    def now(self) -> int:
        return START + round((anyio.current_time() - self._began) * 1_000_000)


class Behind:
    """What an endpoint does: as it is told. Takes `seconds`, streams, then fails with `error` if there is one."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.error: AttemptError | None = None
        self.sickness: Exception | None = None
        self.seconds = 0.0
        self.first_text: float | None = None
        #: Waited for before the first text.
        self.cue: anyio.Event | None = None
        self.tokens = 0
        #: What it tells of its usage, one after the other, to those who want to know, before it takes its time.
        self.tells: list[Usage] = []
        self.serves: tuple[str, ...] = ()
        self.calls = 0
        self.under_way = 0
        self.most_under_way = 0
        self.asked: list[Prompt] = []
        #: When each call came, in seconds.
        self.times: list[float] = []
        self.keys: list[Secret] = []
        self.closed = False

    async def ask(self, prompt: Prompt, on_text: Callable[[str], Awaitable[None]]) -> Answer:
        assert not self.closed
        self.calls += 1
        self.under_way += 1
        self.most_under_way = max(self.most_under_way, self.under_way)
        self.asked.append(prompt)
        self.times.append(anyio.current_time())
        if prompt.used is not None:
            for usage in self.tells:
                prompt.used(usage)
        try:
            if self.first_text is not None:
                await anyio.sleep(self.first_text)
                if self.cue is not None:
                    await self.cue.wait()
                await on_text(f"{self.name} ")
            await anyio.sleep(self.seconds)
        finally:
            self.under_way -= 1
        if self.error is not None:
            # One object for all calls would gather their tracebacks.
            error = self.error
            raised = AttemptError(
                error.reason,
                error.message,
                retryable=error.retryable,
                retry_after=error.retry_after,
                usage=error.usage,
            )
            raised.connected = error.connected
            raise raised
        usage = Usage(calls=1, total_tokens=self.tokens)
        return Answer(text="", model=prompt.model or "", endpoint=self.name, usage=usage)

    async def health(self) -> None:
        await anyio.lowlevel.checkpoint()
        if self.sickness is not None:
            raise self.sickness

    async def models(self) -> tuple[str, ...]:
        await anyio.lowlevel.checkpoint()
        return self.serves


class Stage:
    """A fleet, and what is behind it by the names of endpoints."""

    def __init__(
        self, *endpoints: EndpointSettings, slow: Callable[[Opener], Opener] | None = None, **settings: Any
    ) -> None:
        self.ear = BreakerEar()
        self.chance = 0.0
        self.behind: dict[str, Behind] = {}
        self.addresses: Sequence[str] | OSError | ValueError = ()
        self._numbers = itertools.count(1)
        whole = {"breaker": BreakerPolicy(minimum_calls=2)} | settings
        self.fleet = Fleet(
            OrchestratorSettings(endpoints=endpoints or (one(),), **whole),
            slow(self._opened) if slow else self._opened,
            clock=RunningClock(),
            observer=self.ear,
            chance=lambda: self.chance,
            new_id=lambda: f"lease-{next(self._numbers)}",
        )

    @asynccontextmanager
    async def open(self, *, looked_after: bool = False) -> AsyncIterator[Stage]:
        async with self.fleet.open():
            if looked_after:
                async with self.open_upkeep():
                    yield self
            else:
                yield self

    @asynccontextmanager
    async def open_upkeep(self) -> AsyncIterator[None]:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(upkeep, self.fleet, self.ear, self._resolve, lambda: self.chance)
            yield
            tasks.cancel_scope.cancel()

    @asynccontextmanager
    async def _opened(self, settings: EndpointSettings, address: str | None) -> AsyncIterator[Connected]:
        behind = self.behind.setdefault(settings.name, Behind(settings.name))
        try:
            yield Connected(behind, behind.keys.append)
        finally:
            behind.closed = True

    async def _resolve(self, host: str, port: int) -> Sequence[str]:
        await anyio.lowlevel.checkpoint()
        if isinstance(self.addresses, OSError | ValueError):
            raise self.addresses
        return self.addresses

    @property
    def main(self) -> Behind:
        return self.behind["main"]

    @property
    def calls(self) -> dict[str, int]:
        return {name: behind.calls for name, behind in self.behind.items()}

    async def ask(
        self,
        model: str | None = "m",
        *,
        of: str = "",
        within: float = 1000.0,
        job: str = "job-1",
        request: str = "",
        pieces: OnText | None = None,
        retry: bool = False,
        **parameters: Any,
    ) -> Answer:
        """Ask as the handler does: at what `of` names, or at the first."""
        router = self.fleet.directory[of or next(iter(self.fleet.directory))]
        whole = msgspec.structs.replace(
            prompt(model=model, timeout=within, **parameters),
            request_id=request or f"{job}/task-{next(self._numbers)}",
            endpoint=of,
            job_id=job,
            retry=retry,
        )
        return await router.ask(whole, pieces or Pieces())

    async def fail(self, error: AttemptError = GONE, *, times: int = 2, model: str | None = "m") -> None:
        """Let calls to `main` fail, and be well then."""
        self.main.error = error
        for _ in range(times):
            with pytest.raises(AttemptError):
                await self.ask(model)
        self.main.error = None

    async def put_off(self, model: str | None = "m", **how: Any) -> AttemptPutOff:
        with pytest.raises(AttemptPutOff) as caught:
            await self.ask(model, **how)
        return caught.value

    async def fail_or_wait(self) -> None:
        with contextlib.suppress(AttemptError):
            await self.ask()

    async def put_off_or_ask(self) -> None:
        with contextlib.suppress(AttemptPutOff):
            await self.ask()

    def breaker(self, model: str = "m", endpoint: str = "main") -> BreakerView:
        found = [view for view in self.fleet.breakers() if (view.endpoint, view.model) == (endpoint, model)]
        return found[0]

    def state(self, model: str = "m", endpoint: str = "main") -> BreakerState:
        return self.breaker(model, endpoint).state


def one(name: str = "main", **settings: Any) -> EndpointSettings:
    """An endpoint, with settings that keep tests on one subject: no warming up, no waiting in line."""
    plain: dict[str, Any] = {"url": "http://127.0.0.1:1", "warm_up_seconds": 0.0, "max_wait_seconds": 0.0}
    return EndpointSettings(name=name, **(plain | settings))
