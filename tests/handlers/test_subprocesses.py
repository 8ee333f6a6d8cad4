"""Real programs. `sh` is what POSIX says; `setsid` and /proc are Linux."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import psutil
import pytest

from runner.core.errors import AttemptError
from runner.handlers.settings import ProgramLimits
from runner.handlers.subprocesses import Program, Ran, Subprocesses
from runner.ports import Quiet

PATH = ("/usr/local/bin", "/usr/bin", "/bin")

#: A program, its child, a grandchild in a session of its own, and an orphan in another; each tells its process id.
TREE = """
sleep 1000 & echo $! > "$0/child"
sh -c 'setsid sh -c "echo \\$\\$ > $0/grandchild; exec sleep 1000" & sleep 1000' "$0" &
(setsid sh -c 'echo $$ > "$0/orphan"; exec sleep 1000' "$0" &)
echo $$ > "$0/program"
wait
"""
FAMILY = ("program", "child", "grandchild", "orphan")


class Ear(Quiet):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def notice(self, event: str, **fields: Any) -> None:
        self.heard.append(f"{event}: {fields['error']}")


def programs(rooms: Path, ear: Ear | None = None, **limits: Any) -> Subprocesses:
    limits = {"kill_grace_seconds": 5.0, "directory": str(rooms), **limits}
    return Subprocesses(ProgramLimits(**limits), PATH, section="system_command", observer=ear)


async def sh(script: str, *arguments: str, rooms: Path, timeout: float | None = None, **limits: Any) -> Ran:  # noqa: ASYNC109  a parameter of the program
    program = Program(command=("/bin/sh", "-c", script, *arguments), timeout=timeout)
    return await programs(rooms, **limits).run(program)


async def failure(*command: str, rooms: Path, **limits: Any) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        await programs(rooms, **limits).run(Program(command=command))
    return caught.value


@pytest.fixture
def rooms(tmp_path: Path) -> Path:
    """Where the directories of programs are made."""
    rooms = tmp_path / "rooms"
    rooms.mkdir()
    return rooms


async def written(path: Path) -> str:
    with anyio.fail_after(20):
        while not (text := content(path)):
            await anyio.lowlevel.checkpoint()
    return text


def content(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def left_in(rooms: Path) -> list[Path]:
    return list(rooms.iterdir())


async def family(told: Path) -> list[psutil.Process]:
    return [psutil.Process(int(await written(told / name))) for name in FAMILY]


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [process for process in processes if is_alive(process)]


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def supervisors_of(daemon: psutil.Process) -> list[psutil.Process]:
    return [child for child in daemon.children() if child.cmdline()[-1].endswith("supervisor.py")]


async def ended(processes: list[psutil.Process]) -> None:
    with anyio.fail_after(20):
        while alive(processes):
            await anyio.lowlevel.checkpoint()


async def emptied(rooms: Path) -> None:
    with anyio.fail_after(20):
        while left_in(rooms):
            await anyio.lowlevel.checkpoint()


@asynccontextmanager
async def cancelled_at_the_end(script: str, *arguments: str, rooms: Path, **limits: Any) -> AsyncIterator[None]:
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: sh(script, *arguments, rooms=rooms, **limits))
        yield
        group.cancel_scope.cancel()


async def test_a_program_has_a_new_directory_session_and_environment(
    rooms: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_DAEMON", "private")
    ran = await sh('pwd; env | sort; echo "$$ $(ps -o sid= -p $$)"', rooms=rooms)
    directory, *environment, ids = ran.stdout.splitlines()
    assert Path(directory).parent == rooms
    expected = [
        f"HOME={directory}",
        "LANG=C.UTF-8",
        f"PATH={':'.join(PATH)}",
        f"PWD={directory}",
        f"TMPDIR={directory}",
    ]
    assert environment == expected
    program, session = ids.split()
    assert program == session
    assert left_in(rooms) == []


async def test_no_descriptor_of_the_daemon_is_open_in_a_program(rooms: Path) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    try:
        ran = await programs(rooms).run(Program(command=("/bin/ls", "/proc/self/fd")))
    finally:
        os.close(reading)
        os.close(writing)
    # The fourth is the directory that ls reads.
    assert ran.stdout.split() == ["0", "1", "2", "3"]


async def test_a_program_gains_no_privileges_and_leaves_no_core(rooms: Path) -> None:
    ran = await sh("grep NoNewPrivs /proc/self/status; ulimit -c", rooms=rooms)
    assert ran.stdout.split() == ["NoNewPrivs:", "1", "0"]


async def test_the_limits_of_the_settings_hold_in_a_program(rooms: Path) -> None:
    limits: dict[str, Any] = {
        "max_cpu_seconds": 7,
        "max_file_bytes": 8000,
        "max_open_files": 90,
        "max_memory_bytes": 2**30,
        "max_user_processes": 5000,
    }
    ran = await programs(rooms, **limits).run(Program(command=("/bin/cat", "/proc/self/limits")))
    told = {line[:26].strip(): line[26:].split()[0] for line in ran.stdout.splitlines()}
    assert told["Max cpu time"] == "7"
    assert told["Max file size"] == "8000"
    assert told["Max open files"] == "90"
    assert told["Max address space"] == str(2**30)
    assert told["Max processes"] == "5000"
    assert told["Max core file size"] == "0"


async def test_signals_have_their_defaults_in_a_program(rooms: Path) -> None:
    ran = await sh("grep SigIgn /proc/self/status", rooms=rooms)
    assert int(ran.stdout.split()[1], 16) == 0


async def test_standard_output_may_be_opened_by_name(rooms: Path) -> None:
    assert (await sh("echo here > /dev/stdout", rooms=rooms)).stdout == "here\n"


async def test_a_flood_is_read_and_dropped_and_told(rooms: Path) -> None:
    flood = "head -c 20000000 /dev/zero; head -c 20000000 /dev/zero >&2"
    ran = await sh(flood, rooms=rooms, max_output_bytes=1000)
    assert (len(ran.stdout), len(ran.stderr)) == (1000, 1000)
    assert (ran.stdout_bytes, ran.stderr_bytes) == (20_000_000, 20_000_000)
    assert ran.truncated


async def test_output_is_cut_off_between_words(rooms: Path) -> None:
    """Half a secret would not be known as one, and would not be taken out."""
    ran = await sh("echo one two three; printf 'a long-secret' >&2", rooms=rooms, max_output_bytes=10)
    assert (ran.stdout, ran.stderr) == ("one two ", "a ")
    assert ran.truncated


async def test_a_flood_without_end_ends_with_its_time(rooms: Path) -> None:
    with pytest.raises(AttemptError, match=r"more than 0\.5 s"):
        await sh("yes", rooms=rooms, timeout=0.5, max_output_bytes=1000)


async def test_output_that_fits_is_whole_and_what_is_no_text_is_replaced(rooms: Path) -> None:
    ran = await sh(r"printf 'a\377b'; echo çok >&2", rooms=rooms, max_output_bytes=5)
    assert (ran.exit_code, ran.stdout, ran.stderr) == (0, "a\N{REPLACEMENT CHARACTER}b", "çok\n")
    assert not ran.truncated


async def test_long_input_reaches_a_program_and_one_that_does_not_read_it_is_not_held_up(rooms: Path) -> None:
    text = "ş" * 1_000_000
    ran = await programs(rooms).run(Program(command=("/usr/bin/wc", "-c"), stdin=text))
    assert ran.stdout.strip() == "2000000"
    ran = await programs(rooms).run(Program(command=("/bin/true",), stdin=text))
    assert ran.exit_code == 0


async def test_a_time_out_ends_the_whole_tree(rooms: Path, tmp_path: Path) -> None:
    found: list[psutil.Process] = []

    async def look() -> None:
        found.extend(await family(tmp_path))

    async with anyio.create_task_group() as group:
        group.start_soon(look)
        with pytest.raises(AttemptError) as caught:
            await sh(f"echo working >&2; {TREE}", str(tmp_path), rooms=rooms, timeout=3.0)
    assert (caught.value.reason, caught.value.retryable) == ("TIMED_OUT", True)
    assert caught.value.message.endswith("(parameter `timeout`) and was ended; it said last: working")
    assert len(found) == len(FAMILY)
    assert alive(found) == []
    assert left_in(rooms) == []


@pytest.mark.parametrize("use_uvloop", [False, True])
@pytest.mark.parametrize("grace", [0.0, 5.0])
def test_a_cancellation_ends_the_whole_tree(use_uvloop: bool, grace: float, rooms: Path, tmp_path: Path) -> None:
    async def cancel() -> None:
        async with cancelled_at_the_end(TREE, str(tmp_path), rooms=rooms, kill_grace_seconds=grace):
            found = await family(tmp_path)
            supervisors = supervisors_of(psutil.Process())
            assert len(supervisors) == 1
            assert alive(found) == found
        assert alive(found + supervisors) == []
        assert left_in(rooms) == []

    anyio.run(cancel, backend_options={"use_uvloop": use_uvloop})


async def test_a_program_is_asked_to_end_before_it_is_killed(rooms: Path, tmp_path: Path) -> None:
    script = """trap 'echo asked > "$0/asked"; exit' TERM; echo $$ > "$0/program"; while :; do sleep 0.01; done"""
    async with cancelled_at_the_end(script, str(tmp_path), rooms=rooms):
        await written(tmp_path / "program")
    assert (tmp_path / "asked").read_text() == "asked\n"


async def test_a_program_that_does_not_heed_sigterm_is_killed(rooms: Path, tmp_path: Path) -> None:
    script = """trap '' TERM; echo $$ > "$0/program"; while :; do sleep 0.01; done"""
    async with cancelled_at_the_end(script, str(tmp_path), rooms=rooms, kill_grace_seconds=0.2):
        program = psutil.Process(int(await written(tmp_path / "program")))
    assert alive([program]) == []


async def test_what_a_program_leaves_running_ends_with_it(rooms: Path, tmp_path: Path) -> None:
    told = " -a ".join(f'-s "$0/{name}"' for name in FAMILY)
    ran = await sh(f"({TREE}) & until [ {told} ]; do sleep 0.01; done; echo done", str(tmp_path), rooms=rooms)
    assert ran.stdout == "done\n"
    assert [name for name in FAMILY if psutil.pid_exists(int(content(tmp_path / name)))] == []


DAEMON = """
import anyio, sys
from runner.handlers.settings import ProgramLimits
from runner.handlers.subprocesses import Program, Subprocesses

