from __future__ import annotations

from typing import Any

import msgspec
import pytest

from runner.core.errors import AttemptError
from runner.core.events import Usage
from runner.core.plan import Mode
from runner.core.prompt import Answer
from runner.core.secret import Secret
from runner.orchestrators.settings import Protocol
from runner.orchestrators.simulated import serve_simulated
from runner.orchestrators.simulation import tokens
from tests.orchestrators.calling import listener, raw_failure, speaker
from tests.orchestrators.hostile import JSON_HEAD, STREAM_HEAD, Pieces, prompt, raw_server, says

ANSWERED = {"type": "message", "content": [{"type": "text", "text": "ok"}], "stop_reason": "end_turn"}


def events(*values: dict[str, Any]) -> bytes:
    return b"".join(b"event: %s\ndata: %s\n\n" % (v["type"].encode(), msgspec.json.encode(v)) for v in values)


def text(piece: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": piece}}


STOP: dict[str, Any] = {"type": "message_stop"}


async def asked_raw(answer: bytes, pieces: Pieces | None = None) -> Answer:
    async with raw_server(says(answer)) as url, speaker(url, Protocol.ANTHROPIC) as spoken:
        return await spoken.ask(prompt(), pieces or Pieces())


async def test_a_streamed_answer_arrives_in_pieces_with_its_usage() -> None:
    pieces = Pieces()
    async with serve_simulated() as simulator, speaker(simulator.url, Protocol.ANTHROPIC) as spoken:
        answer = await spoken.ask(prompt("selam dünya", max_tokens=5), pieces)
    assert pieces.texts == tokens(0, "selam dünya", 5)
    assert answer.text == "".join(pieces.texts)
    assert (answer.model, answer.usage) == ("simulated-m", Usage(1, 2, 5, 7))
    assert answer.metadata == {"finish_reason": "length"}


async def test_it_sends_what_the_protocol_has_fields_for_and_the_rest_in_words() -> None:
    asked = msgspec.structs.replace(
        prompt("Find it", temperature=0.2, stop="END", user="u", seed=7, system="Be brief.", depth=3, top_k=4),
        mode=Mode.DREAM,
        persona="expert",
        task_type="search",
    )
    async with (
        listener(ANSWERED) as heard,
        speaker(heard.url + "/v1/", Protocol.ANTHROPIC, api_key=Secret("word")) as spoken,
    ):
        answer = await spoken.ask(asked, Pieces())
    [(path, headers, body)] = heard.received
    assert path == "/v1/messages"
    assert body == {
        "model": "m",
        "max_tokens": 4096,
        "temperature": 0.2,
        "top_k": 4,
        "stop_sequences": ["END"],
        "metadata": {"user_id": "u"},
        "system": "Be brief.\nPersona: expert.\nMode: dream.\nTask: search.",
        "messages": [{"role": "user", "content": 'Find it\n\nParameters:\n{"depth":3}'}],
        "stream": True,
    }
    assert headers["x-api-key"] == "word"
    assert headers["anthropic-version"] == "2023-06-01"
    assert "Authorization" not in headers
    assert headers["Idempotency-Key"] == "job-1/task-1"
    assert (answer.text, answer.metadata) == ("ok", {"finish_reason": "stop"})


@pytest.mark.parametrize(
    ("given", "sent"),
    [
        ({"max_tokens": 7}, {"max_tokens": 7}),
        ({"max_completion_tokens": 8}, {"max_tokens": 8}),
        ({"max_completion_tokens": 8, "max_tokens": 7}, {"max_tokens": 7}),
        ({"stop_sequences": ["a"], "stop": "b"}, {"stop_sequences": ["a"]}),
    ],
)
async def test_the_names_of_other_protocols_mean_the_same(given: dict[str, Any], sent: dict[str, Any]) -> None:
    async with listener(ANSWERED) as heard, speaker(heard.url, Protocol.ANTHROPIC) as spoken:
        await spoken.ask(prompt(**given), Pieces())
    body = heard.received[0][2]
    assert {name: body[name] for name in sent} == sent


async def test_what_is_no_text_is_read_over_and_usage_counts_what_was_cached() -> None:
    pieces = Pieces()
    usage = {"input_tokens": 3, "cache_read_input_tokens": 4, "cache_creation_input_tokens": None, "output_tokens": 1}
    answer = await asked_raw(
        STREAM_HEAD
        + b": hello\n\n"
        + events(
            {"type": "message_start", "message": {"model": "big", "content": [], "usage": usage}},
            {"type": "content_block_start", "content_block": {"type": "thinking", "thinking": "", "text": "no"}},
            {"type": "content_block_delta", "delta": {"type": "thinking_delta", "thinking": "hm", "text": "no"}},
            {"type": "content_block_delta", "delta": {"type": "input_json_delta", "partial_json": "{"}},
            {"type": "ping"},
            {"type": "made_up_in_2030", "delta": None, "message": None},
            {"type": "content_block_start", "content_block": {"type": "text", "text": "a"}},
            text("b"),
            {"type": "message_delta", "delta": {"stop_reason": "stop_sequence"}, "usage": {"output_tokens": 9}},
            STOP,
            text("too late"),
        ),
        pieces,
    )
    assert pieces.texts == ["a", "b"]
    assert (answer.text, answer.model, answer.usage) == ("ab", "big", Usage(1, 7, 9, 16))
    assert answer.metadata == {"finish_reason": "stop"}


async def test_an_answer_that_is_not_streamed_is_taken_too() -> None:
    blocks = [{"type": "tool_use", "id": "x"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    usage = {"input_tokens": 1, "output_tokens": 2}
    whole = {"type": "message", "model": "big", "content": blocks, "stop_reason": "refusal", "usage": usage}
    answer = await asked_raw(JSON_HEAD + msgspec.json.encode(whole))
    assert (answer.text, answer.model, answer.usage) == ("ab", "big", Usage(1, 1, 2, 3))
    assert answer.metadata == {"finish_reason": "content_filter"}


@pytest.mark.parametrize(
    ("kind", "reason", "retryable"),
    [
        ("overloaded_error", "INVALID_ANSWER", True),
        ("api_error", "INVALID_ANSWER", True),
        ("invalid_request_error", "INVALID_ANSWER", False),
        ("authentication_error", "UNAUTHORIZED", False),
        (5, "INVALID_ANSWER", True),
    ],
)
async def test_an_error_within_a_stream_says_whether_to_try_again(kind: Any, reason: str, retryable: bool) -> None:
    error = {"type": "error", "error": {"type": kind, "message": "key-word is \x1b[m odd"}}
    broken = says(STREAM_HEAD + events(text("hal"), error))
    failed = await raw_failure(broken, Protocol.ANTHROPIC, api_key=Secret("key-word"))
    assert (failed.reason, failed.retryable) == (reason, retryable)
    assert "key-word" not in str(failed)
    assert "\x1b" not in str(failed)


async def test_without_any_model_nothing_is_sent() -> None:
    async with listener(ANSWERED) as heard, speaker(heard.url, Protocol.ANTHROPIC) as spoken:
        with pytest.raises(AttemptError, match=r"orchestrator\.endpoints\[main\]\.model"):
            await spoken.ask(prompt(model=None), Pieces())
    assert not heard.received
