"""A task's parameters as the struct its handler declares."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from typing import Any, Final, TypeVar

import msgspec

from runner.core.alt import ParameterProblem
from runner.core.errors import AttemptError, brief

INVALID_PARAMETERS: Final = "INVALID_PARAMETERS"
#: Names that a message lists of those that a setting allows; of the others it tells how many there are.
_MOST_LISTED: Final = 10

_T = TypeVar("_T", bound=msgspec.Struct)


def invalid(name: str, what: str) -> AttemptError:
    """The error for a mistake in one parameter: ``parameter `url` is missing``. No other attempt would help."""
    return AttemptError(INVALID_PARAMETERS, f"parameter `{name}` {what}", retryable=False)


def read(parameters: Mapping[str, Any], kind: type[_T]) -> _T:
    """The parameters that `kind` has fields for; others are left alone. A null where none can be counts as left out.

    Raises AttemptError: INVALID_PARAMETERS, with a sentence that names the parameter but does not quote its value,
    which may hold a secret.
    """
    may_be_null = _may_be_null(kind)
    given = {name: value for name, value in parameters.items() if value is not None or name in may_be_null}
    try:
        return msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise _translated(str(error)) from error


@functools.lru_cache(maxsize=256)
def _may_be_null(kind: type[msgspec.Struct]) -> frozenset[str]:
    return frozenset(field.encode_name for field in msgspec.structs.fields(kind) if _is_nullable(field.type))


def _is_nullable(kind: Any) -> bool:
    try:
        msgspec.convert(None, kind)
    except msgspec.ValidationError:
        return False
    return True


def listed(names: Collection[str]) -> str:
    """What a setting allows, short enough for a message: ``only `ls`, `date` and 3 more``; ``none`` without any."""
    first = ", ".join(f"`{brief(name)}`" for name in islice(names, _MOST_LISTED))
    more = len(names) - _MOST_LISTED
    return f"only {first}{f' and {more} more' if more > 0 else ''}" if names else "none"


def problems_of(name: str, tried: Callable[[], object], *, by_settings: bool = False) -> Iterator[ParameterProblem]:
    """What the attempt itself would say of a parameter, for a handler's `check`."""
    try:
        tried()
    except AttemptError as error:
        message = f"{error.message[:1].upper()}{error.message[1:]}."
        yield ParameterProblem(name=name, message=message, by_settings=by_settings)


def _translated(said: str) -> AttemptError:
    if missing := re.fullmatch(r"Object missing required field `(.+)`", said):
        return invalid(missing[1], "is missing")
    if wrong := re.fullmatch(r"(.*) - at `(?:key in )?\$\.?(.+)`", said, re.DOTALL):
        return invalid(wrong[2], f"is wrong: {wrong[1][:1].lower()}{wrong[1][1:]}")
    return AttemptError(INVALID_PARAMETERS, f"the parameters are wrong: {said}", retryable=False)
