"""Other people's code: what it raises becomes an AttemptError, what it returns becomes JSON.

Runs in the daemon and in worker processes; therefore it imports little.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import resource
import select
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Final, TypeVarTuple

import msgspec

from runner.core.errors import AttemptError, RunnerError

_Arguments = TypeVarTuple("_Arguments")

#: From <linux/prctl.h>: the signal that this process gets when the thread that started it ends.
_PR_SET_PDEATHSIG: Final = 1
#: More than a process has open.
_DESCRIPTORS: Final = 2**20
#: What Python tells its audit hooks when a process is about to be started.
_STARTS: Final = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.spawn", "os.system"})


class Raised(msgspec.Struct, frozen=True):
    """An AttemptError on its way out of a worker process; exceptions themselves do not survive the journey."""

    reason: str
    message: str
    retryable: bool
    retry_after: float | None = None


class Answered(msgspec.Struct, frozen=True):
    """What one call gave."""

    #: The number of the call.
    call: int
    given: bytes | Raised


def answer(
    daemon: int, call: int, function: Callable[[*_Arguments], bytes | Raised], *arguments: *_Arguments
) -> Answered:
    """In a worker process: call the function, for the daemon of that process id."""
    belong_to(daemon)
    worker = os.getpid()
    try:
        return Answered(call, function(*arguments))
    finally:
        # A child that the function forked and let return would read and answer the next calls beside us, and every
        # later job would get another one's result.
        if os.getpid() != worker:
            os._exit(1)


def belong_to(daemon: int) -> None:
    """In a worker process: end with the daemon, however it ends, and take along what was started here. Linux.

    Without it a worker outlives a daemon that is killed, and its task runs twice at the same time.
    """
    if os.getsid(0) == os.getpid():
        return
    os.setsid()
    # The daemon starts workers from the thread of its loop, which lives as long as it does.
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != daemon:
        os._exit(1)
    sys.addaudithook(_guard_once())


def end_group(daemon: int) -> None:
    """In a worker process: end it and everything that was started in it."""
    belong_to(daemon)
    os.killpg(0, signal.SIGKILL)


def _guard_once() -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook that forks a guard before this process starts its first other process."""
    worker = os.getpid()
    guarded = False

    def hook(event: str, _: tuple[Any, ...]) -> None:
        nonlocal guarded
        if event in _STARTS and not guarded and os.getpid() == worker:
            guarded = True
            if os.fork() == 0:
                _guard(worker)

    return hook


def _guard(worker: int) -> None:
    """In a process of its own: wait for the worker's end, then end all that it started and that stayed in its group.

    Only a bystander can do that: the worker is killed, and so may be the daemon.
    """
    try:
        # The way to the daemon is not ours; held open here, it would hide the worker's end.
        os.closerange(0, _DESCRIPTORS)
        ending = os.pidfd_open(worker)
        if os.getppid() == worker:
            poll = select.poll()
            poll.register(ending, select.POLLIN)
            poll.poll()
        os.killpg(worker, signal.SIGKILL)
    finally:
        os._exit(0)


class foreign:  # noqa: N801  reads as what it is: `with foreign(…)`; a class, as it stands around every task's parameters
    """Around a call into code that is not ours: any Exception of it, but for our own errors, is translated."""

    __slots__ = ("_translate",)

    def __init__(self, translate: Callable[[Exception], RunnerError]) -> None:
        self._translate = translate

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if isinstance(error, Exception) and not isinstance(error, RunnerError):
            raise self._translate(error) from error


def failed_function(path: str) -> Callable[[Exception], AttemptError]:
    """A function that raised. Whether to try again is for the task's `retry_count` to say."""

    def translate(error: Exception) -> AttemptError:
        told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return AttemptError("FUNCTION_RAISED", f"`{path}` raised {told}", retryable=True)

    return translate


def ended_itself(path: str, error: BaseException) -> AttemptError:
    """A function that raised what is meant to end a program, such as SystemExit or KeyboardInterrupt."""
    told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return AttemptError("HANDLER_ERROR", f"`{path}` raised {told}", retryable=False)


def locate(path: str) -> Callable[..., Any]:
    """The function at `module:name`.

    Raises AttemptError: FUNCTION_NOT_FOUND.
    """
    module_name, _, name = path.partition(":")

    def missing(error: Exception) -> AttemptError:
        message = f"`{path}` cannot be loaded: {type(error).__name__}: {error}"
        return AttemptError("FUNCTION_NOT_FOUND", message, retryable=False)

    with foreign(missing):
        found: Any = importlib.import_module(module_name)
        for part in name.split("."):
            found = getattr(found, part)
    if not callable(found):
        raise AttemptError("FUNCTION_NOT_FOUND", f"`{path}` is not a function", retryable=False)
    function: Callable[..., Any] = found
    return function


def as_json(value: Any, path: str, max_bytes: int, setting: str) -> bytes:
    """A result as JSON.

    Raises AttemptError: BAD_OUTPUT if it is not JSON, RESULT_TOO_LARGE beyond `max_bytes`.
    """
    try:
        encoded = msgspec.json.encode(value)
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        message = f"`{path}` returned something that is not JSON: {error}"
        raise AttemptError("BAD_OUTPUT", message, retryable=False) from error
    if len(encoded) > max_bytes:
        message = f"the result of `{path}` is {len(encoded)} bytes; {max_bytes} are allowed (setting `{setting}`)"
        raise AttemptError("RESULT_TOO_LARGE", message, retryable=False)
    return encoded


@contextmanager
def bounded_memory(size: int) -> Iterator[None]:
    """In a worker process: inside, taking more than `size` bytes beyond what is held now is a MemoryError. Linux."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    wanted = held + size
    resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@contextmanager
def standard_streams_closed() -> Iterator[None]:
    """In a worker process: inside, descriptors 0 and 1 lead nowhere. They are the way to the daemon, and a program
    that the function starts would inherit them and talk across.
    """
    ours = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for place in (0, 1):
        os.dup2(nowhere, place)
    os.close(nowhere)
    try:
        yield
    finally:
        for place, descriptor in enumerate(ours):
            os.dup2(descriptor, place)
            os.close(descriptor)


def call_function(path: str, arguments: Mapping[str, Any], max_bytes: int, setting: str) -> bytes | Raised:
    """In a worker process: call, and give the result as JSON or what was raised as a value."""
    try:
        with foreign(failed_function(path)), standard_streams_closed():
            value = locate(path)(**arguments)
        return as_json(value, path, max_bytes, setting)
    except AttemptError as error:
        return Raised(error.reason, error.message, error.retryable, error.retry_after)
    except BaseException as error:  # noqa: BLE001  sys.exit() and the like; sent on, they would end the daemon
        ended = ended_itself(path, error)
        return Raised(ended.reason, ended.message, ended.retryable)
