"""What a run keeps of its jobs: it ends with the daemon that could be asked."""

from __future__ import annotations

from pathlib import Path

import msgspec

from runner.client import Client
from runner.core.plan import Instant, JobId
from runner.core.record import parse
from runner.sinks.directory import record_path


class Kept(msgspec.Struct, frozen=True):
    """The files of one job."""

    #: Where the daemon writes it, at the latest when it is drained.
    record: Path
    artifacts: tuple[Path, ...]


async def keep(client: Client, job: JobId, root: Path, *, ended_at: Instant) -> Kept:
    """Write the artifacts of a job that has ended under `root`, each where its record says: at its `path`.

    Raises OSError: if they cannot be written.
    """
    record = parse(await client.record(job))
    artifacts = []
    for artifact in record.artifacts:
        path = root / artifact.path
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as file:
            async for chunk in client.artifact(job, artifact.id):
                file.write(chunk)
        artifacts.append(path)
    return Kept(record_path(root, ended_at=ended_at, execution_id=record.execution_id), tuple(artifacts))
