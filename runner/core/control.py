"""What a control task does next: it runs a branch, begins a round, calls a function, or is done.

Decided from nothing but what its bodies have done so far and the values in its scope, so that a replay comes to the
same. The books are kept by `bodies`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import msgspec

from runner.core.conditions import BadOperand, holds
from runner.core.errors import AttemptError
from runner.core.events import BodyStarted, ControlSucceeded, Failure, Json, TaskEvent, TaskFailed
from runner.core.plan import (
    Branch,
    Call,
    Control,
    Definition,
    ForEach,
    ForRange,
    Function,
    TaskId,
    TaskPlan,
    Type,
    Value,
    While,
)
from runner.core.variables import Variables, fits

BODY_FAILED: Final = "BODY_FAILED"
#: Bytes of a loop's value that its event repeats for people.
_SHORT: Final = 200

Resolve = Callable[[Json], Json]
#: Values of a loop's variable: JSON, or whole numbers.
Items = Sequence[bytes | int]


class ControlLimits(msgspec.Struct, frozen=True, kw_only=True):
    """How far control flow may go. A control task that would pass one of them fails, and says which."""

    #: Of one loop.
    max_rounds: int = 10_000
    #: Bodies inside of bodies, those of calls among them.
    max_depth: int = 50
    #: Tasks of a job that come into being, in all.
    max_tasks: int = 50_000
    #: Bytes of one variable's value.
    max_variable_bytes: int = 256 * 1024
    #: Bytes that one control task may look at before it decides.
    max_looked_at_bytes: int = 64 * 1024 * 1024
    #: Characters of the id of a control task that runs something: they stand in every event inside of it.
    max_id: int = 1_000


DEFAULT_LIMITS: Final = ControlLimits()
UNBOUNDED: Final = ControlLimits(
    max_rounds=sys.maxsize,
    max_depth=sys.maxsize,
    max_tasks=sys.maxsize,
    max_variable_bytes=sys.maxsize,
    max_looked_at_bytes=sys.maxsize,
    max_id=sys.maxsize,
)


class BodyRun(msgspec.Struct, kw_only=True):
    """One run of a body: the file's own tasks, a branch, a round, or a call."""

    #: What the ids of its tasks begin with: `loop1[3]/`; empty for the file's.
    prefix: str = ""
    #: The control task that it belongs to; empty for the file's.
    parent: TaskId = ""
    #: The control task that waits for it: none for the file's, nor for a branch that is not taken.
    control: TaskId = ""
    #: Where ids are looked for that are none of its own; None for the file's and a function's.
    outer: BodyRun | None = None
    variables: Variables
    #: Bodies around it.
    depth: int = 0
    #: Its tasks that have not ended.
    open: int = 0
    #: Progress of the control task that a unit of weight in here is worth.
    share: float = 0.0
    #: The task whose output is its value; empty for a body without tasks.
    last: TaskId = ""


class ControlRun(msgspec.Struct):
    """What a control task has done so far."""

    #: Runs of its bodies, in the order in which they began.
    runs: list[BodyRun] = []
    #: Those that have not ended.
    open: int = 0
    #: The first task in them that did not succeed.
    failed: TaskId = ""
    #: Of `for_each` and `for_range`, the values of the variable, as JSON; None before they are known.
    items: Items | None = None


