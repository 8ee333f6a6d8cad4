"""Runs without a daemon: real processes, one of them executed as authors and CI do it."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.cli.processes import CommandLine, Done, Write
from tests.cli.test_live import on_a_terminal
from tests.processes import Process

QUICK = {"task_type": "delay", "duration_seconds": 0.02}
LONG = {"task_type": "delay", "duration_seconds": 600}
FAILS = {"url": "http://127.0.0.1:9/"}
ASKS = {"prompt": "Tell me"}
FREE = ("--grpc-port", "0", "--http-port", "0")
#: A function that goes on when it is cancelled, for ever.
DEAF = """
import asyncio, pathlib
async def deaf(started):
    pathlib.Path(started).touch()
    while True:
        try: await asyncio.sleep(600)
        except asyncio.CancelledError: pass
"""


class Place:
    """Where runs happen: their temporary directories are made in one that is empty before and after."""

    def __init__(self, command: CommandLine, temporary: Path) -> None:
        self.command = command
        self.temporary = temporary
        self.env = {"TMPDIR": str(temporary), "PYTHONPATH": str(command.directory)}

    def __call__(self, *arguments: str | Path, executed: bool = False) -> Done:
        start = self.command.program if executed else self.command.process
        done = start("run", *arguments, env=self.env)
        self.left_clean()
        return done

    def records(self) -> list[Any]:
        return [json.loads(path.read_bytes()) for path in sorted(self.command.directory.glob("**/last_*.json"))]

    def left_clean(self) -> None:
        """No process that was started for a run is there any more, nor any file."""
        ours = [process for process in psutil.process_iter() if self._is_of_a_run(process)]
        assert psutil.wait_procs(ours, timeout=10)[1] == []
        assert list(self.temporary.iterdir()) == []

    def _is_of_a_run(self, process: psutil.Process) -> bool:
        """By its directory, or by the environment that a program was started with."""
        try:
            directory, temporary = process.cwd(), process.environ().get("TMPDIR", "")
        except psutil.Error:
            return False
        return Path(directory).is_relative_to(self.command.directory) or temporary == str(self.temporary)


@pytest.fixture
def place(command: CommandLine, tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(command, tmp_path_factory.mktemp("t"))


def read_until(process: Process | subprocess.Popen[str], words: str) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        if words in line:
            return
    assert process.stderr is not None
    pytest.fail(f"it never said `{words}`, but: {process.stderr.read()}")


def test_a_file_runs_without_a_daemon_and_leaves_nothing_but_its_record(place: Place, descriptor: Write) -> None:
    counted = {"task_type": "data_processing", "input": [1, 2], "expression": "length(@)"}
    done = place(descriptor(a=QUICK, b=counted), executed=True)
    assert done.code == 0
    assert re.search(r"#\d+ job succeeded", done.out)
    assert re.search(r"✓ \S+ “A job” succeeded in .*, 2 of 2 tasks", done.out)
    told = re.search(r"see its record: alt-runner last show (var/last/\S+\.json)$", done.err, re.MULTILINE)
    assert told is not None
    assert "A job" in place.command("last", "show", told[1]).out
    assert place.command("last", "verify", told[1]).code == 0
    # Nothing of the log on success.
    assert done.err.count("\n") == 2
    assert sorted(path.name for path in place.command.directory.iterdir()) == ["job.alt", "var"]


def test_the_exit_code_is_the_worst_end_of_all_files(place: Place, descriptor: Write) -> None:
    descriptor("good.alt", title="Good", a=QUICK)
    descriptor("half.alt", title="Half", a=QUICK, b=FAILS)
    half = place("*.alt")
    assert half.code == 3
    descriptor("late.alt", title="Late", a=LONG)
    done = place("good.alt", "late.alt", "--deadline", "+1s", "--records", "kept")
    assert done.code == 4
    assert re.search(r"✗ \S+ “Late” failed .*\[DEADLINE_EXCEEDED\]", done.out)
    assert done.err.count("alt-runner last show kept/") == 2
    assert "attempt_failed" not in done.err + half.err, "the log would tell again what was shown"


def test_who_asks_an_ai_and_has_none_is_told_how_to_have_one(place: Place, descriptor: Write) -> None:
    done = place(descriptor(a={"prompt": "Tell me"}))
    assert done.code == 4
    assert "[NO_ORCHESTRATOR]" in done.out
    assert done.err.splitlines()[-1] == "  add --orchestrator URL, or --simulate for simulated answers"


def test_a_wrong_descriptor_is_told_before_anything_is_run(place: Place, descriptor: Write) -> None:
    descriptor("good.alt", a=QUICK)
    descriptor("wrong.alt", after={"a": ["b"]}, a=QUICK)
    done = place("good.alt", "wrong.alt")
    assert (done.code, done.out) == (6, "")
    assert "error: There is no task `b`. [UNKNOWN_DEPENDENCY]" in done.err
    assert "wrong.alt: refused, 1 error" in done.err
    assert not (place.command.directory / "var").exists()
    told = place("good.alt", "wrong.alt", "--json").json
    assert (told["file"], told["error"]["exit_code"]) == ("wrong.alt", 6)
    assert told["error"]["reason"] == "INVALID_DESCRIPTOR"
    assert [finding["reason"] for finding in told["error"]["findings"]] == ["UNKNOWN_DEPENDENCY"]


def test_mistakes_in_parameters_are_told_before_anything_is_run(place: Place, descriptor: Write) -> None:
    """By the handlers of this installation, with the settings of this run."""
    descriptor("good.alt", a=QUICK)
    command = {"task_type": "system_command", "command": ["echo", "hello"]}
    descriptor("wrong.alt", a={"task_type": "delay"}, b=command)
    done = place("good.alt", "wrong.alt")
    assert done.code == 6
    assert "wrong.alt" in done.err
    assert "MISSING_PARAMETER" in done.err
    assert "NOT_ALLOWED" in done.err
    assert place.records() == []
    descriptor("right.alt", b=command)
    assert place("right.alt", "--set", 'system_command.allow=["echo"]').code == 0


def test_what_cannot_be_is_told_before_anything_is_run(place: Place, descriptor: Write) -> None:
    file = descriptor(a=QUICK)
    contradiction = place(file, "--simulate", "--orchestrator", "http://127.0.0.1:9")
    unwritable = place(file, "--records", str(file))
    mistaken = place(file, "--set", "engine.max_runing_jobs=1")
    assert [contradiction.code, unwritable.code, mistaken.code] == [2, 2, 2]
    assert "give one of them" in contradiction.err
    assert "choose another --records" in unwritable.err
    assert "Did you mean `engine.max_running_jobs`?" in mistaken.err
    assert place("missing.alt").code == 8
    assert place.records() == []


def test_a_temporary_directory_too_deep_for_a_socket_is_named(command: CommandLine, descriptor: Write) -> None:
    deep = command.directory / ("d" * 100)
    deep.mkdir()
    done = command.process("run", descriptor(a=QUICK), env={"TMPDIR": str(deep)})
    assert done.code == 2
    assert "let TMPDIR name a shorter directory" in done.err
    assert list(deep.iterdir()) == []


def test_as_json_it_tells_files_then_events_then_records(place: Place, descriptor: Write) -> None:
    options = ("--queue", "slow", "--priority", "HIGH", "--label", "team=blue")
    file = descriptor(a=QUICK)
    first, *events, last = place(file, "--json", *options).lines
    assert (first["file"], first["job"]["queue"], first["job"]["priority"]) == (str(file), "slow", "PRIORITY_HIGH")
    assert first["job"]["labels"] == {"team": "blue"}
    assert [event["sequence"] for event in events] == [str(number) for number in range(1, len(events) + 1)]
    assert "job_succeeded" in events[-1]
    assert last["job_id"] == first["job"]["job_id"]
    assert json.loads(Path(last["record"]).read_bytes())["job_id"] == last["job_id"]


def test_simulated_answers_stand_in_for_every_endpoint_and_say_so(place: Place, descriptor: Write) -> None:
    endpoint = "orchestrator.endpoints.0"
    values = ("url=https://127.0.0.1:9", "model=m", "tls_ca_file=none.pem")
    there = [word for value in values for word in ("--set", f"{endpoint}.{value}")]
    file = descriptor(ask=ASKS)
    assert place(file, "--simulate", "--set", f"{endpoint}.protocol=openai", *there).code == 0
    assert place(file, "--simulate", "--set", f"{endpoint}.protocol=anthropic", *there).code == 0
    assert place(file, "--simulate").code == 0
    first, second, third = (record["task_results"]["ask"]["output"] for record in place.records())
    assert first["text"] == second["text"] == third["text"]
    assert first["text"].startswith("[simulated] ")
    assert place(file).code == 4, "nobody answers where nobody was named"


def test_inputs_and_fail_fast_reach_the_job(place: Place, descriptor: Write) -> None:
    shaped = {"task_type": "data_processing", "input": "${inputs.n}", "expression": "@"}
    assert place(descriptor(a=shaped), "--input", "n=[1, 2]").code == 0
    assert place.records()[0]["task_results"]["a"]["output"] == [1, 2]
    done = place(descriptor(a=FAILS, b=LONG), "--fail-fast", "--settings", _settings(place))
    assert done.code == 4
    assert "b: cancelled" in done.out


def test_artifacts_are_kept_where_the_record_says(place: Place, descriptor: Write) -> None:
    """They are the ledger's, which ends with the run."""
    shaped = {"task_type": "data_processing", "input": "${inputs.text}", "expression": "@"}
    text = "long " * 1000
    small = ("--set", "engine.inline_output_bytes=100", "--input", f"text={text}")
    done = place(descriptor(a=shaped), *small, "--records", "kept", "--json")
    assert done.code == 0
    [artifact] = place.records()[0]["artifacts"]
    told = done.lines[-1]["artifacts"]
    assert told == [str(place.command.directory / "kept" / artifact["path"])]
    assert json.loads(Path(told[0]).read_bytes()) == text
    assert f"kept/jobs/{done.lines[-1]['job_id']}/artifacts" in told[0]
    assert re.search(
        r"artifacts of \S+: kept/jobs/", place(place.command.directory / "job.alt", *small, "--records", "kept").err
    )


