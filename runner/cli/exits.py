"""error, or how a job ended → exit code: the one table."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from typing import Final

from runner.core import errors
from runner.core.events import JobState


class Exit(enum.IntEnum):
    """What a script can tell from the exit code; the same for every command."""

    OK = 0
    ERROR = 1
    USAGE = 2
    PARTIALLY_SUCCEEDED = 3
    FAILED = 4
    CANCELLED = 5
    REJECTED = 6
    UNREACHABLE = 7
    NOT_FOUND = 8
    TRY_LATER = 9
    INTERRUPTED = 130
    BROKEN_PIPE = 141


MEANINGS: Final = {
    Exit.OK: "succeeded; for a job that was watched: all its tasks did",
    Exit.ERROR: "something else went wrong, and a sentence on standard error says what",
    Exit.USAGE: "the command line or the settings are wrong",
    Exit.PARTIALLY_SUCCEEDED: "a watched job partially succeeded",
    Exit.FAILED: "a watched job failed",
    Exit.CANCELLED: "a watched job was cancelled",
    Exit.REJECTED: "rejected: a wrong descriptor or request, or a record that was changed",
    Exit.UNREACHABLE: "no daemon answers, or it cannot work now",
    Exit.NOT_FOUND: "no such job, record, endpoint or file",
    Exit.TRY_LATER: "the daemon is full; it says when to come back",
    Exit.INTERRUPTED: "interrupted; jobs of a daemon run on, those of `run` are cancelled",
}

OF_STATE: Final = {
    JobState.SUCCEEDED: Exit.OK,
    JobState.PARTIALLY_SUCCEEDED: Exit.PARTIALLY_SUCCEEDED,
    JobState.FAILED: Exit.FAILED,
    JobState.CANCELLED: Exit.CANCELLED,
}

#: Most specific first.
_OF_ERROR: Final[tuple[tuple[type[errors.RunnerError], Exit], ...]] = (
    (errors.InvalidDescriptor, Exit.REJECTED),
    (errors.InvalidRequest, Exit.REJECTED),
    (errors.InvalidRecord, Exit.REJECTED),
    (errors.RequestIdReused, Exit.REJECTED),
    (errors.NotFound, Exit.NOT_FOUND),
    (errors.QueueFull, Exit.TRY_LATER),
    (errors.InvalidSettings, Exit.USAGE),
)

#: By the name of a gRPC status code, so that gRPC need not be imported.
_OF_CODE: Final = {
    "INVALID_ARGUMENT": Exit.REJECTED,
    "ALREADY_EXISTS": Exit.REJECTED,
    "FAILED_PRECONDITION": Exit.REJECTED,
    "OUT_OF_RANGE": Exit.REJECTED,
    "PERMISSION_DENIED": Exit.REJECTED,
    "UNAUTHENTICATED": Exit.REJECTED,
    "NOT_FOUND": Exit.NOT_FOUND,
    "RESOURCE_EXHAUSTED": Exit.TRY_LATER,
    "UNAVAILABLE": Exit.UNREACHABLE,
    "DEADLINE_EXCEEDED": Exit.UNREACHABLE,
}

#: From harmless to worst: what went wrong with jobs, then with calls, then with us.
_WORSE: Final = (
    Exit.OK,
    Exit.PARTIALLY_SUCCEEDED,
    Exit.CANCELLED,
    Exit.FAILED,
    Exit.TRY_LATER,
    Exit.NOT_FOUND,
    Exit.REJECTED,
    Exit.UNREACHABLE,
    Exit.USAGE,
    Exit.ERROR,
)


class FileNotThere(errors.NotFound):
    """A file that the command line names does not exist."""

    kind = "file"


class Unusable(errors.RunnerError):
    """What the command line asks for cannot be: the message says what can."""


def exit_of(error: errors.RunnerError) -> Exit:
    """The exit code of an error."""
    if isinstance(error, Unusable):
        return Exit.USAGE
    for kind, code in _OF_ERROR:
        if isinstance(error, kind):
            return code
    return _exit_of_call(error)


def _exit_of_call(error: errors.RunnerError) -> Exit:
    from runner.client import CallRefused, Unreachable

    if isinstance(error, Unreachable):
        return Exit.UNREACHABLE
    return _OF_CODE.get(error.code.name, Exit.ERROR) if isinstance(error, CallRefused) else Exit.ERROR


def worst(codes: Iterable[Exit]) -> Exit:
    """The exit code of several outcomes."""
    return max(codes, key=_WORSE.index, default=Exit.OK)
