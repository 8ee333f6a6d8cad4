from __future__ import annotations

import json
from pathlib import Path

import pytest

from runner.cli.exits import Exit
from tests.cli.processes import CommandLine, Write


@pytest.fixture
def job(alt: CommandLine, descriptor: Write) -> str:
    """A job that has ended."""
    file = descriptor(title="Recorded", a={"task_type": "delay", "duration_seconds": 0.01}, b={"prompt": "Tell"})
    job: str = alt("submit", file, "--watch", "--json").lines[0]["job"]["job_id"]
    return job


def test_a_record_is_shown_from_the_daemon_and_from_its_file(alt: CommandLine, job: str, tmp_path: Path) -> None:
    shown = alt("last", "show", job)
    assert shown.code == 0
    assert "✓ succeeded  Recorded" in shown.out
    sealed = alt("last", "show", job, "--json").out
    file = tmp_path / "copy.json"
    file.write_text(sealed)
    assert alt("last", "show", file).out == shown.out
    assert alt("last", "show", "-", stdin=sealed.encode()).out == shown.out


def test_a_record_that_is_named_without_a_command_is_shown(alt: CommandLine, job: str) -> None:
    assert alt("last", job).out == alt("last", "show", job).out
    misspelt = alt("last", "verfy", job)
    assert (misspelt.code, "Did you mean 'verify'?" in misspelt.err) == (Exit.USAGE, True)


def test_a_record_becomes_a_page_and_a_graph(alt: CommandLine, job: str, tmp_path: Path) -> None:
    assert alt("last", "show", job, "--dot").out.startswith("digraph ")
    page = tmp_path / "report.html"
    done = alt("last", "show", job, "--html", page)
    assert (done.code, done.out) == (0, "")
    assert "open it in a browser" in done.err
    assert page.read_text().startswith("<!doctype html>")
    assert alt("last", "show", job, "--html", "/nowhere/x.html").code == Exit.USAGE


def test_records_are_verified_by_file_by_directory_and_by_job(alt: CommandLine, job: str) -> None:
    records = alt.directory / "records"
    records.mkdir()
    sealed = json.loads(alt("last", "show", job, "--json").out)
    good, changed = records / "last_good.json", records / "last_changed.json"
    good.write_text(json.dumps(sealed))
    changed.write_text(json.dumps(sealed | {"title": "Forged"}))
    old = {name: value for name, value in sealed.items() if name != "checksum"}
    (records / "last_old.json").write_text(json.dumps(old))
    (records / "last_none.json").write_text("{}")
    assert alt("last", "verify", job, good).code == Exit.OK
    done = alt("last", "verify", records)
    assert done.code == Exit.REJECTED
    assert f"✗ {changed}: the record was changed" in done.out
    assert "2 of 4 records are intact" in done.err
    told = {Path(one["record"]).stem: one["verdict"] for one in alt("last", "verify", records, "--json").lines}
    assert told == {
        "last_changed": "MISMATCH",
        "last_good": "OK",
        "last_none": "NOT_A_RECORD",
        "last_old": "NO_CHECKSUM",
    }
    quiet = alt("last", "verify", "--quiet", records).out
    assert quiet.count("\n") == 2
    assert "its checksum does not match" in alt("last", "show", changed).err


def test_records_that_are_not_there_are_said_to_be_missing(alt: CommandLine) -> None:
    for arguments in (("show", "no.json"), ("verify", "no/last.json"), ("verify", ".")):
        done = alt("last", *arguments)
        assert done.code == Exit.NOT_FOUND
        assert "no" in done.out + done.err
    (alt.directory / "x.json").write_text("no record")
    assert alt("last", "show", "x.json").code == Exit.REJECTED