class Refused(Exception):
    """It cannot go on, and fails with this."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.failure = Failure(reason, message)


def next_step(
    task: TaskPlan,
    run: ControlRun,
    *,
    functions: Mapping[str, Function],
    resolve: Resolve,
    depth: int,
    tasks: int,
    limits: ControlLimits,
) -> TaskEvent | None:
    """The event with which a control task goes on or ends; None while it waits for its bodies.

    `depth` is that of the body in which it stands; `tasks` those of the job so far.
    """
    control = task.control
    assert control is not None  # noqa: S101  only control tasks are asked
    try:
        begun = _begun(control, run, functions, resolve, limits)
        if begun is None:
            return None if run.open else _end(task, run)
        body, round_, items = begun
        count = sum(map(len, bodies_of(control, functions)))
        _check_room(task, depth + 1, tasks + count, limits)
    except (Refused, AttemptError, BadOperand, RecursionError) as error:
        # What runs goes on to its end, and then the reason will be the same.
        return None if run.open else TaskFailed(task.id, attempt=0, failure=_failure(error))
    return BodyStarted(
        task.id,
        body=body,
        round=round_,
        task_count=count,
        value=short_value(items, round_),
        name=name_of(control),
        rounds=len(items or ()),
    )


def _begun(
    control: Control, run: ControlRun, functions: Mapping[str, Function], resolve: Resolve, limits: ControlLimits
) -> tuple[str, int, Items | None] | None:
    """The body that begins now, which round it is, and of what rounds; None if none does. Nothing is kept of it."""
    match control:
        case Branch(condition=condition) if not run.runs:
            return ("if" if holds(condition, resolve) else "else", 0, None)
        case Call() if not run.runs:
            arguments(control, functions[control.function], resolve, limits)
            return ("call", 0, None)
        case ForEach() | ForRange():
            items = items_of(control, resolve, limits) if run.items is None else run.items
            stopped = bool(run.failed) and control.parallel == 1
            more = len(run.runs) < len(items) and run.open < control.parallel and not stopped
            return ("round", len(run.runs), items) if more else None
        case While(condition=condition):
            if run.open or run.failed or not holds(condition, resolve):
                return None
            if len(run.runs) >= limits.max_rounds:
                raise _too_many_rounds(limits)
            return ("round", len(run.runs), None)
    return None


def _end(task: TaskPlan, run: ControlRun) -> TaskEvent:
    if run.failed:
        message = f"task `{run.failed}` did not succeed"
        return TaskFailed(task.id, attempt=0, failure=Failure(BODY_FAILED, message))
    return ControlSucceeded(task.id)


def _check_room(task: TaskPlan, depth: int, tasks: int, limits: ControlLimits) -> None:
    if len(task.id) > limits.max_id:
        message = f"ids of {len(task.id)} characters and more are longer than setting `engine.max_instance_id` allows"
        raise Refused("TOO_DEEP", f"{message} ({limits.max_id})")
    if depth > limits.max_depth:
        message = f"bodies are nested deeper than setting `engine.max_body_depth` allows ({limits.max_depth})"
        raise Refused("TOO_DEEP", message)
    if tasks > limits.max_tasks:
        message = f"the job would have {tasks} tasks; setting `engine.max_job_tasks` allows {limits.max_tasks}"
        raise Refused("TOO_MANY_TASKS", message)


def _failure(error: Refused | AttemptError | BadOperand | RecursionError) -> Failure:
    match error:
        case RecursionError():
            return Failure("BAD_OPERAND", "a value is nested too deep")
        case Refused(failure=failure):
            return failure
        case AttemptError():
            return Failure(error.reason, error.message)
    return Failure("BAD_OPERAND", str(error))


# ----------------------------------------------------------------------------------------------------- bodies


def bodies_of(control: Control, functions: Mapping[str, Function]) -> tuple[tuple[TaskPlan, ...], ...]:
    """The tasks that come into being when a body begins: those that run, and those that are skipped."""
    match control:
        case Branch(then=then, otherwise=otherwise):
            return (then, otherwise)
        case Call(function=name):
            return (functions[name].body,)
        case Definition():
            return ()
    return (control.body,)


def taken(control: Control, functions: Mapping[str, Function], body: str) -> tuple[tuple[TaskPlan, ...], ...]:
    """The tasks that run, and those that are skipped."""
    bodies = bodies_of(control, functions)
    return (bodies[1], bodies[0]) if body == "else" else (bodies[0], *bodies[1:])


def prefix_of(task_id: TaskId, event: BodyStarted) -> str:
    """What the ids of a body's tasks begin with."""
    return f"{task_id}[{event.round}]/" if event.body == "round" else f"{task_id}/"


