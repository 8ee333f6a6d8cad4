"""What handlers declare, for the check of descriptors before anything runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from runner.core.alt import Kinds, ParameterCheck, ParameterProblem
from runner.core.alt.parameters import Look
from runner.core.errors import AttemptError, InvalidSettings
from runner.handlers.registry import FALLBACK
from runner.handlers.worker import foreign
from runner.ports import Handler


def kinds_of(handlers: Mapping[str, Handler], *, settings_known: bool = True) -> Kinds:
    """The checks of all handlers, by task type.

    `settings_known`: whether the handlers have the settings of the daemon that is to run the descriptors. Where they do
    not, what settings decide is no error.

    Raises InvalidSettings: naming a task type whose declared parameters mean nothing.
    """
    checks = {kind: _check(kind, handler, settings_known=settings_known) for kind, handler in handlers.items()}
    return Kinds(checks, others=checks.get(FALLBACK))


def _check(kind: str, handler: Handler, *, settings_known: bool) -> ParameterCheck | None:
    declared: Any = getattr(handler, "parameters", None)
    if not (isinstance(declared, type) and issubclass(declared, msgspec.Struct)):
        return None
    with foreign(lambda error: InvalidSettings([f"the parameters of handler `{kind}` cannot be read: {error}"])):
        return ParameterCheck(
            declared,
            takes_others=bool(getattr(handler, "passes_parameters_on", False)),
            look=_guarded(kind, handler),
            settings_known=settings_known,
        )


def _guarded(kind: str, handler: Handler) -> Look | None:
    """The handler's own check; a defect in it is told and refuses nothing."""
    look: Look | None = getattr(handler, "check", None)
    if look is None:
        return None

    def broken(error: Exception) -> AttemptError:
        return AttemptError("HANDLER_ERROR", type(error).__name__, retryable=False)

    boundary = foreign(broken)

    def guarded(parameters: Mapping[str, Any]) -> list[ParameterProblem]:
        try:
            with boundary:
                return list(look(parameters))
        except AttemptError as error:
            message = f"The parameters could not be checked: `check` of `{kind}` raised {error.message}."
            return [ParameterProblem(message=message, only_warns=True)]

    return guarded
