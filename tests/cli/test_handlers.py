from __future__ import annotations

from pathlib import Path

import pytest

from runner.cli.exits import Exit
from tests.cli.processes import CommandLine


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package that offers the task type `shout`; what it offers can be changed."""
    directory = tmp_path / "site"
    offers = directory / "shouting-1.0.dist-info"
    offers.mkdir(parents=True)
    code = 'class Shout:\n    """Says it \\x1b[2Jin capitals."""\n\n    async def run(self, attempt): ...\n'
    (directory / "shouting_of_cli_tests.py").write_text(code)
    (offers / "METADATA").write_text("Metadata-Version: 2.1\nName: shouting\nVersion: 1.0\n")
    (offers / "entry_points.txt").write_text("[alt_runner.handlers]\nshout = shouting_of_cli_tests:Shout\n")
    monkeypatch.syspath_prepend(str(directory))
    return offers / "entry_points.txt"


def test_every_task_type_is_told_with_its_parameters(command: CommandLine) -> None:
    done = command.process("handlers")
    assert (done.code, done.err) == (0, "")
    assert "ai_prompt and every word that nothing else claims\n  Ask an AI orchestrator.\n    prompt " in done.out
    (row,) = [line for line in done.out.splitlines() if line.split()[:1] == ["url"]]
    assert row.split() == ["url", "text", "required", "Begins", "with", "http://", "or", "https://."]
    assert list(command.directory.iterdir()) == [], "it leaves nothing behind"


def test_only_the_types_that_are_asked_for_are_told(command: CommandLine) -> None:
    told = command("handlers", "delay", "python", "delay", "--json").lines
    assert [each["task_types"] for each in told] == [["delay"], ["python"]]
    done = command("handlers", "dleay")
    assert (done.code, done.out) == (2, "")
    assert done.err.endswith("goes to the AI orchestrator; did you mean `delay`?\n")


def test_with_json_there_is_an_object_for_each(command: CommandLine) -> None:
    told = {each["task_types"][0]: each for each in command("handlers", "--json").lines}
    assert told["python"]["parameters"] == [
        {"name": "function", "type": "text", "required": True, "meaning": "`package.module:name`."},
        {"name": "arguments", "type": "object", "required": False, "default": {}, "meaning": "Passed by name."},
    ]
    assert [name for name, each in told.items() if each["takes_others"]] == ["ai_prompt"]


def test_those_of_installed_packages_are_listed_and_do_not_steer_the_terminal(
    command: CommandLine, package: Path
) -> None:
    done = command("handlers")
    assert "shout, from package shouting\n  Says it \N{REPLACEMENT CHARACTER}[2Jin capitals.\n" in done.out
    assert command("handlers", "--json").lines[-1]["parameters"] is None
    package.write_text("[alt_runner.handlers]\nshout = shouting_of_cli_tests:Missing\n")
    broken = command("handlers")
    assert broken.code == Exit.USAGE
    assert "the handler `shout` of package `shouting`" in broken.err
