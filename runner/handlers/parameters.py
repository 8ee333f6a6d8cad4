"""A task's parameters as the struct its handler declares."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final, TypeVar

import msgspec

from runner.core.errors import AttemptError

INVALID_PARAMETERS: Final = "INVALID_PARAMETERS"

_T = TypeVar("_T", bound=msgspec.Struct)


def invalid(name: str, what: str) -> AttemptError:
    """The error for a mistake in one parameter: ``parameter `url` is missing``. No other attempt would help."""
    return AttemptError(INVALID_PARAMETERS, f"parameter `{name}` {what}", retryable=False)


def read(parameters: Mapping[str, Any], kind: type[_T]) -> _T:
    """The parameters that `kind` has fields for; others are left alone.

    Raises AttemptError: INVALID_PARAMETERS, with a sentence that names the parameter but does not quote its value,
    which may hold a secret.
    """
    try:
        return msgspec.convert(dict(parameters), kind)
    except msgspec.ValidationError as error:
        raise _translated(str(error)) from error


def _translated(said: str) -> AttemptError:
    if missing := re.fullmatch(r"Object missing required field `(.+)`", said):
        return invalid(missing[1], "is missing")
    if wrong := re.fullmatch(r"(.*) - at `(?:key in )?\$\.?(.+)`", said, re.DOTALL):
        return invalid(wrong[2], f"is wrong: {wrong[1][:1].lower()}{wrong[1][1:]}")
    return AttemptError(INVALID_PARAMETERS, f"the parameters are wrong: {said}", retryable=False)