def _settings(place: Place) -> Path:
    """A file as `serve` takes it; what it says of ports, data and ledger is not for a run."""
    file = place.command.directory / "settings.toml"
    file.write_text('data_dir = "elsewhere"\n[grpc]\nport = 1\n[ledger]\nurl = "sqlite:////nowhere/at/all.db"\n')
    return file


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_cancels_the_jobs_and_their_records_are_written(
    place: Place, descriptor: Write, number: signal.Signals
) -> None:
    with place.command.started("run", descriptor(a=LONG, b=QUICK), env=place.env) as process:
        read_until(process, "b: succeeded")
        process.send_signal(number)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert re.search(r"⊘ \S+ “A job” cancelled .*1 of 2 tasks", out)
    assert "once more leaves at once" in err
    assert "see its record: alt-runner last show var/last/" in err
    [record] = place.records()
    assert record["task_results"]["a"]["status"] == "cancelled"
    assert record["metadata"]["cancelled"] is True
    place.left_clean()


def deaf(place: Place, descriptor: Write) -> tuple[str | Path, ...]:
    """A run of a function that ignores its cancellation."""
    (place.command.directory / "deaf_of_runs.py").write_text(DEAF)
    call = {"task_type": "python", "function": "deaf_of_runs:deaf"}
    job = descriptor(a={**call, "arguments": {"started": str(place.command.directory / "started")}}, b=QUICK)
    return ("run", job, "--set", "python.allow=deaf_of_runs")


