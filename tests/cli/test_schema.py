from __future__ import annotations

import json

from jsonschema import Draft202012Validator

from runner.cli.exits import Exit
from runner.cli.schema import Dialect
from runner.core.alt.json_schema import DIALECTS
from tests.cli.processes import CommandLine, Write


def test_a_schema_is_printed_for_editors(command: CommandLine, descriptor: Write) -> None:
    file = json.loads(descriptor(a={"prompt": "x"}).read_text())
    done = command.process("schema", "tasks")
    assert (done.code, done.err) == (0, "")
    validator = Draft202012Validator(done.json)
    assert validator.is_valid(file)
    assert not validator.is_valid(file | {"mode": "dreem"})
    assert command("schema", "segments").json["title"] == "alt-runner descriptor, dialect segments 1.0 and 2.0"
    assert command("schema", "tasks", "--json").lines == [done.json]


def test_without_a_dialect_it_takes_any(command: CommandLine, descriptor: Write) -> None:
    file = json.loads(descriptor(a={"prompt": "x"}).read_text())
    assert Draft202012Validator(command("schema").json).is_valid(file)
    assert tuple(Dialect) == DIALECTS
    done = command("schema", "nonsense")
    assert (done.code, done.out) == (Exit.USAGE, "")
