from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from runner.core.errors import AttemptError
from runner.core.events import Usage
from runner.core.plan import Mode, Plan
from runner.core.prompt import Answer, Prompt
from runner.handlers.orchestrator import AskOrchestrator
from runner.ports import Bulkhead
from runner.testing import FakeAttempt


class Parrot:
    """An Orchestrator that streams the words of the prompt back."""

    def __init__(self, name: str = "main") -> None:
        self.name = name
        self.asked: list[Prompt] = []
        self.bulkhead: Bulkhead | None = None

    async def ask(self, prompt: Prompt, on_text: Callable[[str], Awaitable[None]]) -> Answer:
        self.asked.append(prompt)
        for word in prompt.text.split():
            await on_text(word)
        usage = Usage(calls=1, total_tokens=3)
        metadata = {"finish_reason": "stop"}
        return Answer(text=prompt.text, model=prompt.model or "own", endpoint=self.name, usage=usage, metadata=metadata)

    async def health(self) -> None: ...


async def asked(parameters: dict[str, Any], **attempt: Any) -> Prompt:
    parrot = Parrot()
    await AskOrchestrator({"main": parrot}).run(FakeAttempt(parameters, **attempt))
    return parrot.asked[0]


async def test_the_answer_is_the_output_and_tells_where_it_came_from() -> None:
    attempt = FakeAttempt({"prompt": "bir iki üç", "model": "big"})
    outcome = await AskOrchestrator({"main": Parrot()}).run(attempt)
    assert outcome.output == {"text": "bir iki üç", "model": "big", "finish_reason": "stop"}
    assert (outcome.endpoint, outcome.model, outcome.usage) == ("main", "big", Usage(calls=1, total_tokens=3))
    assert attempt.pieces == ["bir", "iki", "üç"]


async def test_the_prompt_carries_what_the_attempt_knows() -> None:
    plan = Plan(
        alt_id="a", dialect="tasks", version="1.0", title="t", tasks=(), created_at=0, mode=Mode.CHAOS, persona="expert"
    )
    prompt = await asked(
        {"prompt": "p", "temperature": 0.2, "task_type": "search", "max_tokens": 9},
        kind="search",
        plan=plan,
        traceparent="00-1-2-01",
        timeout=30,
    )
    assert prompt.request_id == "job-1/task-1"
    assert (prompt.task_type, prompt.mode, prompt.persona) == ("search", Mode.CHAOS, "expert")
    assert prompt.parameters == {"temperature": 0.2, "max_tokens": 9}
    assert prompt.model is None
    assert prompt.traceparent == "00-1-2-01"
    assert 29 < prompt.timeout <= 30


async def test_without_a_prompt_the_description_is_asked_with_the_parameters_beside_it() -> None:
    prompt = await asked({"query": "tickets"}, description="Find the open tickets", kind="search")
    assert prompt.text == "Find the open tickets"
    assert prompt.parameters == {"query": "tickets"}


async def test_a_prompt_that_is_a_whole_object_is_asked_as_json() -> None:
    assert (await asked({"prompt": {"a": ["ğ"]}})).text == '{"a":["ğ"]}'


async def test_progress_is_counted_in_tokens_where_their_number_is_known() -> None:
    attempt = FakeAttempt({"prompt": "a b c", "max_tokens": 2})
    await AskOrchestrator({"main": Parrot()}).run(attempt)
    assert [(report["fraction"], report["completed"], report["total"]) for report in attempt.reports] == [
        (0.5, 1, 2),
        (0.99, 2, 2),
        (0.99, 2, 2),
    ]


async def test_a_task_may_choose_its_orchestrator_and_the_first_takes_the_others() -> None:
    one, two = Parrot("one"), Parrot("two")
    handler = AskOrchestrator({"one": one, "two": two})
    assert (await handler.run(FakeAttempt({"endpoint": "two"}))).endpoint == "two"
    assert (await handler.run(FakeAttempt())).endpoint == "one"


async def test_a_task_waits_for_the_room_of_the_endpoint_that_it_names() -> None:
    one, two, free = Parrot("one"), Parrot("two"), Parrot("free")
    one.bulkhead, two.bulkhead = Bulkhead("one", 1), Bulkhead("two", 2)
    handler = AskOrchestrator({"one": one, "two": two, "free": free})

    def room(**parameters: Any) -> Bulkhead | None:
        return handler.bulkhead(FakeAttempt(parameters).task)

    assert (room(), room(endpoint="two"), room(endpoint=None)) == (one.bulkhead, two.bulkhead, one.bulkhead)
    for unknown in ("free", "three", "${inputs.endpoint}", 7, ["one"]):
        assert room(endpoint=unknown) is None
    assert AskOrchestrator({}).bulkhead(FakeAttempt().task) is None


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"endpoint": "three"}, "parameter `endpoint` names an orchestrator that is not configured; there is `main`"),
        ({"prompt": " "}, "parameter `prompt` is empty"),
        ({"prompt": None}, "parameter `prompt` is empty"),
        ({"model": 5}, "parameter `model` is wrong: expected `str \\| null`, got `int`"),
        ({"max_tokens": 0}, "parameter `max_tokens` is wrong: expected `int` >= 1"),
    ],
)
async def test_a_mistake_is_told_by_name(parameters: dict[str, Any], told: str) -> None:
    with pytest.raises(AttemptError, match=told) as caught:
        await asked(parameters)
    assert (caught.value.reason, caught.value.retryable) == ("INVALID_PARAMETERS", False)


async def test_without_any_orchestrator_the_setting_is_named() -> None:
    with pytest.raises(AttemptError, match=r"set `orchestrator\.endpoints`") as caught:
        await AskOrchestrator({}).run(FakeAttempt())
    assert (caught.value.reason, caught.value.retryable) == ("NO_ORCHESTRATOR", False)


async def test_no_call_is_made_that_a_budget_refuses() -> None:
    parrot = Parrot()
    attempt = FakeAttempt({"prompt": "bir iki", "system": "be brief", "max_tokens": 7, "temperature": 0.2})
    attempt.budget_error = AttemptError("TOKEN_BUDGET_EXCEEDED", "no tokens are left", retryable=False)
    with pytest.raises(AttemptError, match="TOKEN_BUDGET_EXCEEDED"):
        await AskOrchestrator({"main": parrot}).run(attempt)
    assert parrot.asked == []
    assert attempt.reserved == [("bir iki\nbe brief", 7)]
