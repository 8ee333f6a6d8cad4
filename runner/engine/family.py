"""The labels by which a job that a task runs tells where it belongs. Nobody else may set them."""

from __future__ import annotations

from typing import Final

from runner.core.job import JobSummary

#: The job that it belongs to.
PARENT: Final = "alt-runner/parent"
#: The job above them all.
ROOT: Final = "alt-runner/root"
#: How many jobs are above it.
DEPTH: Final = "alt-runner/depth"

FAMILY: Final = frozenset({PARENT, ROOT, DEPTH})


def depth_of(job: JobSummary) -> int:
    """How many jobs are above it."""
    return int(job.labels.get(DEPTH, "0"))


def child_labels(parent: JobSummary) -> dict[str, str]:
    """The labels of its children."""
    return {PARENT: parent.id, ROOT: parent.labels.get(ROOT, parent.id), DEPTH: str(depth_of(parent) + 1)}
