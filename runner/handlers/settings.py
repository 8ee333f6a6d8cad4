"""What an operator may set about handlers."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Annotated

from msgspec import Meta, Struct

Count = Annotated[int, Meta(ge=1)]
Seconds = Annotated[float, Meta(gt=0)]


class HttpRequestSettings(Struct, frozen=True, kw_only=True):
    """Task kind `http_request`."""

    #: Seconds for one whole call; a task's own time bounds it further.
    timeout_seconds: Seconds = 300.0
    #: Seconds of silence within an answer that has begun.
    idle_timeout_seconds: Seconds = 60.0
    #: Seconds for a connection to be made.
    connect_timeout_seconds: Seconds = 10.0
    #: Bytes of one answer.
    max_answer_bytes: Count = 8 * 1024 * 1024
    #: Redirects that are followed in a row.
    max_redirects: Annotated[int, Meta(ge=0)] = 5
    #: Whether jobs may reach loopback and private addresses. The address that a connection is really made to is
    #: judged, after name resolution and every redirect. Link-local addresses, at which clouds give out credentials,
    #: are never reached unless `allow_addresses` names them.
    allow_private: bool = False
    #: Addresses and networks that jobs may reach, whatever they are: `10.1.0.0/16`, `127.0.0.1`, `fd00::/8`.
    allow_addresses: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for network in self.allow_addresses:
            try:
                ip_network(network)
            except ValueError as error:
                msg = f"`allow_addresses` must hold addresses and networks: {error}"
                raise ValueError(msg) from error


class PythonSettings(Struct, frozen=True, kw_only=True):
    """Task kind `python`."""

    #: Functions that jobs may call: `package.module:function`, `package.module` for all of it, or patterns with `*`
    #: (`package.*`). None by default.
    allow: tuple[str, ...] = ()
    #: Worker processes for functions that are not async; more calls wait for their turn.
    max_processes: Count = 4
    #: Seconds an async function has to end once it is cancelled; then it is abandoned. A drain waits 3 seconds for it.
    cancel_grace_seconds: Seconds = 2.0
    #: Bytes of a function's result, as JSON.
    max_result_bytes: Count = 8 * 1024 * 1024


class DataProcessingSettings(Struct, frozen=True, kw_only=True):
    """Task kind `data_processing`."""

    #: Worker processes that evaluate expressions; more tasks wait for their turn.
    max_processes: Count = 2
    #: Bytes that evaluating one expression may take.
    max_memory_bytes: Count = 512 * 1024 * 1024
    #: Characters of an expression.
    max_expression_characters: Count = 10_000
    #: Bytes of a result, as JSON.
    max_result_bytes: Count = 8 * 1024 * 1024


class FileOperationSettings(Struct, frozen=True, kw_only=True):
    """Task kind `file_operation`."""

    #: Whether jobs may keep files, each in a work directory of its own: `work/<job_id>` in `data_dir`.
    enabled: bool = True
    #: Bytes of one file that is read, written or copied.
    max_file_bytes: Count = 16 * 1024 * 1024
    #: Bytes of all files in one job's work directory.
    max_total_bytes: Count = 256 * 1024 * 1024
    #: Files and directories in one job's work directory.
    max_files: Count = 10_000
    #: Directories in one another, in a job's work directory.
    max_depth: Annotated[int, Meta(ge=1, le=200)] = 64
    #: Bytes of a file whose content stands in the output of the task that reads it; a larger one becomes an artifact.
    max_inline_bytes: Count = 1024 * 1024
    #: File operations that run at a time; more tasks wait for their turn.
    max_threads: Count = 4


class ProgramLimits(Struct, frozen=True, kw_only=True):
    """What a program that a task runs may take."""

    #: Tasks of this kind that run at a time; more wait for their turn.
    max_concurrent: Count = 8
    #: Bytes kept of standard output, and as many of standard error; the rest is read and dropped.
    max_output_bytes: Count = 1024 * 1024
    #: Bytes of address space of each process, which is more than it uses: some runtimes reserve gigabytes.
    max_memory_bytes: Annotated[int, Meta(ge=16 * 1024 * 1024)] = 2 * 1024 * 1024 * 1024
    #: Seconds of processor time of each process.
    max_cpu_seconds: Count = 600
    #: Bytes of each file that is written.
    max_file_bytes: Count = 256 * 1024 * 1024
    #: Descriptors that each process may have open.
    max_open_files: Annotated[int, Meta(ge=16)] = 256
    #: Processes and threads of the daemon's user, all of them on this machine counted together, beyond which the
    #: program can start no more; 0 for no limit. Does not bind root.
    max_user_processes: Annotated[int, Meta(ge=0)] = 0
    #: Seconds between SIGTERM and SIGKILL, for all that is left of a task that ended, timed out or was cancelled. A
    #: drain waits 3 seconds for it.
    kill_grace_seconds: Annotated[float, Meta(ge=0)] = 2.0
    #: Where each task's directory is made, and removed again; empty: the system's place for temporary files.
    directory: str = ""


_PATH: tuple[str, ...] = ("/usr/local/bin", "/usr/bin", "/bin")


class SystemCommandSettings(Struct, frozen=True, kw_only=True):
    """Task kind `system_command`."""

    #: Programs that jobs may run: absolute paths, or names that are looked up in `path`. None by default, which turns
    #: the kind off. A program that runs other programs (a shell, an interpreter, `env`, `find`) allows everything.
    allow: tuple[str, ...] = ()
    #: Directories where programs are looked up; also the programs' own `PATH`.
    path: tuple[str, ...] = _PATH
    #: Names of environment variables that tasks may set. Some (`LD_PRELOAD`, `PATH`) allow everything.
    allow_env: tuple[str, ...] = ()
    limits: ProgramLimits = ProgramLimits()

    def __post_init__(self) -> None:
        _check_path(self.path)
        for program in self.allow:
            if not program or ("/" in program and not program.startswith("/")):
                msg = f"`allow` must hold names and absolute paths, not `{program}`"
                raise ValueError(msg)


class CodeExecutorSettings(Struct, frozen=True, kw_only=True):
    """Task kind `code_executor`."""

    #: The command for each language that jobs may bring code in, as a list. An argument that begins with `{code}`
    #: becomes the name of a file with the code; without one, the code is standard input. None by default, which turns
    #: the kind off.
    languages: dict[str, tuple[str, ...]] = {}
    #: Directories where programs are looked up; also the code's own `PATH`.
    path: tuple[str, ...] = _PATH
    limits: ProgramLimits = ProgramLimits()

    def __post_init__(self) -> None:
        _check_path(self.path)
        for language, command in self.languages.items():
            if not command or not command[0] or ("/" in command[0] and not command[0].startswith("/")):
                msg = f"`languages.{language}` must begin with a program's name or absolute path"
                raise ValueError(msg)


def _check_path(path: tuple[str, ...]) -> None:
    for directory in path:
        if not directory.startswith("/"):
            msg = f"`path` must hold absolute paths, not `{directory}`"
            raise ValueError(msg)
