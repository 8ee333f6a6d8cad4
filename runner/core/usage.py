"""What AI calls consumed, by endpoint and model."""

from __future__ import annotations

from collections.abc import Iterable

from runner.core.events import Usage
from runner.core.interpreter import JobRun
from runner.core.record import UsageRecord, tokens_of
from runner.core.runs import AttemptRun


def usage_by(attempts: Iterable[AttemptRun]) -> list[UsageRecord]:
    """The usage that attempts told, whatever became of them, the dearest first. Their sum is the sum of all."""
    sums: dict[tuple[str, str], Usage] = {}
    for attempt in attempts:
        if attempt.usage is not None:
            place = (attempt.endpoint, attempt.model)
            sums[place] = sums.get(place, Usage()) + attempt.usage
    told = [
        UsageRecord(
            endpoint=endpoint,
            model=model,
            calls=usage.calls,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.total_tokens,
        )
        for (endpoint, model), usage in sums.items()
    ]
    return sorted(told, key=lambda each: (-tokens_of(each), -each.calls, each.endpoint, each.model))


def usage_of(run: JobRun) -> Usage | None:
    """What a job has consumed so far; None where no attempt told anything."""
    told = [attempt.usage for task in run.tasks.values() for attempt in task.attempts if attempt.usage is not None]
    return sum(told, Usage()) if told else None
