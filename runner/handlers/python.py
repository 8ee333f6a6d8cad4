"""Task kind `python`: call a function that the operator allows."""

from __future__ import annotations

import asyncio
import inspect
import re
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from fnmatch import fnmatchcase
from functools import partial
from typing import Any, Final

import anyio.to_thread
import msgspec

from runner.core.alt import ParameterProblem
from runner.core.errors import AttemptError, brief
from runner.handlers.coroutines import in_own_task
from runner.handlers.parameters import invalid, listed, problems_of, read
from runner.handlers.processes import WorkerProcesses
from runner.handlers.settings import PythonSettings
from runner.handlers.worker import as_json, call_function, ended_itself, failed_function, foreign, locate
from runner.ports import Attempt, Observer, Outcome, Quiet

_LIMIT = "python.max_result_bytes"


class PythonParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What to call."""

    #: `package.module:name`.
    function: str
    #: Passed by name.
    arguments: dict[str, Any] = {}


class CallPython:
    """A Handler; its output is what the function returns, which must be JSON.

    An async function runs on the daemon's own loop, so it must not block; any other runs in a worker process, which
    is killed when the task times out or is cancelled. An async function that goes on for
    `python.cancel_grace_seconds` after its cancellation is abandoned, which the observer is told.
    """

    parameters: Final = PythonParameters

    def __init__(self, settings: PythonSettings, observer: Observer | None = None) -> None:
        self._settings = settings
        self._observer = observer or Quiet()
        self._processes = WorkerProcesses(settings.max_processes)

    def check(self, parameters: Mapping[str, Any]) -> Iterator[ParameterProblem]:
        """Whether the function is one that may be called; it is not looked for."""
        path = parameters.get("function")
        if isinstance(path, str):
            unfit = [*problems_of("function", lambda: _check_written(path))]
            allow = self._settings.allow
            yield from unfit or problems_of("function", lambda: check_allowed(path, allow), by_settings=True)

    async def run(self, attempt: Attempt) -> Outcome:
        """Call the function.

        Raises AttemptError: INVALID_PARAMETERS, FUNCTION_NOT_ALLOWED, FUNCTION_NOT_FOUND, BAD_OUTPUT,
        RESULT_TOO_LARGE, and what the function itself raised as one; FUNCTION_RAISED, retryable, for any other
        exception of the function; HANDLER_ERROR for what is meant to end a program; PROCESS_DIED.
        """
        parameters = read(attempt.parameters, PythonParameters)
        path = parameters.function
        check_allowed(path, self._settings.allow)
        # In a thread: a module may take long to import, and the daemon has other work.
        function = await anyio.to_thread.run_sync(locate, path)
        try:
            inspect.signature(function).bind(**parameters.arguments)
        except TypeError as error:
            raise invalid("arguments", f"does not fit `{path}`: {error}") from error
        except ValueError:
            pass  # some functions written in C do not tell their signature
        limit = self._settings.max_result_bytes
        if not inspect.iscoroutinefunction(function):
            arguments = (path, parameters.arguments, limit, _LIMIT)
            return Outcome(output=await self._processes.run(call_function, *arguments, what=f"`{path}`"))
        value = await in_own_task(
            _called(function, path, parameters.arguments),
            patience=self._settings.cancel_grace_seconds,
            abandoned=partial(
                self._observer.notice,
                "function_abandoned",
                job_id=attempt.job_id,
                task=attempt.task.id,
                error=f"`{path}` ignores its cancellation and goes on (setting `python.cancel_grace_seconds`)",
            ),
        )
        return Outcome(output=msgspec.json.decode(as_json(value, path, limit, _LIMIT)))


async def _called(function: Callable[..., Coroutine[Any, Any, Any]], path: str, arguments: dict[str, Any]) -> Any:
    try:
        with foreign(failed_function(path)):
            return await function(**arguments)
    except (AttemptError, asyncio.CancelledError):
        raise
    except BaseException as error:
        # Let out of a task, a KeyboardInterrupt or SystemExit ends the loop, and the daemon with it, at every restart.
        raise ended_itself(path, error) from error


def _check_written(path: str) -> None:
    if not re.fullmatch(r"[A-Za-z]\w*(\.[A-Za-z]\w*)*:[A-Za-z]\w*(\.[A-Za-z]\w*)*", path, re.ASCII):
        raise invalid("function", "must be like `package.module:name`, without names that begin with an underscore")


def check_allowed(path: str, allow: Collection[str]) -> None:
    """Raises AttemptError: INVALID_PARAMETERS, FUNCTION_NOT_ALLOWED.

    Private names are never allowed, whatever the patterns say.
    """
    _check_written(path)
    module = path.partition(":")[0]
    if any(fnmatchcase(path if ":" in pattern else module, pattern) for pattern in allow):
        return
    message = f"`{brief(path)}` may not be called; the setting `python.allow` allows {listed(allow)}"
    raise AttemptError("FUNCTION_NOT_ALLOWED", message, retryable=False)
