"""Other people's code: what it raises becomes an AttemptError, what it returns becomes JSON.

Runs in the daemon and in worker processes; therefore it imports little.
"""

from __future__ import annotations

import importlib
import os
import resource
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from runner.core.errors import AttemptError, RunnerError


class Raised(msgspec.Struct, frozen=True):
    """An AttemptError on its way out of a worker process; exceptions themselves do not survive the journey."""

    reason: str
    message: str
    retryable: bool
    retry_after: float | None = None


@contextmanager
def foreign(translate: Callable[[Exception], RunnerError]) -> Iterator[None]:
    """Around a call into code that is not ours: anything it raises, but for our own errors, is translated."""
    try:
        yield
    except RunnerError:
        raise
    except Exception as error:  # other people's code raises what it likes; here it stops
        raise translate(error) from error


def failed_function(path: str) -> Callable[[Exception], AttemptError]:
    """A function that raised. Whether to try again is for the task's `retry_count` to say."""

    def translate(error: Exception) -> AttemptError:
        told = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return AttemptError("FUNCTION_RAISED", f"`{path}` raised {told}", retryable=True)

    return translate


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
