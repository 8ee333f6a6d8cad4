"""What AI calls consumed, by endpoint and model.

An attempt names one endpoint and one model, though it may have called others: its usage is the sum of all, with the
parts that were consumed `elsewhere`. What is counted by endpoint and model, wherever, is what `by_place` says.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Final

from runner.core.events import Usage, UsageAt
from runner.core.record import UsageRecord, tokens_of

if TYPE_CHECKING:
    from runner.core.interpreter import JobRun
    from runner.core.runs import AttemptRun

#: An endpoint and a model; empty where they are not known.
Place = tuple[str, str]

#: A usage, and the endpoint and model that are named beside it.
Told = tuple[str, str, Usage | None]

#: Parts that a usage tells one by one: the dearest. What is beyond counts where the attempt says it was.
MAX_PLACES: Final = 64

_NOTHING: Final = Usage()


def by_place(usage: Usage, endpoint: str, model: str) -> dict[Place, Usage]:
    """What was consumed where; the sum of all is `usage`. `endpoint` and `model` are those that are named beside it."""
    if not usage.elsewhere:
        return {(endpoint, model): usage}
    places: dict[Place, Usage] = {}
    told = _NOTHING
    for part in usage.elsewhere:
        there = Usage(part.calls, part.prompt_tokens, part.completion_tokens, part.total_tokens)
        _add(places, (part.endpoint, part.model), there)
        told += there
    left = Usage(
        usage.calls - told.calls,
        usage.prompt_tokens - told.prompt_tokens,
        usage.completion_tokens - told.completion_tokens,
        usage.total_tokens - told.total_tokens,
    )
    if left != _NOTHING:
        _add(places, (endpoint, model), left)
    return places


def gathered(told: Iterable[Told], endpoint: str = "", model: str = "") -> Usage | None:
    """The sum, as it is told beside this endpoint and model: what was consumed at others stands in `elsewhere`.

    None where nothing was told.
    """
    places = _sums(told)
    if not places:
        return None
    whole = sum(places.values(), _NOTHING)
    others = ((place, usage) for place, usage in places.items() if place != (endpoint, model) and usage != _NOTHING)
    dearest = sorted(others, key=lambda each: (-tokens_of(each[1]), -each[1].calls, each[0]))[:MAX_PLACES]
    elsewhere = tuple(
        UsageAt(*place, usage.calls, usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
        for place, usage in sorted(dearest, key=lambda each: each[0])
    )
    return Usage(whole.calls, whole.prompt_tokens, whole.completion_tokens, whole.total_tokens, elsewhere)


def named(usage: Usage) -> Told:
    """Beside which endpoint and model it is told best: its only place, where it has one and they are not known."""
    if len(usage.elsewhere) != 1:
        return "", "", usage
    place = usage.elsewhere[0].endpoint, usage.elsewhere[0].model
    return *place, gathered([("", "", usage)], *place)


def usage_by(attempts: Iterable[AttemptRun]) -> list[UsageRecord]:
    """The usage that attempts told, whatever became of them, the dearest first. Their sum is the sum of all."""
    told = [
        UsageRecord(
            endpoint=endpoint,
            model=model,
            calls=usage.calls,
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
            total_tokens=usage.total_tokens,
        )
        for (endpoint, model), usage in _sums(map(_told, attempts)).items()
    ]
    return sorted(told, key=lambda each: (-tokens_of(each), -each.calls, each.endpoint, each.model))


def sum_of(usages: Iterable[Usage | None]) -> Usage | None:
    """The sum, without where it was consumed; None where nothing was told."""
    told = [usage.undivided for usage in usages if usage is not None]
    return sum(told, _NOTHING) if told else None


def usage_of(run: JobRun) -> Usage | None:
    """What a job has consumed so far; None where no attempt told anything."""
    return sum_of(attempt.usage for attempt in _attempts(run))


def places_of(run: JobRun) -> Usage | None:
    """As `usage_of`, with every part that has an endpoint or a model as one that was consumed there."""
    return gathered(map(_told, _attempts(run)))


def _attempts(run: JobRun) -> Iterator[AttemptRun]:
    return (attempt for task in run.tasks.values() for attempt in task.attempts)


def _told(attempt: AttemptRun) -> Told:
    return attempt.endpoint, attempt.model, attempt.usage


def _sums(told: Iterable[Told]) -> dict[Place, Usage]:
    sums: dict[Place, Usage] = {}
    for endpoint, model, usage in told:
        if usage is not None:
            for place, part in by_place(usage, endpoint, model).items():
                _add(sums, place, part)
    return sums


def _add(sums: dict[Place, Usage], place: Place, usage: Usage) -> None:
    sums[place] = sums.get(place, _NOTHING) + usage
