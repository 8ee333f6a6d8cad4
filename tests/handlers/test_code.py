from __future__ import annotations

import sys
from typing import Any

import pytest

from runner.core.errors import AttemptError
from runner.handlers.code import RunCode
from runner.handlers.settings import CodeExecutorSettings, ProgramLimits
from runner.ports import Bulkhead
from runner.testing import FakeAttempt

SETTINGS = CodeExecutorSettings(
    languages={
        "python": (sys.executable, "-I", "-S", "{code}.py"),
        "python-typed": (sys.executable, "-I", "-S", "-"),
        "sh": ("sh", "{code}"),
        "missing": ("no-such-program",),
    },
    limits=ProgramLimits(max_output_bytes=1000),
)


async def run(code: str, language: str = "python", **parameters: Any) -> dict[str, Any]:
    attempt = FakeAttempt({"language": language, "code": code, **parameters})
    output: dict[str, Any] = (await RunCode(SETTINGS).run(attempt)).output
    return output


async def failure(code: str, language: str = "python", **parameters: Any) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        await run(code, language, **parameters)
    return caught.value


async def test_it_is_off_by_default_and_says_how_it_is_turned_on() -> None:
    with pytest.raises(AttemptError) as caught:
        await RunCode(CodeExecutorSettings()).run(FakeAttempt({"language": "python", "code": "1"}))
    assert (caught.value.reason, caught.value.retryable) == ("LANGUAGE_NOT_ALLOWED", False)
    assert caught.value.message == (
        "`code_executor` is off; to turn it on, name languages in the setting `code_executor.languages`"
    )


async def test_a_language_that_is_not_allowed_is_refused_and_the_setting_named() -> None:
    error = await failure("1", "cobol")
    assert (error.reason, error.retryable) == ("LANGUAGE_NOT_ALLOWED", False)
    assert error.message == (
        "code in `cobol` may not be run; the setting `code_executor.languages` allows "
        "only `python`, `python-typed`, `sh`, `missing`"
    )


async def test_a_language_whose_program_is_not_there_is_told() -> None:
    error = await failure("1", "missing")
    assert (error.reason, error.retryable) == ("COMMAND_NOT_FOUND", False)
    assert (
        "`no-such-program`, which setting `code_executor.languages` names for `missing`, is not there" in error.message
    )


@pytest.mark.parametrize("language", ["python", "python-typed"])
async def test_code_runs_from_a_file_or_from_standard_input(language: str) -> None:
    assert await run("print('selam, dünya')", language) == {
        "exit_code": 0,
        "stdout": "selam, dünya\n",
        "stderr": "",
        "truncated": False,
        "stdout_bytes": 14,
        "stderr_bytes": 0,
    }


async def test_the_file_with_the_code_has_the_name_that_the_command_gives_it() -> None:
    assert (await run("print(__file__)"))["stdout"].endswith("/code.py\n")
    assert (await run("echo $0", "sh"))["stdout"] == "code\n"


@pytest.mark.parametrize("name", ["input", "inputs"])
@pytest.mark.parametrize("language", ["python", "python-typed"])
async def test_inputs_stand_in_a_file_and_the_last_line_is_the_result(name: str, language: str) -> None:
    code = (
        "import json; given = json.load(open('inputs.json')); print('adding'); print(json.dumps({'sum': sum(given)}))"
    )
    output = await run(code, language, **{name: [1, 2, 3.5]})
    assert output["result"] == {"sum": 6.5}
    assert output["stdout"] == 'adding\n{"sum": 6.5}\n'


@pytest.mark.parametrize(
    ("printed", "result"),
    [
        ('"text"', "text"),
        ("null", None),
        ("7\n\n \n", 7),
        ("7\n", 7),
        ("[1]\r\n", [1]),
        ("{\n}", ...),
        ("1 2", ...),
        ("done", ...),
        ("", ...),
        ("NaN", ...),
        ("[" * 900, ...),
        ("1" * 1001, ...),
        (" " * 1000 + "7", ...),
    ],
)
async def test_a_result_is_a_whole_last_line_of_json(printed: str, result: Any) -> None:
    output = await run(f"import sys; sys.stdout.write({printed!r})")
    assert output.get("result", ...) == result


@pytest.mark.parametrize(("given", "read"), [("as it is", "as it is"), ({"a": [1]}, '{"a":[1]}'), (None, "null")])
async def test_standard_input_is_a_text_or_json(given: Any, read: str) -> None:
    assert (await run("import sys; print(sys.stdin.read())", stdin=given))["stdout"] == f"{read}\n"


async def test_standard_input_that_the_code_itself_takes_is_refused() -> None:
    error = await failure("1", "python-typed", stdin="x")
    assert error.reason == "INVALID_PARAMETERS"
    assert error.message == (
        "parameter `stdin` cannot be given: `python-typed` takes its code there "
        "(setting `code_executor.languages`); use `inputs`"
    )


async def test_code_that_fails_tells_its_last_words() -> None:
    error = await failure("raise ValueError('no good')")
    assert (error.reason, error.retryable) == ("EXIT_STATUS", True)
    assert error.message.endswith("ValueError: no good")


async def test_code_that_takes_too_long_is_ended() -> None:
    error = await failure("while True: pass", timeout=0.3)
    assert (error.reason, error.retryable) == ("TIMED_OUT", True)


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"code": "1"}, "parameter `language` is missing"),
        ({"language": "python"}, "parameter `code` is missing"),
        ({"language": "python", "code": "1", "timeout": -1}, "parameter `timeout` is wrong"),
    ],
)
async def test_parameters_that_cannot_be_used_are_told(parameters: dict[str, Any], told: str) -> None:
    with pytest.raises(AttemptError) as caught:
        await RunCode(SETTINGS).run(FakeAttempt(parameters))
    assert caught.value.reason == "INVALID_PARAMETERS"
    assert told in caught.value.message


async def test_only_so_much_code_runs_at_a_time() -> None:
    settings = CodeExecutorSettings(limits=ProgramLimits(max_concurrent=2))
    assert RunCode(settings).bulkhead(FakeAttempt().task) == Bulkhead("code_executor", 2)


@pytest.mark.parametrize("command", [(), ("",), ("./python",)])
def test_settings_without_a_program_are_refused(command: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"`languages\.x` must begin with"):
        CodeExecutorSettings(languages={"x": command})
