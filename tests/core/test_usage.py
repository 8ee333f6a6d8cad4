from __future__ import annotations

from typing import Final

from hypothesis import given
from hypothesis import strategies as st

from runner.core.events import Usage, UsageAt
from runner.core.record import tokens_of
from runner.core.runs import AttemptRun
from runner.core.usage import MAX_PLACES, Told, by_place, gathered, sum_of, usage_by

COUNTS: Final = ("calls", "prompt_tokens", "completion_tokens", "total_tokens")
NOTHING: Final = Usage()

counts = st.integers(0, 10_000)
endpoints = st.sampled_from(["", "main", "spare"])
models = st.sampled_from(["", "small", "large"])
plain = st.builds(Usage, counts, counts, counts, counts)
calls = st.lists(st.tuples(endpoints, models, st.none() | plain), max_size=5)
#: As attempts tell them: beside any place, what was consumed at several.
usages = st.builds(gathered, calls, endpoints, models)
told = st.lists(st.tuples(endpoints, models, usages), max_size=5)


def attempts(told: list[Told]) -> list[AttemptRun]:
    return [
        AttemptRun(1, "orchestrator", 0, outcome="failed", endpoint=endpoint, model=model, usage=usage)
        for endpoint, model, usage in told
    ]


@given(told)
def test_every_token_stands_in_one_row_and_the_dearest_row_is_first(told: list[Told]) -> None:
    rows = usage_by(attempts(told))
    assert len({(row.endpoint, row.model) for row in rows}) == len(rows)
    for name in COUNTS:
        assert sum(getattr(row, name) for row in rows) == sum(getattr(usage, name) for _, _, usage in told if usage)
    assert [tokens_of(row) for row in rows] == sorted(map(tokens_of, rows), reverse=True)


def test_attempts_that_told_nothing_have_no_row() -> None:
    assert usage_by([AttemptRun(1, "http_request", 0, endpoint="main")]) == []


@given(usages, endpoints, models)
def test_the_parts_of_a_usage_are_its_sum_wherever_it_is_told(usage: Usage | None, endpoint: str, model: str) -> None:
    if usage is not None:
        assert sum(by_place(usage, endpoint, model).values(), NOTHING) == usage.undivided


@given(calls, endpoints, models)
def test_what_each_place_consumed_comes_back_out_of_what_an_attempt_tells(
    calls: list[Told], endpoint: str, model: str
) -> None:
    usage = gathered(calls, endpoint, model)
    assert (usage is None) == all(each is None for _, _, each in calls)
    sums: dict[tuple[str, str], Usage] = {}
    for at, of, each in calls:
        sums[at, of] = sums.get((at, of), NOTHING) + (each or NOTHING)
    found = {} if usage is None else by_place(usage, endpoint, model)
    assert {place: each for place, each in found.items() if each != NOTHING} == {
        place: each for place, each in sums.items() if each != NOTHING
    }
    if usage is not None:
        assert (endpoint, model) not in {(part.endpoint, part.model) for part in usage.elsewhere}


@given(usages, usages, usages)
def test_usages_add_up_in_any_order(one: Usage | None, two: Usage | None, three: Usage | None) -> None:
    a, b, c = one or NOTHING, two or NOTHING, three or NOTHING
    assert (a + b) + c == a + (b + c)
    assert a + b == b + a
    assert a + NOTHING == a


@given(usages, usages)
def test_what_is_told_at_one_place_adds_up_place_by_place(one: Usage | None, two: Usage | None) -> None:
    a, b = one or NOTHING, two or NOTHING
    parts, sums = [by_place(usage, "main", "small") for usage in (a, b)], by_place(a + b, "main", "small")
    for place in {*parts[0], *parts[1]}:
        assert sums.get(place, NOTHING) == parts[0].get(place, NOTHING) + parts[1].get(place, NOTHING)


@given(st.lists(usages))
def test_a_sum_over_attempts_tells_no_places(usages: list[Usage | None]) -> None:
    whole = sum_of(usages)
    assert (whole is None) == all(usage is None for usage in usages)
    assert whole is None or whole.elsewhere == ()


def test_a_usage_that_stands_nowhere_else_stays_as_it_is() -> None:
    usage = Usage(1, 2, 3, 5)
    assert by_place(usage, "main", "m") == {("main", "m"): usage}
    assert gathered([("main", "m", usage)], "main", "m") == usage
    assert usage.undivided is usage


def test_of_more_places_than_are_told_the_dearest_are_and_no_token_is_lost() -> None:
    told: list[Told] = [(f"e{number}", "m", Usage(1, total_tokens=number)) for number in range(MAX_PLACES + 10)]
    usage = gathered(told, "", "")
    assert usage is not None
    assert len(usage.elsewhere) == MAX_PLACES
    assert UsageAt("e73", "m", 1, 0, 0, 73) in usage.elsewhere
    assert by_place(usage, "", "")["", ""] == Usage(10, total_tokens=sum(range(10)))
