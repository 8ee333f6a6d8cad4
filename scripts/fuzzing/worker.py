"""One process that tries inputs: bounded in memory, and in processor time for each of them."""

from __future__ import annotations

import gc
import resource
import signal
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import Array, c_longlong
from enum import IntEnum
from typing import Final

import msgspec
import psutil

from scripts.fuzzing import cases, inputs
from scripts.fuzzing.checks import Case, check

#: Seconds of processor time that an input may take with all its checks, and more of them for each byte.
SECONDS: Final = 1.0
SECONDS_PER_BYTE: Final = 20e-6
#: Bytes that a worker may grow by.
MEMORY: Final = 512 << 20
#: Failures after which a worker has said enough.
_MOST_FAILURES: Final = 5
#: Of what is said about a failure; the file holds all.
_MOST_LINES: Final = 12
_LONGEST_LINE: Final = 200

#: What a worker tells while it works, by `Told`: shared memory, so that it outlives the worker.
Tally = Array[c_longlong]


class Told(IntEnum):
    """Places in a tally."""

    #: The number of the input at work now.
    NUMBER = 0
    DONE = 1
    ACCEPTED = 2
    FAILED = 3
    #: Microseconds of processor time.
    SLOWEST = 4


class Overtime(BaseException):
    """It took too long. No error of ours, so that nothing on the way catches it."""


class Share(msgspec.Struct, frozen=True):
    """The inputs of one worker: from `first`, each `step`th, below `end`, until `until` (of time.monotonic)."""

    seed: int
    first: int
    step: int
    end: int
    until: float


def work(share: Share, tally: Tally) -> None:
    """Try the inputs of a share; failures are saved, and told on standard output."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _bound_memory()
    # What is there by now stays, so the collector need not look at it again.
    gc.freeze()
    for number in range(share.first, share.end, share.step):
        tally[Told.NUMBER] = number
        case = inputs.case(share.seed, number)
        before = time.process_time()
        accepted, why = tried(case)
        tally[Told.SLOWEST] = max(tally[Told.SLOWEST], round((time.process_time() - before) * 1e6))
        tally[Told.DONE] += 1
        tally[Told.ACCEPTED] += accepted
        if why:
            tell(case, why)
            tally[Told.FAILED] += 1
        if tally[Told.FAILED] >= _MOST_FAILURES or time.monotonic() > share.until:
            return


def tried(case: Case) -> tuple[bool, str]:
    """Whether it was accepted, and how a promise was broken, if one was."""
    try:
        with bounded_time(SECONDS + SECONDS_PER_BYTE * len(case.data)):
            return check(case), ""
    except (Exception, Overtime):  # noqa: BLE001 -- whatever it is, it is what we look for
        return False, traceback.format_exc(limit=-8)


def tell(case: Case, why: str) -> None:
    """Save a case that failed, and say how to try it again."""
    path = cases.save(case, why)
    shown = "\n".join(line[:_LONGEST_LINE] for line in why.strip().splitlines()[-_MOST_LINES:])
    print(f"\n{shown}\n  try it again: scripts/fuzz --replay {path.relative_to(cases.ROOT)}", flush=True)


@contextmanager
def bounded_time(seconds: float) -> Iterator[None]:
    """Raises Overtime inside of it after so many seconds of processor time; nothing that runs in C is interrupted."""
    signal.signal(signal.SIGVTALRM, _overtime)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)


def _overtime(_signal: int, _frame: object) -> None:
    raise Overtime


def _bound_memory() -> None:
    limit = psutil.Process().memory_info().vms + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
