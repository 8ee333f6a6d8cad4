"""The work directories of all jobs: each is there from its first file to the end of its job."""

from __future__ import annotations

import shutil
from pathlib import Path

import anyio.to_thread

from runner.core.errors import JobNotFound, LedgerUnavailable
from runner.core.plan import JobId
from runner.ports import Ledger, Observer


class WorkDirectories:
    """What stands in `root`, by job. What cannot be removed is left for the next start, and the observer is told."""

    def __init__(self, root: Path, observer: Observer) -> None:
        self._root = root
        self._observer = observer

    async def remove(self, job_id: JobId) -> None:
        """Remove what a job left that has ended. Cheap for those that left nothing."""
        path = self._root / job_id
        if not path.is_dir():
            return
        try:
            # Does not follow links, also not those that are made meanwhile.
            await anyio.to_thread.run_sync(shutil.rmtree, path)
        except (OSError, RecursionError) as error:
            self._observer.notice("work_directory_kept", job_id=job_id, path=str(path), error=str(error))

    async def sweep(self, ledger: Ledger) -> None:
        """Remove what a daemon that was killed left of jobs that have ended."""
        names = sorted(path.name for path in self._root.iterdir()) if self._root.is_dir() else []
        for name in names:
            try:
                job = await ledger.job(name)
            except (JobNotFound, LedgerUnavailable):
                continue
            if job.state.terminal:
                await self.remove(name)
