"""A simulated AI orchestrator: a real HTTP server that speaks `altlas` and `openai`, for demos, tests and load.

Deterministic: an answer depends on the seed and the prompt alone. Everything it says tells that it is simulated: the
text, the model's name, and the header `X-Simulated`. How it behaves is set from outside while it runs:

    GET PUT PATCH /control        the Behaviour, as JSON; PUT sets what is not named to its default, PATCH leaves it
    GET DELETE    /control/calls  how often it was called, in all and by Idempotency-Key (`?key=` for one of them)
"""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any, Final, TypeVar

import anyio
import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from runner.orchestrators.simulation import Behaviour, CallLog, KeyCalls, RateLimit, chance, tokens

_GARBAGE: Final = b"\x00\xff\xfe<html>garbage {[\x80"
_HEADERS: Final = {"X-Simulated": "true"}
_STEP: Final = b" and so on" * 512

_T = TypeVar("_T")


class SimulatorSettings(Struct, frozen=True, kw_only=True):
    """Where it listens, and what it begins with."""

    host: str = "127.0.0.1"
    #: 0 takes a free port.
    port: Annotated[int, Meta(ge=0, le=65535)] = 0
    seed: int = 0
    behaviour: Behaviour = Behaviour()
    #: Idempotency keys whose calls are counted; beyond that the oldest is forgotten.
    max_keys: Annotated[int, Meta(ge=1)] = 100_000
    #: Bytes of a request.
    max_request_bytes: Annotated[int, Meta(ge=1)] = 32 * 1024 * 1024


class _Question(Struct):
    prompt: str
    request_id: str = ""
    parameters: dict[str, Any] = {}


class _Message(Struct):
    role: str
    content: str


class _StreamOptions(Struct):
    include_usage: bool = False


class _Completion(Struct):
    messages: Annotated[list[_Message], Meta(min_length=1)]
    model: str
    stream: bool = False
    stream_options: _StreamOptions | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None


