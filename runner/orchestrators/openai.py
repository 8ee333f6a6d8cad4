"""Protocol `openai`: chat completions, streamed as server-sent events, usage in the last one.

What most servers and gateways speak. An answer that is plain JSON, from a server that does not stream, is taken too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import aclosing
from typing import Annotated, Any, Final

import msgspec

from runner.core.errors import AttemptError
from runner.core.events import Usage
from runner.core.plan import Mode
from runner.orchestrators.connection import Connection
from runner.orchestrators.event_stream import EventStream
from runner.outgoing import IncomingAnswer
from runner.ports import Answer, Prompt

#: Parameters that the protocol knows; they go beside the messages. All others go into the message, as JSON.
_SAMPLING: Final = frozenset(
    {
        "frequency_penalty",
        "logit_bias",
        "max_completion_tokens",
        "max_tokens",
        "presence_penalty",
        "reasoning_effort",
        "response_format",
        "seed",
        "stop",
        "temperature",
        "tool_choice",
        "tools",
        "top_p",
        "user",
    }
)
_DONE: Final = b"[DONE]"

_Tokens = Annotated[int, msgspec.Meta(ge=0, le=2**48)]


class _Usage(msgspec.Struct, frozen=True):
    prompt_tokens: _Tokens = 0
    completion_tokens: _Tokens = 0
    total_tokens: _Tokens = 0


class _Text(msgspec.Struct, frozen=True):
    content: str | None = None


class _Choice(msgspec.Struct, frozen=True):
    #: Of a streamed answer.
    delta: _Text | None = None
    #: Of one that is not.
    message: _Text | None = None
    finish_reason: str | None = None


class _Part(msgspec.Struct, frozen=True):
    model: str | None = None
    choices: list[_Choice] | None = None
    usage: _Usage | None = None
    #: A server that fails while it streams has no status left to say so.
    error: Any = None


class OpenAI:
    """An Orchestrator that speaks `openai`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        base = connection.settings.url.rstrip("/")
        # Half of the world writes the address with /v1 at its end.
        self._prefix = "" if base.endswith("/v1") else "v1/"

    async def ask(self, prompt: Prompt, on_text: Callable[[str], Awaitable[None]]) -> Answer:
        """Ask, and pass the text on as it streams.

        Raises AttemptError: INVALID_PARAMETERS if neither task nor endpoint names a model; else as `Connection.post`
        and `Connection.decode`.
        """
        model = prompt.model or self._connection.settings.model
        if not model:
            message = (
                f"parameter `model` is missing, and orchestrator `{self._connection.name}` has no default"
                f" (setting `orchestrator.endpoints[{self._connection.name}].model`)"
            )
            raise AttemptError("INVALID_PARAMETERS", message, retryable=False)
        gathered = _Gathered(self._connection, on_text)
        path = f"{self._prefix}chat/completions"
        async with self._connection.post(path, _question(prompt, model), prompt) as incoming:
            await gathered.read(incoming)
        return gathered.answer(model)

    async def health(self) -> None:
        await self._connection.check(f"{self._prefix}models")


class _Gathered:
    """An answer on its way in."""

    def __init__(self, connection: Connection, on_text: Callable[[str], Awaitable[None]]) -> None:
        self._connection = connection
        self._on_text = on_text
        self._pieces: list[str] = []
        self._model: str | None = None
        self._usage: _Usage | None = None
        self._finish_reason: str | None = None
        self._done = False

    async def read(self, incoming: IncomingAnswer) -> None:
        if incoming.headers.get("Content-Type", "").partition(";")[0].strip().lower() != "text/event-stream":
            await self._take(await incoming.whole())
            self._done = self._done or self._finish_reason is not None or bool(self._pieces)
        else:
            stream = EventStream()
            async with aclosing(incoming.chunks()) as chunks:
                async for chunk in chunks:
                    for data in stream.feed(chunk):
                        await self._take(data)
                    if self._done:
                        await incoming.finish()
                        return
        if not (self._done or self._finish_reason):
            raise self._connection.invalid("that ends before it is finished")

    def answer(self, model: str) -> Answer:
        usage = self._usage or _Usage()
        total = usage.total_tokens or usage.prompt_tokens + usage.completion_tokens
        return Answer(
            text="".join(self._pieces),
            model=self._model or model,
            endpoint=self._connection.name,
            usage=Usage(1, usage.prompt_tokens, usage.completion_tokens, total),
            metadata={"finish_reason": self._finish_reason} if self._finish_reason else {},
        )

    async def _take(self, data: bytes) -> None:
        if self._done:
            return
        if data == _DONE:
            self._done = True
            return
        part = self._connection.decode(data, _Part)
        if part.error is not None:
            raise self._connection.invalid(f"that breaks off with an error: {_told(part.error)}")
        self._model = part.model or self._model
        self._usage = part.usage or self._usage
        for choice in (part.choices or [])[:1]:
            self._finish_reason = choice.finish_reason or self._finish_reason
            said = choice.delta or choice.message
            if said is not None and (text := said.content):
                self._pieces.append(text)
                await self._on_text(text)


def _told(error: Any) -> str:
    message = error.get("message") if isinstance(error, dict) else error
    return str(message)[:300]


def _question(prompt: Prompt, model: str) -> dict[str, Any]:
    beside = {name: value for name, value in prompt.parameters.items() if name in _SAMPLING}
    rest = {name: value for name, value in prompt.parameters.items() if name not in _SAMPLING and name != "system"}
    text = prompt.text
    if rest:
        text += f"\n\nParameters:\n{msgspec.json.encode(rest).decode()}"
    messages = [{"role": "user", "content": text}]
    if system := _system(prompt):
        messages.insert(0, {"role": "system", "content": system})
    streaming = {"stream": True, "stream_options": {"include_usage": True}}
    return {**beside, "model": model, "messages": messages, **streaming}


def _system(prompt: Prompt) -> str:
    """The task's own system message, then what the protocol has no field for."""
    lines = [str(prompt.parameters["system"])] if prompt.parameters.get("system") else []
    if prompt.persona:
        lines.append(f"Persona: {prompt.persona}.")
    if prompt.mode is not Mode.NORMAL:
        lines.append(f"Mode: {prompt.mode.value}.")
    if prompt.task_type != "ai_prompt":
        lines.append(f"Task: {prompt.task_type}.")
    return "\n".join(lines)
