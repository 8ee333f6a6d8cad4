"""`alt-runner breakers` and `endpoints` in front of a played fleet."""

from __future__ import annotations

import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from altrunner.v1 import admin_pb2

from runner.cli.fleet import BREAKERS
from tests.cli import played
from tests.cli.processes import CommandLine, first_line
from tests.cli.test_live import on_a_terminal
from tests.processes import Process, Surroundings

_SEQUENCE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@pytest.fixture
def alt(tmp_path: Path) -> Iterator[CommandLine]:
    """The command line with RUNNER_ADDRESS set to a played fleet."""
    with Process(played.main, surroundings=Surroundings()) as process:
        yield CommandLine(tmp_path, first_line(process)["grpc"])
        process.terminate()


def test_breakers_are_a_table_and_what_can_be_done(alt: CommandLine) -> None:
    done = alt("breakers")
    assert done.code == 0
    header, *rows = done.out.splitlines()
    assert header.split("  ")[0] == "ENDPOINT"
    sick = next(row for row in rows if row.startswith("sick"))
    clock = r"\d\d:\d\d:\d\d"
    since, until = rf"{clock}, 1 min \d+ s ago", rf"{clock}, in (1 h 0 min|59 min \d+ s)"
    assert re.search(rf"large +✗ open +{since} +{until} +20 +12 +3 +7 +12 of 20 calls failed$", sick)
    assert re.search(r"^mute +- +✓ closed", "\n".join(rows), re.MULTILINE)
    assert done.err == f"  reset it: alt-runner breakers reset sick --server {alt.server}\n"
    assert "\x1b" not in done.out
    assert len(alt("breakers", "well").out.splitlines()) == 3
    assert len(alt("breakers", "list", "well", "mute").out.splitlines()) == 4


def test_a_breaker_whose_time_has_come_is_probed_with_the_next_call() -> None:
    opened = admin_pb2.Breaker(endpoint="main", state=admin_pb2.BREAKER_STATE_OPEN, reason="3 of 4 calls failed")
    opened.open_until.FromSeconds(1_000)
    assert "open until 00:16:40, in 5 s: 3 of" in BREAKERS.standing(opened, 995_000_000)
    assert BREAKERS.standing(opened, 1_009_000_000) == "✗ open until the next call: 3 of 4 calls failed"


def test_breakers_are_objects_for_scripts(alt: CommandLine) -> None:
    told = {(each["endpoint"], each["model"]): each for each in alt("breakers", "--json").lines}
    assert len(told) == 4
    sick = told["sick", "large"]
    assert (sick["state"], sick["failed_calls"], sick["waiting_tasks"]) == ("BREAKER_STATE_OPEN", "12", "7")
    assert sick["open_until"].endswith("Z")
    assert "open_until" not in told["mute", ""]


def test_breakers_are_set_and_reset(alt: CommandLine) -> None:
    done = alt("breakers", "set", "forced-open", "well", "--model", "large")
    assert (done.code, done.out) == (0, "well/large ⊘ forced open\n")
    assert alt("breakers", "well", "--json").lines[1]["state"] == "BREAKER_STATE_FORCED_OPEN"
    done = alt("breakers", "reset", "sick", "well")
    assert done.code == 0
    assert done.out.splitlines()[0] == "sick/large ✓ closed"
    assert alt("breakers").err == ""
    done = alt("breakers", "set", "disabled", "mute", "--json")
    assert done.json["state"] == "BREAKER_STATE_DISABLED"


def test_one_that_was_never_called_has_none_to_reset(alt: CommandLine) -> None:
    done = alt("breakers", "reset", "new")
    assert (done.code, done.out) == (0, "")
    assert "comes to be with its first call" in done.err
    done = alt("breakers", "new")
    assert (done.code, done.out) == (0, "")
    assert "comes to be with its first call" in done.err


def test_what_is_not_there_exits_with_8_and_the_rest_is_done(alt: CommandLine) -> None:
    done = alt("breakers", "reset", "nope", "mute")
    assert (done.code, done.out) == (8, "mute ✓ closed\n")
    assert "there is no endpoint `nope`" in done.err
    for arguments in (
        ("breakers", "nope"),
        ("endpoints", "nope"),
        ("endpoints", "drain", "nope"),
        ("breakers", "rest"),
    ):
        assert alt(*arguments).code == 8
    assert alt("breakers", "set", "half-open", "mute").code == 2
    assert alt("breakers", "set", "open").code == 2


def test_endpoints_are_a_table_and_what_can_be_done(alt: CommandLine) -> None:
    done = alt("endpoints")
    assert done.code == 0
    well = next(row for row in done.out.splitlines() if " well " in row)
    assert re.search(r"^main +well +✓ healthy +2/32 +0 +0 +1, warm 40 % +altlas +http://well:8080 +configured", well)
    assert "large, small" in well
    mute = next(row for row in done.out.splitlines() if " mute " in row)
    assert re.search(r"✗ unhealthy +3/32 +0 +41 +1 .* it does not answer in time$", mute)
    assert done.err == f"  take it out: alt-runner endpoints drain mute --server {alt.server}\n"
    assert "UNREACHED" in done.out
    assert "UNREACHED" not in alt("endpoints", "well").out, "only where there is something to tell"
    told = {each["name"]: each["unreached_tries"] for each in alt("endpoints", "--json").lines}
    assert told == {"sick": "0", "well": "0", "mute": "41", "new": "0"}


