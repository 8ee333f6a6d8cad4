"""Every example runs on a daemon and without one, and leaves the same record, times and ids aside."""

from __future__ import annotations

import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.processes import CommandLine, first_line

EXAMPLES = Path(__file__).parents[2] / "examples"
SETTINGS = ("--settings", EXAMPLES / "settings.toml")
#: How each ends; the others succeed.
CODES = {"failing.alt": 3}
#: What differs between two runs of the same job, by the words in the names of the fields.
_OF_ONE_RUN = re.compile(
    r"time|duration|_ms$|_at$|started|ended|^until$|^id$|(execution|job|runner|trace|span|artifact)_id|checksum"
)
#: Ids and addresses within texts.
_CHANCE = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\b\d[\d.]* m?s\b|127\.0\.0\.1:\d+")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A daemon that may do all that the examples want."""
    command = CommandLine(tmp_path_factory.mktemp("examples"))
    with command.started("simulate-orchestrator", "--json") as orchestrator:
        url = first_line(orchestrator)["url"]
        flags = ("--json", "--grpc-port", "0", "--http-port", "0", "--log-level", "error", *SETTINGS)
        with command.started("serve", *flags, "--orchestrator", url) as daemon:
            yield first_line(daemon)["grpc"]
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(30) == 0


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.alt*")), ids=lambda path: path.name)
def test_an_example_leaves_the_same_record_on_a_daemon_and_without_one(
    path: Path, command: CommandLine, address: str
) -> None:
    here = command.process("run", path, "--simulate", "--json", *SETTINGS)
    there = command("submit", path, "--watch", "--json", "--server", address)
    assert here.code == there.code == CODES.get(path.name, 0)
    [kept] = [line for line in here.lines if "record" in line]
    ours = json.loads(Path(kept["record"]).read_bytes())
    [accepted] = [line["job"]["job_id"] for line in there.lines if "job" in line][:1]
    theirs = command("last", "show", accepted, "--json", "--server", address).json
    assert lines_of(ours) == lines_of(theirs)


def lines_of(record: Any) -> list[str]:
    """Of which pytest shows those that differ."""
    return json.dumps(without_chance(record), indent=1, ensure_ascii=False).splitlines()


def without_chance(value: Any) -> Any:
    """A record without times and ids."""
    if isinstance(value, dict):
        return {name: without_chance(inner) for name, inner in value.items() if not _OF_ONE_RUN.search(name)}
    if isinstance(value, list):
        return [without_chance(inner) for inner in value]
    return _CHANCE.sub("…", value) if isinstance(value, str) else value