def test_a_second_signal_leaves_at_once(place: Place, descriptor: Write) -> None:
    with place.command.started(
        *deaf(place, descriptor), "--set", "python.cancel_grace_seconds=600", env=place.env
    ) as process:
        read_until(process, "b: succeeded")
        process.send_signal(signal.SIGINT)
        assert process.stderr is not None
        assert any("once more leaves at once" in line for line in process.stderr)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    place.left_clean()


def test_code_that_ignores_its_cancellation_does_not_hold_up_the_end(place: Place, descriptor: Write) -> None:
    with place.command.started(
        *deaf(place, descriptor), "--set", "python.cancel_grace_seconds=0.1", env=place.env
    ) as process:
        read_until(process, "b: succeeded")
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 130
    assert re.search(r"⊘ \S+ “A job” cancelled", out)
    assert "see its record: alt-runner last show var/last/" in err
    assert len(place.records()) == 1
    place.left_clean()


def test_a_job_that_does_not_end_when_it_is_cancelled_is_left_behind(place: Place, descriptor: Write) -> None:
    """CI sends one signal, and after a while kill -9."""
    patient = ("--set", "python.cancel_grace_seconds=600", "--set", "engine.cancel_grace_seconds=0")
    with place.command.started(*deaf(place, descriptor), *patient, env=place.env) as process:
        read_until(process, "b: succeeded")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "did not end, and has no record" in err
    place.left_clean()


