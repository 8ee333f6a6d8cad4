from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import anyio
import pytest

from runner.core.errors import AttemptError
from runner.handlers.python import CallPython, check_allowed
from runner.handlers.settings import PythonSettings
from runner.ports import Outcome, Quiet
from runner.testing import FakeAttempt

CHORES = r"""
import asyncio, contextlib, os, pathlib, pickle, subprocess, sys, time
from runner.core.errors import AttemptError

NUMBER = 5

def add(a, b=1):
    return {"sum": a + b, "pid": os.getpid()}

async def add_async(a):
    return [a, os.getpid()]

def fails():
    raise ValueError("no good")

async def fails_async():
    raise ValueError("no good")

class Odd(Exception):
    def __init__(self, one, two):
        self.trouble = lambda: one

def fails_oddly():
    raise Odd(1, 2)

def gives_up():
    raise AttemptError("BUSY", "come back", retryable=True, retry_after=5.0)

def odd_result():
    return object()

def large():
    return "x" * 1000

def dies():
    os._exit(3)

def prints():
    print("a word on standard output")
    os.system("echo a word of another program; cat")

def hangs(started):
    pathlib.Path(started).write_text(str(os.getpid()))
    time.sleep(3600)

def starts_another(started):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(3600)"])
    pathlib.Path(started).write_text(str(child.pid))
    time.sleep(3600)

def forks():
    os.fork()

def forks_and_raises():
    if os.fork() == 0:
        raise SystemExit("the child")

def forges():
    given = pickle.dumps("forged")
    for descriptor in range(3, 30):
        with contextlib.suppress(OSError):
            if os.readlink(f"/proc/self/fd/{descriptor}").startswith("pipe:"):
                os.write(descriptor, b"RETURN %d\n" % len(given) + given)

def exits():
    sys.exit(4)

async def exits_async():
    sys.exit(4)

def interrupts():
    raise KeyboardInterrupt

async def interrupts_async():
    raise KeyboardInterrupt

released = asyncio.Event()

async def swallows(seen):
    while not released.is_set():
        try:
            await released.wait()
        except asyncio.CancelledError:
            seen.append("cancelled")

async def let_go():
    released.set()

async def cleans_up(seen):
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.sleep(0)
        seen.append("cleaned")
"""


