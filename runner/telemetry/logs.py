"""Logs are events with fields: JSON for machines, a line for people. The standard library's loggers go through too."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Final, TextIO, cast

import msgspec
import structlog

from runner.telemetry.masking import Masking
from runner.telemetry.settings import LogFormat, LogLevel, LogSettings

LEVELS: Final = {
    LogLevel.DEBUG: logging.DEBUG,
    LogLevel.INFO: logging.INFO,
    LogLevel.WARNING: logging.WARNING,
    LogLevel.ERROR: logging.ERROR,
}

Fields = MutableMapping[str, Any]

#: One variable for all ids: structlog has one for each, and setting those was a tenth of an attempt's processor time.
_IDS: Final[ContextVar[Mapping[str, Any]]] = ContextVar("ids", default=MappingProxyType({}))


@contextmanager
def carrying(ids: Mapping[str, Any]) -> Iterator[None]:
    """Inside, every line of the log has these fields, whoever writes it, unless it has others of that name."""
    outside = _IDS.get()
    _IDS.set({**outside, **ids})
    try:
        yield
    finally:
        _IDS.set(outside)


def _with_ids(_logger: Any, _method: str, fields: Fields) -> Fields:
    for name, value in _IDS.get().items():
        fields.setdefault(name, value)
    return fields


class _Outlet:
    """A stream that may break: a full disk behind it, or a pipe that nobody reads any more, must not end the daemon.

    What cannot be written is counted. The stream may still hold the last lines and bring them when it can.
    """

    def __init__(self, stream: TextIO | None, dropped: Callable[[], None]) -> None:
        """`stream` is None where the process began with standard error closed: nothing can be written."""
        self._stream = stream
        self._dropped = dropped
        self._missing = 0
        self._broken = False

    def write(self, line: str) -> None:
        """Write a line and have it out, or count it."""
        try:
            if self._stream is None:
                raise BrokenPipeError
            self._stream.write(line)
            self._stream.flush()
            self._broken = False
        # A closed stream is a ValueError.
        except (OSError, ValueError):
            self._broken = True
            self._missing += 1
            self._dropped()

    def flush(self) -> None:
        """Nothing is left to be done: every line was flushed."""

    def isatty(self) -> bool:
        return self._stream is not None and self._stream.isatty()

    def recovered(self) -> int:
        """How many lines are missing since this was asked, once the last line was written; until then 0."""
        if self._broken:
            return 0
        missing, self._missing = self._missing, 0
        return missing


class Logs:
    """Where log events go. Writing is synchronous: a line is out before the next thing happens.

    Writing never fails. `dropped` is called for each line that could not be written, and when lines can be written
    again, `log_lines_dropped` tells how many are missing.
    """

    def __init__(
        self,
        settings: LogSettings,
        masking: Masking,
        stream: TextIO | None = None,
        *,
        dropped: Callable[[], None] = lambda: None,
    ) -> None:
        self._stream = _Outlet(sys.stderr if stream is None else stream, dropped)
        self._masking = masking
        self._threshold = LEVELS[settings.level]
        text = settings.format is LogFormat.TEXT or (settings.format is LogFormat.AUTO and self._stream.isatty())
        shared: list[Any] = [
            structlog.contextvars.merge_contextvars,
            _with_ids,
            # People look at a clock on the wall; machines want one for all time zones.
            structlog.processors.TimeStamper(fmt="%H:%M:%S" if text else "iso", utc=not text),
            structlog.processors.format_exc_info,
            self._masked,
        ]
        render: Any = (
            structlog.dev.ConsoleRenderer(
                colors=self._stream.isatty(), exception_formatter=structlog.dev.plain_traceback
            )
            if text
            else structlog.processors.JSONRenderer(serializer=_json)
        )
        self._logger = structlog.wrap_logger(
            structlog.WriteLogger(cast("TextIO", self._stream)),
            processors=[*shared, render],
            wrapper_class=structlog.BoundLogger,
            cache_logger_on_first_use=True,
        )
        self._formatter = structlog.stdlib.ProcessorFormatter(
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
            foreign_pre_chain=[structlog.stdlib.add_logger_name, structlog.stdlib.add_log_level, *shared],
        )

    def enabled(self, level: int) -> bool:
        """Whether an event of this level (as in `logging`) would be written."""
        return level >= self._threshold

    def write(self, level: int, event: str, fields: dict[str, Any]) -> None:
        """Write one event, if its level is enabled."""
        if self.enabled(level):
            self._logger.msg(event, level=logging.getLevelName(level).lower(), **fields)
            missing = self._stream.recovered()
            if missing:
                self._logger.msg("log_lines_dropped", level="warning", count=missing)

    def set_level(self, level: LogLevel) -> None:
        """Change the threshold while the daemon runs."""
        self._threshold = LEVELS[level]
        logging.getLogger().setLevel(self._for_libraries())

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Inside the context the root logger of the standard library, and Python's warnings, write here."""
        root = logging.getLogger()
        handler = logging.StreamHandler(self._stream)
        handler.setFormatter(self._formatter)
        before, level, raising = root.handlers[:], root.level, logging.raiseExceptions
        # A library's line that cannot be formatted would be told on the same stream, past all this.
        logging.raiseExceptions = False
        root.handlers[:] = [handler]
        root.setLevel(self._for_libraries())
        logging.captureWarnings(capture=True)
        try:
            yield
        finally:
            logging.captureWarnings(capture=False)
            logging.raiseExceptions = raising
            root.handlers[:] = before
            root.setLevel(level)

    def _for_libraries(self) -> int:
        # At debug gRPC tells of every call that it found the running loop, and at info Alembic of each of its plugins:
        # what libraries tell is one level quieter than what we do, but their warnings are warnings.
        return logging.INFO if self._threshold < logging.INFO else max(self._threshold, logging.WARNING)

    def _masked(self, _logger: Any, _method: str, fields: Fields) -> Fields:
        kept = {name: value for name, value in fields.items() if name.startswith("_")}
        return {**self._masking.fields({n: v for n, v in fields.items() if n not in kept}), **kept}


def _json(fields: dict[str, Any], **_: Any) -> str:
    first = {name: fields.pop(name) for name in ("timestamp", "level", "event") if name in fields}
    return msgspec.json.encode(first | fields, enc_hook=str).decode()
