"""What must never happen to a work directory: that anything leaves it, hangs in it, or is torn."""

from __future__ import annotations

import errno
import os
import socket
import stat
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import anyio
import anyio.from_thread
import anyio.to_thread
import pytest

from runner.core.errors import AttemptError
from runner.handlers.beneath import INCOMING, parts_of
from runner.handlers.settings import FileOperationSettings
from runner.handlers.work_directory import WorkDirectory

MEGABYTE: Final = 1024 * 1024
HIDDEN: Final = "what only the daemon may read"

#: What is done at `path`, or from or to it.
OPERATIONS: Final[dict[str, Callable[[WorkDirectory, str], object]]] = {
    "read": lambda work, path: work.read(parts(path)),
    "list": lambda work, path: work.list(parts(path), recursive=True),
    "write": lambda work, path: work.write(parts(path), b"x", overwrite=True, create_parents=True),
    "append": lambda work, path: work.append(parts(path), b"x", create_parents=True),
    "copy from": lambda work, path: copy(work, path, "copied"),
    "copy to": lambda work, path: copy(work, "mine", path),
    "move to": lambda work, path: move(work, "mine", path),
    "move from": lambda work, path: move(work, path, "moved"),
    "delete": lambda work, path: work.delete(parts(path), recursive=True),
}


def parts(path: str) -> tuple[str, ...]:
    return parts_of("path", path)


def copy(work: WorkDirectory, source: str, destination: str) -> object:
    return work.copy(parts(source), parts(destination), recursive=True, overwrite=True, create_parents=True)


def move(work: WorkDirectory, source: str, destination: str) -> None:
    work.move(parts(source), parts(destination), overwrite=True, create_parents=True)


class Scene:
    """A work directory with a file of its own, and beside it what must stay as it is."""

    def __init__(self, tmp_path: Path) -> None:
        self.outside = tmp_path / "outside"
        (self.outside / "below").mkdir(parents=True)
        (self.outside / "secret").write_text(HIDDEN)
        self.inside = tmp_path / "work" / "job"
        #: Called by every tick of every operation.
        self.during: Callable[[], None] = lambda: None
        self.work = WorkDirectory(tmp_path / "work", "job", FileOperationSettings(), self._tick)
        self.work.write(("mine",), b"mine", overwrite=True, create_parents=False)

    def _tick(self) -> None:
        self.during()

    def check_outside(self) -> None:
        assert sorted(path.name for path in self.outside.rglob("*")) == ["below", "secret"]
        assert (self.outside / "secret").read_text() == HIDDEN

    def check_no_leftovers(self) -> None:
        assert list(self.inside.rglob(INCOMING)) == []


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def refused(reason: str, operation: str, scene: Scene, path: str) -> None:
    with pytest.raises(AttemptError) as caught:
        OPERATIONS[operation](scene.work, path)
    assert (caught.value.reason, caught.value.retryable) == (reason, False), caught.value.message
    scene.check_outside()
    scene.check_no_leftovers()
    assert (scene.inside / "mine").read_bytes() == b"mine"


# ---------------------------------------------------------------------------------------------------- ways out


@pytest.mark.parametrize("path", ["/etc/passwd", "//x", "..", "../x", "a/../../x", "a/..", "./..", "a/../b", "mine/.."])
def test_an_absolute_path_or_one_with_dots_is_outside(path: str) -> None:
    with pytest.raises(AttemptError) as caught:
        parts_of("path", path)
    assert (caught.value.reason, caught.value.retryable) == ("OUTSIDE_WORK_DIRECTORY", False)


def test_dots_that_lead_nowhere_are_left_out_and_others_are_names() -> None:
    assert parts_of("path", "./a//b/./c/") == ("a", "b", "c")
    assert parts_of("path", "...") == ("...",)
    assert parts_of("path", "..a/b..\\..\\c") == ("..a", "b..\\..\\c")


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/", "a\0"])
def test_a_job_cannot_name_a_directory_elsewhere(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be named"):
        WorkDirectory(tmp_path, name, FileOperationSettings())


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("target", ["../../outside", "/etc", "."])
def test_a_link_in_the_middle_of_a_path_is_not_followed(scene: Scene, operation: str, target: str) -> None:
    (scene.inside / "a").mkdir()
    (scene.inside / "a" / "link").symlink_to(target)
    refused("OUTSIDE_WORK_DIRECTORY", operation, scene, "a/link/secret")


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != "delete"])
@pytest.mark.parametrize("target", ["../../outside/secret", "../../outside", "mine", "nowhere", "link"])
def test_a_link_at_the_end_of_a_path_is_not_followed(scene: Scene, operation: str, target: str) -> None:
    (scene.inside / "link").symlink_to(target)
    refused("OUTSIDE_WORK_DIRECTORY", operation, scene, "link")
    assert (scene.inside / "link").is_symlink()


