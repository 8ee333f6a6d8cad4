"""Task kind `code_executor`: run code that the job brings, in a language that the operator allows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import msgspec

from runner.core.alt import ParameterProblem
from runner.core.errors import AttemptError, brief
from runner.core.plan import TaskPlan
from runner.handlers.parameters import invalid, listed, problems_of, read
from runner.handlers.settings import CodeExecutorSettings
from runner.handlers.subprocesses import Program, Subprocesses, Timeout, output_of
from runner.ports import Attempt, Bulkhead, Observer, Outcome

#: Where an argument of a language's command begins with it, the argument names the file with the code.
_CODE: Final = "{code}"


class CodeParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What to run."""

    #: One that `code_executor.languages` names.
    language: str
    #: The text of the program.
    code: str
    #: Any JSON value. It stands in the file `inputs.json`.
    inputs: Any = msgspec.UNSET
    #: The same, under the name by which a workflow's node is given it.
    input: Any = msgspec.UNSET
    #: Standard input: a text as it is, any other value as JSON.
    stdin: Any = msgspec.UNSET
    #: Seconds.
    timeout: Timeout | None = None


class RunCode:
    """A Handler; its output is that of `system_command`, and `result` where the code printed one.

    The result is the last line of standard output, if it is JSON. A line that is not whole, because output was
    dropped, is none.
    """

    parameters: Final = CodeParameters

    def __init__(self, settings: CodeExecutorSettings, observer: Observer | None = None) -> None:
        self._settings = settings
        self._subprocesses = Subprocesses(settings.limits, settings.path, section="code_executor", observer=observer)

    def bulkhead(self, task: TaskPlan) -> Bulkhead:
        """So many processes at a time, and no task waits for them in a slot that others could use."""
        return Bulkhead("code_executor", self._settings.limits.max_concurrent)

    def check(self, parameters: Mapping[str, Any]) -> Iterator[ParameterProblem]:
        """Whether the language is one that may be run; its program is not looked for."""
        language = parameters.get("language", "")
        if isinstance(language, str):
            yield from problems_of("language", lambda: self._allowed(language), by_settings=True)

    async def run(self, attempt: Attempt) -> Outcome:
        """Run the code.

        Raises AttemptError: INVALID_PARAMETERS, LANGUAGE_NOT_ALLOWED, COMMAND_NOT_FOUND, and what `Subprocesses.run`
        raises.
        """
        self._check_on()
        parameters = read(attempt.parameters, CodeParameters)
        ran = await self._subprocesses.run(self._program(parameters))
        output = output_of(ran)
        whole = ran.stdout_bytes <= self._settings.limits.max_output_bytes
        result = _last_line(ran.stdout) if whole else msgspec.UNSET
        return Outcome(output=output if result is msgspec.UNSET else {**output, "result": result})

    def _program(self, parameters: CodeParameters) -> Program:
        command = self._command(parameters.language)
        files = {}
        inputs = parameters.input if parameters.inputs is msgspec.UNSET else parameters.inputs
        if inputs is not msgspec.UNSET:
            files["inputs.json"] = msgspec.json.encode(inputs).decode()
        stdin = "" if parameters.stdin is msgspec.UNSET else _text(parameters.stdin)
        named = [index for index, word in enumerate(command) if word.startswith(_CODE)]
        for index in named:
            command[index] = command[index].replace(_CODE, "code", 1)
            files[command[index]] = parameters.code
        if not named:
            if stdin:
                why = f"`{brief(parameters.language)}` takes its code there"
                raise invalid("stdin", f"cannot be given: {why} (setting `code_executor.languages`); use `inputs`")
            stdin = parameters.code
        return Program(command=tuple(command), stdin=stdin, files=files, timeout=parameters.timeout)

    def _check_on(self) -> None:
        if not self._settings.languages:
            message = "`code_executor` is off; to turn it on, name languages in the setting `code_executor.languages`"
            raise AttemptError("LANGUAGE_NOT_ALLOWED", message, retryable=False)

    def _allowed(self, language: str) -> tuple[str, ...]:
        """The language's command."""
        self._check_on()
        command = self._settings.languages.get(language)
        if command is None:
            allowed = listed(self._settings.languages)
            message = (
                f"code in `{brief(language)}` may not be run; the setting `code_executor.languages` allows {allowed}"
            )
            raise AttemptError("LANGUAGE_NOT_ALLOWED", message, retryable=False)
        return command

    def _command(self, language: str) -> list[str]:
        command = self._allowed(language)
        program = self._subprocesses.located(command[0])
        if program is None:
            message = f"`{command[0]}`, which setting `code_executor.languages` names for `{language}`, is not there"
            raise AttemptError("COMMAND_NOT_FOUND", message, retryable=False)
        return [program, *command[1:]]


def _text(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _last_line(text: str) -> Any:
    try:
        return msgspec.json.decode(text.rstrip().rpartition("\n")[2])
    except (msgspec.DecodeError, RecursionError):
        return msgspec.UNSET
