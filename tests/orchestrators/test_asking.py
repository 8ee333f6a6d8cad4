"""What tasks may ask for in any protocol: parameters, and JSON."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from runner.core.breaker import CallOutcome
from runner.core.errors import AttemptError
from runner.core.events import Usage
from runner.core.prompt import Answer
from runner.core.secret import Secret
from runner.orchestrators.call import outcome_of
from runner.orchestrators.settings import Protocol
from runner.orchestrators.simulated import serve_simulated
from runner.orchestrators.simulation import tokens
from tests.orchestrators.calling import listener, raw_failure, speaker
from tests.orchestrators.forms import FORMS, Form
from tests.orchestrators.hostile import Pieces, prompt, raw_server, says

EVERY_FORM = pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)

OBJECT = {"type": "json_object"}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "list", "schema": {"type": "array"}}}


async def asked(form: Form, text: str, **parameters: Any) -> Answer:
    whole = form.answer(msgspec.json.encode(text))
    async with raw_server(says(whole)) as url, speaker(url, form.protocol) as spoken:
        return await spoken.ask(prompt(**parameters), Pieces())


@EVERY_FORM
async def test_json_that_was_asked_for_is_a_value_beside_its_text(form: Form) -> None:
    text = ' {"a": [1, "ğ"], "a": {"b": null}}\n'
    answer = await asked(form, text, response_format=OBJECT)
    assert answer.text == text
    assert answer.metadata["json"] == {"a": {"b": None}}


@EVERY_FORM
async def test_json_of_a_schema_may_be_of_any_type_and_in_a_fence(form: Form) -> None:
    answer = await asked(form, '```json\n["a"]\n```', response_format=SCHEMA)
    assert answer.metadata["json"] == ["a"]


@EVERY_FORM
@pytest.mark.parametrize("given", [{}, {"response_format": {"type": "text"}}, {"response_format": 5}])
async def test_json_that_was_not_asked_for_is_text(form: Form, given: dict[str, Any]) -> None:
    assert "json" not in (await asked(form, "{}", **given)).metadata


@EVERY_FORM
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Here it is: {}", "that is no JSON"),
        ('{"a": 1', "that is no JSON"),
        ('{"a": NaN}', "that is no JSON"),
        ('{"a": 1e999}', "that is no JSON"),
        ('{"a": "\\ud800"}', "that is no JSON"),
        ("[" * 100_000, "that is no JSON"),
        ("[]", "that is no JSON object"),
        ("```", "that is no JSON"),
        (" ", "that is no JSON"),
    ],
)
async def test_a_text_that_is_not_the_json_it_was_to_be_is_told_and_may_be_better_next_time(
    form: Form, text: str, told: str
) -> None:
    """It cost what it cost, and is not held against the endpoint: what a model writes is of its prompt."""
    whole = form.answer(msgspec.json.encode(text))
    async with raw_server(says(whole)) as url, speaker(url, form.protocol) as spoken:
        with pytest.raises(AttemptError, match=told) as caught:
            await spoken.ask(prompt(response_format=OBJECT), Pieces())
    assert (caught.value.reason, caught.value.retryable) == ("ANSWER_NOT_JSON", True)
    assert caught.value.usage is not None
    assert (caught.value.usage.calls, caught.value.usage.total_tokens) == (1, 2)
    assert (caught.value.endpoint, caught.value.model) == ("main", "big")
    assert outcome_of(caught.value) is CallOutcome.ANSWERED


@pytest.mark.parametrize("protocol", [Protocol.OPENAI, Protocol.ANTHROPIC])
async def test_json_that_was_cut_at_its_length_says_how_to_get_it_whole(protocol: Protocol) -> None:
    cut = {
        "choices": [{"message": {"content": '{"a'}, "finish_reason": "length"}],
        "content": [{"type": "text", "text": '{"a'}],
        "stop_reason": "max_tokens",
    }
    async with listener(cut) as heard, speaker(heard.url, protocol) as spoken:
        with pytest.raises(AttemptError, match="cut at its length: raise `max_tokens`"):
            await spoken.ask(prompt(response_format=OBJECT), Pieces())


async def test_what_json_is_asked_for_goes_to_the_endpoint_as_it_has_a_field_for_it() -> None:
    answered = {
        "text": "[]",
        "choices": [{"message": {"content": "[]"}}],
        "content": [{"type": "text", "text": "[]"}],
    }
    bodies = {}
    async with listener(answered) as heard:
        for protocol in Protocol:
            async with speaker(heard.url, protocol) as spoken:
                await spoken.ask(prompt(response_format=SCHEMA), Pieces())
            bodies[protocol] = heard.received[-1][2]
    assert bodies[Protocol.ALTLAS]["parameters"]["response_format"] == SCHEMA
    assert bodies[Protocol.OPENAI]["response_format"] == SCHEMA
    assert bodies[Protocol.ANTHROPIC]["system"] == (
        'Answer with JSON alone, without any other text, of this schema: {"name":"list","schema":{"type":"array"}}'
    )
    assert "response_format" not in bodies[Protocol.ANTHROPIC]


@pytest.mark.parametrize("protocol", list(Protocol))
async def test_the_simulated_orchestrator_answers_in_json_too(protocol: Protocol) -> None:
    async with serve_simulated() as simulator, speaker(simulator.url, protocol) as spoken:
        answer = await spoken.ask(prompt(response_format=OBJECT), Pieces())
    assert answer.metadata["json"] == {"simulated": True, "text": "".join(tokens(0, "hello", 24))}


async def test_parameters_mean_the_same_in_openai_and_those_of_others_are_left_out() -> None:
    answered = {"choices": [{"message": {"content": "ok"}}]}
    given: dict[str, Any] = {"stop_sequences": ["a"], "top_k": 3, "thinking": {}, "top_p": 0.5, "seed": 4}
    async with listener(answered) as heard, speaker(heard.url, Protocol.OPENAI) as spoken:
        await spoken.ask(prompt(**given), Pieces())
        await spoken.ask(prompt(stop="b", **given), Pieces())
    first, second = (body for _, _, body in heard.received)
    assert (first["stop"], first["top_p"], first["seed"]) == (["a"], 0.5, 4)
    assert second["stop"] == "b"
    assert not {"top_k", "thinking", "stop_sequences"} & set(first)
    assert first["messages"] == [{"role": "user", "content": "hello"}]


@EVERY_FORM
async def test_why_an_answer_ended_is_told_in_the_same_words(form: Form) -> None:
    answer = await asked(form, "x")
    assert answer.metadata == ({} if form.protocol is Protocol.ALTLAS else {"finish_reason": "stop"})


@pytest.mark.parametrize("reason", ["length", "content_filter", "made_up"])
async def test_what_openai_says_of_the_end_is_told_as_it_is(reason: str) -> None:
    answered = {"choices": [{"message": {"content": ""}, "finish_reason": reason}]}
    async with listener(answered) as heard, speaker(heard.url, Protocol.OPENAI) as spoken:
        answer = await spoken.ask(prompt(), Pieces())
    assert (answer.text, answer.metadata) == ("", {"finish_reason": reason})


@pytest.mark.parametrize(
    ("error", "reason", "retryable"),
    [
        ({"message": "key-word", "type": "server_error"}, "INVALID_ANSWER", True),
        ({"message": "key-word", "type": "invalid_request_error"}, "INVALID_ANSWER", False),
        ({"message": "key-word", "type": "authentication_error"}, "UNAUTHORIZED", False),
        ("key-word \x1b[m", "INVALID_ANSWER", True),
        ([["key-word"]], "INVALID_ANSWER", True),
        ({"message": {"key-word": 5}}, "INVALID_ANSWER", True),
    ],
)
async def test_an_error_within_a_stream_of_openai_is_told_without_the_key(
    error: Any, reason: str, retryable: bool
) -> None:
    head = next(form for form in FORMS if form.name == "openai-streamed").head()
    broken = head + b"data: " + msgspec.json.encode({"error": error}) + b"\n\n"
    failed = await raw_failure(says(broken), Protocol.OPENAI, api_key=Secret("key-word"))
    assert (failed.reason, failed.retryable) == (reason, retryable)
    assert "key-word" not in str(failed)
    assert "\x1b" not in str(failed)
    assert failed.usage == Usage(calls=1)
