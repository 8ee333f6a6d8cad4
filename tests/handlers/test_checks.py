"""What our own handlers find wrong before anything runs."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from runner.core.alt import Kinds, ParameterProblem, decode
from runner.core.errors import InvalidDescriptor, InvalidSettings
from runner.core.findings import Finding
from runner.core.prompt import Answer, Prompt
from runner.handlers.approval import ApprovalParameters
from runner.handlers.checks import kinds_of
from runner.handlers.parameters import read
from runner.handlers.registry import open_handlers
from runner.handlers.settings import CodeExecutorSettings, FileOperationSettings, PythonSettings, SystemCommandSettings
from runner.ports import Attempt, Outcome

EXAMPLES = {path.name: path.read_bytes() for path in (Path(__file__).parents[2] / "examples").glob("*.alt*")}
ALLOWING: dict[str, Any] = {
    "python": PythonSettings(allow=("json",)),
    "system_command": SystemCommandSettings(allow=("/bin/echo",), allow_env=("LANG",)),
    "code_executor": CodeExecutorSettings(languages={"python": ("python3", "{code}.py")}),
}


class Mute:
    """An Orchestrator that is never asked."""

    async def ask(self, prompt: Prompt, on_text: Callable[[str], Awaitable[None]]) -> Answer:
        raise NotImplementedError

    async def health(self) -> None: ...


async def ours(*, settings_known: bool = True, **settings: Any) -> Kinds:
    async with open_handlers({"main": Mute()}, **settings) as handlers:
        return kinds_of(handlers, settings_known=settings_known)


def findings(kinds: Kinds, task_type: str, **parameters: Any) -> list[tuple[str, str]]:
    """Reasons and paths of a task's errors; of its warnings, in lower case."""
    task = {"id": "a", "description": "d", "parameters": {"task_type": task_type, **parameters}}
    file = {"id": "a", "version": "1", "title": "t", "created_at": "2025-04-26T19:32:00Z", "tasks": [task]}
    errors: tuple[Finding, ...] = ()
    try:
        warnings = decode(json.dumps(file).encode(), kinds=kinds).warnings
    except InvalidDescriptor as refused:
        errors, warnings = refused.findings, refused.warnings
    told = [(finding.reason, finding.path) for finding in errors]
    told += [(finding.reason.lower(), finding.path) for finding in warnings]
    return [(reason, path.removeprefix("tasks[0].parameters").removeprefix(".")) for reason, path in told]


@pytest.mark.parametrize(
    ("task_type", "parameters", "found"),
    [
        ("http_request", {"url": "${inputs.u}/a", "json": {"a": "${inputs.n}"}, "data": None}, []),
        ("http_request", {"url": "ftp://a", "json": 1, "form": {}}, [("BAD_VALUE", "url"), ("BAD_VALUE", "")]),
        ("http_request", {"url": "http://a", "response": "jsn"}, [("UNKNOWN_WORD", "response")]),
        ("http_request", {"url": "http://a", "header": {}}, [("unknown_parameter", "header")]),
        ("delay", {}, [("MISSING_PARAMETER", "seconds")]),
        ("delay", {"seconds": -1}, [("OUT_OF_RANGE", "seconds")]),
        ("delay", {"duration_seconds": "${inputs.n}"}, []),
        ("delay", {"secnds": 1}, [("MISSING_PARAMETER", "seconds"), ("unknown_parameter", "secnds")]),
        ("data_processing", {"expression": "a[", "input": 1}, [("BAD_VALUE", "expression")]),
        ("data_processing", {"expression": "a[0]", "input": None}, []),
        ("data_processing", {"expression": "${inputs.n}[", "input": "${inputs.n}"}, []),
        ("data_processing", {}, [("MISSING_PARAMETER", "expression"), ("MISSING_PARAMETER", "input")]),
        ("python", {"function": "json:dumps", "arguments": {"obj": 1}}, []),
        ("python", {"function": "os:getcwd"}, [("NOT_ALLOWED", "function")]),
        ("python", {"function": "json.dumps"}, [("BAD_VALUE", "function")]),
        ("python", {"function": "json:dumps", "arguments": []}, [("BAD_TYPE", "arguments")]),
        ("system_command", {"command": "echo hello"}, []),
        ("system_command", {"command": ["/bin/echo", "${inputs.n}"], "env": {"LANG": "${inputs.n}"}}, []),
        ("system_command", {"command": ["${inputs.n}", "x"]}, []),
        ("system_command", {"command": ["rm", "${inputs.n}"]}, [("NOT_ALLOWED", "command")]),
        ("system_command", {"command": "echo 'open"}, [("BAD_VALUE", "command")]),
        ("system_command", {"command": []}, [("BAD_VALUE", "command")]),
        ("system_command", {"command": "echo", "env": {"PATH": "."}}, [("NOT_ALLOWED", "env")]),
        ("system_command", {"command": "echo", "success_codes": [0, 256]}, [("OUT_OF_RANGE", "success_codes[1]")]),
        ("code_executor", {"language": "python", "code": "1"}, []),
        ("code_executor", {"language": "cobol", "code": "1"}, [("NOT_ALLOWED", "language")]),
        ("file_operation", {"operation": "list"}, []),
        ("file_operation", {"operation": "reed", "path": "a"}, [("UNKNOWN_WORD", "operation")]),
        ("file_operation", {"operation": "write", "path": "a"}, [("MISSING_PARAMETER", "content")]),
        ("file_operation", {"operation": "write", "path": "../a", "content": None}, [("BAD_VALUE", "path")]),
        ("file_operation", {"operation": "move", "path": "a"}, [("MISSING_PARAMETER", "destination")]),
        ("file_operation", {"operation": "${inputs.n}"}, []),
        ("approval", {"default": "accept", "deadline_seconds": 0}, None),
        ("ai_prompt", {"endpoint": "main", "temperature": 0.2, "anything": {}}, []),
        ("ai_prompt", {"endpoint": "mian", "max_tokens": 0}, None),
        ("search", {"endpoint": "mian"}, [("NOT_ALLOWED", "endpoint")]),
        ("manual_trigger", {"input": 5}, []),
    ],
)
async def test_a_task_is_checked_by_its_handler(
    task_type: str, parameters: dict[str, Any], found: list[tuple[str, str]] | None
) -> None:
    told = findings(await ours(**ALLOWING), task_type, **parameters)
    if found is None:
        assert len(told) == 2
    else:
        assert sorted(told) == sorted(found)


