from __future__ import annotations

import json
import re
from pathlib import Path

from tests.cli.processes import CommandLine, Write

QUICK = {"task_type": "delay", "duration_seconds": 0.02}
FAILS = {"url": "http://127.0.0.1:9/"}


def test_a_submission_prints_nothing_but_the_id_on_standard_output(alt: CommandLine, descriptor: Write) -> None:
    """So that `job=$(alt-runner submit FILE)` works."""
    done = alt("submit", descriptor(a=QUICK))
    assert done.code == 0
    assert re.fullmatch(r"[0-9a-f-]{36}\n", done.out)
    assert "accepted “A job”, 1 task, queue default" in done.err
    assert f"alt-runner watch {done.out.strip()}" in done.err


def test_a_submission_as_json_carries_the_job_and_its_warnings(alt: CommandLine, tmp_path: Path) -> None:
    content = {"id": "a", "version": "1.0", "created_at": "2026-01-05T08:00:00Z", "title": "T", "colour": "red"}
    file = tmp_path / "odd.alt"
    file.write_text(json.dumps(content | {"tasks": [{"id": "x", "description": "x", "parameters": QUICK}]}))
    options = ("--queue", "slow", "--priority", "HIGH", "--label", "team=blue", "--request-id", "r-1")
    told = alt("submit", file, *options, "--json").json
    assert (told["file"], told["replayed"]) == (str(file), False)
    assert told["job"]["queue"] == "slow"
    assert told["job"]["priority"] == "PRIORITY_HIGH"
    assert told["job"]["labels"] == {"team": "blue"}
    assert [warning["reason"] for warning in told["warnings"]] == ["UNKNOWN_FIELD"]
    again = alt("submit", file, *options, "--json").json
    assert (again["replayed"], again["job"]["job_id"]) == (True, told["job"]["job_id"])
    clash = alt("submit", file, "--request-id", "r-1", "--queue", "other")
    assert clash.code == 6
    assert "use a new one for new work" in clash.err


def test_mistakes_in_parameters_are_told_before_a_job_is_accepted(alt: CommandLine, descriptor: Write) -> None:
    """Also what the daemon's settings forbid, which `validate` cannot know."""
    wrong = {"task_type": "delay", "seconds": "5"}
    file = descriptor(a=wrong, b={"task_type": "system_command", "command": "date"})
    done = alt("submit", file)
    assert (done.code, done.out) == (6, "")
    assert "at tasks[0].parameters.seconds" in done.err
    assert "NOT_ALLOWED" in done.err
    assert "refused, 2 errors" in done.err


def test_several_files_are_watched_together_and_the_worst_end_is_the_exit_code(
    alt: CommandLine, descriptor: Write
) -> None:
    descriptor("good.alt", title="Good", a=QUICK)
    descriptor("half.alt", title="Half", a=QUICK, b=FAILS)
    descriptor("bad.alt", title="Bad", a=FAILS)
    assert alt("submit", "good.alt", "--watch").code == 0
    assert alt("submit", "half.alt", "--watch").code == 3
    done = alt("submit", "*.alt", "--watch")
    assert done.code == 4
    assert re.search(r"✓ \S+ “Good” succeeded in .*, 1 of 1 tasks", done.out)
    assert re.search(
        r"◐ \S+ “Half” partially succeeded in .*, 1 of 2 tasks; task b: .* \[CONNECTION_FAILED\]", done.out
    )
    assert re.search(r"✗ \S+ “Bad” failed in .*, 0 of 1 tasks; task a: ", done.out)
    assert done.err.count("see its record: alt-runner last show") == 3


def test_streamed_text_of_an_ai_task_is_shown_line_by_line(alt: CommandLine, descriptor: Write) -> None:
    done = alt("submit", descriptor(ask={"prompt": "Tell me"}), "--watch")
    assert done.code == 0
    text = " ".join(re.findall(r" ask│ (.*)", done.out))
    assert text.startswith("[simulated] ")
    assert len(text.split()) == 40


def test_a_refused_descriptor_is_told_like_a_compiler_would_and_holds_up_no_other(
    alt: CommandLine, descriptor: Write, tmp_path: Path
) -> None:
    descriptor("good.alt", a=QUICK)
    wrong = '{"id": "a", "version": "1.0", "created_at": "2026-01-05T08:00:00Z", "title": "T",\n "tasks": [\n'
    wrong += '  {"id": "one", "description": "1"},\n  {"id": "two", "description": "2", "dependencies": ["onne"]}]}'
    (tmp_path / "wrong.alt").write_text(wrong)
    done = alt("submit", "wrong.alt", "good.alt")
    assert done.code == 6
    assert len(done.out.split()) == 1
    assert "wrong.alt:4:54: error: There is no task `onne`. [UNKNOWN_DEPENDENCY]" in done.err
    assert "did you mean `one`?" in done.err
    assert "wrong.alt: refused, 1 error" in done.err
    told = alt("submit", "wrong.alt", "--json").json
    (finding,) = told["error"]["findings"]
    assert (finding["line"], finding["column"], finding["suggestion"]) == (4, 54, "one")


def test_validate_only_accepts_nothing(alt: CommandLine, descriptor: Write) -> None:
    file = descriptor(title="Never run", a=QUICK)
    done = alt("submit", file, "--validate-only")
    assert (done.code, done.out) == (0, f"{file}: the daemon would take it\n")
    assert alt("list", "--filter", 'title = "Never run"', "--json").json["jobs"] == []


def test_inputs_reach_the_job(alt: CommandLine, descriptor: Write) -> None:
    shaped = {"task_type": "data_processing", "input": "${inputs.n}", "expression": "@"}
    job = alt("submit", descriptor(a=shaped), "--input", "n=[1, 2]", "--watch", "--json").lines[-1]["job_id"]
    record = alt("last", "show", job, "--json").json
    assert record["task_results"]["a"]["output"] == [1, 2]


def test_an_input_that_is_missing_is_told_with_the_option_that_passes_it(alt: CommandLine, descriptor: Write) -> None:
    shaped = {"task_type": "data_processing", "input": "${inputs.n} ${inputs.m}", "expression": "@"}
    done = alt("submit", descriptor(a=shaped))
    assert done.code == 6
    assert done.err.endswith("\n  pass what is missing: --input m=VALUE --input n=VALUE\n")


def test_standard_input_is_a_file_too(alt: CommandLine, descriptor: Write) -> None:
    done = alt("submit", "-", "--json", stdin=descriptor(title="Piped", a=QUICK).read_bytes())
    assert (done.json["file"], done.json["job"]["title"]) == ("<stdin>", "Piped")


def test_nothing_is_submitted_if_a_file_is_missing(alt: CommandLine, descriptor: Write) -> None:
    descriptor("good.alt", title="Held back", a=QUICK)
    for missing, sentence in (("no.alt", "there is no file `no.alt`"), ("no*.alt", "no file matches `no*.alt`")):
        done = alt("submit", "good.alt", missing)
        assert (done.code, done.out) == (8, "")
        assert sentence in done.err
    assert alt("submit", ".").code == 2
    assert alt("list", "--filter", 'title = "Held back"', "--json").json["jobs"] == []


def test_a_deadline_in_the_past_of_the_job_fails_it(alt: CommandLine, descriptor: Write) -> None:
    done = alt("submit", descriptor(a={"task_type": "delay", "duration_seconds": 60}), "--deadline", "+1s", "--watch")
    assert done.code == 4
    assert "[DEADLINE_EXCEEDED]" in done.out
