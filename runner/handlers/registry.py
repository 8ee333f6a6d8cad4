"""Which handler claims which task type: ours, and those of installed packages."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, Final

import aiohttp

from runner.core.errors import InvalidSettings
from runner.handlers.approval import Approval
from runner.handlers.code import RunCode
from runner.handlers.commands import RunCommand
from runner.handlers.delay import Delay
from runner.handlers.earlier import EarlierAnswers
from runner.handlers.files import FileOperation
from runner.handlers.http import HttpRequest, http_session
from runner.handlers.job import RunJob
from runner.handlers.orchestrator import AskOrchestrator
from runner.handlers.python import CallPython
from runner.handlers.settings import (
    CodeExecutorSettings,
    DataProcessingSettings,
    FileOperationSettings,
    HttpRequestSettings,
    PythonSettings,
    SystemCommandSettings,
)
from runner.handlers.transform import Transform
from runner.handlers.trigger import PassOn
from runner.handlers.worker import foreign
from runner.ports import Handler, Jobs, Observer, Orchestrator

#: Packages add handlers here: the name is the task type; the object is a Handler, or what gives one when it is called.
ENTRY_POINTS: Final = "alt_runner.handlers"

#: Takes every task type that nothing else claims.
FALLBACK: Final = "orchestrator"


def builtin_handlers(
    orchestrators: Mapping[str, Orchestrator],
    session: aiohttp.ClientSession,
    *,
    http_request: HttpRequestSettings,
    python: PythonSettings,
    data_processing: DataProcessingSettings,
    file_operation: FileOperationSettings,
    system_command: SystemCommandSettings,
    code_executor: CodeExecutorSettings,
    work_root: Path,
    observer: Observer | None = None,
    jobs: Jobs | None = None,
    earlier: EarlierAnswers | None = None,
) -> dict[str, Handler]:
    """Our handlers by task type, FALLBACK among them. The first orchestrator takes tasks that name none.

    Each job's work directory is `work_root/<job_id>`.
    """
    ask, pass_on = AskOrchestrator(orchestrators, earlier), PassOn()
    return {
        "ai_prompt": ask,
        FALLBACK: ask,
        "http_request": HttpRequest(session, http_request),
        "python": CallPython(python, observer),
        "delay": Delay(),
        "manual_trigger": pass_on,
        "schedule_trigger": pass_on,
        "webhook_trigger": pass_on,
        "data_processing": Transform(data_processing),
        "file_operation": FileOperation(work_root, file_operation),
        "system_command": RunCommand(system_command, observer),
        "code_executor": RunCode(code_executor, observer),
        "approval": Approval(),
        "job": RunJob(jobs),
    }


@asynccontextmanager
async def open_handlers(
    orchestrators: Mapping[str, Orchestrator],
    *,
    http_request: HttpRequestSettings | None = None,
    python: PythonSettings | None = None,
    data_processing: DataProcessingSettings | None = None,
    file_operation: FileOperationSettings | None = None,
    system_command: SystemCommandSettings | None = None,
    code_executor: CodeExecutorSettings | None = None,
    work_root: Path = Path("work"),
    observer: Observer | None = None,
    jobs: Jobs | None = None,
    earlier: EarlierAnswers | None = None,
) -> AsyncIterator[dict[str, Handler]]:
    """All handlers by task type, ready inside the context; those of installed packages too. Needs asyncio.

    Without `jobs`, tasks of kind `job` fail. Without `earlier`, no answers are kept.

    Raises InvalidSettings: if an installed package's handler cannot be loaded, or claims a task type of ours.
    """
    http_request = http_request or HttpRequestSettings()
    added = load_entry_points()
    async with http_session(http_request) as session:
        ours = builtin_handlers(
            orchestrators,
            session,
            http_request=http_request,
            python=python or PythonSettings(),
            data_processing=data_processing or DataProcessingSettings(),
            file_operation=file_operation or FileOperationSettings(),
            system_command=system_command or SystemCommandSettings(),
            code_executor=code_executor or CodeExecutorSettings(),
            work_root=work_root,
            observer=observer,
            jobs=jobs,
            earlier=earlier,
        )
        if claimed := sorted(ours.keys() & added.keys()):
            raise InvalidSettings([f"an installed package claims the task type `{claimed[0]}`, which is built in"])
        yield ours | added


def load_entry_points(found: Iterable[EntryPoint] | None = None) -> dict[str, Handler]:
    """The handlers that installed packages offer under ENTRY_POINTS.

    Raises InvalidSettings: naming every one that cannot be loaded, and its package.
    """
    handlers: dict[str, Handler] = {}
    problems: list[str] = []
    for point in entry_points(group=ENTRY_POINTS) if found is None else found:
        try:
            if point.name in handlers:
                raise _broken(point, "another package offers the same name")
            handlers[point.name] = _load(point)
        except InvalidSettings as error:
            problems += error.problems
    if problems:
        raise InvalidSettings(problems)
    return handlers


def _load(point: EntryPoint) -> Handler:
    with foreign(lambda error: _broken(point, f"{type(error).__name__}: {error}")):
        loaded: Any = point.load()
        handler = loaded if hasattr(loaded, "run") and not isinstance(loaded, type) else loaded()
    if not callable(getattr(handler, "run", None)):
        raise _broken(point, "it has no method `run`")
    checked: Handler = handler
    return checked


def _broken(point: EntryPoint, why: str) -> InvalidSettings:
    package = f" of package `{point.dist.name}`" if point.dist is not None else ""
    return InvalidSettings([f"the handler `{point.name}`{package} (`{point.value}`) cannot be loaded: {why}"])
