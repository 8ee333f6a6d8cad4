"""A bad day at a real daemon: its orchestrator fails, is parked on, drained, replaced, and comes back."""

from __future__ import annotations

import json
import re
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cli.processes import CommandLine, Write, first_line

SETTINGS = """
[[orchestrator.endpoints]]
name = "orchestrator-a"
url = "{url}"
group = "main"
takes_registrations = true
health_interval_seconds = 0

[orchestrator.breaker]
minimum_calls = 2
open_seconds = 120
"""


@pytest.fixture
def orchestrators(tmp_path: Path) -> Iterator[list[str]]:
    """The addresses of two simulated orchestrators."""
    line = CommandLine(tmp_path)
    with line.started("simulate-orchestrator", "--json") as one, line.started("simulate-orchestrator", "--json") as two:
        yield [first_line(process)["url"] for process in (one, two)]


@pytest.fixture
def alt(tmp_path: Path, orchestrators: list[str]) -> Iterator[CommandLine]:
    """The command line of a daemon that has the first of them."""
    (tmp_path / "settings.toml").write_text(SETTINGS.format(url=orchestrators[0]))
    flags = ("--settings", "settings.toml", "--data-dir", "var", "--grpc-port", "0", "--http-port", "0")
    with CommandLine(tmp_path).started("serve", *flags, "--json", "--log-level", "error") as process:
        yield CommandLine(tmp_path, first_line(process)["grpc"])
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0


def behave(url: str, **how: float) -> None:
    body = json.dumps(how).encode()
    request = urllib.request.Request(f"{url}/control", body, {"Content-Type": "application/json"}, method="PATCH")  # noqa: S310  ours, on this machine
    with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310  as above
        assert answer.status == 200


@pytest.mark.timeout(120)
def test_who_is_held_up_is_told_why_and_an_operator_ends_it(
    alt: CommandLine, orchestrators: list[str], descriptor: Write
) -> None:
    first, second = orchestrators
    behave(first, error_rate=1.0)
    ask = {"prompt": "Are you there?", "endpoint": "main"}
    file = descriptor(a=ask, b=ask)
    content = json.loads(file.read_text())
    for task in content["tasks"]:
        task["retry_count"] = 9
    file.write_text(json.dumps(content))
    with alt.started("submit", file, "--watch") as process:
        assert process.stdout is not None
        told = ""
        while "parked: " not in told:
            told = process.stdout.readline()
            assert told
        assert re.search(r"parked: orchestrator-a is open until \d\d:\d\d:\d\d UTC: ", told)
        [sick] = alt("breakers", "--json").lines
        assert (sick["endpoint"], sick["state"]) == ("orchestrator-a", "BREAKER_STATE_OPEN")
        behave(first, error_rate=0.0)
        with alt.started("breakers", "--watch", "--json") as watching:
            assert first_line(watching)["state"] == "BREAKER_STATE_OPEN"
            # The next line is the next change: that it waits longer is none.
            alt("breakers", "set", "forced-open", "orchestrator-a")
            assert first_line(watching)["state"] == "BREAKER_STATE_FORCED_OPEN"
        assert alt("breakers", "reset", "orchestrator-a").out.startswith("orchestrator-a ✓ closed")
        assert process.wait(60) == 0

    register = ("endpoints", "register", second, "--group", "main", "--name", "orchestrator-b", "--json")
    with alt.started(*register) as process:
        assert first_line(process)["source"] == "ENDPOINT_SOURCE_REGISTERED"
        assert alt("endpoints", "drain", "orchestrator-a").code == 0
        done = alt("submit", descriptor(a=ask), "--watch", "--json")
        assert done.code == 0
        assert '"endpoint": "orchestrator-b"' in done.out
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
    assert [each["name"] for each in alt("endpoints", "--json").lines] == ["orchestrator-a"]
