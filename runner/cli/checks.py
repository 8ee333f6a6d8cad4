"""What `doctor` looks at on this machine: disk, ledger, clock, limits, permissions. Leaves nothing behind."""

from __future__ import annotations

import enum
import fcntl
import os
import resource
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import psutil

if TYPE_CHECKING:
    from runner.settings import Settings

#: File systems over a network: locks and syncs of SQLite are not to be trusted there.
_REMOTE: Final = frozenset({"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "ceph", "glusterfs"})
_VOLATILE: Final = frozenset({"tmpfs", "ramfs"})
_SLOW_SYNC_SECONDS: Final = 0.05
_CLOCK_SECONDS: Final = 2.0
_FEW_FILES: Final = 1_024
_SQLITE: Final = b"SQLite format 3\0"


class Verdict(enum.StrEnum):
    """How a check went."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Check(msgspec.Struct, frozen=True):
    """One look at one thing."""

    name: str
    verdict: Verdict
    #: A sentence.
    detail: str
    #: What to do, where something is to be done.
    advice: str = ""


def ok(name: str, detail: str) -> Check:
    return Check(name, Verdict.OK, detail)


def warn(name: str, detail: str, advice: str) -> Check:
    return Check(name, Verdict.WARN, detail, advice)


def fail(name: str, detail: str, advice: str) -> Check:
    return Check(name, Verdict.FAIL, detail, advice)


def machine(settings: Settings) -> Iterator[Check]:
    """All checks of this machine."""
    data = Path(settings.data_dir)
    yield directory("data_dir", data, "data_dir")
    yield room(data, settings.health.min_free_bytes)
    yield ledger(settings)
    yield directory("records", settings.record_directory, "records.directory")
    yield clock()
    yield open_files(settings)
    yield from permissions(settings)


def existing(path: Path) -> Path:
    """The path, or the nearest directory above it that is there."""
    path = path.absolute()
    while not path.exists():
        path = path.parent
    return path


def directory(name: str, path: Path, setting: str) -> Check:
    """Whether a directory is there, or can be made, and takes files that are synced."""
    place = existing(path)
    if not place.is_dir():
        return fail(name, f"{place} is no directory", f"remove it, or set `{setting}`")
    try:
        seconds = _time_of_sync(place)
    except OSError as error:
        return fail(
            name, f"{place} cannot be written: {error.strerror}", f"give the daemon the right to, or set `{setting}`"
        )
    there = f"{path.absolute()} is writable" if place == path.absolute() else f"{path.absolute()} can be made"
    told = f"{there}; a synced write takes {seconds * 1_000:.1f} ms"
    kind = _file_system(place)
    if kind in _REMOTE:
        return warn(name, f"{told}, on a network file system ({kind})", "SQLite needs a local disk; use one")
    if kind in _VOLATILE:
        return warn(name, f"{told}, in memory ({kind})", "a reboot loses everything there; use a disk")
    if seconds > _SLOW_SYNC_SECONDS:
        return warn(name, told, "every commit waits for a sync; use a faster disk")
    return ok(name, told)


def _time_of_sync(place: Path) -> float:
    with tempfile.TemporaryFile(dir=place) as file:
        began = time.monotonic()
        file.write(b"alt-runner doctor")
        file.flush()
        os.fsync(file.fileno())
        return time.monotonic() - began


def _file_system(place: Path) -> str:
    mounts = {Path(part.mountpoint): part.fstype for part in psutil.disk_partitions(all=True)}
    path = place.resolve()
    return next((mounts[at] for at in (path, *path.parents) if at in mounts), "")


def room(path: Path, least: int) -> Check:
    """Whether the disk has room."""
    free = shutil.disk_usage(existing(path)).free
    told = f"{free // 2**20:,} MiB are free on the disk of {path.absolute()}"
    advice = f"free some; below {least // 2**20:,} MiB (`health.min_free_bytes`) the daemon is not ready"
    if free < least:
        return fail("disk", told, advice)
    return warn("disk", told, advice) if free < 2 * least else ok("disk", told)


def ledger(settings: Settings) -> Check:
    """Whether the ledger can be opened, or who holds it. Does not open it: that could migrate it."""
    name, url = "ledger", settings.ledger_url
    path = Path(url.removeprefix("sqlite:///"))
    if not path.exists():
        return ok(name, f"{path} will be made by the first start")
    try:
        with path.open("rb") as file:
            begin = file.read(len(_SQLITE))
        holder = _holder(path)
    except OSError as error:
        return fail(name, f"{path} cannot be read: {error.strerror}", "give the daemon the right to")
    if begin and begin != _SQLITE:
        return fail(
            name, f"{path} is no SQLite database", "set `ledger.url` to another file, or restore it from a copy"
        )
    if not os.access(path, os.W_OK):
        return fail(name, f"{path} is read-only", "give the daemon the right to write it")
    size = f"{path.stat().st_size / 2**20:,.1f} MiB"
    if holder:
        return ok(name, f"{path} ({size}) is held by {holder}")
    return ok(name, f"{path} ({size}) is held by nobody")


def _holder(database: Path) -> str:
    """Who holds the database; empty if nobody does."""
    from runner.ledgers.holder import Holder

    lock = database.with_name(database.name + ".lock")
    if not lock.exists():
        return ""
    with lock.open("rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            try:
                return str(msgspec.json.decode(file.read(), type=Holder))
            except msgspec.DecodeError:
                return "another process"
    return ""


def clock() -> Check:
    """Whether the clock agrees with that of the disk, and is plausible."""
    from runner import __file__ as shipped

    with tempfile.TemporaryFile() as file:
        file.write(b"now")
        file.flush()
        ahead = time.time() - os.fstat(file.fileno()).st_mtime
    if time.time() < Path(shipped).stat().st_mtime - 86_400:
        return fail("clock", "the clock is behind the time at which this program was installed", "set it; use NTP")
    if abs(ahead) > _CLOCK_SECONDS:
        return warn("clock", f"the clock differs from the file system's by {ahead:.1f} s", "set both by NTP")
    return ok("clock", f"{time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime())} by this machine and its disk")


def open_files(settings: Settings) -> Check:
    """Whether enough files may be open: each watcher, each call and each task needs one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    calls = sum(endpoint.max_connections for endpoint in settings.orchestrator.endpoints)
    needed = _FEW_FILES // 2 + calls + settings.engine.max_concurrent_tasks
    told = f"{soft:,} files may be open, up to {hard:,} if raised; about {needed:,} are needed beside watchers"
    if soft < needed:
        return warn("open files", told, f"raise it: ulimit -n {max(needed * 2, 4_096)}, or LimitNOFILE= in systemd")
    return ok("open files", told)


def permissions(settings: Settings) -> Iterator[Check]:
    """Whether others may read secrets or change what the daemon keeps."""
    for problem in _exposed(settings):
        yield warn("permissions", problem, "chmod o= it, or chown it to the daemon's user")
        return
    if os.geteuid() == 0 and settings.profile.value == "prod":
        yield warn("permissions", "this is root", "run the daemon as a user of its own")
        return
    yield ok("permissions", "nobody else can read secrets or write the data")


def _exposed(settings: Settings) -> Iterator[str]:
    data = Path(settings.data_dir)
    for path in (data, settings.record_directory):
        if path.exists() and path.stat().st_mode & stat.S_IWOTH and not path.stat().st_mode & stat.S_ISVTX:
            yield f"everybody may write {path}"
    secrets = Path(settings.secrets.directory) if settings.secrets.directory else None
    if secrets is not None and secrets.is_dir():
        for path in sorted(secrets.iterdir()):
            if path.is_file() and path.stat().st_mode & stat.S_IROTH and secrets.stat().st_mode & stat.S_IXOTH:
                yield f"everybody may read the secret {path}"
    from runner.settings import known_secrets

    for endpoint in settings.orchestrator.endpoints:
        key = Path(endpoint.tls_key_file) if endpoint.tls_key_file else None
        if key is not None and key.is_file() and key.stat().st_mode & stat.S_IROTH:
            yield f"everybody may read {key}, the TLS key for orchestrator {endpoint.name}"
    for file in {settings.origins.get(name, "") for name in known_secrets(settings)}:
        if file and Path(file).is_file() and Path(file).stat().st_mode & stat.S_IROTH:
            yield f"everybody may read {file}, which holds secrets"


def secrets(settings: Settings) -> Iterator[Check]:
    """Whether the directory of secrets is there."""
    if settings.secrets.directory and not os.access(settings.secrets.directory, os.R_OK | os.X_OK):
        yield fail(
            "secrets", f"{settings.secrets.directory} cannot be read", "make it readable, or set `secrets.directory`"
        )
