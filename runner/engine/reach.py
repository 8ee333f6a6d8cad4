"""What a task's references reach: outputs, also large ones that the ledger keeps, JSON files, variables and inputs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, Final

import msgspec

from runner.core import references
from runner.core.errors import AttemptError
from runner.core.events import Artifact, Json
from runner.core.interpreter import JobRun
from runner.core.plan import JobId, TaskId, TaskPlan
from runner.core.runs import TaskRun

#: Names that a sentence lists, and their characters.
_MOST_SHOWN: Final = 10
_LONGEST_SHOWN: Final = 60


class Reach:
    """The references of one job's tasks, short of secrets, which only an attempt resolves."""

    def __init__(
        self,
        job_id: JobId,
        inputs: Mapping[str, Json],
        run: JobRun,
        fetch: Callable[[Artifact], Awaitable[bytes]],
        *,
        max_referenced_bytes: int,
    ) -> None:
        self._job_id = job_id
        self._inputs = inputs
        self._run = run
        self._fetch = fetch
        self._max_referenced_bytes = max_referenced_bytes

    async def scope(self, task: TaskPlan) -> references.Scope:
        """What the task may refer to; what the ledger keeps of it is fetched before.

        Raises AttemptError: UNRESOLVED_REFERENCE, if a file is not there, is too large, or is no JSON.
        """
        large: dict[TaskId, Any] = {}
        found = [found for found in references.find(task.parameters) if found.root is references.Root.TASKS]
        named = {reference.name for reference in found if not reference.artifact}
        files = await self._files(task, dict.fromkeys((each.name, each.artifact) for each in found if each.artifact))
        left = self._max_referenced_bytes
        for name in named.union(task.input_from):
            found_task = self._run.bodies.find(task.id, name)
            for leaf in self._run.bodies.leaves(found_task):
                if leaf is not found_task:
                    left -= len(leaf.output)
                for artifact in leaf.artifacts:
                    if artifact.id == leaf.output_artifact_id:
                        left -= 0 if leaf is found_task else artifact.size_bytes
                        self._check_room(left, name)
                        large[leaf.plan.id] = msgspec.json.decode(await self._fetch(artifact))
            self._check_room(left, name)
        return references.Scope(
            output=lambda name: self._output(self._run.bodies.find(task.id, name), large),
            inputs=self._inputs,
            variable=self._run.bodies.variables(task.id).read,
            artifact=lambda name, file: files[name, file],
            job_id=self._job_id,
            secret=_not_here,
        )

    def _check_room(self, left: int, name: TaskId) -> None:
        """One output may be as large as outputs are; those of all rounds of a loop together may not."""
        if left < 0:
            limit = f"{self._max_referenced_bytes} (setting `engine.max_referenced_bytes`)"
            raise _unresolved(
                f"what the bodies of task `{name}` gave is more than the references of one task reach: {limit}"
            )

    async def _files(self, task: TaskPlan, wanted: Iterable[tuple[TaskId, str]]) -> dict[tuple[TaskId, str], Json]:
        """The values of JSON files that tasks left, by task and name."""
        files: dict[tuple[TaskId, str], Json] = {}
        left = self._max_referenced_bytes
        for name, file in wanted:
            artifact = self._left(task, name, file)
            left -= artifact.size_bytes
            if left < 0:
                limit = f"{self._max_referenced_bytes} together (setting `engine.max_referenced_bytes`)"
                size = f"the artifact `{file}` of task `{name}` has {artifact.size_bytes} bytes"
                raise _unresolved(f"{size}; the references of one task reach into at most {limit}")
            try:
                files[name, file] = msgspec.json.decode(await self._fetch(artifact))
            except (ValueError, RecursionError) as error:
                raise _unresolved(f"the artifact `{file}` of task `{name}` is no JSON: {error}") from error
        return files

    def _left(self, task: TaskPlan, name: TaskId, file: str) -> Artifact:
        """What a task left under a name; of several, the last."""
        left = {artifact.name: artifact for artifact in self._run.bodies.find(task.id, name).artifacts}
        if file in left:
            return left[file]
        known = ", ".join(f"`{other[:_LONGEST_SHOWN]}`" for other in list(left)[:_MOST_SHOWN])
        raise _unresolved(f"task `{name}` left no artifact `{file}`" + (f"; it left {known}" if known else ""))

    def _output(self, task: TaskRun, large: Mapping[TaskId, Any]) -> Json:
        leaves = self._run.bodies.leaves(task)
        small = {leaf.plan.id: msgspec.json.decode(leaf.output) for leaf in leaves if leaf.output}
        return self._run.bodies.value(task, {**small, **large})


def _unresolved(message: str) -> AttemptError:
    return AttemptError("UNRESOLVED_REFERENCE", message, retryable=False)


def _not_here(name: str) -> str | None:
    raise KeyError(name)
