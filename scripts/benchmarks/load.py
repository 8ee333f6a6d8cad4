"""Unary load: by h2load where it is installed, else by processes of our own."""

from __future__ import annotations

import re
import shutil
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Final, Protocol

import anyio
import msgspec

from scripts.benchmarks.settings import Bench


class Call(msgspec.Struct, frozen=True):
    """A unary call that is made many times with the same bytes."""

    #: `host:port`.
    target: str
    #: `/package.Service/Method`.
    method: str
    #: The request, serialised.
    body: bytes = b""


class Burst(msgspec.Struct, frozen=True):
    """What came of many calls."""

    #: Calls a second, all of them answered.
    rate: float
    #: Median of one call, milliseconds.
    p50_ms: float


class Load(Protocol):
    """Makes calls and measures them."""

    name: str

    async def run(self, bench: Bench, call: Call, *, count: int, in_flight: int) -> Burst:
        """Make `count` calls, `in_flight` at a time. Ends the process with a message if any fails."""


def generator(choice: str | None) -> Load:
    """The one that was asked for, else the best that is here."""
    if choice == "h2load" and shutil.which("h2load") is None:
        sys.exit("h2load is not installed (Debian: nghttp2-client); use --load own")
    return OwnProcesses() if choice == "own" or shutil.which("h2load") is None else H2Load()


class H2Load:
    """nghttp2's h2load: in C, so that it takes little of what the server could have.

    It knows HTTP only, and a gRPC error is a status of 200 to it: so effects must be counted.
    """

    name = "h2load"
    #: Connections, at most.
    _CONNECTIONS: Final = 8

    async def run(self, bench: Bench, call: Call, *, count: int, in_flight: int) -> Burst:
        body, log = bench.directory / "body", bench.directory / "h2load.log"
        # A gRPC frame: not compressed, then the length.
        body.write_bytes(b"\0" + len(call.body).to_bytes(4) + call.body)
        log.unlink(missing_ok=True)
        connections = min(self._CONNECTIONS, in_flight)
        command = ["h2load", f"-n{count}", f"-c{connections}", f"-m{in_flight // connections}", "-t1"]
        command += ["-d", str(body), "-H", "content-type: application/grpc", "-H", "te: trailers"]
        command += [f"--log-file={log}", f"http://{call.target}{call.method}"]
        done = await anyio.run_process(command, stderr=subprocess.STDOUT)
        output = done.stdout.decode()
        if f"{count} succeeded, 0 failed, 0 errored" not in output:
            sys.exit(f"h2load had failures:\n{output}")
        found = re.search(r"([\d.]+) req/s", output)
        assert found is not None
        return Burst(float(found[1]), _median_ms(log))


def _median_ms(log: Path) -> float:
    """Lines of the log: when it began, the HTTP status, and how long it took, in microseconds."""
    return statistics.median(int(line.split("\t")[2]) for line in log.read_text().splitlines()) / 1000


class Order(msgspec.Struct, frozen=True):
    """What one process of OwnProcesses is to do."""

    target: str
    method: str
    #: File with the request, serialised.
    body: str
    count: int
    in_flight: int


class Report(msgspec.Struct, frozen=True):
    """What one process of OwnProcesses did."""

    #: On the monotonic clock, which all processes share.
    began: float
    ended: float
    #: Seconds of each call.
    took: tuple[float, ...]


class OwnProcesses:
    """grpc.aio clients in processes of their own. They slow both sides, which flatters ratios."""

    name = "own grpc.aio client, 2 processes (h2load is not used)"
    _PROCESSES: Final = 2

    async def run(self, bench: Bench, call: Call, *, count: int, in_flight: int) -> Burst:
        body = bench.directory / "body"
        body.write_bytes(call.body)
        processes = min(self._PROCESSES, in_flight)
        order = Order(call.target, call.method, str(body), count // processes, in_flight // processes)
        reports: list[Report] = []

        async def one() -> None:
            command = [sys.executable, "-m", "scripts.benchmarks.client", msgspec.json.encode(order).decode()]
            done = await anyio.run_process(command, stderr=None)
            reports.append(msgspec.json.decode(done.stdout, type=Report))

        async with anyio.create_task_group() as clients:
            for _ in range(processes):
                clients.start_soon(one)
        # On one clock for all: a process that starts late makes the rate smaller, never greater.
        seconds = max(report.ended for report in reports) - min(report.began for report in reports)
        took = [each for report in reports for each in report.took]
        return Burst(len(took) / seconds, statistics.median(took) * 1000)