def declare(
    control: Control,
    round_: int,
    run: ControlRun,
    into: Variables,
    *,
    functions: Mapping[str, Function],
    resolve: Resolve,
    limits: ControlLimits,
) -> None:
    """Declare what a run of a body begins with: a loop's variable, a function's parameters."""
    match control:
        case ForEach() | ForRange():
            if run.items is None:
                run.items = items_of(control, resolve, limits)
            type_ = Type.NUMBER if isinstance(control, ForRange) else Type.ANY
            into.declare(control.variable, type_, _encoded(run.items[round_]))
        case While(variable=variable):
            into.declare(variable, Type.NUMBER, _encoded(round_))
        case Call(function=name):
            function = functions[name]
            values = arguments(control, function, resolve, limits)
            for parameter in function.parameters:
                into.declare(parameter.name, parameter.type, values.get(parameter.name))


def rounds_of(control: Control, run: ControlRun) -> int:
    """How often its body runs, where that is known; 0 where it is not."""
    if isinstance(control, While):
        return 0
    return 1 if run.items is None else len(run.items)


# ----------------------------------------------------------------------------------------------------- values


def items_of(control: ForEach | ForRange, resolve: Resolve, limits: ControlLimits) -> Items:
    """The values of a loop's variable.

    Raises Refused: if there are too many, or it is no list of them.
    """
    if isinstance(control, ForRange):
        start, end, step = (_whole(operand, resolve) for operand in (control.start, control.end, control.step))
        if not step:
            raise Refused("BAD_OPERAND", "the step of a loop must not be 0")
        numbers = range(start, end, step)
        # len() of a range has an end that ranges do not have.
        if (abs(end - start) // abs(step)) > limits.max_rounds or len(numbers) > limits.max_rounds:
            raise _too_many_rounds(limits)
        return numbers
    items = resolve(control.items.value)
    if not isinstance(items, list):
        raise Refused("BAD_OPERAND", f"a loop goes through a list; `{control.items.value:.60}` is none")
    if len(items) > limits.max_rounds:
        raise _too_many_rounds(limits)
    return [msgspec.json.encode(item) for item in items]


def arguments(control: Call, function: Function, resolve: Resolve, limits: ControlLimits) -> dict[str, bytes]:
    """The values of a function's parameters, as JSON.

    Raises Refused: if one is missing, of another type, or too large.
    """
    given = resolve(control.arguments)
    values: dict[str, bytes] = {}
    for parameter in function.parameters:
        value = given.get(parameter.name, parameter.default)
        if value is None:
            if parameter.required:
                raise Refused("BAD_ARGUMENT", f"function `{function.name}` needs the argument `{parameter.name}`")
            continue
        if not fits(value, parameter.type):
            message = f"the argument `{parameter.name}` of function `{function.name}` must be of type {parameter.type}"
            raise Refused("BAD_ARGUMENT", message)
        values[parameter.name] = within(msgspec.json.encode(value), parameter.name, limits)
    return values


def within(value: bytes, name: str, limits: ControlLimits) -> bytes:
    """The value of a variable, if it is not too large. Raises Refused."""
    if len(value) > limits.max_variable_bytes:
        message = (
            f"{len(value)} bytes for `{name}` are more than setting `engine.max_variable_bytes` allows"
            f" ({limits.max_variable_bytes})"
        )
        raise Refused("VALUE_TOO_LARGE", message)
    return value


def _too_many_rounds(limits: ControlLimits) -> Refused:
    message = f"a loop may have {limits.max_rounds} rounds (setting `engine.max_loop_rounds`), and this has more"
    return Refused("TOO_MANY_ROUNDS", message)


def _whole(operand: Value, resolve: Resolve) -> int:
    value = resolve(operand.value)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int):
        raise Refused("BAD_OPERAND", f"the bounds of a loop are whole numbers; `{operand.value!s:.60}` is none")
    return value


def _encoded(item: bytes | int) -> bytes:
    return item if isinstance(item, bytes) else str(item).encode()


def name_of(control: Control) -> str:
    """Of a loop, the name of its variable; of a call, that of the function."""
    match control:
        case Call(function=name):
            return name
        case ForEach(variable=name) | ForRange(variable=name) | While(variable=name):
            return name
    return ""


def short_value(items: Items | None, round_: int) -> bytes:
    """The value of a loop's variable as JSON, where it has a list of them and this one is short; else nothing."""
    if items is None:
        return b""
    value = _encoded(items[round_])
    return value if len(value) <= _SHORT else b""
