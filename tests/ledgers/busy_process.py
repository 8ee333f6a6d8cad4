"""A process that submits, claims and finishes jobs on a ledger without end, and prints what was acknowledged.

Lines: `accepted JOB` once a submission was answered, `ended JOB` once an ending was. It is made to be killed.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

import anyio

from runner.ledgers.sql import SqlLedger
from tests.ledgers.conftest import open_sql
from tests.ledgers.jobs import T0, claimed, ending, job, submitted


def _say(word: str, job_id: str) -> None:
    os.write(1, f"{word} {job_id}\n".encode())


async def _submit(ledger: SqlLedger, first: int) -> None:
    for number in itertools.count(first):
        (summary,) = await submitted(ledger, job(number, request_id=f"r-{number}"))
        _say("accepted", summary.id)


async def _finish(ledger: SqlLedger, runner: str) -> None:
    while True:
        for claim in await claimed(ledger, 3, runner=runner):
            change = ending(claim, claim.frames[-1].last + 1, ended_at=T0)
            await ledger.append(change)
            _say("ended", claim.summary.id)


async def main(path: Path, first: int) -> None:
    runner = f"runner-{os.getpid()}"
    ledger = open_sql(path, runner=runner)
    async with ledger.running(), anyio.create_task_group() as tasks:
        for lane in range(5):
            tasks.start_soon(_submit, ledger, first + lane * 10_000)
        tasks.start_soon(_finish, ledger, runner)


if __name__ == "__main__":
    anyio.run(main, Path(sys.argv[1]), int(sys.argv[2]))