# The grace is long: with its daemon killed, a program has none.
subprocesses = Subprocesses(ProgramLimits(kill_grace_seconds=1000, directory=sys.argv[2]), ["/bin"], section="x")
command = ("/bin/sh", "-c", sys.argv[1], sys.argv[3])
anyio.run(subprocesses.run, Program(command=command, environment={"PATH": "/usr/bin:/bin"}))
"""


async def test_nothing_outlives_a_daemon_that_is_killed(rooms: Path, tmp_path: Path) -> None:
    """Else a task that the restarted daemon runs again would run twice at the same time."""
    command = [sys.executable, "-c", DAEMON, f"trap '' TERM; {TREE}", str(rooms), str(tmp_path)]
    async with await anyio.open_process(command, stdin=None, stdout=None, stderr=None) as daemon:
        found = await family(tmp_path)
        supervisors = supervisors_of(psutil.Process(daemon.pid))
        assert len(supervisors) == 1
        daemon.kill()
        await daemon.wait()
    await ended(found + supervisors)
    await emptied(rooms)


async def test_a_program_that_kills_its_supervisor_dies_with_it(rooms: Path, tmp_path: Path) -> None:
    script = 'echo $$ > "$0/program"; kill -9 $PPID; while :; do sleep 0.01; done'
    ear = Ear()
    with pytest.raises(AttemptError) as caught:
        await programs(rooms, ear).run(Program(command=("/bin/sh", "-c", script, str(tmp_path))))
    assert (caught.value.reason, caught.value.retryable) == ("PROCESS_DIED", True)
    assert len(ear.heard) == 1
    pid = int((tmp_path / "program").read_text())
    if psutil.pid_exists(pid):
        await ended([psutil.Process(pid)])


async def test_a_supervisor_that_does_not_end_is_killed_with_its_tree_and_told(rooms: Path, tmp_path: Path) -> None:
    ear = Ear()
    program = Program(command=("/bin/sh", "-c", f"kill -STOP $PPID; {TREE}", str(tmp_path)))
    subprocesses = programs(rooms, ear, kill_grace_seconds=0.0)
    async with anyio.create_task_group() as group:
        group.start_soon(subprocesses.run, program)
        found = await family(tmp_path)
        group.cancel_scope.cancel()
    [told] = ear.heard
    assert told.startswith("program_left_behind: the supervisor of `/bin/sh` did not end")
    await ended(found)
    # Nobody was left to remove it.
    assert len(left_in(rooms)) == 1


async def test_a_directory_that_a_program_locked_is_removed(rooms: Path) -> None:
    await sh("mkdir -p a/b; echo x > a/b/c; ln -s / a/link; chmod 0 a/b a .", rooms=rooms)
    assert left_in(rooms) == []


async def test_the_directory_of_a_program_that_failed_is_removed(rooms: Path) -> None:
    error = await failure("/bin/sh", "-c", "touch a; exit 3", rooms=rooms)
    assert error.reason == "EXIT_STATUS"
    assert left_in(rooms) == []


async def test_too_much_memory_is_told_by_the_setting(rooms: Path) -> None:
    command = (sys.executable, "-I", "-c", "bytearray(200_000_000)")
    error = await failure(*command, rooms=rooms, max_memory_bytes=100_000_000)
    assert (error.reason, error.retryable) == ("EXIT_STATUS", True)
    assert "exited with 1; it said last: " in error.message
    assert "(it may have reached 100000000 (setting `system_command.limits.max_memory_bytes`))" in error.message


async def test_a_file_that_grows_too_large_is_told_by_the_setting(rooms: Path) -> None:
    error = await failure("/bin/dd", "if=/dev/zero", "of=f", "count=100", rooms=rooms, max_file_bytes=1024)
    assert (error.reason, error.retryable) == ("LIMIT_REACHED", False)
    assert error.message == "`/bin/dd` was ended: it reached 1024 (setting `system_command.limits.max_file_bytes`)"
    write = "open('f', 'wb', 0).write(b'x' * 1024); open('f', 'ab', 0).write(b'x')"
    error = await failure(sys.executable, "-I", "-c", write, rooms=rooms, max_file_bytes=1024)
    assert "system_command.limits.max_file_bytes" in error.message


async def test_too_much_processor_time_is_told_by_the_setting(rooms: Path) -> None:
    error = await failure("/bin/sh", "-c", "while :; do :; done", rooms=rooms, max_cpu_seconds=1)
    assert (error.reason, error.retryable) == ("LIMIT_REACHED", False)
    assert "system_command.limits.max_cpu_seconds" in error.message


async def test_too_many_open_files_are_told_by_the_setting(rooms: Path) -> None:
    error = await failure(
        sys.executable, "-I", "-c", "a = [open('/dev/null') for _ in range(30)]", rooms=rooms, max_open_files=20
    )
    assert "system_command.limits.max_open_files" in error.message


async def test_an_end_by_a_signal_is_told_by_its_name(rooms: Path) -> None:
    error = await failure("/bin/sh", "-c", "kill -SEGV $$", rooms=rooms)
    assert (error.reason, error.message) == ("EXIT_STATUS", "`/bin/sh` was ended by SIGSEGV")
    error = await failure("/bin/sh", "-c", f"kill -{signal.SIGRTMIN + 1} $$", rooms=rooms)
    assert error.message == f"`/bin/sh` was ended by signal {signal.SIGRTMIN + 1}"


async def test_the_last_words_of_a_long_lament_are_told(rooms: Path) -> None:
    error = await failure("/bin/sh", "-c", "yes sorry | head -n 100000 >&2; echo bye >&2; exit 7", rooms=rooms)
    assert error.message.startswith("`/bin/sh` exited with 7; it said last: ")
    assert error.message.endswith("sorry bye")
    assert len(error.message) < 600


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ("f'{300 * chr(97)}\\n{300 * chr(98)}\\nend\\n'", "b" * 300 + " end"),
        ("300 * 'ab cd-' + 'end'", "… " + 82 * "cd-ab " + "cd-end"),
        ("9000 * 'x'", "…"),
    ],
)
async def test_the_last_words_are_whole(said: str, told: str, rooms: Path) -> None:
    error = await failure(sys.executable, "-I", "-c", f"import sys; sys.stderr.write({said}); sys.exit(1)", rooms=rooms)
    assert error.message.partition("; it said last: ")[2] == told


@pytest.mark.parametrize(
    ("command", "told"),
    [
        ("/no/such/program", "`/no/such/program` cannot be started: No such file or directory"),
        ("/etc", "`/etc` cannot be started: Permission denied"),
    ],
)
async def test_a_program_that_cannot_be_started_is_told(command: str, told: str, rooms: Path) -> None:
    error = await failure(command, rooms=rooms)
    assert (error.reason, error.retryable, error.message) == ("COMMAND_NOT_STARTED", False, told)
    assert left_in(rooms) == []


async def test_a_place_for_directories_that_is_not_there_is_told(rooms: Path, tmp_path: Path) -> None:
    missing = str(tmp_path / "missing")
    error = await failure("/bin/true", rooms=rooms, directory=missing)
    assert error.reason == "COMMAND_NOT_STARTED"
    assert f"no directory in `{missing}`: No such file or directory" in error.message
