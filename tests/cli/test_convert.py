from __future__ import annotations

import json

from runner.cli.exits import Exit
from runner.core.alt import decode
from tests.cli.processes import CommandLine, Write


def test_a_descriptor_is_written_in_another_format(command: CommandLine, descriptor: Write) -> None:
    file = descriptor(title="Özet", a={"prompt": "Görüşmeleri özetle"})
    done = command("convert", file, "--to", "yaml")
    assert (done.code, done.err) == (Exit.OK, "")
    assert "prompt: Görüşmeleri özetle\n" in done.out
    assert decode(done.out.encode()).plan == decode(file.read_bytes()).plan


def test_the_format_is_that_of_the_output_s_name(command: CommandLine, descriptor: Write) -> None:
    file = descriptor(a={"prompt": "x"})
    for name in ("x.yml", "x.toml", "x.msgpack", "x.alt.json"):
        done = command("convert", file, "-o", name)
        assert (done.code, done.out, done.err) == (Exit.OK, "", f"wrote {name}\n")
        assert decode((command.directory / name).read_bytes()).plan == decode(file.read_bytes()).plan
    assert sorted(path.name for path in command.directory.iterdir() if path.name.startswith(".x")) == []
    told = command("convert", file, "-o", "x.toml", "--json").json
    assert told == {"file": str(file), "output": "x.toml", "format": "toml", "warnings": []}


def test_what_would_be_lost_is_told_and_nothing_is_written(command: CommandLine, descriptor: Write) -> None:
    file = descriptor(a={"prompt": "x", "nothing": None})
    done = command("convert", file, "-o", "x.toml")
    assert (done.code, done.out) == (Exit.REJECTED, "")
    assert f"{file}:1:" in done.err
    assert "TOML has no null" in done.err
    assert "[CANNOT_BE_WRITTEN]" in done.err
    assert not (command.directory / "x.toml").exists()
    told = json.loads(command("convert", file, "--to", "toml", "--json").err)
    assert told["error"]["exit_code"] == Exit.REJECTED
    assert told["error"]["findings"][0]["path"] == "tasks[0].parameters.nothing"


def test_a_wrong_descriptor_is_diagnosed_and_an_odd_one_warned_about(command: CommandLine) -> None:
    done = command("convert", "-", "--to", "yaml", stdin=b'{"id": "a", "tasks": []}')
    assert done.code == Exit.REJECTED
    assert "<stdin>:1:22: error: `tasks` is empty" in done.err
    odd = b'{"id":"a","version":"1","title":"t","created_at":"2026-01-05","tasks":[{"id":"a","description":"d"}]}'
    done = command("convert", "-", "--to", "yaml", stdin=odd)
    assert done.code == Exit.OK
    assert "[NO_TIME_ZONE]" in done.err
    assert "created_at: '2026-01-05'\n" in done.out


def test_a_command_line_that_says_too_little_or_two_things_is_refused(command: CommandLine, descriptor: Write) -> None:
    file = descriptor(a={"prompt": "x"})
    assert "--to json|yaml|toml|msgpack" in command("convert", file).err
    done = command("convert", file, "--to", "json", "-o", "x.yaml")
    assert done.code == Exit.USAGE
    assert "would be read as yaml" in done.err
    assert command("convert", file, "-o", "no/such/directory/x.json").code == Exit.USAGE
    assert command("convert", "missing.alt", "--to", "json").code == Exit.NOT_FOUND


def test_a_descriptor_is_written_in_another_dialect(command: CommandLine, descriptor: Write) -> None:
    file = descriptor(title="Özet", a={"prompt": "Görüşmeleri özetle"})
    done = command("convert", file, "--dialect", "segments", "--to", "yaml")
    assert (done.code, done.err) == (Exit.OK, "")
    assert "command: Özet\n" in done.out
    same_format = command("convert", file, "--dialect", "segments")
    assert json.loads(same_format.out)["segments"][0]["content"] == "a"
    told = command("convert", file, "--dialect", "workflow", "-o", "x.toml", "--json").json
    assert told == {
        "file": str(file),
        "output": "x.toml",
        "format": "toml",
        "dialect": "workflow",
        "warnings": [],
        "lost": [],
    }


def test_what_another_dialect_cannot_say_is_told_and_left_out_only_if_wanted(command: CommandLine) -> None:
    raw = {"id": "a", "version": "1", "title": "t", "created_at": "2026-01-05T08:00:00Z", "tags": ["x"]}
    data = json.dumps({**raw, "tasks": [{"id": "a", "description": "d", "priority": "low"}]}).encode()
    done = command("convert", "-", "--dialect", "segments", stdin=data)
    assert (done.code, done.out) == (Exit.REJECTED, "")
    assert done.err.count("[NO_PLACE]") == 2
    assert "at tasks[0].priority" in done.err
    assert "--lossy" in done.err
    told = json.loads(command("convert", "-", "--dialect", "segments", "--json", stdin=data).err)
    assert [finding["path"] for finding in told["error"]["findings"]] == ["tags", "tasks[0].priority"]

    done = command("convert", "-", "--dialect", "segments", "--lossy", stdin=data)
    assert done.code == Exit.OK
    assert decode(done.out.encode()).plan.dialect == "segments"
    assert done.err.count("warning: Dialect `segments` has no place for") == 2
    done = command("convert", "-", "--dialect", "segments", "--lossy", "--json", stdin=data)
    assert decode(done.out.encode()).plan.dialect == "segments"
    assert [finding["path"] for finding in json.loads(done.err)["lost"]] == ["tags", "tasks[0].priority"]
    done = command("convert", "-", "--dialect", "segments", "--lossy", "--json", "-o", "x.yaml", stdin=data)
    assert [finding["reason"] for finding in done.json["lost"]] == ["NO_PLACE", "NO_PLACE"]


def test_lossy_without_a_dialect_says_nothing(command: CommandLine, descriptor: Write) -> None:
    done = command("convert", descriptor(a={"prompt": "x"}), "--to", "toml", "--lossy")
    assert done.code == Exit.USAGE
    assert "--dialect" in done.err
