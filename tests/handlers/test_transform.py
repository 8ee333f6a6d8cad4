from __future__ import annotations

from typing import Any

import pytest

from runner.core.errors import AttemptError
from runner.handlers.settings import DataProcessingSettings
from runner.handlers.transform import Transform
from runner.testing import FakeAttempt


async def transform(parameters: dict[str, Any], **settings: Any) -> Any:
    return (await Transform(DataProcessingSettings(**settings)).run(FakeAttempt(parameters))).output


async def failure(parameters: dict[str, Any], **settings: Any) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        await transform(parameters, **settings)
    assert not caught.value.retryable
    return caught.value


async def test_expressions_are_evaluated_and_what_is_wrong_with_them_is_told() -> None:
    """One test for all, because starting a process is what takes time."""
    people = [{"name": "Çağrı", "age": 3}, {"name": "Ada", "age": 9}]
    assert await transform({"expression": "[?age > `5`].name", "input": people}) == ["Ada"]
    assert await transform({"expression": "{n: length(@)}", "input": people}) == {"n": 2}
    assert await transform({"expression": "missing", "input": {}}) is None
    assert await transform({"expression": "@", "input": "ğ"}) == "ğ"
    error = await failure({"expression": "length(@)", "input": 5})
    assert error.reason == "EXPRESSION_FAILED"
    assert "length" in error.message
    error = await failure({"expression": "@", "input": "x" * 100}, max_result_bytes=50)
    assert error.reason == "RESULT_TOO_LARGE"
    assert "data_processing.max_result_bytes" in error.message


async def test_an_expression_that_doubles_its_data_again_and_again_is_cut() -> None:
    doubling = "[@,@]" + "|[@[],@[]][]" * 40
    error = await failure({"expression": doubling, "input": list(range(1000))}, max_memory_bytes=10_000_000)
    assert error.reason == "EXPRESSION_FAILED"
    assert "data_processing.max_memory_bytes" in error.message


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"input": 1}, "parameter `expression` is missing"),
        ({"expression": "@"}, "parameter `input` is missing"),
        ({"expression": 1, "input": 1}, "parameter `expression` is wrong: expected `str`"),
        ({"expression": "[?", "input": 1}, "parameter `expression` is not JMESPath"),
        ({"expression": "", "input": 1}, "parameter `expression` is not JMESPath"),
        ({"expression": "[" * 5000, "input": 1}, "parameter `expression` is not JMESPath"),
        ({"expression": "a" * 10_001, "input": 1}, "data_processing.max_expression_characters"),
    ],
)
async def test_a_mistake_is_told_before_anything_runs(parameters: dict[str, Any], told: str) -> None:
    error = await failure(parameters)
    assert error.reason == "INVALID_PARAMETERS"
    assert told in error.message