@pytest.fixture
def chores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An importable module, here and in worker processes."""
    (tmp_path / "chores_of_tests.py").write_text(CHORES)
    monkeypatch.syspath_prepend(str(tmp_path))


async def call(name: str, handler: CallPython | None = None, **arguments: Any) -> Outcome:
    handler = handler or CallPython(PythonSettings(allow=("chores_of_tests",), max_result_bytes=500))
    return await handler.run(FakeAttempt({"function": f"chores_of_tests:{name}", "arguments": arguments}))


async def failure(name: str, **arguments: Any) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        await call(name, **arguments)
    return caught.value


@pytest.mark.usefixtures("chores")
async def test_a_function_runs_in_a_process_of_its_own_and_an_async_one_on_the_loop() -> None:
    outcome = await call("add", a=2)
    assert outcome.output["sum"] == 3
    assert outcome.output["pid"] != os.getpid()
    assert (await call("add", a=2)).output["pid"] == outcome.output["pid"]
    assert (await call("add_async", a="ğ")).output == ["ğ", os.getpid()]


@pytest.mark.usefixtures("chores")
async def test_what_goes_wrong_in_a_process_is_told() -> None:
    """One test for all, because starting a process is what takes time."""
    error = await failure("fails")
    assert (error.reason, error.retryable) == ("FUNCTION_RAISED", True)
    assert error.message == "`chores_of_tests:fails` raised ValueError: no good"
    error = await failure("fails_oddly")
    assert (error.reason, error.message) == ("FUNCTION_RAISED", "`chores_of_tests:fails_oddly` raised Odd: (1, 2)")
    error = await failure("gives_up")
    assert (error.reason, error.message, error.retryable, error.retry_after) == ("BUSY", "come back", True, 5.0)
    error = await failure("odd_result")
    assert (error.reason, error.retryable) == ("BAD_OUTPUT", False)
    error = await failure("large")
    assert error.reason == "RESULT_TOO_LARGE"
    assert "python.max_result_bytes" in error.message
    assert (await call("prints")).output is None
    error = await failure("dies")
    assert (error.reason, error.retryable) == ("PROCESS_DIED", True)
    assert (await call("add", a=1)).output["sum"] == 2


@pytest.mark.usefixtures("chores")
async def test_an_async_function_that_raises_is_told_alike() -> None:
    error = await failure("fails_async")
    assert (error.reason, error.retryable) == ("FUNCTION_RAISED", True)


@pytest.mark.usefixtures("chores")
async def test_a_function_that_hangs_is_killed_with_its_attempt(tmp_path: Path) -> None:
    started = tmp_path / "started"
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: call("hangs", started=str(started)))
        with anyio.fail_after(20):
            while not (started.exists() and started.read_text()):
                await anyio.lowlevel.checkpoint()
        process = Path("/proc") / started.read_text()
        assert process.exists()
        group.cancel_scope.cancel()
    assert not process.exists()


async def test_nothing_is_allowed_by_default_and_the_setting_is_named() -> None:
    with pytest.raises(AttemptError, match=r"setting `python\.allow`") as caught:
        await CallPython(PythonSettings()).run(FakeAttempt({"function": "os:getcwd"}))
    assert (caught.value.reason, caught.value.retryable) == ("FUNCTION_NOT_ALLOWED", False)
    assert caught.value.message.endswith("allows none")


def test_functions_that_may_be_called_are_told_where_another_is() -> None:
    with pytest.raises(AttemptError) as caught:
        check_allowed("os:getcwd", ("a.b", "jobs.*"))
    assert (
        caught.value.message == "`os:getcwd` may not be called; the setting `python.allow` allows only `a.b`, `jobs.*`"
    )


@pytest.mark.parametrize(
    ("pattern", "path", "allowed"),
    [
        ("a.b:c", "a.b:c", True),
        ("a.b:c", "a.b:d", False),
        ("a.b", "a.b:c", True),
        ("a.b", "a.b.c:d", False),
        ("a.*", "a.b:c", True),
        ("a.*", "a.b.c:d", True),
        ("a.*", "a:c", False),
        ("a.*", "ab.c:d", False),
        ("a:*", "a:c", True),
        ("a:do_*", "a:do_it", True),
        ("a:do_*", "a:undo", False),
    ],
)
def test_patterns(pattern: str, path: str, allowed: bool) -> None:
    if allowed:
        check_allowed(path, [pattern])
    else:
        with pytest.raises(AttemptError, match="may not be called"):
            check_allowed(path, [pattern])


@pytest.mark.parametrize(
    "path", ["", "a", "a:", ":b", "a:_b", "a:b._c", "_a:b", "a:b\n", "a b:c", "a:__class__", "a:b()", "a:b:c", "..a:b"]
)
def test_a_path_that_is_none_or_private_is_refused_whatever_is_allowed(path: str) -> None:
    with pytest.raises(AttemptError, match="parameter `function`"):
        check_allowed(path, ["*", "*:*"])


@pytest.mark.usefixtures("chores")
@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [
        ("add", {}, "parameter `arguments` does not fit `chores_of_tests:add`: missing a required argument: 'a'"),
        ("add", {"a": 1, "z": 2}, "got an unexpected keyword argument 'z'"),
        ("missing", {}, "`chores_of_tests:missing` cannot be loaded: AttributeError"),
        ("NUMBER", {}, "`chores_of_tests:NUMBER` is not a function"),
    ],
)
async def test_a_call_that_cannot_be_made_is_told(name: str, arguments: dict[str, Any], told: str) -> None:
    error = await failure(name, **arguments)
    assert told in error.message
    assert not error.retryable


async def test_a_module_that_cannot_be_imported_is_told() -> None:
    handler = CallPython(PythonSettings(allow=("*",)))
    with pytest.raises(AttemptError, match="cannot be loaded: ModuleNotFoundError"):
        await handler.run(FakeAttempt({"function": "no_such_module_here:f"}))


@pytest.mark.usefixtures("chores")
async def test_a_child_that_a_function_forks_never_answers_in_its_place() -> None:
    """It went on as a second worker on the same pipe, and later calls got each other's results."""
    for chore in ("forks", "forks_and_raises"):
        await call(chore)
        assert [(await call("add", a=number)).output["sum"] for number in range(8)] == list(range(1, 9))


