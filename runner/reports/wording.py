"""What control flow does, in words: of a plan from what is to run, of a record from what a task's metadata tells."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from runner.core.plan import Branch, Call, Condition, Control, Definition, ForEach, ForRange, Operator, Value, While
from runner.core.record import AttemptRecord, FallbackRecord, TaskRecord, UsageRecord, duration_text, tokens_of
from runner.reports.standing import counted

_SIGNS: Final = {
    Operator.EQ: "=",
    Operator.NEQ: "≠",
    Operator.GT: ">",
    Operator.LT: "<",
    Operator.GTE: "≥",
    Operator.LTE: "≤",
}
_JOINING: Final = frozenset({Operator.AND, Operator.OR, Operator.NOT})
#: A text that is one reference to a variable and nothing else.
_VARIABLE: Final = re.compile(r"\$\{variables\.([^}]+)\}")
#: The kind of task that a person answers.
_APPROVAL: Final = "approval"
#: Places of an attempt's calls that are named.
_PARTS: Final = 4
#: Characters of one operand.
_OPERAND: Final = 60


def of_control(control: Control) -> str:
    """Such as `for each ticket in ${tasks.fetch.output}`, `if severity ≥ 3`, `calls score`."""
    match control:
        case Branch(condition=condition):
            return f"if {of_condition(condition)}"
        case ForEach(variable=variable, items=items):
            return f"for each {variable} in {_operand(items)}{_at_once(control.parallel)}"
        case ForRange(variable=variable, start=start, end=end, step=step):
            by = "" if step.value == 1 else f" by {_operand(step)}"
            return f"for {variable} from {_operand(start)} up to {_operand(end)}{by}{_at_once(control.parallel)}"
        case While(condition=condition):
            return f"while {of_condition(condition)}"
        case Call(function=function):
            return f"calls {function}"
        case Definition():
            return "defines a function"


def of_condition(condition: Condition) -> str:
    """Such as `points ≥ threshold or not (team = "sales")`."""
    left = _side(condition.left, condition.operator)
    if condition.right is None:
        return f"{condition.operator} {left}"
    sign = _SIGNS.get(condition.operator, condition.operator.replace("_", " "))
    return f"{left} {sign} {_side(condition.right, condition.operator)}"


def of_metadata(metadata: Mapping[str, Any]) -> str:
    """What a record's control task did: `for each ticket`, `took if`, `calls score`; empty for any other task."""
    variable, branch = metadata.get("variable", "item"), metadata.get("branch")
    words = {
        "for_each": f"for each {variable}",
        "for_range": f"for {variable} in a range",
        "while": "while",
        "function_call": f"calls {metadata.get('function', 'a function')}",
        "condition": f"took {branch}" if branch else "condition",
        "function_def": "defines a function",
    }
    return words.get(str(metadata.get("control", "")), "")


def of_answer(task: TaskRecord) -> str:
    """Who answered an approval, and how: `approved by ayşe: go`, `rejected by b, goes on`; empty for any other task.

    A rejection that failed the task is told by its error.
    """
    answer = task.output
    if task.task_type != _APPROVAL or not isinstance(answer, dict) or not isinstance(answer.get("approved"), bool):
        return ""
    who, comment = answer.get("by"), answer.get("comment")
    by = " by default, as nobody answered" if who == "default" else f" by {who}" if who else ""
    told = f"approved{by}" if answer["approved"] else f"rejected{by}, goes on"
    return f"{told}: {comment}" if comment else told


def reused_from(task: TaskRecord) -> str:
    """The earlier job in which it ran; empty for a task that ran in this one."""
    return str(task.metadata.get("reused_from") or "")


def place_of(usage: UsageRecord) -> str:
    """Where calls went, and which model answered: `main · small`."""
    return _place(usage.endpoint, usage.model) or "child jobs, or not told"


def elsewhere(attempt: AttemptRecord) -> str:
    """Of an attempt's calls, those to others than it names: `1 call, 5 tokens at spare · small`; or empty."""
    told = [
        f"{counted(part.calls, 'call')}, {counted(tokens_of(part), 'token')} at {_place(part.endpoint, part.model)}"
        for part in attempt.elsewhere[:_PARTS]
    ]
    left = len(attempt.elsewhere) - _PARTS
    return "; ".join(told + ([f"and {counted(left, 'more place')}"] if left > 0 else []))


def of_fallback(used: FallbackRecord, endpoint: str, model: str) -> str:
    """What stood in for what: `b · small stood in for a`, `an answer of 5 min ago stood in for a`."""
    who = {
        "endpoint": _place(endpoint, model) or "another endpoint",
        "cached": f"an answer of {duration_text(round(used.age_seconds * 1_000))} ago",
        "value": "the value that the task gives",
    }
    return f"{who.get(used.kind, used.kind)} stood in for {used.instead_of or 'the first choice'}"


def stood_in(task: TaskRecord) -> str:
    """What gave the task's output in the place of its first choice, and why; empty where that did."""
    last = task.attempts[-1] if task.attempts else None
    if last is None or last.fallback is None:
        return ""
    used = last.fallback
    return of_fallback(used, last.endpoint, last.model) + (f": {used.reason}" if used.reason else "")


def _place(endpoint: str, model: str) -> str:
    return " · ".join(name for name in (endpoint, model) if name)


def short(value: Any, characters: int = 60) -> str:
    """A value of a loop's variable, on less than a line: `T-17`, `id: T-17, severity: 2`."""
    if isinstance(value, dict):
        told = ", ".join(f"{key}: {_plain(item)}" for key, item in value.items())
    else:
        told = _plain(value)
    line = " ".join(told.split())
    return line if len(line) <= characters else f"{line[: characters - 1]}…"


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()


def _at_once(parallel: int) -> str:
    return f", {parallel} at once" if parallel > 1 else ""


def _side(side: Condition | Value, joined_by: Operator) -> str:
    if not isinstance(side, Condition):
        return _operand(side)
    return f"({of_condition(side)})" if side.operator in _JOINING or joined_by is Operator.NOT else of_condition(side)


def _operand(operand: Value) -> str:
    value = operand.value
    if isinstance(value, str) and (variable := _VARIABLE.fullmatch(value)):
        return variable[1]
    told = value if isinstance(value, str) and value.startswith("${") else msgspec.json.encode(value).decode()
    return told if len(told) <= _OPERAND else f"{told[: _OPERAND - 1]}…"
