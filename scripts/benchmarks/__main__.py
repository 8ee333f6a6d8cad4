"""Runs the measurements and prints one table. Called by `scripts/bench`."""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Final

import anyio

from scripts.benchmarks import concurrency, guarding, latency, plans, submission
from scripts.benchmarks.load import generator
from scripts.benchmarks.machine import Machine, look
from scripts.benchmarks.outages import measure as outages
from scripts.benchmarks.outages import plot
from scripts.benchmarks.outages.play import Played
from scripts.benchmarks.report import Row, as_json, as_table
from scripts.benchmarks.settings import Bench

ROOT: Final = Path(__file__).parents[2]
#: Every measurement, with the one that takes it: P1 and P2 share their runs, because P2 is a ratio to P1.
MEASUREMENTS: Final[dict[str, str]] = {
    "P1": "submission",
    "P2": "submission",
    "P4": "latency",
    "P7": "plans",
    "P8": "concurrency",
    "P11": "guarding",
}
#: Not among them unless it is named: it plays for minutes, and has a table of its own.
OUTAGES: Final = "outages"


def main() -> None:
    arguments = _arguments()
    parent: Path = arguments.directory or ROOT / "var"
    parent.mkdir(parents=True, exist_ok=True)
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=parent))
    try:
        bench = Bench(
            directory=directory,
            runs=arguments.runs,
            quick=arguments.quick,
            load=generator(arguments.load),
            wanted=frozenset(arguments.measurements or MEASUREMENTS),
        )
        machine, rows, played = anyio.run(_measured, bench)
    finally:
        shutil.rmtree(directory)
    if arguments.plot is not None:
        plot.draw(played, arguments.plot)
    if arguments.json:
        print(as_json(machine, rows, outages.as_values(played)))
    else:
        print("\n\n".join([as_table(machine, rows), *([outages.as_table(played)] if played else ())]))


async def _measured(bench: Bench) -> tuple[Machine, list[Row], list[Played]]:
    machine = await look(bench)
    measurers: dict[str, Callable[[], Awaitable[list[Row]]]] = {
        "submission": partial(submission.measure, bench),
        "latency": partial(latency.measure, bench),
        "plans": partial(plans.measure, bench),
        "concurrency": partial(concurrency.measure, bench),
        "guarding": partial(guarding.measure, bench),
    }
    rows: list[Row] = []
    for name in dict.fromkeys(MEASUREMENTS[wanted] for wanted in MEASUREMENTS if wanted in bench.wanted):
        rows += await measurers[name]()
    played = await outages.measure(bench) if OUTAGES in bench.wanted else []
    return machine, [row for row in rows if row.number in bench.wanted], played


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measures the daemon, each figure beside its other side, and prints one table.",
    )
    known = [*MEASUREMENTS, OUTAGES]
    parser.add_argument(
        "measurements", nargs="*", metavar="|".join(known), help=f"all but {OUTAGES} unless some are named"
    )
    parser.add_argument("--quick", action="store_true", help="less of everything: to see that it works")
    parser.add_argument("--runs", type=int, default=3, help="runs of each measurement; 3 at least for a spread")
    parser.add_argument("--json", action="store_true", help="every run of every row, for programs")
    parser.add_argument("--directory", type=Path, help="parent of the data directories, on a real disk (default: var)")
    parser.add_argument("--load", choices=("h2load", "own"), help="load generator (default: h2load if it is installed)")
    parser.add_argument("--plot", type=Path, metavar="DIR", help=f"draw {OUTAGES} into outages.png and .svg there")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.measurements if name not in known]:
        parser.error(f"there is no measurement {', '.join(unknown)}; there are {', '.join(known)}")
    if arguments.plot is not None:
        if OUTAGES not in arguments.measurements:
            parser.error(f"--plot draws {OUTAGES}; name that")
        plot.require()
    if arguments.runs < 1:
        parser.error("--runs must be at least 1")
    return arguments


if __name__ == "__main__":
    main()
