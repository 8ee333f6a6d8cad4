"""The plan: what every dialect of `.alt` decodes into. Nothing after the decoder knows which dialect it was."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator
from itertools import chain
from typing import Any

import msgspec

#: Microseconds since the Unix epoch, UTC. Ints, because events by the thousand are compared, stored and sent.
Instant = int

JobId = str
TaskId = str
_ROUND = re.compile(r"(?:0|[1-9][0-9]*)\]", re.ASCII)
#: Number of an event within its job: 1, 2, 3, …
Sequence = int


class Mode(enum.StrEnum):
    """How freely an orchestrator may interpret the job."""

    NORMAL = "normal"
    DREAM = "dream"
    EXPLORE = "explore"
    CHAOS = "chaos"


class Priority(enum.IntEnum):
    """Urgency; the numbers are those of the wire."""

    LOW = 1
    MEDIUM = 2
    HIGH = 3
    CRITICAL = 4


class Type(enum.StrEnum):
    """What a variable may hold."""

    STRING = "string"
    NUMBER = "number"
    BOOLEAN = "boolean"
    ARRAY = "array"
    OBJECT = "object"
    ANY = "any"


class Variable(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A name for a value that may change while the job runs."""

    name: str
    type: Type = Type.ANY
    #: None where it has no value yet.
    value: Any = None


class Operator(enum.StrEnum):
    """How a condition compares."""

    EQ = "eq"
    NEQ = "neq"
    GT = "gt"
    LT = "lt"
    GTE = "gte"
    LTE = "lte"
    CONTAINS = "contains"
    NOT_CONTAINS = "not_contains"
    STARTS_WITH = "starts_with"
    ENDS_WITH = "ends_with"
    AND = "and"
    OR = "or"
    NOT = "not"


class Value(msgspec.Struct, frozen=True, tag="value"):
    """An operand: any JSON value, in whose texts references stand."""

    value: Any


class Condition(msgspec.Struct, frozen=True, omit_defaults=True, tag="condition"):
    """What is true or not, once its references are resolved."""

    operator: Operator
    left: Condition | Value
    #: None for `not`.
    right: Condition | Value | None = None


class Branch(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag="condition"):
    """Runs one of two bodies."""

    condition: Condition
    then: tuple[TaskPlan, ...]
    otherwise: tuple[TaskPlan, ...] = ()


class ForEach(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag="for_each"):
    """Runs its body once for each item of a list."""

    variable: str
    items: Value
    body: tuple[TaskPlan, ...]
    #: Rounds under way at a time.
    parallel: int = 1


class ForRange(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag="for_range"):
    """Runs its body once for each number from `start` up to, and without, `end`."""

    variable: str
    start: Value
    end: Value
    step: Value
    body: tuple[TaskPlan, ...]
    #: Rounds under way at a time.
    parallel: int = 1


class While(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag="while"):
    """Runs its body as long as a condition holds; the variable counts the rounds, from 0."""

    variable: str
    condition: Condition
    body: tuple[TaskPlan, ...]


class Call(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True, tag="function_call"):
    """Runs the body of a function."""

    function: str
    #: By parameter; references stand in their texts.
    arguments: dict[str, Any] = {}
    #: The variable that takes the function's value.
    result: str | None = None


class Definition(msgspec.Struct, frozen=True, tag="function_def"):
    """Defines a function, which stands among the plan's; by itself it does nothing."""


Loop = ForEach | ForRange | While
Control = Branch | ForEach | ForRange | While | Call | Definition


