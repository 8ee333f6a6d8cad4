"""Which tasks of a record stand in which body, and what is the same in all rounds of a loop: its shape.

Records come from files: what a task says of where it stands is believed only where it can be so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Any, Final

import msgspec

from runner.core.record import LastRecord, TaskRecord
from runner.reports.standing import Standing, standing_of, standings

#: Bodies in bodies; what stands deeper is shown as if it stood in none.
_DEEPEST: Final = 60
#: Of several ends, the one that is told.
_WORST: Final = (
    Standing.FAILED,
    Standing.TIMEOUT,
    Standing.CANCELLED,
    Standing.RUNNING,
    Standing.PENDING,
    Standing.COMPLETED,
    Standing.SKIPPED,
)


class BodyRun(msgspec.Struct):
    """One run of a body: a round, a branch, a call."""

    #: `if`, `else`, `round` or `call`.
    body: str
    #: Of a loop, from 0.
    round: int | None
    #: Of a loop, the value of its variable, where it was short; else None.
    value: Any
    tasks: list[TaskRecord]

    @property
    def standing(self) -> Standing:
        return worst(map(standing_of, self.tasks))


class Tree(msgspec.Struct):
    """The tasks of a record under what ran them."""

    #: Those of the file itself.
    top: list[TaskRecord]
    #: By control task, the runs of its bodies, in the order in which they began.
    runs: dict[str, list[BodyRun]]

    def under(self, task: TaskRecord) -> Iterator[TaskRecord]:
        """The task and all that it ran, each before what it ran itself."""
        waiting = [task]
        while waiting:
            here = waiting.pop()
            yield here
            waiting += [inner for run in reversed(self.runs.get(here.task_id, ())) for inner in reversed(run.tasks)]

    def loops(self) -> Iterator[tuple[TaskRecord, list[BodyRun]]]:
        """The control tasks that ran rounds, the outermost first."""
        level = self.top
        while level:
            inner: list[TaskRecord] = []
            for task in level:
                runs = self.runs.get(task.task_id, [])
                if runs and runs[0].body == "round":
                    yield task, runs
                inner += [each for run in runs for each in run.tasks]
            level = inner


class Shape(msgspec.Struct):
    """A task as the file has it, with all the times that it ran: once, or in each round."""

    #: Its id in the file.
    name: str
    tasks: list[TaskRecord]
    #: What it ran, by body.
    bodies: dict[str, list[Shape]]

    @property
    def control(self) -> str:
        """The word for what it controls; empty if it is no control task."""
        return str(self.tasks[0].metadata.get("control", ""))

    @property
    def standing(self) -> Standing:
        return worst(map(standing_of, self.tasks))

    @property
    def counts(self) -> Counter[Standing]:
        return standings(self.tasks)


def tree_of(record: LastRecord) -> Tree:
    """The tree; in a record without control flow all tasks are on top."""
    tasks = record.task_results
    depths: dict[str, int] = {}
    tree = Tree([], {})
    found: dict[tuple[str, str, int], BodyRun] = {}
    # A control task's id is shorter than those in its bodies.
    for task_id in sorted(tasks, key=len):
        owner = _owner(tasks, task_id)
        depths[task_id] = 0 if owner is None else depths[owner] + 1
        if depths[task_id] > _DEEPEST:
            depths[task_id] = 0
    for task_id, task in tasks.items():
        if not depths[task_id]:
            tree.top.append(task)
            continue
        told = task.metadata
        body, number = str(told.get("body", "")), told.get("round")
        number = number if isinstance(number, int) else None
        key = (str(told["body_of"]), body, -1 if number is None else number)
        run = found.get(key)
        if run is None:
            run = found[key] = BodyRun(body, number, told.get("value"), [])
            tree.runs.setdefault(key[0], []).append(run)
        run.tasks.append(task)
    for runs in tree.runs.values():
        runs.sort(key=lambda run: -1 if run.round is None else run.round)
    return tree


def _owner(tasks: dict[str, TaskRecord], task_id: str) -> str | None:
    owner = tasks[task_id].metadata.get("body_of")
    if not isinstance(owner, str) or owner not in tasks:
        return None
    return owner if task_id.startswith((f"{owner}/", f"{owner}[")) else None


def shapes(tree: Tree) -> list[Shape]:
    """The file's own tasks, and below each what is the same in all rounds."""
    return [shape_of(task, tree) for task in tree.top]


def shape_of(task: TaskRecord, tree: Tree) -> Shape:
    """One task, and below it what is the same in all rounds."""
    return _shape(task.task_id, [task], tree)


def _shape(name: str, tasks: list[TaskRecord], tree: Tree) -> Shape:
    inner: dict[str, dict[str, list[TaskRecord]]] = {}
    for task in tasks:
        for run in tree.runs.get(task.task_id, ()):
            for each in run.tasks:
                inner.setdefault(run.body, {}).setdefault(local_name(each), []).append(each)
    bodies = {body: [_shape(name, each, tree) for name, each in named.items()] for body, named in inner.items()}
    return Shape(name, tasks, {body: bodies[body] for body in sorted(bodies, key=lambda body: body == "else")})


def size_of(shape: Shape) -> int:
    """How many shapes it is, with those inside of it."""
    return 1 + sum(size_of(each) for body in shape.bodies.values() for each in body)


def local_name(task: TaskRecord) -> str:
    """Its id in the file: without that of the control task in whose body it stands."""
    owner = task.metadata.get("body_of")
    if not isinstance(owner, str) or not task.task_id.startswith(owner):
        return task.task_id
    _, _, name = task.task_id[len(owner) :].partition("/")
    return name or task.task_id


def worst(ends: Iterable[Standing]) -> Standing:
    """The one of several ends that a reader must see."""
    there = set(ends)
    return next((standing for standing in _WORST if standing in there), Standing.PENDING)


def told_ends(counts: Counter[Standing]) -> str:
    """`4,990 completed, 10 failed`."""
    return ", ".join(f"{count:,} {standing.word}" for standing, count in counts.items())


def fate_of(task: TaskRecord) -> str:
    """`ran`, or why it did not: `skipped`, `cancelled` before it began, `reused` from an earlier job."""
    standing = standing_of(task)
    if standing is Standing.SKIPPED:
        return standing.word
    if task.attempts or task.duration_ms:
        return "ran"
    if task.metadata.get("reused_from"):
        return "reused"
    return standing.word if standing in (Standing.CANCELLED, Standing.PENDING) else "ran"


def told_times(tasks: Iterable[TaskRecord]) -> str:
    """`×8` where all ran, else `3 ran, 5 skipped`."""
    fates = Counter(map(fate_of, tasks))
    if set(fates) == {"ran"}:
        return f"×{fates['ran']:,}"
    order = sorted(fates, key=lambda fate: (fate != "ran", fate))
    return ", ".join(f"{fates[fate]:,} {fate}" for fate in order)


def told_rounds(runs: Iterable[BodyRun]) -> str:
    """`rounds 0–4,999: 4,990 completed, 10 failed`."""
    listed = list(runs)
    counts = Counter(run.standing for run in listed)
    ends = told_ends(Counter({standing: counts[standing] for standing in Standing if counts[standing]}))
    return f"{numbers(listed)}: {ends}"


def numbers(runs: list[BodyRun]) -> str:
    """`round 3`, `rounds 0–4,999`."""
    first, last = runs[0].round or 0, runs[-1].round or 0
    return f"round {first:,}" if first == last else f"rounds {first:,}–{last:,}"
