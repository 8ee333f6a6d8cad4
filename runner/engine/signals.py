"""Answers of people to tasks, checked before they are kept."""

from __future__ import annotations

from typing import Final

import msgspec

from runner.core.findings import Finding
from runner.core.job import Signal
from runner.core.plan import Plan, every_task, planned

#: The kind of tasks that wait for an answer.
APPROVAL: Final = "approval"
MAX_COMMENT: Final = 1_000
MAX_SENDER: Final = 255
#: Bytes.
MAX_DATA: Final = 64 * 1024


def signal_problems(signal: Signal, plan: Plan) -> list[Finding]:
    """Everything that is wrong with an answer to a task of this plan."""
    problems = []
    task = planned(plan, signal.task_id)
    if task is None:
        asking = (task.id for task in every_task(plan) if task.kind == APPROVAL)
        waiting = ", ".join(f"`{task_id}`" for task_id in asking)[:500] or "none"
        message = f"the job has no such task; waiting for approval, now or later: {waiting}"
        problems.append(Finding("UNKNOWN_TASK", "task_id", message))
    elif task.kind != APPROVAL:
        message = f"a task of kind `{task.kind}` asks for no approval"
        problems.append(Finding("NOT_AN_APPROVAL", "task_id", message))
    for name, value, limit in (("comment", signal.comment, MAX_COMMENT), ("sender", signal.sender, MAX_SENDER)):
        if len(value) > limit:
            problems.append(Finding("TOO_LONG", name, f"at most {limit} characters; it has {len(value)}"))
        if "\0" in value:
            problems.append(Finding("BAD_NAME", name, "no text holds a NUL"))
    if len(signal.data) > MAX_DATA:
        problems.append(Finding("TOO_LONG", "data_json", f"at most {MAX_DATA} bytes; it has {len(signal.data)}"))
    elif signal.data:
        try:
            msgspec.json.decode(signal.data)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            problems.append(Finding("BAD_TYPE", "data_json", f"not JSON: {error}"))
    return problems
