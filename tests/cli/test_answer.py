from __future__ import annotations

import json

from tests.cli.processes import CommandLine, Write

ASK = {"task_type": "approval", "message": "Ship it?"}


def asked(alt: CommandLine, job: str) -> None:
    """Wait until the job asks its question."""
    with alt.started("watch", job, "--json") as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "attempt_parked" in line:
                break
        process.kill()


def test_a_task_is_approved_and_its_answer_is_its_output(alt: CommandLine, descriptor: Write) -> None:
    job = alt("submit", descriptor(ask=ASK)).out.strip()
    asked(alt, job)
    answered = alt("approve", job, "ask", "--comment", "go", "--as", "ayşe", "--data", '{"n": 1}')
    assert (answered.code, answered.out) == (0, f"ask of {job} is approved\n")
    watched = alt("watch", job)
    assert watched.code == 0
    assert f"ask: asks for approval: Ship it? (alt-runner approve {job} ask, or reject)" in watched.out
    assert "ask: approved by ayşe: go" in watched.out
    record = json.loads(alt("last", "show", job, "--json").out)
    assert record["task_results"]["ask"]["output"]["data"] == {"n": 1}
    assert alt("approve", job, "ask").code == 6


def test_a_rejected_task_fails_and_says_who_rejected_it(alt: CommandLine, descriptor: Write) -> None:
    job = alt("submit", descriptor(ask=ASK)).out.strip()
    asked(alt, job)
    told = alt("reject", job, "ask", "--as", "b", "--json").json
    assert told["job_id"] == job
    assert alt("reject", job, "ask").code == 6
    watched = alt("watch", job)
    assert watched.code == 4
    assert "rejected by b" in watched.out


def test_what_is_no_answer_is_told(alt: CommandLine, descriptor: Write) -> None:
    job = alt("submit", descriptor(ask=ASK)).out.strip()
    wrong = alt("approve", job, "aks")
    assert wrong.code == 6
    assert "`ask`" in wrong.err
    assert alt("approve", job, "ask", "--data", "{").code == 2
    assert alt("approve", "nowhere", "ask").code == 8
    alt("cancel", job)
