"""Every example runs on a daemon and without one, and leaves the same record, times and ids aside."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest

from runner.core.alt import decode
from tests.cli.processes import CommandLine, first_line

_DIRECTORY = Path(__file__).parents[2] / "examples"
EXAMPLES = sorted(_DIRECTORY.glob("*.alt*"))
SETTINGS = ("--settings", _DIRECTORY / "settings.toml")
#: The others succeed.
FAILING = {"failing.alt"}
#: What differs between two runs of the same job, by the words in the names of the fields.
_OF_ONE_RUN = re.compile(
    r"time|duration|_ms$|_at$|started|ended|^until$|^id$|(execution|job|runner|trace|span|artifact)_id|checksum"
)
#: Ids and addresses within texts.
_CHANCE = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}|\b\d[\d.]* m?s\b|127\.0\.0\.1:\d+")


Records = dict[str, Any]


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Records:
    """The records of all examples run without a daemon, by the name of the file."""
    command = CommandLine(tmp_path_factory.mktemp("here"))
    done = command.process("run", *EXAMPLES, "--simulate", "--json", *SETTINGS)
    assert done.code == 3
    kept = [json.loads(Path(line["record"]).read_bytes()) for line in done.lines if "record" in line]
    return _by_file(kept)


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Records:
    """Those of a daemon that may do all that the examples want."""
    command = CommandLine(tmp_path_factory.mktemp("there"))
    with command.started("simulate-orchestrator", "--json") as orchestrator:
        url = first_line(orchestrator)["url"]
        flags = ("--json", "--grpc-port", "0", "--http-port", "0", "--log-level", "error", *SETTINGS)
        with command.started("serve", *flags, "--orchestrator", url) as daemon:
            address = first_line(daemon)["grpc"]
            done = command("submit", *EXAMPLES, "--watch", "--json", "--server", address)
            assert done.code == 3
            jobs = {line["job"]["job_id"]: None for line in done.lines if "job" in line}
            kept = [command("last", "show", job, "--json", "--server", address).json for job in jobs]
            daemon.send_signal(signal.SIGTERM)
            assert daemon.wait(30) == 0
    return _by_file(kept)


def _by_file(records: list[Any]) -> Records:
    """One record for each example."""
    files = {decode(path.read_bytes()).plan.alt_id: path.name for path in EXAMPLES}
    found = {files[record["alt_file_id"]]: record for record in records}
    assert len(found) == len(records) == len(EXAMPLES)
    return found


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.name)
def test_an_example_leaves_the_same_record_on_a_daemon_and_without_one(
    path: Path, here: Records, there: Records
) -> None:
    assert lines_of(here[path.name]) == lines_of(there[path.name])
    assert (here[path.name]["status"] == "success") == (path.name not in FAILING)


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


def test_a_daemon_takes_the_settings_of_the_example_with_several_endpoints(tmp_path: Path) -> None:
    done = CommandLine(tmp_path)("serve", "--settings", _DIRECTORY / "endpoints.toml", "--print-settings", "--json")
    assert done.code == 0
    told = {each["name"]: each["value"] for each in done.json["settings"]}
    assert told["orchestrator.endpoints.0.takes_registrations"] == "true"