def test_an_endpoint_is_drained_and_called_again(alt: CommandLine) -> None:
    done = alt("endpoints", "drain", "mute", "well")
    assert done.code == 0
    assert done.out.splitlines()[1] == "well ‖ draining, 2 left (main, http://well:8080)"
    assert f"let it have calls again: alt-runner endpoints undrain well --server {alt.server}" in alt("endpoints").err
    assert alt("endpoints", "undrain", "well").out == "well ✓ healthy (main, http://well:8080)\n"


def test_a_watch_in_a_pipe_is_a_table_and_then_a_line_for_each_change(alt: CommandLine) -> None:
    with alt.started("breakers", "--watch", "sick") as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ENDPOINT")
        assert process.stdout.readline().startswith("sick")
        alt("breakers", "set", "disabled", "well")
        alt("breakers", "reset", "sick")
        assert re.fullmatch(r"\d\d:\d\d:\d\d sick/large ✓ closed\n", process.stdout.readline())
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130


def test_a_watch_with_json_is_an_object_for_each_change(alt: CommandLine) -> None:
    with alt.started("--json", "endpoints", "-w", "mute") as process:
        assert first_line(process)["name"] == "mute"
        alt("endpoints", "drain", "mute")
        told = first_line(process)
        assert (told["name"], told["draining"]) == ("mute", True)


def test_a_watch_on_a_terminal_is_a_picture_that_stays_up_to_date(alt: CommandLine) -> None:
    env = {"COLUMNS": "160"}
    code, drawn = on_a_terminal(alt, "breakers", "--watch", types=[("12 of 20", "\x03")], env=env)
    assert code == 130
    text = _SEQUENCE.sub("", drawn)
    assert "✗ open" in text
    assert "12 of 20 calls failed" in text
    assert "\x1b[2Jevil" not in drawn


def test_a_registration_lasts_until_it_is_stopped(alt: CommandLine) -> None:
    flags = ("--group", "main", "--model", "large", "--weight", "2", "--json")
    for number in (signal.SIGINT, signal.SIGTERM):
        with alt.started("endpoints", "register", "http://10.0.0.7:8080", *flags) as process:
            told = first_line(process)
            assert (told["name"], told["source"]) == ("10.0.0.7:8080", "ENDPOINT_SOURCE_REGISTERED")
            [found] = alt("endpoints", "10.0.0.7:8080", "--json").lines
            assert (found["group"], found["models"], found["weight"]) == ("main", ["large"], 2.0)
            process.send_signal(number)
            assert process.wait(10) == 0
            assert process.stderr is not None
            assert "10.0.0.7:8080 is not registered any more" in process.stderr.read()
        assert alt("endpoints", "10.0.0.7:8080").code == 8


def test_who_waits_to_register_is_told_so_and_can_leave(command: CommandLine) -> None:
    away = ("--group", "main", "--server", "127.0.0.1:1")
    for number in (signal.SIGINT, signal.SIGTERM):
        with command.started("endpoints", "register", "http://10.0.0.7:8080", *away) as process:
            assert process.stderr is not None
            assert process.stderr.readline() == "no daemon answers yet; it is asked again for up to 60 s\n"
            process.send_signal(number)
            assert process.wait(10) == 130
            assert process.stderr.read() == ""


def test_a_registration_that_cannot_be_says_why(alt: CommandLine) -> None:
    done = alt("endpoints", "register", "http://10.0.0.7:8080", "--group", "closed")
    assert done.code == 6
    assert "takes no registrations" in done.err
    assert alt("endpoints", "register", "10.0.0.7", "--group", "main").code == 2


def test_shells_complete_commands_states_and_endpoints(alt: CommandLine) -> None:
    def completed(words: str) -> set[str]:
        env = {"_ALT_RUNNER_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()))}
        return set(alt.process(env=env).out.split())

    assert {"breakers", "endpoints"} <= completed("alt-runner ")
    assert completed("alt-runner breakers ") >= {"list", "set", "reset"}
    assert completed("alt-runner breakers set ") == {"closed", "open", "forced-open", "disabled", "metrics-only"}
    assert completed("alt-runner breakers reset ") == {"sick", "well", "mute", "new"}
    assert completed("alt-runner endpoints drain ") == {"sick", "well", "mute", "new"}


def test_nobody_there_completes_to_nothing_and_lists_with_7(command: CommandLine) -> None:
    env = {"_ALT_RUNNER_COMPLETE": "complete_bash", "COMP_WORDS": "alt-runner breakers reset ", "COMP_CWORD": "3"}
    away = {"RUNNER_ADDRESS": "127.0.0.1:1"}
    done = command.process(env={**env, **away})
    assert (done.out.strip(), done.err) == ("", "")
    assert command("breakers", env=away).code == 7
    assert command("endpoints", "--server", "127.0.0.1:1").code == 7
