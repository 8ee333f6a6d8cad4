"""Protocol `openai`: chat completions, streamed as server-sent events, usage in the last one.

What most servers and gateways speak. An answer that is plain JSON, from a server that does not stream, is taken too.
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
from runner.orchestrators.model_lists import listed_models

#: The protocol's fields by the names of parameters.
_FIELDS: Final[Mapping[str, str]] = {
    **{name: name for name in asking.FIELDS - {"stop_sequences", "system", "thinking", "top_k"}},
    "stop_sequences": "stop",
}
_DONE: Final = b"[DONE]"


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: Tokens = 0
    completion_tokens: Tokens = 0
    total_tokens: Tokens = 0


class _Text(msgspec.Struct, frozen=True):
    content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    #: Of a streamed answer.
    delta: _Text | None = None
    #: Of one that is not.
    message: _Text | None = None
    finish_reason: Name | None = None


class _Part(msgspec.Struct, frozen=True):
    model: Name | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    #: A server that fails while it streams has no status left to say so.
    error: Any = None


class OpenAI:
    """An Orchestrator that speaks `openai`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._prefix = versioned(connection.settings.url)

    async def ask(self, prompt: Prompt, on_text: Callable[[str], Awaitable[None]]) -> Answer:
        """Ask, and pass the text on as it streams.

        Raises AttemptError: as `asking.model_of`, `asking.in_json`, `Connection.post` and `Connection.decode`.
        """
        model = asking.model_of(prompt, self._connection)
        gathered = _Gathered(self._connection, on_text)
        path = f"{self._prefix}chat/completions"
        async with self._connection.post(path, _question(prompt, model), prompt) as incoming:
            await gathered.read(incoming, prompt.used)
        return asking.in_json(gathered.answer(model), prompt, self._connection.name)

    async def health(self) -> None:
        await self._connection.check(f"{self._prefix}models")

    async def models(self) -> tuple[str, ...]:
        return await listed_models(self._connection, f"{self._prefix}models")


class _Gathered(Gathered):
    _told: _Usage | None = None

    def _usage(self) -> Usage:
        usage = self._told or _Usage()
        total = usage.total_tokens or usage.prompt_tokens + usage.completion_tokens
        return Usage(1, usage.prompt_tokens, usage.completion_tokens, total)

    async def _take(self, data: bytes) -> None:
        if data == _DONE:
            self._done = True
            return
        part = self._connection.decode(data, _Part)
        if part.error is not None:
            raise self._connection.broken_off(part.error)
        self._model = part.model or self._model
        self._told = part.usage or self._told
        for choice in (part.choices or [])[:1]:
            self._finish_reason = choice.finish_reason or self._finish_reason
            said = choice.delta or choice.message
            await self._say(said.content if said is not None else None)


def _question(prompt: Prompt, model: str) -> dict[str, Any]:
    messages = [{"role": "user", "content": asking.message(prompt)}]
    if system := asking.system(prompt):
        messages.insert(0, {"role": "system", "content": system})
    streaming = {"stream": True, "stream_options": {"include_usage": True}}
    return {**asking.fields(prompt, _FIELDS), "model": model, "messages": messages, **streaming}
