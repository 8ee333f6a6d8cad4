"""A program of a task, and whatever it starts, from beginning to end. Runs as a process of its own. Linux.

The daemon runs this file, not the module: `python -I -S supervisor.py`, with one end of a socket as standard input and
the pipes for the program's output as standard output and error. The daemon sends an Order (eight bytes of length, then
JSON); the answer is a Report, as JSON, once nothing that the program started is alive and its directory is gone.

Why not the daemon itself: it has threads, so it must run nothing between fork and exec (no `preexec_fn`), and limits
that are set from outside come too late for what the program does first. Why it stays instead of becoming the program:
as the subreaper of its tree it keeps sight of processes that left their group, their session and their parent; and it
outlives a daemon that is killed, whose end it sees as the end of the socket, for as long as it takes to clean up.

It imports the standard library alone, and little of that: a program waits for it.
"""

from __future__ import annotations

import ctypes
import json
import os
import resource
import select
import signal
import socket
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, TypedDict

#: From <linux/prctl.h>.
_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
_PR_SET_NO_NEW_PRIVS: Final = 38
#: More than a process has open.
_DESCRIPTORS: Final = 2**20
#: Seconds between two looks at a tree that is being killed: a process may have started another one in between.
_KILL_AGAIN: Final = 0.02
#: What the daemon sends to have the program ended. The mere end of the socket says that nobody waits any more.
END: Final = b"end"


class Order(TypedDict):
    """What to run."""

    #: The first is an absolute path.
    command: list[str]
    stdin: str
    #: All of it, but for HOME and TMPDIR, which are the new directory.
    environment: dict[str, str]
    #: Texts to write into the new directory, by name.
    files: dict[str, str]
    #: Where the new directory is made.
    parent: str
    #: Resource limits by the name that the module `resource` has for them.
    limits: dict[str, int]
    #: Seconds between SIGTERM and SIGKILL.
    grace: float


class Report(TypedDict, total=False):
    """How it ended: with a status, or without having begun."""

    #: As `os.waitstatus_to_exitcode` gives it: the exit code, or the signal's number, negative.
    status: int
    #: Why the program could not be started, and the errno of that.
    refused: str
    errno: int
    #: The directory, if it could not be removed.
    left: str


class _Tree:
    """This process's children, and theirs."""

    def __init__(self) -> None:
        self._signalled, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        # Python's handlers, not SIG_IGN, which the program would inherit. Only a SIGKILL ends this process early.
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
            signal.signal(number, lambda *_: None)
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        #: The child whose end counts, once there is one, and how it ended.
        self.program = 0
        self.status: int | None = None

    def reap(self) -> bool:
        """Bury children that ended. False if there is none left."""
        while True:
            try:
                process, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return False
            if process == 0:
                return True
            if process == self.program:
                self.status = os.waitstatus_to_exitcode(status)

    def wait(self, channel: socket.socket, seconds: float | None) -> bytes | None:
        """Wait for a child's end, for the time to pass, or for what the daemon says."""
        ready, _, _ = select.select([channel.fileno(), self._signalled], [], [], seconds)
        if self._signalled in ready:
            with suppress(BlockingIOError):
                os.read(self._signalled, 4096)
        if channel.fileno() not in ready:
            return None
        try:
            return channel.recv(len(END))
        except ConnectionError:
            return b""

    def end(self, channel: socket.socket, grace: float) -> None:
        """Ask all to end, kill those that still live after `grace` seconds, and bury them."""
        deadline = time.monotonic() + grace
        if grace > 0:
            _signal_all(signal.SIGTERM)
        while self.reap():
            left = deadline - time.monotonic()
            if left <= 0:
                _signal_all(signal.SIGKILL)
                time.sleep(_KILL_AGAIN)
            elif self.wait(channel, left) == b"":
                deadline = 0.0


def _signal_all(number: int) -> None:
    for process in _descendants():
        with suppress(ProcessLookupError, PermissionError):
            os.kill(process, number)
            # One that was stopped would not hear of it.
            os.kill(process, signal.SIGCONT)


