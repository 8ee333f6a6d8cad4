"""A work directory is there as long as its job, and no longer."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import pytest

from runner.core.events import AttemptSucceeded, JobState, TaskFailed, TaskTimedOut
from runner.core.plan import JobId
from runner.engine.equipment import FALLBACK_HANDLER
from runner.handlers.files import FileOperation
from runner.handlers.settings import FileOperationSettings
from runner.handlers.work_directories import WorkDirectories
from runner.ledgers.memory import MemoryLedger
from runner.ports import Quiet
from tests.engine.stage import Ear, Engine, Stage, only, task
from tests.ledgers.jobs import job, submitted

pytestmark = pytest.mark.timeout(30)


class Watched(WorkDirectories):
    """Tells when it has removed what a job left."""

    def __init__(self, root: Path) -> None:
        super().__init__(root, Quiet())
        self.removed = anyio.Event()

    async def remove(self, job_id: JobId) -> None:
        await super().remove(job_id)
        self.removed.set()


def files(name: str, *dependencies: str, **parameters: Any) -> dict[str, Any]:
    return task(name, *dependencies, parameters={"task_type": "file_operation", **parameters})


@asynccontextmanager
async def engine_with(work: Watched, root: Path) -> AsyncIterator[tuple[Stage, Engine]]:
    stage = Stage()
    async with stage.engine() as engine:
        handler = FileOperation(root, FileOperationSettings())
        engine.equipment.handlers = {"file_operation": handler, FALLBACK_HANDLER: stage.troupe}
        engine.equipment.job_ended = work.remove
        yield stage, engine


async def test_tasks_of_a_job_share_files_which_go_with_it(tmp_path: Path) -> None:
    work = Watched(tmp_path / "work")
    async with engine_with(work, tmp_path / "work") as (_, engine):
        job_id = await engine.submit(
            files("write", operation="write", path="ç/rapor.json", content={"toplam": 3}),
            files("copy", "write", operation="copy", path="ç", destination="d", recursive=True),
            files("move", "copy", operation="move", path="d/rapor.json", destination="e"),
            files("append", "move", operation="append", path="e", content="${tasks.write.output}"),
            files("read", "append", operation="read", path="e"),
            files("list", "append", operation="list", recursive=True, pattern="*"),
            files("delete", "read", "list", operation="delete", path="ç", recursive=True),
            files("escape", operation="read", path="../../secret"),
        )
        history = await engine.end(job_id)
        await work.removed.wait()
    outputs = {event.task_id: event.output.decode() for event in only(history, AttemptSucceeded)}
    assert len(outputs) == 7
    assert '"body":"{\\"toplam\\":3}{\\"path\\":\\"ç/rapor.json\\",\\"size\\":12}"' in outputs["read"]
    assert outputs["delete"] == '{"path":"ç","deleted":2}'
    assert [failed.failure.reason for failed in only(history, TaskFailed)] == ["OUTSIDE_WORK_DIRECTORY"]
    assert list((tmp_path / "work").iterdir()) == []


async def test_a_job_without_files_has_no_directory_and_one_of_another_job_stays(tmp_path: Path) -> None:
    work = Watched(tmp_path / "work")
    (tmp_path / "work" / "other").mkdir(parents=True)
    async with engine_with(work, tmp_path / "work") as (_, engine):
        await engine.run(task("a"))
        await work.removed.wait()
    assert [path.name for path in (tmp_path / "work").iterdir()] == ["other"]


async def test_an_attempt_without_time_writes_nothing(tmp_path: Path) -> None:
    work = Watched(tmp_path / "work")
    async with engine_with(work, tmp_path / "work") as (_, engine):
        write = files("a", operation="write", path="a", content="1") | {"timeout_seconds": 1e-9}
        history = await engine.run(write, task("b"))
        await work.removed.wait()
    assert len(only(history, TaskTimedOut)) == 1
    assert not (tmp_path / "work").exists()


async def test_what_a_killed_daemon_left_of_ended_jobs_is_removed_at_the_next_start(tmp_path: Path) -> None:
    ledger, root, ear = MemoryLedger(), tmp_path / "work", Ear()
    async with ledger.running():
        ended, queued = await submitted(ledger, job(state=JobState.FAILED), job())
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "secret").write_text("stays")
        for name in (ended.id, queued.id, "not-a-job"):
            (root / name / "d").mkdir(parents=True)
            (root / name / "d" / "link").symlink_to(outside)
        await WorkDirectories(root, ear).sweep(ledger)
        assert sorted(path.name for path in root.iterdir()) == sorted([queued.id, "not-a-job"])
        assert (outside / "secret").read_text() == "stays"
        assert ear.notices == []
        await WorkDirectories(tmp_path / "nothing", ear).sweep(ledger)


async def test_what_cannot_be_removed_is_told(tmp_path: Path) -> None:
    ear = Ear()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "job").symlink_to(tmp_path / "elsewhere")
    await WorkDirectories(tmp_path / "work", ear).remove("job")
    ((event, fields),) = ear.notices
    assert (event, fields["job_id"]) == ("work_directory_kept", "job")
    assert (tmp_path / "elsewhere").is_dir()
