"""Task kind `data_processing`: JMESPath over data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import jmespath
import jmespath.exceptions
import msgspec

from runner.core.alt import ParameterProblem
from runner.core.errors import AttemptError
from runner.handlers.parameters import invalid, problems_of, read
from runner.handlers.processes import WorkerProcesses
from runner.handlers.settings import DataProcessingSettings
from runner.handlers.worker import Raised, as_json, bounded_memory, foreign
from runner.ports import Attempt, Outcome


class TransformParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What to make of what."""

    #: JMESPath, which is applied to `input`.
    expression: str
    #: Any JSON value; usually a reference.
    input: Any


class Transform:
    """A Handler; its output is what the expression gives.

    A short expression can ask for more work than there is time and memory, so it is evaluated in a worker process,
    which is killed when the task times out or is cancelled.
    """

    parameters: Final = TransformParameters

    def __init__(self, settings: DataProcessingSettings) -> None:
        self._settings = settings
        self._processes = WorkerProcesses(settings.max_processes)

    def check(self, parameters: Mapping[str, Any]) -> Iterator[ParameterProblem]:
        """What of an expression is known before it runs."""
        expression = parameters.get("expression")
        if isinstance(expression, str) and len(expression) <= self._settings.max_expression_characters:
            yield from problems_of("expression", lambda: _compiled(expression))

    async def run(self, attempt: Attempt) -> Outcome:
        """Evaluate.

        Raises AttemptError: INVALID_PARAMETERS; EXPRESSION_FAILED if it does not fit the data; RESULT_TOO_LARGE,
        PROCESS_DIED.
        """
        parameters = read(attempt.parameters, TransformParameters)
        longest = self._settings.max_expression_characters
        if len(parameters.expression) > longest:
            setting = "data_processing.max_expression_characters"
            raise invalid("expression", f"is longer than {longest} characters (setting `{setting}`)")
        _compiled(parameters.expression)
        encoded = msgspec.json.encode(parameters.input)
        arguments = (parameters.expression, encoded, self._settings.max_result_bytes, self._settings.max_memory_bytes)
        return Outcome(output=await self._processes.run(evaluate, *arguments, what="the expression"))


def evaluate(expression: str, encoded: bytes, max_bytes: int, max_memory: int) -> bytes | Raised:
    """In a worker process: the result as JSON, or what was wrong."""

    def unfit(error: Exception) -> AttemptError:
        message = f"the expression does not fit its input: {_one_line(error)}"
        if isinstance(error, MemoryError):
            message = f"the expression needs more than {max_memory} bytes (setting `data_processing.max_memory_bytes`)"
        return AttemptError("EXPRESSION_FAILED", message, retryable=False)

    try:
        # jmespath promises JMESPathError and raises TypeError and others as well.
        with foreign(unfit), bounded_memory(max_memory):
            value = _compiled(expression).search(msgspec.json.decode(encoded))
            return as_json(value, "expression", max_bytes, "data_processing.max_result_bytes")
    except AttemptError as error:
        return Raised(error.reason, error.message, error.retryable)


def _compiled(expression: str) -> Any:
    try:
        return jmespath.compile(expression)
    except (jmespath.exceptions.JMESPathError, RecursionError) as error:
        raise invalid("expression", f"is not JMESPath: {_one_line(error)}") from error


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
