"""The live view, on a real terminal: a pseudo one."""

from __future__ import annotations

import os
import pty
import re
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from types import MappingProxyType

from runner.cli import main
from tests.cli.processes import CommandLine, Write
from tests.processes import Process, Surroundings

_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def on_a_terminal(
    alt: CommandLine,
    *arguments: str,
    types: Sequence[tuple[str, str]] = (),
    env: Mapping[str, str] = MappingProxyType({}),
) -> tuple[int, str]:
    """Exit code, and everything that was drawn. `types` are words to wait for, and what is typed then."""
    typing = list(types)
    ours, theirs = pty.openpty()
    environment = alt.environment({"TERM": "xterm-256color", "COLUMNS": "100", "LINES": "30", **env})
    # As a shell does it: Ctrl-C then is a signal.
    surroundings = Surroundings(alt.directory, environment, arguments, terminal=True)
    with Connection(theirs) as end, Process(main, surroundings=surroundings, stdio=(end, end, end)) as process:
        end.close()
        drawn, seen = b"", 0
        while chunk := _read(ours):
            drawn += chunk
            if typing and drawn[seen:].find(typing[0][0].encode()) >= 0:
                seen = len(drawn)
                os.write(ours, typing.pop(0)[1].encode())
        os.close(ours)
        return process.wait(30), drawn.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65_536)
    except OSError:
        return b""  # Linux says EIO once the other end is closed.


def test_a_terminal_gets_bars_and_streamed_text_and_a_pipe_gets_lines(alt: CommandLine, descriptor: Write) -> None:
    file = descriptor(title="Drawn", wait={"task_type": "delay", "duration_seconds": 0.6}, ask={"prompt": "Tell me"})
    code, drawn = on_a_terminal(alt, "submit", str(file), "--watch")
    assert code == 0
    text = _SEQUENCE.sub("", drawn)
    assert re.search(r"● Drawn +[━╸╺]+", text)
    assert re.search(r"● wait +[━╸╺]+ +\d+ ms", text)
    assert re.search(r"✓ Drawn +━+ +100%  2/2 tasks", text)
    assert "✓ wait                       succeeded" in text
    assert "\x1b[32m" in drawn
    assert "#1 accepted" not in text
    lines = alt("submit", file, "--watch").out
    assert "#1 accepted “Drawn”" in lines
    assert "━" not in lines
    assert "\x1b" not in lines


def test_no_color_is_respected_on_a_terminal(alt: CommandLine, descriptor: Write) -> None:
    file = descriptor(title="Grey", a={"task_type": "delay", "duration_seconds": 0.02})
    _, drawn = on_a_terminal(alt, "submit", str(file), "--watch", env={"NO_COLOR": "1"})
    assert "Grey" in drawn
    assert not re.search(r"\x1b\[[0-9;]*3[0-7]", drawn)


def test_more_tasks_than_lines_are_summed_up(alt: CommandLine, descriptor: Write) -> None:
    tasks = {f"t{number}": {"task_type": "delay", "duration_seconds": 0.3} for number in range(40)}
    code, drawn = on_a_terminal(alt, "submit", str(descriptor(title="Many", **tasks)), "--watch", env={"LINES": "12"})
    assert code == 0
    assert re.search(r"… \d+ more tasks; \d+ of 40 succeeded", _SEQUENCE.sub("", drawn))