def _descendants() -> list[int]:
    children: dict[int, list[int]] = {}
    for place in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parent = (place / "stat").read_bytes().rpartition(b")")[2].split()[1]
            children.setdefault(int(parent), []).append(int(place.name))
    found = [os.getpid()]
    for process in found:
        found += children.get(process, ())
    return found[1:]


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _start(order: Order, directory: Path) -> int:
    for name, text in order["files"].items():
        (directory / name).write_text(text, encoding="utf-8")
    supervisor = os.getpid()
    limits = [(getattr(resource, name), value) for name, value in order["limits"].items()]

    def prepare() -> None:
        # This process has one thread, so Python may run between fork and exec.
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != supervisor:
            os._exit(1)
        _prctl(_PR_SET_NO_NEW_PRIVS, 1)
        for which, value in limits:
            _, hard = resource.getrlimit(which)
            lower = value if hard == resource.RLIM_INFINITY else min(value, hard)
            # A second of processor time between SIGXCPU, which a program may catch, and SIGKILL.
            above = lower + 1 if which == resource.RLIMIT_CPU and lower == value else lower
            resource.setrlimit(which, (lower, above if hard == resource.RLIM_INFINITY else min(above, hard)))

    # In memory: what is typed into a program may be a secret, and a pipe would need somebody who feeds it.
    stdin = os.memfd_create("stdin")
    with os.fdopen(stdin, "w+b") as typed:
        typed.write(order["stdin"].encode())
        typed.seek(0)
        program = subprocess.Popen(  # noqa: S603  what may run was decided by the daemon
            order["command"],
            stdin=typed,
            cwd=directory,
            env={"HOME": str(directory), "TMPDIR": str(directory), **order["environment"]},
            start_new_session=True,
            preexec_fn=prepare,  # noqa: PLW1509  see prepare
        )
    # Else Popen, when it is collected, may bury the program in our place, and its status would be lost.
    program.returncode = 0
    return program.pid


def _run(order: Order, channel: socket.socket, tree: _Tree, directory: Path) -> Report:
    try:
        tree.program = _start(order, directory)
    except OSError as error:
        return Report(refused=error.strerror or str(error), errno=error.errno or 0)
    except (subprocess.SubprocessError, ValueError) as error:
        return Report(refused=str(error), errno=0)
    finally:
        # From here on the pipes are the tree's alone, so that their end is its end.
        nowhere = os.open(os.devnull, os.O_RDWR)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
    grace = order["grace"]
    while tree.reap() and tree.status is None:
        said = tree.wait(channel, None)
        if said is not None:
            grace = grace if said == END else 0.0
            break
    tree.end(channel, grace)
    assert tree.status is not None  # noqa: S101  nothing is left, so the program was buried
    return Report(status=tree.status)


def _remove(directory: Path) -> bool:
    import shutil

    for _ in range(2):
        with suppress(OSError, RecursionError):
            shutil.rmtree(directory)
            return True
        # The program may have taken away its own right to look into a directory or to write there.
        with suppress(OSError, RecursionError):
            directory.chmod(0o700)
            for place, names, _ in os.walk(directory):
                for path in (Path(place, name) for name in names):
                    if not path.is_symlink():
                        path.chmod(0o700)
    return False


def _received(channel: socket.socket) -> Order | None:
    """None if the daemon ended before its order was whole."""
    # Not by makefile(), which reads ahead and would swallow what the daemon says next.
    size = int.from_bytes(channel.recv(8, socket.MSG_WAITALL), "big")
    body = channel.recv(size, socket.MSG_WAITALL)
    if not body or len(body) < size:
        return None
    order: Order = json.loads(body)
    return order


def main() -> None:
    """Run one order."""
    # An event loop that does not close descriptors in its children leaves some of the daemon's in this one.
    os.closerange(3, _DESCRIPTORS)
    channel = socket.socket(fileno=0)
    order = _received(channel)
    if order is None:
        return
    tree = _Tree()
    directory = Path(order["parent"], f"alt-runner-{os.urandom(8).hex()}")
    try:
        directory.mkdir(0o700)
    except OSError as error:
        report = Report(refused=f"no directory in `{order['parent']}`: {error.strerror}", errno=error.errno or 0)
    else:
        try:
            report = _run(order, channel, tree, directory)
        finally:
            removed = _remove(directory)
        if not removed:
            report["left"] = str(directory)
    with suppress(OSError):
        channel.sendall(json.dumps(report).encode())


if __name__ == "__main__":
    main()
