from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from runner.core.errors import AttemptError
from runner.handlers.commands import RunCommand
from runner.handlers.settings import ProgramLimits, SystemCommandSettings
from runner.ports import Bulkhead
from runner.testing import FakeAttempt

SETTINGS = SystemCommandSettings(
    allow=("echo", "sh", "env", "cat", "/bin/ls", "no-such-program"), allow_env=("COLOUR", "LANG")
)


async def run(settings: SystemCommandSettings = SETTINGS, **parameters: Any) -> dict[str, Any]:
    output: dict[str, Any] = (await RunCommand(settings).run(FakeAttempt(parameters))).output
    return output


async def failure(settings: SystemCommandSettings = SETTINGS, **parameters: Any) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        await run(settings, **parameters)
    return caught.value


async def test_it_is_off_by_default_and_says_how_it_is_turned_on() -> None:
    error = await failure(SystemCommandSettings(), command="echo")
    assert (error.reason, error.retryable) == ("COMMAND_NOT_ALLOWED", False)
    assert error.message == (
        "`system_command` is off; to turn it on, name programs in the setting `system_command.allow`"
    )


async def test_the_output_tells_all_of_a_program() -> None:
    assert await run(command="sh -c 'echo out; echo no >&2'") == {
        "exit_code": 0,
        "stdout": "out\n",
        "stderr": "no\n",
        "truncated": False,
        "stdout_bytes": 4,
        "stderr_bytes": 3,
    }


@pytest.mark.parametrize(
    "command", ["rm -r x", "/usr/bin/sh", "./sh", "../bin/sh", "bin/sh", "ls", "/bin/../bin/ls", "*"]
)
async def test_what_is_not_allowed_is_refused_and_the_setting_named(command: str) -> None:
    """A program counts as what the operator wrote: `ls` in another directory would be another one."""
    settings = SystemCommandSettings(allow=("echo", "/bin/ls"), path=("/usr/bin",))
    error = await failure(settings, command=command)
    assert (error.reason, error.retryable) == ("COMMAND_NOT_ALLOWED", False)
    assert error.message.endswith("the setting `system_command.allow` allows only `echo`, `/bin/ls`")


async def test_a_program_is_allowed_by_name_or_by_path(tmp_path: Path) -> None:
    for name in ("mine", "other"):
        (tmp_path / name).write_text(f"#!/bin/sh\necho {name}\n")
        (tmp_path / name).chmod(0o755)
    mine, other = str(tmp_path / "mine"), str(tmp_path / "other")
    settings = SystemCommandSettings(allow=("mine", other), path=(str(tmp_path), "/bin"))
    for command, told in (("mine", "mine"), (mine, "mine"), ("other", "other"), (other, "other")):
        assert (await run(settings, command=[command]))["stdout"] == f"{told}\n"


async def test_an_allowed_program_that_is_not_there_is_told() -> None:
    error = await failure(command="no-such-program")
    assert (error.reason, error.retryable) == ("COMMAND_NOT_FOUND", False)
    assert "setting `system_command.path`" in error.message


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"command": "echo a  'b  c' \"d\"e\\ f"}, "a b  c de f\n"),
        ({"command": "echo $HOME; ls `id` > x && y | z"}, "$HOME; ls `id` > x && y | z\n"),
        ({"command": ["echo", "a b", "*"]}, "a b *\n"),
        ({"command": "echo one", "args": ["two  three", "'"]}, "one two  three '\n"),
        ({"command": ["cat"], "stdin": "şunu oku"}, "şunu oku"),
    ],
)
async def test_words_reach_a_program_as_they_stand_and_no_shell(parameters: dict[str, Any], told: str) -> None:
    assert (await run(**parameters))["stdout"] == told


async def test_variables_that_are_allowed_are_set() -> None:
    lines = (await run(command="env", env={"COLOUR": "green", "LANG": "tr_TR.UTF-8"}))["stdout"].splitlines()
    assert {"COLOUR=green", "LANG=tr_TR.UTF-8"} <= set(lines)
    assert len([line for line in lines if line.startswith("LANG=")]) == 1


async def test_other_variables_are_refused_and_the_setting_named() -> None:
    error = await failure(command="env", env={"LD_PRELOAD": "x"})
    assert (error.reason, error.retryable) == ("VARIABLE_NOT_ALLOWED", False)
    assert "`LD_PRELOAD`" in error.message
    assert "setting `system_command.allow_env` allows only `COLOUR`" in error.message


async def test_of_many_programs_that_are_allowed_ten_are_told() -> None:
    error = await failure(SystemCommandSettings(allow=tuple(f"tool{number}" for number in range(13))), command="ls")
    assert error.message.endswith(
        "`system_command.allow` allows only " + ", ".join(f"`tool{n}`" for n in range(10)) + " and 3 more"
    )


async def test_an_exit_code_other_than_zero_fails_unless_it_is_declared_a_success() -> None:
    error = await failure(command="sh -c 'echo why >&2; exit 3'")
    assert (error.reason, error.retryable) == ("EXIT_STATUS", True)
    assert error.message.endswith("sh` exited with 3; it said last: why")
    output = await run(command="sh -c 'echo why >&2; exit 3'", success_codes=[0, 3])
    assert (output["exit_code"], output["stderr"]) == (3, "why\n")
    assert (await failure(command="echo", success_codes=[1])).reason == "EXIT_STATUS"


async def test_a_time_out_of_its_own_is_one() -> None:
    error = await failure(command="sh -c 'while :; do sleep 0.01; done'", timeout=0.2)
    assert (error.reason, error.retryable) == ("TIMED_OUT", True)


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({}, "parameter `command` is missing"),
        ({"command": ""}, "parameter `command` is empty"),
        ({"command": []}, "parameter `command` is empty"),
        ({"command": ["", "x"]}, "parameter `command` is empty"),
        ({"command": "echo 'open"}, "parameter `command` cannot be split into words: No closing quotation"),
        ({"command": ["echo", "a\0b"]}, "parameter `command` holds a NUL character"),
        ({"command": "env", "env": {"COLOUR": "a\0b"}}, "parameter `env` holds a NUL character"),
        ({"command": ["echo", 5]}, "parameter `command[1]` is wrong: expected `str`, got `int`"),
        ({"command": "echo", "timeout": 0}, "parameter `timeout` is wrong"),
        ({"command": "echo", "success_codes": [256]}, "parameter `success_codes[0]` is wrong"),
    ],
)
async def test_parameters_that_cannot_be_used_are_told(parameters: dict[str, Any], told: str) -> None:
    error = await failure(**parameters)
    assert (error.reason, error.retryable) == ("INVALID_PARAMETERS", False)
    assert told in error.message


async def test_only_so_many_programs_run_at_a_time() -> None:
    settings = SystemCommandSettings(limits=ProgramLimits(max_concurrent=3))
    assert RunCommand(settings).bulkhead(FakeAttempt().task) == Bulkhead("system_command", 3)


@pytest.mark.parametrize("wrong", [{"allow": ("./x",)}, {"allow": ("",)}, {"path": ("bin",)}])
def test_settings_that_would_depend_on_the_working_directory_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must hold"):
        SystemCommandSettings(**wrong)