@pytest.mark.parametrize("target", ["../../outside", "../../outside/secret", "nowhere"])
def test_deleting_a_link_removes_the_link_alone(scene: Scene, target: str) -> None:
    (scene.inside / "d").mkdir()
    for place in ("link", "d/link"):
        (scene.inside / place).symlink_to(target)
    assert scene.work.delete(("link",), recursive=True) == 1
    assert scene.work.delete(("d",), recursive=True) == 2
    scene.check_outside()


def test_a_directory_with_a_link_in_it_is_not_copied_and_nothing_is_left(scene: Scene) -> None:
    (scene.inside / "d").mkdir()
    (scene.inside / "d" / "link").symlink_to(scene.outside)
    refused("OUTSIDE_WORK_DIRECTORY", "copy from", scene, "d")
    assert not (scene.inside / "copied").exists()


def test_the_work_directory_itself_may_not_be_a_link(tmp_path: Path) -> None:
    scene = Scene(tmp_path)
    (scene.inside / "mine").unlink()
    scene.inside.rmdir()
    scene.inside.symlink_to(scene.outside)
    for operation in OPERATIONS.values():
        with pytest.raises(AttemptError):
            operation(scene.work, "secret")
    scene.check_outside()


def test_a_name_waiting_at_the_place_of_what_is_written_is_removed_and_not_followed(scene: Scene) -> None:
    (scene.inside / INCOMING).symlink_to(scene.outside / "secret")
    scene.work.write(("a",), b"new", overwrite=True, create_parents=False)
    (scene.inside / INCOMING).symlink_to(scene.outside)
    copy(scene.work, "a", "b")
    assert (scene.inside / "b").read_bytes() == b"new"
    scene.check_outside()
    scene.check_no_leftovers()


def test_a_hard_link_is_not_written_through(scene: Scene) -> None:
    os.link(scene.outside / "secret", scene.inside / "linked")
    refused("OUTSIDE_WORK_DIRECTORY", "append", scene, "linked")
    scene.work.write(("linked",), b"new", overwrite=True, create_parents=False)
    scene.check_outside()


# ------------------------------------------------------------------------------------- swapped in the meantime


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("moment", range(8))
def test_what_is_swapped_for_a_link_during_an_operation_leads_nowhere(
    scene: Scene, operation: str, moment: int
) -> None:
    """At each moment of the operation at which others may act: the directory on its way, and the file at its end."""
    (scene.inside / "a" / "b").mkdir(parents=True)
    (scene.inside / "a" / "b" / "secret").write_bytes(b"harmless")
    left = moment

    def swap() -> None:
        nonlocal left
        left -= 1
        if left == -1:
            (scene.inside / "a" / "b").rename(scene.inside / "aside")
            (scene.inside / "a" / "b").symlink_to(scene.outside)
            if (scene.inside / "aside" / "secret").exists():
                (scene.inside / "aside" / "secret").unlink()
            (scene.inside / "aside" / "secret").symlink_to(scene.outside / "secret")

    scene.during = swap
    reason, answer = "", None
    try:
        answer = OPERATIONS[operation](scene.work, "a/b/secret" if operation != "list" else "a")
    except AttemptError as error:
        reason = error.reason
    assert reason in {"", "OUTSIDE_WORK_DIRECTORY", "FILE_NOT_FOUND"}
    assert HIDDEN not in str(answer)
    scene.check_outside()
    for path in scene.inside.rglob("*"):
        assert path.is_symlink() or path.is_dir() or HIDDEN not in path.read_text()


def test_a_link_that_comes_and_goes_all_the_time_is_never_followed(scene: Scene) -> None:
    (scene.inside / "aside").mkdir()
    (scene.inside / "aside" / "secret").write_bytes(b"harmless")
    (scene.inside / "link").symlink_to(scene.outside)
    path, done = ("d", "secret"), threading.Event()

    def swap() -> None:
        while not done.is_set():
            for name in ("aside", "link"):
                (scene.inside / name).rename(scene.inside / "d")
                (scene.inside / "d").rename(scene.inside / name)

    swapping = threading.Thread(target=swap)
    swapping.start()
    try:
        for _ in range(300):
            with suppress(AttemptError):
                assert HIDDEN.encode() not in scene.work.read(path)
            with suppress(AttemptError):
                scene.work.append(path, b"x", create_parents=False)
            with suppress(AttemptError):
                scene.work.write(path, b"x", overwrite=True, create_parents=False)
    finally:
        done.set()
        swapping.join()
    scene.check_outside()


