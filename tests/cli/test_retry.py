from __future__ import annotations

from tests.cli.processes import CommandLine, Write

QUICK = {"task_type": "delay", "duration_seconds": 0.02}
#: Nothing listens there.
DEAD = {"url": "http://127.0.0.1:1/", "method": "GET"}
LONG = {"task_type": "delay", "duration_seconds": 300}


def test_only_what_failed_runs_again_and_its_end_is_the_exit_code(alt: CommandLine, descriptor: Write) -> None:
    submitted = alt("submit", descriptor(a=QUICK, b=DEAD), "--watch", "--json")
    assert submitted.code == 3
    job = submitted.lines[0]["job"]["job_id"]
    retried = alt("retry", job, "--watch")
    assert retried.code == 3
    assert f"a: reused from job {job}" in retried.out
    assert "b: attempt 1 started" in retried.out
    assert "a: attempt" not in retried.out
    told = alt("retry", job, "--json").json
    assert (told["retry_of"], told["job"]["labels"]) == (job, {"alt-runner/retry-of": job})
    assert alt("watch", told["job"]["job_id"]).code == 3
    assert "reused" in alt("last", "show", told["job"]["job_id"], "--json").out


def test_the_whole_runs_again_where_that_is_asked_for(alt: CommandLine, descriptor: Write) -> None:
    job = alt("submit", descriptor(a=QUICK), "--watch", "--json").lines[0]["job"]["job_id"]
    refused = alt("retry", job)
    assert refused.code == 6
    assert "--whole" in refused.err
    whole = alt("retry", job, "--whole", "--watch")
    assert whole.code == 0
    assert "a: attempt 1 started" in whole.out


def test_what_runs_or_is_not_there_cannot_be_retried(alt: CommandLine, descriptor: Write) -> None:
    job = alt("submit", descriptor(a=LONG)).out.strip()
    assert alt("retry", job).code == 6
    alt("cancel", job, "--wait")
    new = alt("retry", job).out.strip()
    assert new not in {"", job}
    alt("cancel", new, "--wait")
    assert alt("retry", "nowhere").code == 8
