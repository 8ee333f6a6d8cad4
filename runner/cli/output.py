"""What goes where: results to standard output, everything else to standard error; JSON one object a line."""

from __future__ import annotations

import json
import os
import sys
from io import StringIO, TextIOWrapper
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TextIO

from runner.cli.exits import Unusable

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from runner.core.findings import Finding


#: Columns where there is no terminal that has a width.
_PIPED: Final = 200


def line(text: str) -> None:
    """A line of the result, seen by a reader at once. Whatever it quotes, it does not steer a terminal."""
    _write(sys.stdout, _harmless(text))


def raw(content: bytes) -> None:
    """Bytes of the result as they are."""
    sys.stdout.flush()
    sys.stdout.buffer.write(content)
    sys.stdout.buffer.flush()


def notice(text: str) -> None:
    """A line about the result; as harmless."""
    _write(sys.stderr, _harmless(text))


def json_line(value: Any) -> None:
    """A result as JSON on a line of its own."""
    _write(sys.stdout, as_json(value))


def json_notice(value: Any) -> None:
    """JSON about the result."""
    _write(sys.stderr, as_json(value))


def as_json(value: Any) -> str:
    """JSON on one line."""
    return json.dumps(value, ensure_ascii=False, default=str)


def _write(stream: TextIO, text: str) -> None:
    stream.write(f"{text}\n")
    stream.flush()


def _harmless(text: str) -> str:
    from runner.reports.standing import harmless

    return harmless(text)


def unbreakable() -> None:
    """Let no character fail for want of a glyph in the terminal's encoding."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def console(*, stderr: bool = False, piped_width: int = _PIPED) -> Console:
    """For tables and colours. Colours only on a terminal and without `NO_COLOR`; what is piped is not wrapped."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(
        stderr=stderr,
        highlight=False,
        markup=False,
        emoji=False,
        soft_wrap=False,
        width=None if stream.isatty() else piped_width,
    )


def show(*renderables: RenderableType) -> None:
    """Parts of the result."""
    shown = console()
    if shown.is_terminal:
        shown.print(*renderables, sep="\n")
        return
    _write(sys.stdout, plain(*renderables).removesuffix("\n"))


def plain(*renderables: RenderableType) -> str:
    """Parts of the result as lines for a file, or for a pipe."""
    from rich.console import Console

    lines = StringIO()
    shown = Console(file=lines, width=_PIPED, color_system=None, highlight=False, markup=False, emoji=False)
    shown.print(*renderables, sep="\n")
    # A table fills its last column with spaces, which nobody wants in a file.
    return "".join(f"{text.rstrip()}\n" for text in lines.getvalue().splitlines())


def write_file(path: Path, text: str) -> None:
    """The result into a file. Raises Unusable: if that cannot be written."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise Unusable(f"cannot write `{path}`: {error.strerror or error}") from error


def close_quietly() -> None:
    """Whoever read our output is gone: let nothing complain about it on the way out."""
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, sys.stdout.fileno())


def message_json(message: Any) -> dict[str, Any]:
    """A protobuf message in its JSON form, names as in the `.proto`, fields without a value included."""
    from google.protobuf.json_format import MessageToDict

    content: dict[str, Any] = MessageToDict(
        message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
    )
    return content


def finding_json(finding: Finding) -> dict[str, Any]:
    """A finding; the same fields as `altrunner.v1.Finding`, all of them."""
    return {name: getattr(finding, name) for name in finding.__struct_fields__}


def error_json(error: Exception, code: int) -> dict[str, Any]:
    """What `--json` prints to standard error instead of a sentence."""
    content: dict[str, Any] = {"exit_code": code, "reason": getattr(error, "reason", ""), "message": str(error)}
    if findings := getattr(error, "findings", ()):
        content["findings"] = [finding_json(finding) for finding in findings]
    if retry_after := getattr(error, "retry_after", None):
        content["retry_after_seconds"] = retry_after
    return {"error": content}
