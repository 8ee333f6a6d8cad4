"""The runs of bodies of one job: which task stands in which, what it sees from there, and which control task is due."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import msgspec

from runner.core import control
from runner.core.conditions import kind_of
from runner.core.control import UNBOUNDED, BodyRun, ControlLimits, ControlRun, Refused, Resolve
from runner.core.errors import AttemptError
from runner.core.events import BodyStarted, ControlSucceeded, Failure, Json, TaskEvent, TaskFailed
from runner.core.plan import Call, ForEach, ForRange, Plan, TaskId, TaskPlan, Type, Variable, While
from runner.core.references import Scope, resolve
from runner.core.runs import TaskRun
from runner.core.variables import Variables, fits, nested_deeper, refusal

#: Levels of containers in a value that control flow works with.
DEEPEST_VALUE: Final = 100


class Bodies:
    """Keeps the books of control flow. Everything in here follows from the plan, the inputs and the events."""

    def __init__(self, plan: Plan, tasks: Mapping[TaskId, TaskRun], *, job_id: str, inputs: Mapping[str, Json]) -> None:
        self._tasks = tasks
        self._job_id = job_id
        self._seen_inputs = _Counted(inputs, self._look)
        self._functions = {function.name: function for function in plan.functions}
        #: The file's own tasks, as a body that runs once.
        self.file = BodyRun(variables=_declared(_encoded_once(plan.variables), None))
        #: The values that variables of tasks begin with, which all instances share; by the identity of the list.
        self._first: dict[int, list[tuple[Variable, bytes | None]]] = {}
        #: Where each task stands that is not the file's own.
        self._places: dict[TaskId, BodyRun] = {}
        #: What the tasks that have variables of their own see.
        self._own: dict[TaskId, Variables] = {}
        self._controls: dict[TaskId, ControlRun] = {}
        #: Bytes that control tasks have looked at, and those that the one whose turn it is may reach.
        self.looked_at = 0
        self._end_of_sight = sys.maxsize

    def place(self, task_id: TaskId) -> BodyRun:
        """The run of a body in which a task stands."""
        return self._places.get(task_id, self.file)

    def control(self, task_id: TaskId) -> ControlRun:
        """What a control task has done so far."""
        return self._controls[task_id]

    def in_order(self) -> Iterator[TaskRun]:
        """All tasks in the order of the plan: each before what it runs, and rounds by their numbers."""
        inside: dict[TaskId, list[TaskRun]] = {}
        for task in self._tasks.values():
            if task.plan.id in self._places:
                inside.setdefault(self._places[task.plan.id].parent, []).append(task)
        # Rounds of a loop may begin in any order with those of others, but each begins after the one before it.
        waiting = [task for task in self._tasks.values() if task.plan.id not in self._places][::-1]
        while waiting:
            task = waiting.pop()
            yield task
            waiting += reversed(inside.get(task.plan.id, ()))

    def enter(self, plans: tuple[TaskPlan, ...], body: BodyRun) -> tuple[TaskPlan, ...]:
        """The tasks of a body as those of this run of it, with ids of their own."""
        named = plans if body is self.file else tuple([_named(plan, body.prefix) for plan in plans])
        if body is not self.file:
            self._places.update((plan.id, body) for plan in named)
        for plan in named:
            if plan.variables or isinstance(plan.control, While):
                if id(plan.variables) not in self._first:
                    self._first[id(plan.variables)] = _encoded_once(plan.variables)
                first = self._first[id(plan.variables)]
                self._own[plan.id] = _declared(first, body.variables)
                self._count(plan, 0)
            if plan.control is not None:
                self._controls[plan.id] = ControlRun()
        return named

    def _count(self, plan: TaskPlan, rounds: int) -> None:
        """The condition of a `while` loop sees how many rounds there were."""
        if isinstance(plan.control, While):
            self._own[plan.id].declare(plan.control.variable, Type.NUMBER, str(rounds).encode())

    # -------------------------------------------------------------------------------------------------- steps

    def step(self, task: TaskRun, limits: ControlLimits) -> TaskEvent | None:
        """The event with which a control task goes on or ends; None while it waits for its bodies."""
        self._end_of_sight = self.looked_at + limits.max_looked_at_bytes
        event = control.next_step(
            task.plan,
            self._controls[task.plan.id],
            functions=self._functions,
            resolve=self._resolver(task.plan.id),
            depth=self.place(task.plan.id).depth,
            tasks=len(self._tasks),
            limits=limits,
        )
        if isinstance(event, ControlSucceeded) and (problem := self._result_problem(task, limits)):
            return TaskFailed(task.plan.id, attempt=0, failure=problem)
        return event

    def begin(self, task: TaskRun, event: BodyStarted) -> list[tuple[BodyRun, tuple[TaskPlan, ...]]]:
        """Begin a run of a body. Answers it with the tasks that run, and where some are skipped, those as well."""
        # What was begun was within the limits of its day.
        self._end_of_sight = sys.maxsize
        plan, run = task.plan, self._controls[task.plan.id]
        assert plan.control is not None  # noqa: S101  only control tasks have bodies
        place = self.place(plan.id)
        prefix = control.prefix_of(plan.id, event)
        called = isinstance(plan.control, Call)
        body = BodyRun(
            prefix=prefix,
            parent=plan.id,
            control=plan.id,
            outer=None if called else place,
            variables=Variables(self.file.variables if called else self.variables(plan.id)),
            depth=place.depth + 1,
        )
        resolver = self._resolver(plan.id)
        control.declare(
            plan.control,
            event.round,
            run,
            body.variables,
            functions=self._functions,
            resolve=resolver,
            limits=UNBOUNDED,
        )
        plans, *skipped = control.taken(plan.control, self._functions, event.body)
        body.open = len(plans)
        body.last = prefix + plans[-1].id if plans else ""
        rounds = control.rounds_of(plan.control, run)
        if plans and rounds:
            body.share = 1 / (sum(task.weight for task in plans) * rounds)
        run.runs.append(body)
        self._count(plan, len(run.runs))
        run.open += bool(plans)
        aside = BodyRun(prefix=prefix, parent=plan.id, outer=body.outer, variables=body.variables, depth=body.depth)
        return [(body, plans), *((aside, others) for others in skipped)]

    def leave(self, task: TaskRun, *, succeeded: bool) -> TaskId:
        """A task has ended. Answers the control task whose body ended with it, or nothing."""
        body = self._places.get(task.plan.id)
        if body is None or not body.control:
            return ""
        run = self._controls[body.control]
        if not succeeded and not run.failed:
            run.failed = task.plan.id
        body.open -= 1
        if body.open:
            return ""
        run.open -= 1
        body.variables.let_go()
        return body.control

    # -------------------------------------------------------------------------------------------------- values

    def variables(self, task_id: TaskId) -> Variables:
        """The variables that a task sees."""
        return self._own.get(task_id) or self.place(task_id).variables

    def refusal(self, task_id: TaskId, values: Mapping[str, msgspec.Raw], limits: ControlLimits) -> str:
        """Why a task cannot set these variables, in a sentence; empty if it can."""
        return refusal(self.variables(task_id), values, limits.max_variable_bytes)

    def assign(self, task_id: TaskId, values: bytes) -> None:
        """Set variables, given as a JSON object."""
        variables = self.variables(task_id)
        for name, value in msgspec.json.decode(values, type=dict[str, msgspec.Raw]).items():
            variables.assign(name, bytes(value))

    def take_result(self, task: TaskRun) -> None:
        """Put a call's value into the variable that is to have it."""
        call = task.plan.control
        if isinstance(call, Call) and call.result is not None:
            seen = self.variables(task.plan.id)
            scope = seen if seen.find(call.result) else self.place(task.plan.id).variables
            scope.assign(call.result, self._encoded(task.plan.id))

    def find(self, task_id: TaskId, name: TaskId) -> TaskRun:
        """The task that another one means by an id of the file.

        Raises KeyError: if none of this name can be seen from there.
        """
        body: BodyRun | None = self.place(task_id)
        while body is not None:
            found = self._tasks.get(body.prefix + name)
            if found is not None:
                return found
            body = body.outer
        raise KeyError(name)

    def leaves(self, task: TaskRun) -> Iterator[TaskRun]:
        """The tasks whose outputs make up a task's value: itself, or those that a control task's bodies end with."""
        if task.plan.control is None:
            yield task
            return
        for body in self._controls[task.plan.id].runs:
            if body.last:
                yield from self.leaves(self._tasks[body.last])

    def value(self, task: TaskRun, output: Mapping[TaskId, Any]) -> Any:
        """A task's value: its output; of a loop, the list of its rounds' values; of other control tasks, their body's.

        `output` has the outputs of the leaves that have one.
        """
        if task.plan.control is None:
            return output.get(task.plan.id)
        values = [
            self.value(self._tasks[body.last], output) if body.last else None
            for body in self._controls[task.plan.id].runs
        ]
        if isinstance(task.plan.control, ForEach | ForRange | While):
            return values
        return values[-1] if values else None

    def _resolver(self, task_id: TaskId) -> Resolve:
        """How a control task's references are resolved."""
        variables = self.variables(task_id)

        def variable(name: str) -> Json:
            cell = variables.find(name)
            self._look(len(cell.value) if cell is not None and cell.value is not None else 0)
            return variables.read(name)

        scope = Scope(
            output=lambda name: msgspec.json.decode(self._encoded(self.find(task_id, name).plan.id)),
            inputs=self._seen_inputs,
            variable=variable,
            job_id=self._job_id,
            secret=lambda _: None,
        )

        def resolved(value: Json) -> Json:
            found = resolve(value, scope)
            # Comparing and keeping recurse, each with a depth of its own; nobody may come to the end of the stack.
            if isinstance(found, dict | list) and nested_deeper(found, DEEPEST_VALUE):
                raise Refused("BAD_OPERAND", f"a value is nested deeper than {DEEPEST_VALUE} levels")
            return found

        return resolved

    def _look(self, size: int) -> None:
        """Count what is looked at, in bytes, so that settling has pauses.

        Raises Refused: if the control task whose turn it is has looked at too much.
        """
        self.looked_at += size
        if self.looked_at > self._end_of_sight:
            message = "what it refers to is more than setting `engine.max_looked_at_bytes` lets one task look at"
            raise Refused("VALUE_TOO_LARGE", message)

    def _encoded(self, task_id: TaskId) -> bytes:
        """A task's value as JSON.

        Raises AttemptError: if a part of it is too large to stand in an event. Raises Refused: as `_look`.
        """
        task = self._tasks[task_id]
        outputs = {leaf.plan.id: msgspec.Raw(leaf.output or b"null") for leaf in self._inline(task)}
        encoded = msgspec.json.encode(self.value(task, outputs))
        self._look(len(encoded))
        return encoded

    def _inline(self, task: TaskRun) -> Iterator[TaskRun]:
        for leaf in self.leaves(task):
            if leaf.output_artifact_id:
                message = (
                    f"the output of task `{leaf.plan.id}` is kept as an artifact, which control flow cannot look into"
                    " (setting `engine.inline_output_bytes`)"
                )
                raise AttemptError("VALUE_TOO_LARGE", message, retryable=False)
            yield leaf

    def _result_problem(self, task: TaskRun, limits: ControlLimits) -> Failure | None:
        """Why a call's value is not what it must be, where anybody looks at it."""
        call = task.plan.control
        if not isinstance(call, Call):
            return None
        function = self._functions[call.function]
        if call.result is None and function.returns is Type.ANY:
            return None
        name = call.result or function.name
        types = {f"the value of function `{function.name}`": function.returns}
        if call.result is not None and (cell := self.variables(task.plan.id).find(call.result)):
            types[f"the variable `{call.result}`"] = cell.type
        try:
            value = msgspec.json.decode(control.within(self._encoded(task.plan.id), name, limits))
        except Refused as error:
            return error.failure
        except AttemptError as error:
            return Failure(error.reason, error.message)
        for what, type_ in types.items():
            if not fits(value, type_):
                return Failure("BAD_VALUE", f"{what} must be of type {type_}, not {kind_of(value)}")
        return None


