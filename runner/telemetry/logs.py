"""Logs are events with fields: JSON for machines, a line for people. The standard library's loggers go through too."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any, Final, TextIO

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


class Logs:
    """Where log events go. Writing is synchronous: a line is out before the next thing happens."""

    def __init__(self, settings: LogSettings, masking: Masking, stream: TextIO | None = None) -> None:
        self._stream = sys.stderr if stream is None else stream
        self._masking = masking
        self._threshold = LEVELS[settings.level]
        text = settings.format is LogFormat.TEXT or (settings.format is LogFormat.AUTO and self._stream.isatty())
        shared: list[Any] = [
            structlog.contextvars.merge_contextvars,
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
            structlog.WriteLogger(self._stream),
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
        before, level = root.handlers[:], root.level
        root.handlers[:] = [handler]
        root.setLevel(self._for_libraries())
        logging.captureWarnings(capture=True)
        try:
            yield
        finally:
            logging.captureWarnings(capture=False)
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
