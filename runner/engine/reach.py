"""What a task's references reach: outputs, also large ones that the ledger keeps, variables and inputs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

import msgspec

from runner.core import references
from runner.core.events import Artifact, Json
from runner.core.interpreter import JobRun
from runner.core.plan import JobId, TaskId, TaskPlan
from runner.core.runs import TaskRun


class Reach:
    """The references of one job's tasks, short of secrets, which only an attempt resolves."""

    def __init__(
        self,
        job_id: JobId,
        inputs: Mapping[str, Json],
        run: JobRun,
        fetch: Callable[[Artifact], Awaitable[bytes]],
    ) -> None:
        self._job_id = job_id
        self._inputs = inputs
        self._run = run
        self._fetch = fetch

    async def scope(self, task: TaskPlan) -> references.Scope:
        """What the task may refer to; outputs that are kept as artifacts are fetched before."""
        large: dict[TaskId, Any] = {}
        named = {found.name for found in references.find(task.parameters) if found.root is references.Root.TASKS}
        for name in named.union(task.input_from):
            for leaf in self._run.bodies.leaves(self._run.bodies.find(task.id, name)):
                for artifact in leaf.artifacts:
                    if artifact.id == leaf.output_artifact_id:
                        large[leaf.plan.id] = msgspec.json.decode(await self._fetch(artifact))
        return references.Scope(
            output=lambda name: self._output(self._run.bodies.find(task.id, name), large),
            inputs=self._inputs,
            variable=self._run.bodies.variables(task.id).read,
            job_id=self._job_id,
            secret=_not_here,
        )

    def _output(self, task: TaskRun, large: Mapping[TaskId, Any]) -> Json:
        leaves = self._run.bodies.leaves(task)
        small = {leaf.plan.id: msgspec.json.decode(leaf.output) for leaf in leaves if leaf.output}
        return self._run.bodies.value(task, {**small, **large})


def _not_here(name: str) -> str | None:
    raise KeyError(name)
