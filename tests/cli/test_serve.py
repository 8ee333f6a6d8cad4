from __future__ import annotations

import signal
from typing import Any

from tests.cli.processes import CommandLine, first_line

FREE = ("--grpc-port", "0", "--http-port", "0")


def test_the_settings_that_would_hold_are_printed_with_their_sources(command: CommandLine) -> None:
    flags = ("--profile", "prod", "--grpc-port", "7000", "--set", "engine.max_running_jobs=7")
    done = command("serve", "--print-settings", *flags, env={"RUNNER_LOG_LEVEL": "debug"})
    assert done.code == 0
    assert "grpc.port = 7000" in done.out
    told = {one["name"]: one for one in command("serve", "--print-settings", "--json", *flags).json["settings"]}
    assert told["engine.max_running_jobs"] == {
        "name": "engine.max_running_jobs",
        "value": "7",
        "source": "flag engine.max_running_jobs",
    }
    assert told["log.format"]["source"] == "profile prod"


def test_all_mistakes_in_the_settings_are_told_at_once(command: CommandLine) -> None:
    done = command("serve", "--grpc-port", "70000", "--log-level", "loud", "--set", "htpp.port=1")
    assert done.code == 2
    for word in ("flag grpc.port", "flag log.level", "Did you mean `http.port`?"):
        assert word in done.err


def test_a_second_daemon_on_the_same_data_is_told_who_holds_it(command: CommandLine, daemon: Any) -> None:
    done = command("serve", *FREE, "--data-dir", f"{daemon['directory']}/var")
    assert done.code == 1
    assert "is held by process" in done.err
    assert "Traceback" not in done.err


def test_a_port_that_is_taken_is_named(command: CommandLine, daemon: Any) -> None:
    """One sentence, although the error comes out of the midst of task groups and gRPC's own C core complains too."""
    port = daemon["grpc"].rpartition(":")[2]
    done = command.process("serve", "--grpc-port", port, "--http-port", "0")
    assert done.code == 1
    told = [line for line in done.err.splitlines() if not line.startswith("{")]
    assert len(told) == 1
    assert f"cannot listen on 127.0.0.1:{port}" in told[0]


def test_it_tells_its_addresses_once_it_is_ready_and_ends_with_0(command: CommandLine) -> None:
    with command.executed("serve", "--json", *FREE, "--data-dir", "here") as process:
        told = first_line(process)
        assert set(told) == {"grpc", "http", "records"}
        assert told["records"] == str(command.directory / "here" / "last")
        assert command("list", "--server", told["grpc"]).code == 0
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