# ----------------------------------------------------------------------------------- what is no file, and waits


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != "delete"])
@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_what_is_neither_a_file_nor_a_directory_is_refused_and_nothing_waits_for_it(
    scene: Scene, operation: str, kind: str
) -> None:
    place = scene.inside / "special"
    if kind == "fifo":
        os.mkfifo(place)
    elif kind == "socket":
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(place))
        listener.close()
    else:
        try:
            os.mknod(place, stat.S_IFCHR | 0o600, os.makedev(1, 5))
        except PermissionError:
            pytest.skip("only root makes devices")
    refused("WRONG_FILE_TYPE", operation, scene, "special")
    (scene.inside / "d").mkdir()
    place.rename(scene.inside / "d" / "special")
    refused("WRONG_FILE_TYPE", "copy from", scene, "d")
    assert scene.work.delete(("d",), recursive=True) == 2


# ------------------------------------------------------------------------------------------- whole or not at all


def fails_at(moment: int, error: Callable[[], Exception]) -> Callable[[], None]:
    left = moment

    def during() -> None:
        nonlocal left
        left -= 1
        if left == -1:
            raise error()

    return during


@pytest.mark.parametrize("operation", ["write", "append", "copy to"])
@pytest.mark.parametrize("moment", range(5))
def test_a_disk_that_fills_up_leaves_the_old_content(scene: Scene, operation: str, moment: int) -> None:
    large = b"n" * (3 * MEGABYTE)
    scene.work.write(("mine",), large, overwrite=True, create_parents=False)
    scene.work.write(("d", "file"), b"old", overwrite=True, create_parents=True)
    change: dict[str, Callable[[], object]] = {
        "write": lambda: scene.work.write(("d", "file"), large, overwrite=True, create_parents=True),
        "append": lambda: scene.work.append(("d", "file"), large, create_parents=True),
        "copy to": lambda: copy(scene.work, "mine", "d/file"),
    }
    scene.during = fails_at(moment, lambda: OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(AttemptError) as caught:
        change[operation]()
    assert (caught.value.reason, caught.value.retryable) == ("DISK_FULL", True)
    assert (scene.inside / "d" / "file").read_bytes() == b"old"
    scene.check_no_leftovers()
    scene.during = lambda: None
    change[operation]()
    assert (scene.inside / "d" / "file").stat().st_size >= len(large)


def test_a_directory_that_cannot_be_copied_whole_leaves_the_one_that_was_there(scene: Scene) -> None:
    for name in "abc":
        scene.work.write(("new", name), b"new", overwrite=True, create_parents=True)
    scene.work.write(("old", "x"), b"old", overwrite=True, create_parents=True)
    scene.during = fails_at(6, lambda: OSError(errno.EIO, "Input/output error"))
    with pytest.raises(AttemptError) as caught:
        copy(scene.work, "new", "old")
    assert (caught.value.reason, caught.value.retryable) == ("FILE_ERROR", True)
    assert [path.name for path in (scene.inside / "old").iterdir()] == ["x"]
    scene.check_no_leftovers()


def test_what_a_killed_daemon_was_writing_is_seen_by_nobody_and_cleared_away(scene: Scene) -> None:
    (scene.inside / INCOMING).mkdir()
    (scene.inside / INCOMING / "x").write_bytes(b"half")
    assert [found.parts for found in scene.work.list((), recursive=True)] == [("mine",)]
    scene.work.write(("new",), b"new", overwrite=True, create_parents=False)
    scene.check_no_leftovers()
    (scene.inside / "d").mkdir()
    (scene.inside / "d" / INCOMING).write_bytes(b"half")
    copy(scene.work, "d", "e")
    assert list((scene.inside / "e").iterdir()) == []
    assert scene.work.delete(("d",), recursive=False) == 1


async def test_an_operation_that_is_cancelled_stops_within_a_megabyte(scene: Scene) -> None:
    large = b"n" * (10 * MEGABYTE)
    scope = anyio.CancelScope()
    seen: list[int] = []

    def cancelled_on_the_way() -> None:
        written = scene.inside / INCOMING
        seen.append(written.stat().st_size if written.exists() else 0)
        if seen[-1] == 2 * MEGABYTE:
            anyio.from_thread.run_sync(scope.cancel)
        anyio.from_thread.check_cancelled()

    scene.during = cancelled_on_the_way
    with scope:
        await anyio.to_thread.run_sync(lambda: scene.work.write(("mine",), large, overwrite=True, create_parents=False))
    assert scope.cancelled_caught
    assert max(seen) == 2 * MEGABYTE
    assert (scene.inside / "mine").read_bytes() == b"mine"
    scene.check_no_leftovers()