class _Counted(Mapping[str, Json]):
    """The job's inputs, of which each look counts with the size of what is looked at."""

    def __init__(self, inputs: Mapping[str, Json], look: Callable[[int], None]) -> None:
        self._inputs = inputs
        self._look = look
        self._sizes: dict[str, int] = {}

    def __getitem__(self, name: str) -> Json:
        value = self._inputs[name]
        if name not in self._sizes:
            self._sizes[name] = len(msgspec.json.encode(value))
        self._look(self._sizes[name])
        return value

    def __contains__(self, name: object) -> bool:
        return name in self._inputs

    def __iter__(self) -> Iterator[str]:
        return iter(self._inputs)

    def __len__(self) -> int:
        return len(self._inputs)


def _named(plan: TaskPlan, prefix: str) -> TaskPlan:
    return msgspec.structs.replace(
        plan,
        id=prefix + plan.id,
        dependencies=tuple([prefix + dependency for dependency in plan.dependencies]),
    )


def _declared(variables: Sequence[tuple[Variable, bytes | None]], outer: Variables | None) -> Variables:
    scope = Variables(outer)
    for variable, value in variables:
        scope.declare(variable.name, variable.type, value)
    return scope


def _encoded_once(variables: Sequence[Variable]) -> list[tuple[Variable, bytes | None]]:
    return [(each, None if each.value is None else msgspec.json.encode(each.value)) for each in variables]
