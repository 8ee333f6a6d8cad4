from __future__ import annotations

from tests.cli.processes import CommandLine, Write

QUICK = {"task_type": "delay", "duration_seconds": 0.02}
LONG = {"task_type": "delay", "duration_seconds": 300}


def test_jobs_are_paused_listed_as_such_and_go_on(alt: CommandLine, descriptor: Write) -> None:
    # Not to start before a time that does not come.
    later = ("--not-before", "2099-01-01T00:00:00Z", "--label", "pause=yes")
    jobs = [alt("submit", descriptor(title="Later", a=QUICK), *later).out.strip() for _ in range(2)]
    done = alt("pause", *jobs)
    assert (done.code, done.out) == (0, "".join(f"‖ {job} is paused\n" for job in jobs))
    told = alt("pause", jobs[0], "--json").json
    assert (told["job_id"], told["state"], told["pause_requested"]) == (jobs[0], "JOB_STATE_PAUSED", True)
    listed = alt("list", "--filter", 'state = PAUSED AND labels.pause = "yes"')
    assert all(f"{job}" in listed.out for job in jobs)
    assert "‖ paused" in listed.out
    assert "‖ paused" in alt("get", jobs[0]).out
    done = alt("resume", *jobs)
    assert (done.code, done.out) == (0, "".join(f"○ {job} is queued\n" for job in jobs))
    assert alt("resume", jobs[0], "--json").json["state"] == "JOB_STATE_QUEUED"
    alt("cancel", *jobs, "--wait")


def test_a_job_that_runs_is_told_of_in_its_watch(alt: CommandLine, descriptor: Write) -> None:
    job = alt("submit", descriptor(a=LONG)).out.strip()
    with alt.started("watch", job) as process:
        assert process.stdout is not None
        while "attempt 1 started" not in process.stdout.readline():
            pass
        assert alt("pause", job).code == 0
        line = process.stdout.readline()
        assert f"paused; nothing new starts (alt-runner resume {job})" in line
        assert alt("resume", job).code == 0
        assert "resumed" in process.stdout.readline()
        alt("cancel", job, "--wait")
        assert process.wait(10) == 5


def test_what_has_ended_exits_with_6_what_is_not_there_with_8_and_the_rest_is_done(
    alt: CommandLine, descriptor: Write
) -> None:
    ended = alt("submit", descriptor(a=QUICK), "--watch", "--json").lines[0]["job"]["job_id"]
    waiting = alt("submit", descriptor(a=QUICK), "--not-before", "2099-01-01T00:00:00Z").out.strip()
    for command in ("pause", "resume"):
        refused = alt(command, ended)
        assert refused.code == 6
        assert "has ended" in refused.err
        assert alt(command, "nowhere").code == 8
        assert waiting in alt(command, "nowhere", waiting).out
    alt("cancel", waiting, "--wait")


def test_without_a_daemon_it_exits_with_7(command: CommandLine) -> None:
    assert command("pause", "x", "--server", "127.0.0.1:1").code == 7