def test_a_reader_that_goes_away_ends_the_jobs_with_a_record(place: Place, descriptor: Write) -> None:
    tasks = {f"t{number}": QUICK for number in range(20)}
    file = descriptor(after={task: ["t0"] for task in tasks if task != "t0"}, long=LONG, **tasks)
    with place.command.started("run", file, env=place.env) as process:
        read_until(process, "accepted")
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(20) == 141
    assert len(place.records()) == 1
    place.left_clean()


def test_two_run_side_by_side(place: Place, descriptor: Write) -> None:
    with place.command.started("run", descriptor("long.alt", a=LONG), env=place.env) as process:
        read_until(process, "a: attempt 1 started")
        assert place.command.process("run", descriptor("quick.alt", a=QUICK), env=place.env).code == 0
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 130
    assert len(place.records()) == 2
    place.left_clean()


EXAMPLES = Path(__file__).parents[2] / "examples"


def test_jobs_that_tasks_run_run_here_too_and_the_record_told_is_their_parents(place: Place) -> None:
    done = place(EXAMPLES / "branches.alt.yaml", "--set", "engine.max_running_jobs=1")
    assert done.code == 0
    told = re.search(r"see its record: alt-runner last show (var/last/\S+\.json)$", done.err, re.MULTILINE)
    assert told is not None
    parent = json.loads((place.command.directory / told[1]).read_bytes())
    assert parent["title"] == "Figures of two branches"
    assert parent["task_results"]["best"]["output"] == {"branch": "north", "sales": 3, "total": 510}
    children = {record["job_id"] for record in place.records()} - {parent["job_id"]}
    assert children == {parent["task_results"][name]["output"]["job_id"] for name in ("north", "south")}


def test_artifacts_of_jobs_that_tasks_run_are_kept(place: Place, descriptor: Write) -> None:
    child = json.loads(descriptor("child.alt", much={"task_type": "delay", "seconds": 0}).read_bytes())
    child["tasks"][0]["parameters"] = {"task_type": "data_processing", "input": "x" * 500, "expression": "@"}
    file = descriptor(run={"task_type": "job", "descriptor": child})
    done = place(file, "--json", "--set", "engine.inline_output_bytes=300")
    [kept] = [line for line in done.lines if "artifacts" in line]
    contents = [json.loads(Path(path).read_bytes()) for path in kept["artifacts"]]
    assert "x" * 500 in contents


def test_a_terminal_gets_bars_and_is_not_left_without_a_cursor(place: Place, descriptor: Write) -> None:
    file = descriptor(title="Drawn", wait={"task_type": "delay", "duration_seconds": 0.6})
    code, drawn = on_a_terminal(place.command, "run", str(file), env=place.env)
    assert code == 0
    assert re.search(r"● Drawn +[━╸╺]+", re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", drawn))
    assert "#1 accepted" not in drawn
    assert drawn.rfind("\x1b[?25h") > drawn.rfind("\x1b[?25l")
    place.left_clean()


def test_a_token_budget_reaches_the_job(place: Place, descriptor: Write) -> None:
    done = place(descriptor(a={"prompt": "how are you?", "max_tokens": 50}), "--simulate", "--token-budget", "40")
    assert done.code == 4
    assert "0 of 40 tokens are used, and it would take up to 54" in done.out + done.err
    assert place(descriptor(a={"prompt": "how?", "max_tokens": 50}), "--simulate", "--token-budget", "100").code == 0