@pytest.mark.usefixtures("chores")
async def test_an_answer_to_another_call_fails_its_task_and_ends_the_worker() -> None:
    before = (await call("add", a=1)).output["pid"]
    error = await failure("forges")
    assert (error.reason, error.retryable) == ("PROCESS_DIED", True)
    assert "another call's answer" in error.message
    after = [(await call("add", a=number)).output for number in range(4)]
    assert [output["sum"] for output in after] == [1, 2, 3, 4]
    assert before not in {output["pid"] for output in after}


@pytest.mark.usefixtures("chores")
@pytest.mark.parametrize("name", ["exits", "exits_async", "interrupts", "interrupts_async"])
async def test_a_function_that_ends_the_program_ends_its_task_alone(name: str) -> None:
    error = await failure(name)
    assert (error.reason, error.retryable) == ("HANDLER_ERROR", False)
    assert "SystemExit: 4" in error.message or "KeyboardInterrupt" in error.message
    assert (await call("add", a=1)).output["sum"] == 2


@pytest.mark.usefixtures("chores")
async def test_an_async_function_that_swallows_its_cancellation_is_abandoned_and_told() -> None:
    class Ear(Quiet):
        def __init__(self) -> None:
            self.heard: list[tuple[str, dict[str, Any]]] = []

        def notice(self, event: str, **fields: Any) -> None:
            self.heard.append((event, fields))

    ear = Ear()
    settings = PythonSettings(allow=("chores_of_tests",), cancel_grace_seconds=0.05)
    seen: list[str] = []
    with anyio.fail_after(10):
        with anyio.move_on_after(0.05) as scope:
            await call("swallows", CallPython(settings, ear), seen=seen)
        assert scope.cancelled_caught
        ((event, fields),) = ear.heard
        assert event == "function_abandoned"
        assert "`chores_of_tests:swallows` ignores its cancellation" in fields["error"]
        # Once, not at every turn of the loop.
        assert seen == ["cancelled"]
        await call("let_go")


@pytest.mark.usefixtures("chores")
async def test_an_async_function_that_heeds_its_cancellation_has_time_to_clean_up() -> None:
    seen: list[str] = []
    with anyio.move_on_after(0.05):
        await call("cleans_up", seen=seen)
    assert seen == ["cleaned"]


@pytest.mark.usefixtures("chores")
async def test_what_a_function_started_is_killed_with_it(tmp_path: Path) -> None:
    started = tmp_path / "started"
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: call("starts_another", started=str(started)))
        child = int(await written(started))
        group.cancel_scope.cancel()
    await ended(child)


DAEMON = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from runner.handlers.python import CallPython
from runner.handlers.settings import PythonSettings
from runner.testing import FakeAttempt
arguments = {"function": "chores_of_tests:starts_another", "arguments": {"started": sys.argv[2]}}

async def main():
    await CallPython(PythonSettings(allow=("chores_of_tests",))).run(FakeAttempt(arguments))

asyncio.run(main())
"""


@pytest.mark.usefixtures("chores")
async def test_no_worker_outlives_a_daemon_that_is_killed(tmp_path: Path) -> None:
    """Else a task that the restarted daemon runs again would run twice at the same time."""
    started = tmp_path / "started"
    async with await anyio.open_process(
        [sys.executable, "-c", DAEMON, str(tmp_path), str(started)], stdin=None, stdout=None, stderr=None
    ) as daemon:
        child = int(await written(started))
        worker = parent(child)
        assert parent(worker) == daemon.pid
        daemon.kill()
        await daemon.wait()
    await ended(worker)
    await ended(child)


async def written(path: Path) -> str:
    with anyio.fail_after(20):
        while not (text := content(path)):
            await anyio.lowlevel.checkpoint()
    return text


def content(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def fields(process: int) -> list[str]:
    """From the state on, of /proc/PID/stat."""
    return (Path("/proc") / str(process) / "stat").read_text().rpartition(")")[2].split()


def parent(process: int) -> int:
    return int(fields(process)[1])


async def ended(process: int) -> None:
    """Wait for a process, which nobody may have reaped, to have ended."""
    with anyio.fail_after(10), suppress(FileNotFoundError, ProcessLookupError):
        while fields(process)[0] not in "ZX":
            await anyio.lowlevel.checkpoint()
