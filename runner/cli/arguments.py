"""What people write for times, labels and inputs, as values."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final

from runner.cli.exits import Unusable

_AFTER: Final = re.compile(r"\+(?:(\d+)d)?(?:(\d+)h)?(?:(\d+)m)?(?:(\d+)s)?")


def moment(text: str, *, now: datetime, option: str) -> datetime | None:
    """The time that `2026-01-31T08:00:00Z` or `+1h30m` means; None for nothing.

    Raises Unusable: if it means none, or has no zone.
    """
    if not text:
        return None
    found = _AFTER.fullmatch(text)
    if found is not None and any(found.groups()):
        days, hours, minutes, seconds = (int(part or 0) for part in found.groups())
        try:
            return now + timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        except OverflowError as error:
            raise Unusable(f"{option}: `{text}` is too far away") from error
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        time = None
    if time is None or time.tzinfo is None:
        raise Unusable(
            f"{option}: `{text}` is no time; write one with a zone, such as 2026-01-31T08:00:00Z, or one from now, "
            "such as +5m, +1h30m, +2d"
        )
    return time


def pairs(entries: Sequence[str], *, option: str) -> dict[str, str]:
    """`key=value` texts.

    Raises Unusable: if one has no `=` or no key.
    """
    found = {}
    for entry in entries:
        key, equals, value = entry.partition("=")
        if not equals or not key.strip():
            raise Unusable(f"{option}: `{entry}` must be like name=value")
        found[key.strip()] = value
    return found


def inputs(entries: Sequence[str], file: Path | None) -> bytes:
    """The inputs of a job as a JSON object: those of the file, and over them those of the command line.

    A value is read as JSON where it is JSON, else it is a text. Raises Unusable: if the file holds no JSON object.
    """
    values = {} if file is None else _object(file)
    for key, value in pairs(entries, option="--input").items():
        values[key] = _json_or_text(value)
    return json.dumps(values, ensure_ascii=False).encode() if values else b""


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text, parse_constant=_refuse)
    except ValueError:
        return text


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_bytes(), parse_constant=_refuse)
    except OSError as error:
        raise Unusable(f"--inputs-file: cannot read `{file}`: {error.strerror or error}") from error
    except ValueError as error:
        raise Unusable(f"--inputs-file: `{file}` is not JSON: {error}") from error
    if not isinstance(content, dict):
        raise Unusable(f"--inputs-file: `{file}` must hold a JSON object, names to values")
    return content
