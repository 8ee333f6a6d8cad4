from __future__ import annotations

import json
import re
import signal
from pathlib import Path

from tests.cli.processes import CommandLine, Write

EXAMPLES = Path(__file__).parents[2] / "examples"
QUICK = {"task_type": "delay", "duration_seconds": 0.02}
LONG = {"task_type": "delay", "duration_seconds": 300}


def test_a_job_is_shown_in_words_and_as_the_protobuf_says(alt: CommandLine, descriptor: Write) -> None:
    job = alt("submit", descriptor(title="Shown", a=QUICK, b=QUICK, after={"b": ["a"]}), "--label", "x=1").out.strip()
    alt("watch", job)
    shown = alt("get", job, "--tasks").out
    for word in ("Shown", job, "✓ succeeded", "x=1", "TASK", "delay"):
        assert word in shown
    told = alt("get", job, "--tasks", "--json").json
    assert (told["state"], told["progress"], told["cancel_requested"]) == ("JOB_STATE_SUCCEEDED", 1.0, False)
    assert [task["dependencies"] for task in told["tasks"]] == [[], ["a"]]


def test_lists_are_filtered_paged_and_say_that_there_is_more(alt: CommandLine, descriptor: Write) -> None:
    file = descriptor(title="Listed", a=QUICK)
    jobs = [alt("submit", file, "--label", "list=yes").out.strip() for _ in range(3)]
    mine = ("list", "--filter", 'labels.list = "yes"')
    page = alt(*mine, "--limit", "2", "--json").json
    assert [job["job_id"] for job in page["jobs"]] == jobs[:0:-1]
    rest = alt(*mine, "--page-token", page["next_page_token"], "--json").json
    assert ([job["job_id"] for job in rest["jobs"]], rest["next_page_token"]) == (jobs[:1], "")
    oldest = alt(*mine, "--all", "--oldest-first", "--json").json
    assert [job["job_id"] for job in oldest["jobs"]] == jobs
    done = alt(*mine, "--limit", "1")
    assert jobs[-1] in done.out
    assert "show them with --all" in done.err
    assert alt("list", "--filter", "title = nothing").err == "no jobs match the filter\n"
    wrong = alt("list", "--filter", "stat = RUNNING")
    assert wrong.code == 6
    assert "state" in wrong.err


def test_a_list_can_go_on_with_what_happens(alt: CommandLine, descriptor: Write) -> None:
    with alt.started("list", "--filter", 'labels.live = "yes"', "--watch", "--json") as process:
        assert process.stdout is not None
        listed = process.stdout.readline()
        assert listed, (process.wait(10), process.stderr and process.stderr.read())
        assert json.loads(listed)["jobs"] == []
        job = alt("submit", descriptor(a=QUICK), "--label", "live=yes", "--watch", "--json").lines[0]["job"]["job_id"]
        states: list[str] = []
        while not states or states[-1] != "JOB_STATE_SUCCEEDED":
            line = process.stdout.readline()
            assert line, process.stderr and process.stderr.read()
            change = json.loads(line)
            assert change["job"]["job_id"] == job
            states.append(change["state"])
        assert states[-2:] == ["JOB_STATE_RUNNING", "JOB_STATE_SUCCEEDED"]
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130


def test_ctrl_c_leaves_a_watched_job_running_and_says_how_to_go_on(alt: CommandLine, descriptor: Write) -> None:
    job = alt("submit", descriptor(a=LONG)).out.strip()
    with alt.started("watch", job) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        while "attempt 1 started" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        told = process.stderr.read()
    assert f"job {job} runs on" in told
    assert f"alt-runner watch {job} --after " in told
    assert "Traceback" not in told
    assert alt("get", job, "--json").json["state"] == "JOB_STATE_RUNNING"
    done = alt("cancel", job, "--reason", "the test is over", "--wait")
    assert (done.code, done.out) == (0, f"⊘ {job} has ended: cancelled\n")
    done = alt("watch", job)
    assert done.code == 5
    assert "job cancelled: the test is over" in done.out


def test_a_watch_resumes_after_a_number(alt: CommandLine, descriptor: Write) -> None:
    job = alt("submit", descriptor(a=QUICK), "--watch", "--json").lines[0]["job"]["job_id"]
    events = alt("watch", job, "--json").lines
    assert [int(event["sequence"]) for event in events] == list(range(1, len(events) + 1))
    assert "job_succeeded" in events[-1]
    assert {event["job_id"] for event in events} == {job}
    rest = alt("watch", job, "--json", "--after", "2").lines
    assert rest == events[2:]
    done = alt("watch", job, "--after", str(len(events)))
    assert (done.code, done.out.count("\n")) == (0, 1)
    assert done.out.endswith(" succeeded\n"), "how many tasks did is not known by these events"
    done = alt("watch", job, "--after", "999")
    assert (done.code, done.out) == (6, "")
    assert "there is no number 999" in done.err


def test_what_does_not_exist_exits_with_8_and_the_rest_is_done(alt: CommandLine, descriptor: Write) -> None:
    job = alt("submit", descriptor(a=QUICK), "--watch", "--json").lines[0]["job"]["job_id"]
    for arguments in (
        ("get", "nothing"),
        ("watch", job, "nothing"),
        ("cancel", "nothing", job),
        ("last", "show", "no"),
    ):
        done = alt(*arguments)
        assert done.code == 8, arguments
        assert "there is no job `no" in done.err
    assert f"{job} has ended: succeeded" in alt("cancel", "nothing", job).out


def test_a_job_with_loops_is_watched_got_and_shown_as_a_tree(alt: CommandLine) -> None:
    job = alt("submit", EXAMPLES / "triage.alt.yaml").out.strip()
    watched = alt("watch", job).out
    assert "each_ticket: round 1 begins (ticket = id: T-2, severity: 3" in watched
    assert "each_ticket[1]/urgent: takes the branch if" in watched
    assert "23 of 23 tasks" in watched
    got = alt("get", job, "--tasks").out
    assert re.search(r"^  \[1\]/urgent +condition +✓ succeeded", got, re.MULTILINE)
    assert re.search(r"^    file_away +data_processing +↷ skipped", got, re.MULTILINE)
    shown = alt("last", "show", job).out
    assert re.search(r"^✓ +\[1\] urgent  took if", shown, re.MULTILINE)
    assert "[1]" not in alt("last", "show", job, "--dot").out
    begun = [event["body_started"] for event in alt("watch", job, "--json").lines if "body_started" in event]
    assert {(each["name"], each["rounds"]) for each in begun if each["task_id"] == "days"} == {("day", 3)}
