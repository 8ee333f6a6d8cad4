"""The command line, in this process or as one of its own."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from runner.cli import application

#: `alt-runner`, without the need to have it on the path. Whoever runs the tests may have SIGINT ignored, and a child
#: inherits that. It is undone in the program itself: code between fork and exec (`preexec_fn`) is run in a copy of this
#: process, in which gRPC has threads, and now and then that copy died of it before there was a program.
_START = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); "
_MAIN = "from runner.cli import main; main()"
PROGRAM = (sys.executable, "-c", _START + _MAIN)
#: The same, in a session of its own with its standard input as the terminal.
ON_TERMINAL = (
    sys.executable,
    "-c",
    f"import fcntl, os, termios; os.setsid(); fcntl.ioctl(0, termios.TIOCSCTTY, 0); {_START}{_MAIN}",
)


@dataclass(frozen=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """What it printed as one object."""
        return json.loads(self.out)

    @property
    def lines(self) -> list[Any]:
        """What it printed as one object a line."""
        return [json.loads(line) for line in self.out.splitlines()]


@dataclass(frozen=True)
class CommandLine:
    """Runs commands in a directory of their own, without the caller's environment."""

    directory: Path
    server: str = ""

    def environment(self, more: Mapping[str, str] | None = None) -> dict[str, str]:
        named = {"RUNNER_ADDRESS": self.server} if self.server else {}
        return {"PATH": "/usr/bin:/bin", "HOME": str(self.directory), "LC_ALL": "C.UTF-8", **named, **(more or {})}

    def __call__(self, *arguments: str | Path, stdin: bytes = b"", env: Mapping[str, str] | None = None) -> Done:
        """Run a command in this process, where its imports are paid for once."""
        cleared = {name: None for name in os.environ if name.startswith("RUNNER_")}
        with contextlib.chdir(self.directory):
            done = CliRunner().invoke(
                application(),
                [*map(str, arguments)],
                stdin,
                {**cleared, **self.environment(env)},
                prog_name="alt-runner",
            )
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Done(done.exit_code, done.stdout, done.stderr)

    def process(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Done:
        """Run a command as a process of its own, as people do."""
        done = subprocess.run(
            [*PROGRAM, *map(str, arguments)],
            capture_output=True,
            cwd=self.directory,
            env=self.environment(env),
            timeout=30,
            check=False,
        )
        return Done(done.returncode, done.stdout.decode(), done.stderr.decode())

    @contextmanager
    def started(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
        """A command that runs inside the context; killed at its end if it still does."""
        with subprocess.Popen(
            [*PROGRAM, *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=self.directory,
            env=self.environment(env),
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def first_line(process: subprocess.Popen[str]) -> Any:
    """The JSON that a server prints when it is ready."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        assert process.stderr is not None
        pytest.fail(f"it did not start: {process.stderr.read()}")
    return json.loads(line)


Write = Callable[..., Path]
