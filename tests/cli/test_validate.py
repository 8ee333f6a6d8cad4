from __future__ import annotations

from runner.cli.exits import Exit
from tests.cli.processes import CommandLine, Write


def test_descriptors_are_checked_without_a_daemon(command: CommandLine, descriptor: Write) -> None:
    file = descriptor(title="Fine", a={"prompt": "x"})
    done = command("validate", file)
    assert (done.code, done.out) == (0, f"✓ {file}: “Fine”, 1 task, dialect tasks 1.0\n")
    told = command("validate", "--json", file).json
    assert told == {
        "file": str(file),
        "valid": True,
        "alt_id": "a",
        "title": "Fine",
        "dialect": "tasks",
        "version": "1.0",
        "task_count": 1,
        "errors": [],
        "warnings": [],
    }


def test_all_that_is_wrong_is_told_at_once_and_the_good_files_too(command: CommandLine, descriptor: Write) -> None:
    good = descriptor("good.alt", a={"prompt": "x"})
    wrong = b'{"id": "", "version": "9", "created_at": "now", "title": 5, "tasks": []}'
    done = command("validate", "-", good, stdin=wrong)
    assert done.code == Exit.REJECTED
    assert done.out.count("<stdin>:1:") == 5
    assert "✗ <stdin>: 5 errors\n" in done.out
    assert "✓ " in done.out
    told = command("validate", "-", good, "--json", stdin=wrong).lines
    assert [one["valid"] for one in told] == [False, True]
    assert all(finding["line"] == 1 and finding["column"] and finding["reason"] for finding in told[0]["errors"])


def test_formats_are_known_by_their_names(command: CommandLine) -> None:
    (command.directory / "x.alt.yaml").write_text("{")
    assert "Not valid YAML" in command("validate", "x.alt.yaml").out
    (command.directory / "x.json").write_bytes(b"\x00\xff")
    assert command("validate", "x.json").code == Exit.REJECTED


def test_parameters_are_checked_against_what_their_handlers_take(command: CommandLine, descriptor: Write) -> None:
    wrong = {"task_type": "delay", "seconds": "5"}
    command_ = {"task_type": "system_command", "command": "date"}
    told = command("validate", "--json", descriptor(a=wrong, b={"task_type": "http_request"}, c=command_)).json
    assert [(finding["reason"], finding["path"]) for finding in told["errors"]] == [
        ("BAD_TYPE", "tasks[0].parameters.seconds"),
        ("MISSING_PARAMETER", "tasks[1].parameters.url"),
    ]
    [warning] = told["warnings"]
    assert (warning["reason"], warning["path"]) == ("NOT_ALLOWED", "tasks[2].parameters.command")
    assert "system_command.allow" in warning["message"]


def test_with_the_settings_of_a_daemon_what_they_do_not_allow_is_an_error(
    command: CommandLine, descriptor: Write
) -> None:
    file = descriptor(a={"task_type": "system_command", "command": "date"}, b={"prompt": "x", "endpoint": "mian"})
    (command.directory / "daemon.toml").write_text(
        'system_command.allow = ["echo"]\n[[orchestrator.endpoints]]\nname = "main"\nurl = "http://127.0.0.1:9"\n'
    )
    done = command("validate", "--json", "--settings", "daemon.toml", file)
    assert (done.code, done.json["valid"], done.json["warnings"]) == (Exit.REJECTED, False, [])
    assert [(finding["reason"], finding["path"]) for finding in done.json["errors"]] == [
        ("NOT_ALLOWED", "tasks[0].parameters.command"),
        ("NOT_ALLOWED", "tasks[1].parameters.endpoint"),
    ]
    assert "allows only `echo`" in done.json["errors"][0]["message"]
    allowing = ("--set", 'system_command.allow=["date"]', "--set", "orchestrator.endpoints.0.name=mian")
    done = command("validate", "--json", "--settings", "daemon.toml", *allowing, file)
    assert (done.code, done.json["errors"], done.json["warnings"]) == (Exit.OK, [], [])


def test_with_settings_their_limits_hold_and_what_is_wrong_with_them_is_told(
    command: CommandLine, descriptor: Write
) -> None:
    file = descriptor(a={"prompt": "x"}, b={"prompt": "x"})
    told = command("validate", "--json", "--profile", "prod", "--set", "descriptor.max_tasks=1", file).json
    assert [finding["reason"] for finding in told["errors"]] == ["TOO_MANY_TASKS"]
    done = command("validate", "--set", "system_comand.allow=[]", file)
    assert (done.code, done.out) == (Exit.USAGE, "")
    assert "system_comand" in done.err
