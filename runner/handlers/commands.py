"""Task kind `system_command`: run a program that the operator allows."""

from __future__ import annotations

import shlex
from collections.abc import Collection, Iterator, Mapping
from pathlib import PurePosixPath
from typing import Annotated, Any, Final

import msgspec

from runner.core.alt import ParameterProblem
from runner.core.errors import AttemptError, brief
from runner.core.plan import TaskPlan
from runner.handlers.parameters import invalid, listed, problems_of, read
from runner.handlers.settings import SystemCommandSettings
from runner.handlers.subprocesses import Program, Subprocesses, Timeout, output_of
from runner.ports import Attempt, Bulkhead, Observer, Outcome

_ExitCode = Annotated[int, msgspec.Meta(ge=0, le=255)]


class CommandParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What to run."""

    #: A program and its arguments: a list, or a text that is split as a POSIX shell would. No shell ever sees it.
    command: str | list[str]
    #: More arguments, each as it stands.
    args: list[str] = []
    #: Standard input.
    stdin: str = ""
    #: Seconds.
    timeout: Timeout | None = None
    #: Environment variables, of those that `system_command.allow_env` names.
    env: dict[str, str] = {}
    #: Exit codes that count as success.
    success_codes: tuple[_ExitCode, ...] = (0,)


class RunCommand:
    """A Handler; its output is the program's: `exit_code`, `stdout`, `stderr`, `truncated`."""

    parameters: Final = CommandParameters

    def __init__(self, settings: SystemCommandSettings, observer: Observer | None = None) -> None:
        self._settings = settings
        self._subprocesses = Subprocesses(settings.limits, settings.path, section="system_command", observer=observer)

    def bulkhead(self, task: TaskPlan) -> Bulkhead:
        """So many processes at a time, and no task waits for them in a slot that others could use."""
        return Bulkhead("system_command", self._settings.limits.max_concurrent)

    def check(self, parameters: Mapping[str, Any]) -> Iterator[ParameterProblem]:
        """Whether the program and the variables may be given; the program is not looked for."""
        command, variables = parameters.get("command"), parameters.get("env")
        if not self._settings.allow:
            yield from problems_of("command", self._check_on, by_settings=True)
        elif isinstance(command, str | list):
            unfit = [*problems_of("command", lambda: _split(command))]
            yield from unfit or problems_of("command", lambda: self._check_named(_split(command)[0]), by_settings=True)
        if isinstance(variables, dict):
            allowed = self._settings.allow_env
            yield from problems_of("env", lambda: _check_variables(variables, allowed), by_settings=True)

    async def run(self, attempt: Attempt) -> Outcome:
        """Run the program.

        Raises AttemptError: INVALID_PARAMETERS, COMMAND_NOT_ALLOWED, VARIABLE_NOT_ALLOWED, COMMAND_NOT_FOUND, and
        what `Subprocesses.run` raises.
        """
        self._check_on()
        parameters = read(attempt.parameters, CommandParameters)
        words = [*_split(parameters.command), *parameters.args]
        _check_variables(parameters.env, self._settings.allow_env)
        program = Program(
            command=(self._allowed(words[0]), *words[1:]),
            stdin=parameters.stdin,
            environment=parameters.env,
            timeout=parameters.timeout,
            success_codes=parameters.success_codes,
        )
        return Outcome(output=output_of(await self._subprocesses.run(program)))

    def _check_on(self) -> None:
        if not self._settings.allow:
            message = "`system_command` is off; to turn it on, name programs in the setting `system_command.allow`"
            raise AttemptError("COMMAND_NOT_ALLOWED", message, retryable=False)

    def _check_named(self, name: object) -> None:
        """Refuse what is allowed by no name, wherever programs may be. A name may be known only later."""
        if isinstance(name, str) and PurePosixPath(name).name not in {
            PurePosixPath(allowed).name for allowed in self._settings.allow
        }:
            raise self._not_allowed(name)

    def _allowed(self, name: str) -> str:
        """The path of a program that jobs may run: by its path or by its name, whichever way it was allowed."""
        path = name if name.startswith("/") else None if "/" in name else self._subprocesses.located(name)
        for allowed in self._settings.allow:
            if allowed == name or (path is not None and path == self._subprocesses.located(allowed)):
                if path is not None:
                    return path
                message = f"there is no program `{brief(name)}` in the directories of the setting `system_command.path`"
                raise AttemptError("COMMAND_NOT_FOUND", message, retryable=False)
        raise self._not_allowed(name)

    def _not_allowed(self, name: str) -> AttemptError:
        allowed = listed(self._settings.allow)
        message = f"`{brief(name)}` may not be run; the setting `system_command.allow` allows {allowed}"
        return AttemptError("COMMAND_NOT_ALLOWED", message, retryable=False)


def _split(command: str | list[str]) -> list[str]:
    if isinstance(command, str):
        try:
            command = shlex.split(command)
        except ValueError as error:
            raise invalid("command", f"cannot be split into words: {error}") from error
    if not command or not command[0]:
        raise invalid("command", "is empty")
    return command


def _check_variables(names: Collection[str], allow: Collection[str]) -> None:
    for name in names:
        if name not in allow:
            allowed = listed(allow)
            message = (
                f"variable `{brief(name)}` may not be set; the setting `system_command.allow_env` allows {allowed}"
            )
            raise AttemptError("VARIABLE_NOT_ALLOWED", message, retryable=False)
