"""The command line: in this process, as one of its own, or as the program that people start."""

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

from runner.cli import application, main
from tests.processes import Process, Surroundings

#: `alt-runner`, without the need to have it on the path. Whoever runs the tests may have SIGINT ignored, and a child
#: inherits that. It is undone in the program itself: code between fork and exec (`preexec_fn`) is run in a copy of this
#: process, in which gRPC has threads, and now and then that copy died of it before there was a program.
_PROGRAM = (
    sys.executable,
    "-c",
    "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from runner.cli import main; main()",
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
        """Run a command as a process of its own."""
        with self.started(*arguments, env=env) as process:
            out, err = process.communicate(timeout=30)
            return Done(process.wait(), out, err)

    def started(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Process:
        """A command that runs inside the context; killed at its end if it still does."""
        return Process(main, surroundings=Surroundings(self.directory, self.environment(env), [*map(str, arguments)]))

    def program(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Done:
        """Run a command as people do: Python starts, and imports what it needs."""
        with self.executed(*arguments, env=env) as process:
            out, err = process.communicate(timeout=30)
            return Done(process.returncode, out, err)

    @contextmanager
    def executed(self, *arguments: str | Path, env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
        """As `started`, but as people do it."""
        with subprocess.Popen(
            [*_PROGRAM, *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            cwd=self.directory,
            env=self.environment(env),
        ) as process:
            try:
                yield process
            finally:
                process.kill()


def first_line(process: Process | subprocess.Popen[str]) -> Any:
    """The JSON that a server prints when it is ready."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        assert process.stderr is not None
        pytest.fail(f"it did not start: {process.stderr.read()}")
    return json.loads(line)


Write = Callable[..., Path]
