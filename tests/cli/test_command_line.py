"""What all commands share: start-up, help, usage, errors, pipes."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from runner import __version__
from runner.cli import application
from runner.cli.exits import MEANINGS
from tests.cli.processes import CommandLine, Write


def test_the_package_installs_it_as_alt_runner() -> None:
    (script,) = entry_points(group="console_scripts", name="alt-runner")
    assert script.value == "runner.cli:main"


_HEAVY = (
    "alembic",
    "litestar",
    "uvicorn",
    "opentelemetry.exporter",
    "sqlalchemy",
    "grpc",
    "aiohttp",
    "rich",
    "asyncio",
)


@pytest.mark.parametrize(
    ("arguments", "needed"),
    [
        (["--help"], 0),
        (["validate", "job.alt"], 3),
        (["run", "job.alt", "--simulate"], 5),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_command_loads_nothing_heavy_that_it_does_not_need(
    command: CommandLine, descriptor: Write, arguments: list[str], needed: int
) -> None:
    """Start-up stays fast. `needed`: how many of the last of the heavy ones."""
    descriptor(a={"task_type": "delay", "duration_seconds": 0})
    heavy = _HEAVY[: len(_HEAVY) - needed]
    program = (
        "import sys, runner.cli\n"
        f"sys.argv = ['alt-runner', *{arguments!r}]\n"
        "try: runner.cli.main()\n"
        f"except SystemExit: print([name for name in {heavy!r} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        cwd=command.directory,
        env=command.environment(),
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_help_tells_every_command_and_exit_code(command: CommandLine) -> None:
    done = command.program("--help")
    for word in ("submit", "watch", "get", "list", "cancel", "validate", "serve", "doctor", "simulate-", "last"):
        assert f"\n  {word}" in done.out
    assert "\n  3    a watched job partially succeeded" in done.out
    assert done.code == 0
    assert command("--version").out == f"alt-runner {__version__}\n"


def test_a_wrong_command_line_exits_with_2_and_says_what_was_meant(command: CommandLine) -> None:
    done = command("submot")
    assert (done.code, done.out) == (2, "")
    assert "Did you mean 'submit'?" in done.err
    done = command("--server", "no:port:here", "list")
    assert done.code == 2
    assert "write it as host:port" in done.err
    done = command("submit", "job.alt", "--priority", "urgent")
    assert done.code == 2
    assert "'--priority' / '-p': 'urgent' is not one of 'low', 'medium', 'high', 'critical'." in done.err


def test_nobody_at_the_address_exits_with_7_and_says_how_to_start_a_daemon(command: CommandLine) -> None:
    done = command.program("--server", "127.0.0.1:1", "list")
    assert (done.code, done.out) == (7, "")
    assert "start one with `alt-runner serve`" in done.err
    assert "Traceback" not in done.err


def test_with_json_an_error_is_an_object_on_standard_error(alt: CommandLine) -> None:
    """Both before and after the command, as all shared options."""
    for arguments in (("--json", "get", "nothing"), ("get", "nothing", "--json")):
        done = alt(*arguments)
        assert (done.code, done.out) == (8, "")
        assert '"reason": "JOB_NOT_FOUND"' in done.err
        assert '"exit_code": 8' in done.err


def test_a_defect_is_told_as_one_without_a_traceback(command: CommandLine) -> None:
    program = "import sys, runner.cli as cli\nsys.excepthook = cli._defect\nlen(5)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=command.environment(), check=False
    )
    assert done.returncode == 1
    assert done.stderr == (
        "alt-runner: this is a defect, please report it: TypeError: object of type 'int' has no len() (at __main__:3)\n"
    )


def test_a_reader_that_goes_away_is_no_error(alt: CommandLine, descriptor: Write) -> None:
    """As in `alt-runner watch JOB | head -1`."""
    job = alt("submit", descriptor(a={"task_type": "delay", "duration_seconds": 3})).out.strip()
    with alt.executed("watch", job) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert "#1 accepted" in process.stdout.readline()
        process.stdout.close()
        told = process.stderr.read()
        assert (process.wait(20), told) == (141, "")


def test_completion_is_there_for_shells(command: CommandLine) -> None:
    done = command.program(
        env={"_ALT_RUNNER_COMPLETE": "complete_bash", "COMP_WORDS": "alt-runner sub", "COMP_CWORD": "1"}
    )
    assert done.out.split() == ["submit"]


def test_what_is_piped_has_no_colours(alt: CommandLine, daemon: Any, descriptor: Write) -> None:
    alt("submit", descriptor(a={"task_type": "delay", "duration_seconds": 0.01}), "--watch")
    for arguments in (("list",), ("validate", "job.alt"), ("doctor", "--data-dir", daemon["directory"])):
        done = alt(*arguments)
        assert done.out
        assert "\x1b" not in done.out + done.err


def test_what_strangers_wrote_does_not_steer_the_terminal(alt: CommandLine, descriptor: Write) -> None:
    file = descriptor(title="\x1b[2J\u202eevil", a={"task_type": "delay", "duration_seconds": 0.01})
    job = alt("submit", file, "--json").json["job"]["job_id"]
    for arguments in (("watch", job), ("get", job), ("list", "-n", "1"), ("validate", file), ("submit", file)):
        done = alt(*arguments)
        assert done.code == 0
        assert "evil" in done.out + done.err
        assert not {"\x1b", "\u202e"} & set(done.out + done.err), arguments
    assert alt("get", job, "--json").json["title"] == "\x1b[2J\u202eevil"


def test_an_encoding_without_our_glyphs_is_no_error(command: CommandLine, descriptor: Write) -> None:
    done = command.program("validate", descriptor(a={"prompt": "x"}), env={"PYTHONIOENCODING": "latin-1"})
    assert (done.code, done.err) == (0, "")
    assert done.out.startswith("\\u2713 ")


def test_the_documentation_has_every_command_and_exit_code() -> None:
    text = (Path(__file__).parents[2] / "docs" / "command-line.md").read_text()
    for code, meaning in MEANINGS.items():
        assert f"| {code.value} | {meaning.split(';')[0].replace('interrupted', 'interrupted by Ctrl-C')}" in text
    for command in application().registered_commands:
        assert f"\n## {command.name}\n" in text