class Simulator:
    """A running simulated orchestrator."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self.settings = settings
        self.behaviour = settings.behaviour
        self.calls = CallLog(settings.max_keys)
        #: `http://host:port`, once it listens.
        self.url = ""
        self._rate = RateLimit()
        self._changed = anyio.Event()

    def behave(self, behaviour: Behaviour) -> None:
        """Change its behaviour; calls that hang look again."""
        self.behaviour = behaviour
        self._changed.set()
        self._changed = anyio.Event()

    def application(self) -> web.Application:
        application = web.Application(client_max_size=self.settings.max_request_bytes)
        application.add_routes(
            [
                web.post("/api/v1/generate", self._generate),
                web.get("/api/v1/models", self._altlas_models),
                web.get("/health", self._health),
                web.post("/v1/chat/completions", self._complete),
                web.get("/v1/models", self._openai_models),
                web.get("/control", self._show_behaviour),
                web.put("/control", self._set_behaviour),
                web.patch("/control", self._set_behaviour),
                web.get("/control/calls", self._show_calls),
                web.delete("/control/calls", self._forget_calls),
            ]
        )
        return application

    # ------------------------------------------------------------------------------------------------- altlas

    async def _generate(self, request: web.Request) -> web.StreamResponse:
        began = time.monotonic()
        question = _decoded(await request.read(), _Question)
        counted = self.calls.arrived(request.headers.get("Idempotency-Key", question.request_id))
        if (trouble := await self._trouble(request)) is not None:
            return trouble
        if self.behaviour.reset:
            return _cut(request)
        if self.behaviour.endless:
            return await _endless(request, b'{"text": "', _STEP)
        pieces = tokens(self.settings.seed, question.prompt, self._length(question.parameters.get("max_tokens")))
        await self._take_time(len(pieces))
        return self._answered(
            counted,
            {
                "text": "".join(pieces),
                "model_used": _model(question.parameters.get("model")),
                "tokens_used": _count(question.prompt) + len(pieces),
                "processing_time_ms": round((time.monotonic() - began) * 1000, 3),
            },
        )

    async def _altlas_models(self, _: web.Request) -> web.Response:
        return _json({"models": [_model(None)]})

    async def _health(self, _: web.Request) -> web.Response:
        return _json({"status": "ok", "simulated": True})

    # ------------------------------------------------------------------------------------------------- openai

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        completion = _decoded(await request.read(), _Completion)
        counted = self.calls.arrived(request.headers.get("Idempotency-Key", ""))
        if (trouble := await self._trouble(request)) is not None:
            return trouble
        prompt = completion.messages[-1].content
        pieces = tokens(self.settings.seed, prompt, self._length(completion.max_tokens))
        cut_short = completion.max_tokens is not None and completion.max_tokens < self.behaviour.answer_tokens
        said = _Said(pieces, _model(completion.model), _count(prompt), "length" if cut_short else "stop")
        if completion.stream:
            return await self._stream(request, completion, said, counted)
        if self.behaviour.reset:
            return _cut(request)
        if self.behaviour.endless:
            return await _endless(request, b'{"choices": [{"message": {"content": "', _STEP)
        await self._take_time(len(pieces))
        message = {"role": "assistant", "content": "".join(pieces)}
        choice = {"index": 0, "message": message, "finish_reason": said.finish_reason}
        return self._answered(counted, said.envelope("chat.completion", [choice], usage=True))

    async def _stream(
        self, request: web.Request, completion: _Completion, said: _Said, counted: KeyCalls
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={**_HEADERS, "Content-Type": "text/event-stream"})
        await response.prepare(request)
        for place, piece in enumerate(said.pieces):
            await self._take_time(1)
            if self.behaviour.reset and place >= len(said.pieces) // 2:
                return _cut(request)
            await response.write(said.chunk({"content": piece}))
        while self.behaviour.endless:
            await response.write(said.chunk({"content": _STEP.decode()}))
        await response.write(said.chunk({}, said.finish_reason))
        if completion.stream_options is not None and completion.stream_options.include_usage:
            await response.write(_event(said.envelope("chat.completion.chunk", [], usage=True)))
        await response.write(b"data: [DONE]\n\n")
        await response.write_eof()
        self.calls.succeeded(counted)
        return response

    async def _openai_models(self, _: web.Request) -> web.Response:
        model = {"id": _model(None), "object": "model", "created": 0, "owned_by": "simulated"}
        return _json({"object": "list", "data": [model]})

    # ------------------------------------------------------------------------------------------------ control

    async def _show_behaviour(self, _: web.Request) -> web.Response:
        return _json(self.behaviour)

    async def _set_behaviour(self, request: web.Request) -> web.Response:
        given = _decoded(await request.read(), dict[str, Any])
        before = msgspec.to_builtins(self.behaviour) if request.method == "PATCH" else {}
        try:
            self.behave(msgspec.convert({**before, **given}, Behaviour))
        except msgspec.ValidationError as error:
            raise _refused(f"that is no behaviour: {error}; it has {', '.join(Behaviour.__struct_fields__)}") from error
        return _json(self.behaviour)

    async def _show_calls(self, request: web.Request) -> web.Response:
        if (key := request.query.get("key")) is not None:
            return _json(self.calls.by_key.get(key, KeyCalls()))
        shown = {name: getattr(self.calls, name) for name in ("calls", "answered", "forgotten_keys", "by_key")}
        return _json(shown)

    async def _forget_calls(self, _: web.Request) -> web.Response:
        self.calls.clear()
        return _json({})

    # ---------------------------------------------------------------------------------------------- behaviour

    async def _trouble(self, request: web.Request) -> web.StreamResponse | None:
        """What happens to a call instead of an answer, if anything."""
        number = self.calls.calls
        if not self._rate.admits(anyio.current_time(), self.behaviour.rate_limit_per_second):
            return self._refusal(request, 429, "simulated rate limit")
        await anyio.sleep(self.behaviour.latency_ms / 1000)
        while self.behaviour.hang:
            await self._changed.wait()
        if chance(self.settings.seed, number) < self.behaviour.error_rate:
            return self._refusal(request, self.behaviour.error_status, "simulated failure")
        if self.behaviour.garbage:
            return web.Response(body=_GARBAGE, headers={**_HEADERS, "Content-Type": "application/json"})
        return None

    def _refusal(self, request: web.Request, status: int, message: str) -> web.Response:
        headers = dict(_HEADERS)
        if self.behaviour.retry_after_seconds is not None:
            headers["Retry-After"] = f"{self.behaviour.retry_after_seconds:g}"
        openai = request.path.startswith("/v1/")
        return _json({"error": {"message": message, "type": "simulated"} if openai else message}, status, headers)

    def _answered(self, counted: KeyCalls, body: object) -> web.Response:
        self.calls.succeeded(counted)
        return _json(body)

    def _length(self, asked: object) -> int:
        length = self.behaviour.answer_tokens
        return min(length, asked) if isinstance(asked, int) and asked > 0 else length

    async def _take_time(self, count: int) -> None:
        if self.behaviour.tokens_per_second:
            await anyio.sleep(count / self.behaviour.tokens_per_second)


class _Said(Struct, frozen=True):
    """An answer in the shapes of `openai`."""

    pieces: list[str]
    model: str
    prompt_tokens: int
    finish_reason: str

    def envelope(self, kind: str, choices: list[dict[str, Any]], *, usage: bool = False) -> dict[str, Any]:
        made: dict[str, Any] = {"id": "simulated", "object": kind, "created": int(time.time()), "model": self.model}
        if usage:
            completion = len(self.pieces)
            total = self.prompt_tokens + completion
            made["usage"] = {
                "prompt_tokens": self.prompt_tokens,
                "completion_tokens": completion,
                "total_tokens": total,
            }
        return {**made, "choices": choices}

    def chunk(self, delta: dict[str, str], finish_reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        return _event(self.envelope("chat.completion.chunk", [choice]))


def _event(value: object) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    body = msgspec.json.encode(value)
    return web.Response(body=body, status=status, headers=headers or _HEADERS, content_type="application/json")


def _decoded(body: bytes, kind: type[_T]) -> _T:
    try:
        return msgspec.json.decode(body, type=kind)
    except (ValueError, RecursionError) as error:
        raise _refused(f"the request is wrong: {error}") from error


def _refused(message: str) -> web.HTTPBadRequest:
    text = msgspec.json.encode({"error": message}).decode()
    return web.HTTPBadRequest(text=text, content_type="application/json", headers=_HEADERS)


def _model(asked: object) -> str:
    name = asked if isinstance(asked, str) and asked else "default"
    return name if name.startswith("simulated-") else f"simulated-{name}"


def _count(prompt: str) -> int:
    return len(prompt.split())


def _cut(request: web.Request) -> web.Response:
    """Reset the connection under a call."""
    if (transport := request.transport) is not None:
        # Lingering for no time at all makes close() a reset, as from a machine that died.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
    return web.Response()


async def _endless(request: web.Request, start: bytes, step: bytes) -> web.StreamResponse:
    """Answer until the caller has had enough; its going away ends the handler."""
    response = web.StreamResponse(headers={**_HEADERS, "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(start)
    while True:
        await response.write(step)


@asynccontextmanager
async def serve_simulated(settings: SimulatorSettings | None = None) -> AsyncIterator[Simulator]:
    """Serve inside the context.

    Raises OSError: if the address cannot be listened on. Calls under way at the end are cut.
    """
    simulator = Simulator(settings or SimulatorSettings())
    runner = web.AppRunner(simulator.application(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, simulator.settings.host, simulator.settings.port)
        await site.start()
        host = f"[{simulator.settings.host}]" if ":" in simulator.settings.host else simulator.settings.host
        simulator.url = f"http://{host}:{runner.addresses[0][1]}"
        yield simulator
    finally:
        with anyio.CancelScope(shield=True):
            await runner.cleanup()


async def run(settings: SimulatorSettings, ready: Callable[[str], Awaitable[None]]) -> None:
    """Serve until cancelled; `ready` is told the address once calls are taken. Raises OSError: as serve_simulated."""
    async with serve_simulated(settings) as simulator:
        await ready(simulator.url)
        await anyio.sleep_forever()
