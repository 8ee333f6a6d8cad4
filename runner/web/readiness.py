"""Whether the daemon can do its work, told as named checks with a reason each."""

from __future__ import annotations

import shutil
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec

from runner.core.errors import RunnerError


class Check(msgspec.Struct, frozen=True):
    """One answer."""

    name: str
    ok: bool
    #: A sentence for an operator.
    detail: str = ""


#: Gives all checks; the daemon is ready if each is ok.
Readiness = Callable[[], Awaitable[list[Check]]]

#: Answers with a detail, or raises NotReady or any RunnerError.
Probe = Callable[[], Awaitable[str]]


class NotReady(RunnerError):
    """A check failed; the message says what an operator should know."""


class Probes:
    """A `Readiness` of named probes, asked all at once. One that is silent for `timeout` seconds has failed."""

    def __init__(self, probes: Mapping[str, Probe], *, timeout: float) -> None:
        self._probes = dict(probes)
        self._timeout = timeout

    async def __call__(self) -> list[Check]:
        answers: dict[str, Check] = {}

        async def ask(name: str, probe: Probe) -> None:
            answers[name] = await self._asked(name, probe)

        async with anyio.create_task_group() as asking:
            for name, probe in self._probes.items():
                asking.start_soon(ask, name, probe)
        return [answers[name] for name in self._probes]

    async def _asked(self, name: str, probe: Probe) -> Check:
        try:
            with anyio.fail_after(self._timeout):
                return Check(name, ok=True, detail=await probe())
        except TimeoutError:
            return Check(name, ok=False, detail=f"no answer within {self._timeout:g} s (`http.check_timeout_seconds`)")
        except (RunnerError, OSError) as error:
            return Check(name, ok=False, detail=str(error))


def disk_room(directory: Path, min_free_bytes: int) -> Probe:
    """Fails if the disk of `directory` has less than `min_free_bytes` free."""

    async def probe() -> str:
        free = (await anyio.to_thread.run_sync(shutil.disk_usage, directory)).free
        told = f"{free // 2**20:,} MiB free on the disk of {directory}"
        if free < min_free_bytes:
            raise NotReady(f"{told}, less than {min_free_bytes // 2**20:,} MiB (`health.min_free_bytes`); free some")
        return told

    return probe


def recent(what: str, newest: Callable[[], float], stall_seconds: float) -> Probe:
    """Fails if `newest()`, in the event loop's seconds (`anyio.current_time`), is longer ago than `stall_seconds`."""

    async def probe() -> str:
        silent = anyio.current_time() - newest()
        if silent > stall_seconds:
            raise NotReady(f"{what} has been silent for {silent:.1f} s, more than {stall_seconds:g} s (stalled)")
        return f"{what} was active {max(0.0, silent):.1f} s ago"

    return probe
