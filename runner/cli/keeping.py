"""What a run keeps of its jobs: it ends with the daemon that could be asked."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec

from runner.client import Client
from runner.core.plan import Instant, JobId
from runner.core.record import LastRecord, parse
from runner.sinks.directory import record_path


class Kept(msgspec.Struct, frozen=True):
    """The files of one job."""

    #: Where the daemon writes it, at the latest when it is drained.
    record: Path
    artifacts: tuple[Path, ...]


async def keep(client: Client, job: JobId, root: Path, *, ended_at: Instant) -> Kept:
    """Write the artifacts of a job that has ended under `root`, each where its record says: at its `path`.

    Those of the jobs that its tasks ran, and have ended, come after its own.

    Raises OSError: if they cannot be written.
    """
    record = parse(await client.record(job))
    artifacts = await _write(client, job, record, root)
    async for child in _family(client, job):
        artifacts += await _write(client, child, parse(await client.record(child)), root)
    return Kept(record_path(root, ended_at=ended_at, execution_id=record.execution_id), tuple(artifacts))


async def _write(client: Client, job: JobId, record: LastRecord, root: Path) -> list[Path]:
    artifacts = []
    for artifact in record.artifacts:
        path = root / artifact.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            async for chunk in client.artifact(job, artifact.id):
                file.write(chunk)
        artifacts.append(path)
    return artifacts


async def _family(client: Client, job: JobId) -> AsyncIterator[JobId]:
    """The jobs below a job that have ended."""
    token = ""
    while True:
        page = await client.list(where=f'labels.alt-runner/root = "{job}"', page_token=token)
        for child in page.jobs:
            if child.HasField("end_time"):
                yield child.job_id
        token = page.next_page_token
        if not token:
            return
