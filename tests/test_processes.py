"""That processes which are forked are as good as those that are executed."""

from __future__ import annotations

import atexit
import json
import os
import signal
import sys
from pathlib import Path

import psutil
import pytest
import uuid_utils

from tests.processes import Process, Surroundings, preloaded


def tell() -> None:
    print(  # noqa: T201  it is how a process talks
        json.dumps(
            {
                "modules": sorted(sys.modules),
                "descriptors": sorted(int(path.name) for path in Path("/proc/self/fd").iterdir() if path.exists()),
                "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
                "ids": [str(uuid_utils.uuid7()), str(uuid_utils.uuid4())],
                "environment": dict(os.environ),
                "directory": str(Path.cwd()),
                "parent": os.getppid(),
                "session": os.getsid(0),
                "typed": sys.stdin.read(),
            }
        )
    )


def leave(code: int | str) -> None:
    atexit.register(sys.stdout.write, "at its end")
    sys.stderr.write("with words\n")
    sys.exit(code)


def stay() -> None:
    print("here", flush=True)  # noqa: T201  it is how a process talks
    signal.pause()


def test_the_server_has_one_thread_and_everything_imported_that_the_product_needs(tmp_path: Path) -> None:
    with Process(tell, surroundings=Surroundings(tmp_path)) as process:
        server = psutil.Process(process.pid).parent()
        assert server is not None
        assert server.num_threads() == 1
        out, err = process.communicate(timeout=20)
    assert err == ""
    assert set(preloaded()) <= set(json.loads(out)["modules"])


def test_a_process_has_only_what_it_was_given(tmp_path: Path) -> None:
    told = []
    for _ in range(2):
        with Process(tell, surroundings=Surroundings(tmp_path, {"A": "b"})) as process:
            told.append(json.loads(process.communicate(timeout=20)[0]))
    one, two = told
    assert one["environment"] == {"A": "b"}
    assert one["directory"] == str(tmp_path)
    assert one["descriptors"] == [0, 1, 2]
    assert one["interrupt"]
    assert one["typed"] == ""
    assert one["parent"] == two["parent"] != os.getpid()
    assert not set(one["ids"]) & set(two["ids"])


@pytest.mark.parametrize(("said", "code", "words"), [(0, 0, ""), (7, 7, ""), ("what was wrong", 1, "what was wrong\n")])
def test_an_exit_is_that_of_a_program(said: int | str, code: int, words: str) -> None:
    with Process(leave, said, surroundings=Surroundings()) as process:
        assert process.communicate(timeout=20) == ("at its end", f"with words\n{words}")
        assert process.returncode == code


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_is_its_end_and_nothing_is_left_of_it(number: signal.Signals) -> None:
    with Process(stay, surroundings=Surroundings()) as process:
        assert process.stdout.readline() == "here\n"
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(20) == -number
    assert not psutil.pid_exists(process.pid)


def test_what_is_left_of_it_is_killed() -> None:
    with Process(stay, surroundings=Surroundings()) as process:
        assert process.stdout.readline() == "here\n"
    assert process.returncode == -signal.SIGKILL
    assert not psutil.pid_exists(process.pid)
