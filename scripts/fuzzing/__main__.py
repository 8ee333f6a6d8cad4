"""Tries hostile descriptors by the million. Called by `scripts/fuzz`."""

from __future__ import annotations

import argparse
import multiprocessing
import signal
import sys
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Final

from scripts.fuzzing import cases, inputs
from scripts.fuzzing.worker import Share, Tally, Told, tell, tried, work

#: Seconds between two looks at the workers.
_LOOK: Final = 0.5
#: Seconds without a new input after which a worker hangs where no signal reaches it.
_PATIENCE: Final = 120.0
#: Seconds after which a run without an end of its own ends.
_FOREVER: Final = 10 * 365 * 86_400.0


class Worker:
    """A process and what it tells; another takes its place where it dies."""

    def __init__(self, share: Share) -> None:
        self.share = share
        self.tally: Tally = multiprocessing.RawArray("q", len(Told))
        self._seen = -1
        self._moved = time.monotonic()
        self._process = self._started(share)

    def _started(self, share: Share) -> BaseProcess:
        process = multiprocessing.get_context("fork").Process(target=work, args=(share, self.tally), daemon=True)
        process.start()
        return process

    def look(self) -> bool:
        """True while it works. What killed it, or keeps it from going on, is saved."""
        now, number = time.monotonic(), self.tally[Told.NUMBER]
        if number != self._seen:
            self._seen, self._moved = number, now
        if self._process.is_alive():
            if now - self._moved < _PATIENCE:
                return True
            self._process.kill()
        self._process.join()
        if self._process.exitcode == 0:
            return False
        code = self._process.exitcode or 0
        how = signal.Signals(-code).name if code < 0 else f"code {code}"
        tell(inputs.case(self.share.seed, number), f"The process ended with {how}, or stood still for {_PATIENCE:g} s.")
        self.tally[Told.FAILED] += 1
        self.tally[Told.DONE] += 1
        share = self.share
        self._process = self._started(Share(share.seed, number + share.step, share.step, share.end, share.until))
        return True

    def stop(self) -> None:
        self._process.kill()


def main() -> int:
    arguments = _arguments()
    if arguments.replay:
        return _replay(arguments.replay)
    started = time.monotonic()
    until = started + (arguments.seconds or _FOREVER)
    workers = [
        Worker(Share(arguments.seed, first, arguments.jobs, arguments.count, until)) for first in range(arguments.jobs)
    ]
    try:
        while any([worker.look() for worker in workers]):  # noqa: C419 -- all are looked at
            _progress(workers, started, end="\r" if sys.stderr.isatty() else "")
            time.sleep(_LOOK)
    except KeyboardInterrupt:
        for worker in workers:
            worker.stop()
    _progress(workers, started, end="\n")
    failed, slowest = _sum(workers, Told.FAILED), max(worker.tally[Told.SLOWEST] for worker in workers)
    print(
        f"Seed {arguments.seed}; the slowest input took {slowest / 1e6:.2f} s of processor time, with all its checks."
    )
    print(f"{failed} inputs broke a promise; they are under var/fuzz/." if failed else "Every promise held.")
    return 1 if failed else 0


def _sum(workers: list[Worker], told: Told) -> int:
    return sum(worker.tally[told] for worker in workers)


def _progress(workers: list[Worker], started: float, *, end: str) -> None:
    if not end:
        return
    done, took = _sum(workers, Told.DONE), time.monotonic() - started
    accepted, failed = _sum(workers, Told.ACCEPTED), _sum(workers, Told.FAILED)
    line = f"{done:,} inputs in {took:.0f} s ({done / took:,.0f}/s), {accepted:,} accepted, {failed} failed"
    print(f"{line:<79}", end=end, file=sys.stderr, flush=True)


def _replay(path: Path) -> int:
    case = cases.load(path)
    accepted, why = tried(case)
    print(why or f"All promises hold: it was {'accepted' if accepted else 'refused'}.")
    return 1 if why else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/fuzz",
        description="Throws hostile descriptors at the decoder. Exits with 1 if one broke a promise; it is then under "
        "var/fuzz/, with the command that tries it again.",
    )
    parser.add_argument(
        "--inputs", "--count", dest="count", type=int, default=1_000_000, help="inputs (default: a million)"
    )
    parser.add_argument("--seed", type=int, default=0, help="other inputs for another seed (default: 0)")
    parser.add_argument("--seconds", type=float, help="end after so long, if that is sooner")
    parser.add_argument("--jobs", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--replay", type=Path, metavar="FILE", help="try one input that failed before")
    arguments = parser.parse_args()
    if arguments.jobs < 1 or arguments.count < 1:
        parser.error("--jobs and --inputs must be at least 1")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
