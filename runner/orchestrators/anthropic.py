"""Protocol `anthropic`: messages, streamed as server-sent events, usage at their beginning and end.

An answer that is plain JSON, from a server that does not stream, is taken too. Events of kinds that we do not know are
read over, as the protocol asks for.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import msgspec

from runner.core.events import Usage
from runner.core.prompt import Answer, Prompt
from runner.orchestrators import asking
from runner.orchestrators.connection import Connection, Name, Tokens, versioned
from runner.orchestrators.gathered import Gathered
from runner.orchestrators.model_lists import paged_models

#: The protocol will have a limit; this one is for tasks that give none. Most models allow it.
DEFAULT_MAX_TOKENS: Final = 4096

_VERSION: Final = "2023-06-01"

#: The protocol's fields by the names of parameters.
_FIELDS: Final[Mapping[str, str]] = {
    "max_completion_tokens": "max_tokens",
    "max_tokens": "max_tokens",
    "stop": "stop_sequences",
    "stop_sequences": "stop_sequences",
    "temperature": "temperature",
    "thinking": "thinking",
    "tool_choice": "tool_choice",
    "tools": "tools",
    "top_k": "top_k",
    "top_p": "top_p",
}

#: Why an answer ended, in the words of `openai`, so that plans need not know which protocol answered.
_FINISH_REASONS: Final = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class _Usage(msgspec.Struct, frozen=True):
    input_tokens: Tokens | None = None
    output_tokens: Tokens | None = None
    cache_creation_input_tokens: Tokens | None = None
    cache_read_input_tokens: Tokens | None = None


class _Block(msgspec.Struct, frozen=True):
    type: str = "text"
    text: str | None = None


class _Delta(msgspec.Struct, frozen=True):
    #: Of a block's piece: `text_delta`, or one of a kind that is no text.
    type: str = ""
    text: str | None = None
    #: Of the message.
    stop_reason: Name | None = None


class _Message(msgspec.Struct, frozen=True):
    model: Name | None = None
    content: list[_Block] | None = None
    stop_reason: Name | None = None
    usage: _Usage | None = None


class _Event(_Message, frozen=True):
    """An event; or a whole message, which has its own fields beside `type`."""

    type: str = ""
    message: _Message | None = None
    content_block: _Block | None = None
    delta: _Delta | None = None
    error: Any = None


class Anthropic:
    """An Orchestrator that speaks `anthropic`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        connection.sign = _signed
        self._prefix = versioned(connection.settings.url)

    async def ask(self, prompt: Prompt, on_text: Callable[[str], Awaitable[None]]) -> Answer:
        """Ask, and pass the text on as it streams.

        Raises AttemptError: as `asking.model_of`, `asking.in_json`, `Connection.post` and `Connection.decode`.
        """
        model = asking.model_of(prompt, self._connection)
        gathered = _Gathered(self._connection, on_text)
        async with self._connection.post(f"{self._prefix}messages", _question(prompt, model), prompt) as incoming:
            await gathered.read(incoming, prompt.used)
        return asking.in_json(gathered.answer(model), prompt, self._connection.name)

    async def health(self) -> None:
        await self._connection.check(f"{self._prefix}models")

    async def models(self) -> tuple[str, ...]:
        return await paged_models(self._connection, f"{self._prefix}models")


class _Gathered(Gathered):
    _input = 0
    _output = 0

    def _usage(self) -> Usage:
        return Usage(1, self._input, self._output, self._input + self._output)

    async def _take(self, data: bytes) -> None:
        event = self._connection.decode(data, _Event)
        if event.type == "error" or event.error is not None:
            raise self._connection.broken_off(event.error)
        await self._take_message(event)
        if event.message is not None:
            await self._take_message(event.message)
        if event.content_block is not None:
            await self._take_block(event.content_block)
        if (delta := event.delta) is not None:
            self._finish(delta.stop_reason)
            await self._say(delta.text if delta.type == "text_delta" else None)
        self._done = event.type == "message_stop"

    async def _take_message(self, message: _Message) -> None:
        self._model = message.model or self._model
        self._count(message.usage or _Usage())
        self._finish(message.stop_reason)
        for block in message.content or ():
            await self._take_block(block)

    async def _take_block(self, block: _Block) -> None:
        await self._say(block.text if block.type == "text" else None)

    def _count(self, usage: _Usage) -> None:
        """Later figures are sums, and stand for those before."""
        if usage.input_tokens is not None:
            cached = (usage.cache_creation_input_tokens or 0) + (usage.cache_read_input_tokens or 0)
            self._input = usage.input_tokens + cached
        if usage.output_tokens is not None:
            self._output = usage.output_tokens

    def _finish(self, reason: str | None) -> None:
        if reason:
            self._finish_reason = _FINISH_REASONS.get(reason, reason)


def _signed(key: str) -> dict[str, str]:
    return {"anthropic-version": _VERSION, **({"x-api-key": key} if key else {})}


def _question(prompt: Prompt, model: str) -> dict[str, Any]:
    question = {"max_tokens": DEFAULT_MAX_TOKENS, **asking.fields(prompt, _FIELDS)}
    stops = question.get("stop_sequences")
    if isinstance(stops, str):
        question["stop_sequences"] = [stops]
    if user := prompt.parameters.get("user"):
        question["metadata"] = {"user_id": str(user)}
    if system := "\n".join(filter(None, (asking.system(prompt), asking.json_in_words(prompt)))):
        question["system"] = system
    messages = [{"role": "user", "content": asking.message(prompt)}]
    return {**question, "model": model, "messages": messages, "stream": True}
