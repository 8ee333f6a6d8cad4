from __future__ import annotations

import json
import signal
import urllib.request

from tests.cli.processes import CommandLine, first_line


def test_it_prints_its_address_obeys_its_control_and_ends_with_0(command: CommandLine) -> None:
    with command.started("simulate-orchestrator", "--json", "--seed", "7", "--latency", "5") as process:
        told = first_line(process)
        with urllib.request.urlopen(told["control"], timeout=5) as answer:  # noqa: S310 -- our own address
            assert json.load(answer)["latency_ms"] == 5
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


def test_a_behaviour_that_cannot_be_is_refused(command: CommandLine) -> None:
    done = command("simulate-orchestrator", "--error-rate", "2")
    assert done.code == 2
    assert "cannot behave like that" in done.err