class Parameter(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What a function takes."""

    name: str
    type: Type = Type.ANY
    #: Taken where a call gives none; None: there is no such value.
    default: Any = None
    required: bool = False


class Function(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A body with parameters. Its value is the output of its last task."""

    name: str
    parameters: tuple[Parameter, ...] = ()
    returns: Type = Type.ANY
    body: tuple[TaskPlan, ...]
    description: str = ""


class TaskPlan(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One task as it is to run, or a control task, which runs others."""

    #: Unique in the plan. While it runs, that of the instance: `loop1[3]/fetch`.
    id: TaskId
    description: str
    #: The task type as written or inferred: `ai_prompt`, `http_request`, `delay`, …, or any word for the orchestrator.
    kind: str
    #: May hold `${…}` references in any string.
    parameters: dict[str, Any] = {}
    #: Ids of the tasks of the same body that must succeed first; no doubles, never a cycle.
    dependencies: tuple[TaskId, ...] = ()
    #: Seconds for one attempt; None for the runner's default.
    timeout: float | None = None
    #: Attempts after the first, 0–255; None for the runner's default.
    retries: int | None = None
    #: Seconds between attempts; None for the runner's backoff.
    retry_seconds: float | None = None
    #: Of its dependencies, those whose outputs become its parameter `input`, merged.
    input_from: tuple[TaskId, ...] = ()
    #: None for the job's.
    priority: Priority | None = None
    tags: tuple[str, ...] = ()
    #: Its share of the job's progress, relative to the other tasks'.
    weight: float = 1.0
    #: Unknown fields of the descriptor and its own metadata, carried to the record.
    metadata: dict[str, Any] = {}
    #: Its own, which the tasks that it runs see as well.
    variables: tuple[Variable, ...] = ()
    #: What it runs, where it is a control task.
    control: Control | None = None


class Plan(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A job as it is to run: a graph of tasks without cycles. The tasks of bodies stand inside of what runs them."""

    #: The descriptor's own id.
    alt_id: str
    #: `tasks`, `segments` or `workflow`.
    dialect: str
    #: The descriptor's version, as written.
    version: str
    title: str
    tasks: tuple[TaskPlan, ...]
    #: When the descriptor says it was made, if it does.
    created_at: Instant | None = None
    description: str | None = None
    mode: Mode = Mode.NORMAL
    persona: str | None = None
    #: BCP 47 language of the texts (`tr`, `en`), where told.
    language: str | None = None
    #: 1–10, in mode chaos of dialect `segments`.
    chaos_level: int | None = None
    priority: Priority = Priority.MEDIUM
    tags: tuple[str, ...] = ()
    #: Seconds the author expects the job to take.
    expected_seconds: float | None = None
    #: Cancel everything as soon as one task has failed for good.
    fail_fast: bool = False
    #: Tokens that all calls to AI models may take together; None: nothing bounds them. Settled when it is submitted.
    token_budget: int | None = None
    #: The descriptor's metadata and its unknown fields, carried to the record.
    metadata: dict[str, Any] = {}
    #: Whether tasks may set variables: those that there are, or that the results of calls begin.
    has_variables: bool = False
    variables: tuple[Variable, ...] = ()
    functions: tuple[Function, ...] = ()


def bodies(control: Control | None) -> tuple[tuple[TaskPlan, ...], ...]:
    """The bodies that stand inside of a control task; a call's stands in its function."""
    match control:
        case Branch(then=then, otherwise=otherwise):
            return (then, otherwise)
        case ForEach(body=body) | ForRange(body=body) | While(body=body):
            return (body,)
    return ()


def every_task(plan: Plan) -> Iterator[TaskPlan]:
    """All tasks of a plan, those inside of others and of functions among them, each before what is inside of it."""
    waiting = [plan.tasks, *(function.body for function in plan.functions)][::-1]
    while waiting:
        for task in waiting.pop():
            yield task
            waiting += bodies(task.control)


def planned(plan: Plan, task_id: TaskId) -> TaskPlan | None:
    """The task of a plan that an instance is, or would be: that of `loop1[3]/fetch` is `fetch` in `loop1`'s body."""
    if not plan.has_variables:
        # Only files with variables have bodies, and ids without slashes.
        return next((task for task in plan.tasks if task.id == task_id), None)
    functions = {function.name: function.body for function in plan.functions}
    *outer, last = task_id.split("/")
    inside = plan.tasks
    for step in outer:
        name, bracket, round_ = step.partition("[")
        task = next((task for task in inside if task.id == name), None)
        looping = task is not None and isinstance(task.control, Loop)
        if task is None or looping != bool(bracket) or (looping and not _ROUND.fullmatch(round_)):
            return None
        match task.control:
            case Call(function=called):
                inside = functions[called]
            case control:
                inside = tuple(chain(*bodies(control)))
    return next((task for task in inside if task.id == last), None)


def operands(control: Control | None) -> list[Any]:
    """The values of a control task in which references may stand."""
    match control:
        case Branch(condition=condition) | While(condition=condition):
            return list(_values(condition))
        case ForEach(items=items):
            return [items.value]
        case ForRange(start=start, end=end, step=step):
            return [start.value, end.value, step.value]
        case Call(arguments=arguments):
            return [arguments]
    return []


def _values(condition: Condition) -> Iterator[Any]:
    for operand in (condition.left, condition.right):
        if isinstance(operand, Condition):
            yield from _values(operand)
        elif operand is not None:
            yield operand.value
