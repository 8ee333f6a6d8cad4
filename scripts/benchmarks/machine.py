"""Where it is measured: what a figure cannot be read without."""

from __future__ import annotations

import datetime as dt
import os
import platform
import statistics
import time
from pathlib import Path
from typing import Final

import grpc
import msgspec
import psutil

from scripts.benchmarks.durable import DurableLoop
from scripts.benchmarks.settings import Bench

#: File systems on which a sync costs nothing, because nothing outlives the power.
_VOLATILE: Final = frozenset({"tmpfs", "ramfs"})
_COMMITS: Final = 100
#: Fewer show no spread.
_RUNS: Final = 3


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    """The machine, the disk, and what else ran."""

    date: str
    python: str
    grpcio: str
    cores: int
    memory_gib: int
    #: Over the last minute, before anything was started here: anything near `cores` makes the figures noise.
    load_average: float
    #: Of the daemons' data directories.
    file_system: str
    #: How the ledger sets every commit; a setting of its connection, which cannot be read from outside.
    synchronous: str
    #: A plain SQLite commit of one row, synced, on that file system: median, milliseconds.
    commit_ms: float
    load_generator: str
    runs: int
    warnings: tuple[str, ...]

    def lines(self) -> list[str]:
        where = f"{self.cores} cores, {self.memory_gib} GiB, load {self.load_average:.1f} before the start"
        disk = f"SQLite, WAL, synchronous={self.synchronous} (as the ledger sets it) on {self.file_system}"
        return [
            f"{self.date}, {where}, Python {self.python}, grpcio {self.grpcio}",
            f"{disk}: {self.commit_ms:.2f} ms for a plain commit of one row",
            f"unary load by {self.load_generator}; medians of {self.runs} runs, the spread is from least to most",
            *(f"warning: {warning}" for warning in self.warnings),
        ]


async def look(bench: Bench) -> Machine:
    """Look before anything runs."""
    load, _, _ = os.getloadavg()
    cores = len(os.sched_getaffinity(0))
    file_system = _file_system(bench.directory)
    return Machine(
        date=dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        python=platform.python_version(),
        grpcio=grpc.__version__,
        cores=cores,
        memory_gib=round(psutil.virtual_memory().total / 2**30),
        load_average=load,
        file_system=file_system,
        synchronous="FULL",
        commit_ms=_commit_ms(bench.directory),
        load_generator=bench.load.name,
        runs=bench.runs,
        warnings=tuple(_warnings(bench, file_system, load=load, cores=cores)),
    )


def _warnings(bench: Bench, file_system: str, *, load: float, cores: int) -> list[str]:
    warnings = []
    if file_system in _VOLATILE:
        warnings.append(
            f"the data directory is on {file_system}, where a sync costs nothing; name a disk by --directory"
        )
    if load > cores / 4:
        warnings.append(f"the machine was busy before the start (load {load:.1f} on {cores} cores)")
    if bench.runs < _RUNS:
        warnings.append(f"{bench.runs} runs say little about the spread")
    if bench.quick:
        warnings.append("--quick: short runs, good for seeing that it works and for little else")
    return warnings


def _file_system(directory: Path) -> str:
    """The type of the file system that holds a directory."""
    place = directory.resolve()
    holding = [part for part in psutil.disk_partitions(all=True) if place.is_relative_to(part.mountpoint)]
    return max(holding, key=lambda part: len(part.mountpoint)).fstype if holding else "an unknown file system"


def _commit_ms(directory: Path) -> float:
    took = []
    with DurableLoop(directory / "plain.db") as loop:
        for _ in range(_COMMITS):
            began = time.perf_counter()
            loop.commit()
            took.append(time.perf_counter() - began)
    return statistics.median(took) * 1000