async def test_what_only_settings_forbid_is_a_warning_where_the_daemon_is_not_known() -> None:
    tasks: list[tuple[str, dict[str, Any]]] = [
        ("system_command", {"command": "echo"}),
        ("code_executor", {"language": "python", "code": "1"}),
        ("python", {"function": "json:dumps"}),
        ("file_operation", {"operation": "list"}),
    ]
    off: dict[str, Any] = {"file_operation": FileOperationSettings(enabled=False)}
    known, unknown = await ours(**off), await ours(settings_known=False, **off)
    for task_type, parameters in tasks:
        assert [reason for reason, _ in findings(known, task_type, **parameters)] == ["NOT_ALLOWED"]
        assert [reason for reason, _ in findings(unknown, task_type, **parameters)] == ["not_allowed"]


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    sides: int


class Draw:
    """A third party's Handler."""

    parameters = Shape

    def check(self, parameters: Mapping[str, Any]) -> Iterator[ParameterProblem]:
        if parameters["sides"] < 3:
            yield ParameterProblem(name="sides", message="A shape has three sides or more.")

    async def run(self, attempt: Attempt) -> Outcome:
        return Outcome()


class Nonsense(Draw):
    class parameters(msgspec.Struct):  # noqa: N801 - the attribute's name
        sides: "NoSuchType"  # type: ignore[name-defined]  # noqa: F821, UP037 - that it is not there is the point


def test_handlers_of_others_count_as_well() -> None:
    kinds = kinds_of({"draw": Draw()})
    assert findings(kinds, "draw", sides=4) == []
    assert findings(kinds, "draw", sides=2) == [("BAD_VALUE", "sides")]
    assert findings(kinds, "draw", sides="2") == [("BAD_TYPE", "sides"), ("bad_value", "")]
    assert findings(kinds, "unclaimed", sides="2") == []


def test_a_check_that_fails_is_told_and_refuses_nothing() -> None:
    file = findings(kinds_of({"draw": Draw()}), "draw", sides="${inputs.n}")
    assert file == [("bad_value", "")]


def test_parameters_that_cannot_be_read_are_told_with_the_handler() -> None:
    with pytest.raises(InvalidSettings, match="the parameters of handler `draw` cannot be read: name 'NoSuchType'"):
        kinds_of({"draw": Nonsense()})


def test_a_null_is_left_out_when_it_runs_as_when_it_is_checked() -> None:
    given = {"message": None, "deadline_seconds": None, "default": None}
    assert read(given, ApprovalParameters) == ApprovalParameters()


@pytest.mark.parametrize("name", EXAMPLES)
async def test_handlers_find_nothing_wrong_with_an_example(name: str) -> None:
    """But for what the settings of a daemon must allow."""
    warnings = decode(EXAMPLES[name], kinds=await ours(settings_known=False)).warnings
    assert {warning.reason for warning in warnings} <= {"NOT_ALLOWED"}
