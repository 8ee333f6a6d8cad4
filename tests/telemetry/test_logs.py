"""Logs: one line an event, JSON or readable, the standard library's included, secrets never."""

from __future__ import annotations

import errno
import io
import json
import logging
import sys
import warnings
from typing import Any

import pytest

from runner.core.secret import Secret
from runner.telemetry.logs import Logs
from runner.telemetry.masking import Masking
from runner.telemetry.settings import LogFormat, LogLevel, LogSettings

HIDDEN = "corn-flakes-at-dawn"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def logs(stream: io.StringIO, **settings: Any) -> Logs:
    return Logs(LogSettings(**settings), Masking({"cereal": HIDDEN}), stream)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_json_is_one_object_a_line_with_level_time_and_fields() -> None:
    stream = io.StringIO()
    logs(stream).write(logging.INFO, "job_accepted", {"job_id": "1", "title": "Haftalık özet\n"})
    [line] = lines(stream)
    assert list(line) == ["timestamp", "level", "event", "job_id", "title"]
    assert line["event"] == "job_accepted"
    assert line["level"] == "info"
    assert line["title"] == "Haftalık özet\n"
    assert "Haftalık" in stream.getvalue()


def test_auto_is_json_in_a_file_and_readable_on_a_terminal() -> None:
    file, terminal = io.StringIO(), Terminal()
    for stream in (file, terminal):
        logs(stream, format=LogFormat.AUTO).write(logging.INFO, "job_accepted", {"job_id": "1"})
    assert lines(file)[0]["job_id"] == "1"
    assert "job_accepted" in terminal.getvalue()
    assert "\x1b[" in terminal.getvalue()
    assert not terminal.getvalue().startswith("{")


def test_libraries_tell_one_level_less_than_the_daemon() -> None:
    stream = io.StringIO()
    told = logs(stream, level=LogLevel.INFO)
    with told.listening():
        logging.getLogger("alembic").info("plugin")
        logging.getLogger("alembic").warning("odd")
        told.set_level(LogLevel.DEBUG)
        logging.getLogger("grpc").debug("found the loop")
        logging.getLogger("grpc").info("listening")
    assert [line["event"] for line in lines(stream)] == ["odd", "listening"]


def test_text_in_a_file_has_no_colours() -> None:
    stream = io.StringIO()
    logs(stream, format=LogFormat.TEXT).write(logging.INFO, "job_accepted", {"job_id": "1"})
    assert "\x1b[" not in stream.getvalue()


def test_the_level_holds_and_may_change() -> None:
    stream = io.StringIO()
    told = logs(stream, level=LogLevel.WARNING)
    told.write(logging.INFO, "quiet", {})
    told.set_level(LogLevel.DEBUG)
    told.write(logging.DEBUG, "loud", {})
    assert [line["event"] for line in lines(stream)] == ["loud"]


def test_the_standard_librarys_loggers_and_warnings_write_here_too_and_only_inside() -> None:
    stream = io.StringIO()
    before = logging.getLogger().handlers[:]
    with logs(stream).listening(), warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.getLogger("aiohttp.client").warning("closed by %s", "peer")
        logging.getLogger("quiet").debug("not told")
        warnings.warn("old", DeprecationWarning, stacklevel=1)
        try:
            int(HIDDEN)
        except ValueError:
            logging.getLogger("alembic").exception("migration")
    assert logging.getLogger().handlers == before
    first, second, third = lines(stream)
    assert (first["event"], first["logger"], first["level"]) == ("closed by peer", "aiohttp.client", "warning")
    assert "DeprecationWarning: old" in second["event"]
    assert "ValueError" in third["exception"]
    assert HIDDEN not in stream.getvalue()


def test_no_secret_gets_into_a_line_by_any_way() -> None:
    for form in (LogFormat.JSON, LogFormat.TEXT):
        stream = io.StringIO()
        told = logs(stream, format=form)
        told.write(
            logging.INFO,
            f"event {HIDDEN}",
            {
                "a": Secret(HIDDEN),
                "api_key": "anything",
                "Authorization": "anything",
                "nested": {"list": [f"x{HIDDEN}x", {"password": "anything"}]},
                "header": "Bearer anything-at-all",
                "url": "http://me:anything@host/x",
                "error": ValueError(HIDDEN),
            },
        )
        assert HIDDEN not in stream.getvalue()
        assert "anything" not in stream.getvalue()


def test_numbers_that_are_named_like_credentials_stay() -> None:
    stream = io.StringIO()
    logs(stream).write(logging.INFO, "job_started", {"lease_token": 7, "prompt_tokens": 5})
    assert lines(stream)[0]["lease_token"] == 7
    assert lines(stream)[0]["prompt_tokens"] == 5


def test_what_json_does_not_know_becomes_text() -> None:
    stream = io.StringIO()
    logs(stream).write(logging.INFO, "odd", {"value": {1}, "bytes": b"\xff"})
    assert lines(stream)[0]["value"] == "{1}"


class Breaking(io.StringIO):
    """A stream with a fault that comes and goes."""

    fault: Exception | None = None

    def flush(self) -> None:
        if self.fault is not None:
            raise self.fault


@pytest.mark.parametrize("fault", [OSError(errno.ENOSPC, "full"), BrokenPipeError(), ValueError("closed file")])
def test_a_log_that_cannot_be_written_breaks_nothing_and_tells_afterwards_what_is_missing(fault: Exception) -> None:
    stream, lost = Breaking(), []
    told = Logs(LogSettings(), Masking(), stream, dropped=lambda: lost.append(1))
    with told.listening():
        stream.fault = fault
        told.write(logging.INFO, "one", {})
        logging.getLogger("alembic").warning("two")
        assert len(lost) == 2
        stream.fault = None
        told.write(logging.INFO, "three", {})
        told.write(logging.INFO, "four", {})
    assert [(line["event"], line.get("count")) for line in lines(stream)][-3:] == [
        ("three", None),
        ("log_lines_dropped", 2),
        ("four", None),
    ]


def test_a_library_s_line_that_cannot_be_formatted_is_not_told_past_the_log(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with logs(io.StringIO()).listening():
        logging.getLogger("alembic").warning("%d", "no number")
    assert capsys.readouterr().err == ""
    assert logging.raiseExceptions


def test_where_standard_error_is_closed_lines_are_only_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    lost: list[int] = []
    told = Logs(LogSettings(), Masking(), dropped=lambda: lost.append(1))
    with told.listening():
        told.write(logging.INFO, "one", {})
        logging.getLogger("alembic").warning("two")
    assert len(lost) == 2
