"""Questions of tasks in a run, which no other command could answer."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from tests.cli.processes import CommandLine, Done, Write
from tests.cli.test_live import on_a_terminal

ASK = {"task_type": "approval", "message": "Ship it?"}
QUICK = {"task_type": "delay", "duration_seconds": 0.02}
LONG = {"task_type": "delay", "duration_seconds": 600}
LOOP = """
id: l
version: '2.0'
timestamp: '2026-01-05T08:00:00Z'
command: Loop
language: en
mode: Normal
global_variables:
  - {name: items, type: array, value: [1, 2]}
segments:
  - {id: each, task_type: loop, content: l, loop: {type: for_each, variable: n, iterable: items, body: [ask]}}
  - {id: ask, task_type: approval, content: 'Ship ${variables.n}?'}
"""
_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


def run(command: CommandLine, *arguments: str | Path) -> Done:
    return command.process("run", *arguments)


def loop(command: CommandLine) -> Path:
    file = command.directory / "loop.alt.yaml"
    file.write_text(LOOP)
    return file


def records(command: CommandLine) -> list[Any]:
    return [json.loads(path.read_bytes()) for path in sorted(command.directory.glob("**/last_*.json"))]


def test_a_question_that_nobody_can_answer_is_told_before_anything_is_run(
    command: CommandLine, descriptor: Write
) -> None:
    file = descriptor(ask=ASK, a=QUICK)
    done = run(command, file)
    assert (done.code, done.out) == (2, "")
    assert "task `ask` asks for approval, and nobody can answer here; give --approve-all or --reject-all" in done.err
    assert "alt-runner approve" not in done.err
    assert json.loads(run(command, file, "--json").err)["error"]["exit_code"] == 2
    assert run(command, file, "--approve-all", "--reject-all").code == 2
    assert records(command) == []


def test_a_question_of_a_round_that_nobody_can_answer_ends_the_run_with_a_record(command: CommandLine) -> None:
    done = run(command, loop(command))
    assert done.code == 2
    assert "each[0]/ask: asks for approval: Ship 1?\n" in done.out
    assert "asks “Ship 1?”, and nobody can answer here" in done.err
    assert "alt-runner approve" not in done.out + done.err
    assert [record["metadata"]["cancelled"] for record in records(command)] == [True]


def test_all_questions_are_approved_those_of_rounds_too(command: CommandLine) -> None:
    done = run(command, loop(command), "--approve-all")
    assert done.code == 0
    assert "each[0]/ask: approved by alt-runner run" in done.out
    assert "each[1]/ask: approved by alt-runner run" in done.out
    [record] = records(command)
    assert record["task_results"]["each[1]/ask"]["output"]["by"] == "alt-runner run"


def test_all_questions_are_rejected(command: CommandLine, descriptor: Write) -> None:
    done = run(command, descriptor(ask=ASK, a=QUICK, after={"a": ["ask"]}), "--reject-all", "--json")
    assert done.code == 4
    [record] = records(command)
    assert record["task_results"]["ask"]["error"] == "NOT_APPROVED: rejected by alt-runner run"
    assert record["task_results"]["a"]["status"] == "cancelled"


def test_questions_of_jobs_that_tasks_run_are_answered_too(command: CommandLine, descriptor: Write) -> None:
    child = json.loads(descriptor("child.alt", ask=ASK).read_bytes())
    file = descriptor(run={"task_type": "job", "descriptor": child})
    assert run(command, file, "--approve-all").code == 0
    done = run(command, file)
    assert done.code == 2
    assert "nobody can answer here" in done.err


def test_a_question_with_a_deadline_is_waited_for(command: CommandLine, descriptor: Write) -> None:
    timed = {**ASK, "deadline_seconds": 0.1, "default": "approve"}
    done = run(command, descriptor(ask=timed))
    assert done.code == 0
    assert "ask: asks for approval: Ship it?\n" in done.out


def test_on_a_terminal_the_person_is_asked_and_the_bars_keep_away(command: CommandLine, descriptor: Write) -> None:
    file = descriptor(title="Asked", ask=ASK, also={**ASK, "message": "And this?", "on_reject": "continue"}, a=QUICK)
    types = [("approve? [y/n] ", "perhaps\n"), ("approve? [y/n] ", "y\n"), ("approve? [y/n] ", "No\n")]
    code, drawn = on_a_terminal(command, "run", str(file), types=types)
    assert code == 0
    # Between a question and what was typed, nothing is drawn.
    assert re.search(r"ask of job \S+ asks for approval:\r\n  Ship it\?\r\napprove\? \[y/n\] perhaps\r\n", drawn)
    assert re.search(r"approve\? \[y/n\] y\r\n", drawn)
    assert re.search(r"  And this\?\r\napprove\? \[y/n\] No\r\n", drawn)
    assert re.search(r"✓ Asked +━+ +100%  3/3 tasks", _SEQUENCE.sub("", drawn))
    assert drawn.rfind("\x1b[?25h") > drawn.rfind("\x1b[?25l")
    results = records(command)[0]["task_results"]
    assert (results["ask"]["output"]["approved"], results["also"]["output"]["approved"]) == (True, False)


def test_a_question_that_is_over_is_not_waited_for_on_a_terminal(command: CommandLine, descriptor: Write) -> None:
    timed = {**ASK, "deadline_seconds": 0.5, "default": "approve"}
    code, drawn = on_a_terminal(command, "run", str(descriptor(ask=timed)))
    assert code == 0
    assert "no answer is needed any more" in drawn


def test_a_question_can_be_interrupted(command: CommandLine, descriptor: Write) -> None:
    code, drawn = on_a_terminal(command, "run", str(descriptor(ask=ASK, a=LONG)), types=[("[y/n] ", "\x03")])
    assert code == 130
    assert "once more leaves at once" in drawn
    assert len(records(command)) == 1


def test_a_terminal_that_is_closed_ends_the_run(command: CommandLine, descriptor: Write) -> None:
    code, drawn = on_a_terminal(command, "run", str(descriptor(ask=ASK)), types=[("[y/n] ", "\x04")])
    assert code == 2
    assert "the terminal was closed" in drawn
