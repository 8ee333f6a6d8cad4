"""Earlier answers: found by their request, bounded by number, bytes and age."""

from __future__ import annotations

from runner.core.answers import AnswerCachePolicy, KeptAnswer, request_key
from runner.ports import Ledger
from tests.ledgers.jobs import SECOND, T0

POLICY = AnswerCachePolicy(max_answers=3, max_bytes=100, max_age_seconds=60)


def given(output: bytes = b'"yes"', *, at: int = 0, model: str = "m") -> KeptAnswer:
    return KeptAnswer(output=output, endpoint="e", model=model, given_at=T0 + at * SECOND)


def key(number: int) -> bytes:
    return request_key({"prompt": number})


async def left(ledger: Ledger, *numbers: int) -> list[int]:
    return [number for number in numbers if await ledger.answer(key(number), since=0) is not None]


async def test_an_answer_is_found_by_its_request_unless_it_is_too_old(ledger: Ledger) -> None:
    await ledger.keep_answer(key(1), given(), policy=POLICY)
    assert await ledger.answer(key(1), since=T0) == given()
    assert await ledger.answer(key(1), since=T0 + 1) is None
    assert await ledger.answer(key(2), since=0) is None


async def test_a_later_answer_takes_the_place_of_an_earlier_one(ledger: Ledger) -> None:
    await ledger.keep_answer(key(1), given(), policy=POLICY)
    await ledger.keep_answer(key(1), given(b'"no"', at=5, model="n"), policy=POLICY)
    assert await ledger.answer(key(1), since=0) == given(b'"no"', at=5, model="n")


async def test_of_too_many_the_oldest_go(ledger: Ledger) -> None:
    for number in (3, 1, 2, 4, 5):
        await ledger.keep_answer(key(number), given(at=number), policy=POLICY)
    assert await left(ledger, 1, 2, 3, 4, 5) == [3, 4, 5]


async def test_of_too_many_bytes_the_oldest_go(ledger: Ledger) -> None:
    for number in (1, 2, 3):
        await ledger.keep_answer(key(number), given(b"x" * 40, at=number), policy=POLICY)
    assert await left(ledger, 1, 2, 3) == [2, 3]
    await ledger.keep_answer(key(4), given(b"x" * 100, at=4), policy=POLICY)
    assert await left(ledger, 1, 2, 3, 4) == [4]


async def test_what_is_too_old_goes_with_the_next_one(ledger: Ledger) -> None:
    await ledger.keep_answer(key(1), given(), policy=POLICY)
    await ledger.keep_answer(key(2), given(at=1), policy=POLICY)
    await ledger.keep_answer(key(3), given(at=61), policy=POLICY)
    assert await left(ledger, 1, 2, 3) == [2, 3]


def test_the_order_of_keys_makes_no_other_request() -> None:
    assert request_key({"a": 1, "b": [1, 2]}) == request_key({"b": [1, 2], "a": 1})
    assert len({request_key(each) for each in ({"a": 1}, {"a": 1.5}, {"a": "1"}, ["a", 1], {"a": None}, {})}) == 6
