"""A simulated AI orchestrator: a real HTTP server that speaks all our protocols, for demos, tests and load.

Deterministic: an answer depends on the seed and the prompt alone. Everything it says tells that it is simulated: the
text, the model's name, and the header `X-Simulated`. How it behaves is set from outside while it runs:

    GET PUT PATCH /control        the Behaviour, as JSON; PUT sets what is not named to its default, PATCH leaves it
    GET DELETE    /control/calls  how often it was called, in all, by second, and by Idempotency-Key (`?key=`: one)
"""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Annotated, Any, Final, TypeVar

import anyio
import msgspec
from aiohttp import web
from msgspec import Meta, Struct

from runner.orchestrators.simulated_protocols import SPEECHES, Asked, Said, Speech, model_list
from runner.orchestrators.simulation import Behaviour, CallLog, KeyCalls, RateLimit, chance, tokens

_GARBAGE: Final = b"\x00\xff\xfe<html>garbage {[\x80"
_HEADERS: Final = {"X-Simulated": "true"}
_STEP: Final = b" and so on" * 512

_SHOWN: Final = ("calls", "answered", "under_way", "most_under_way", "forgotten_keys", "by_key")

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


class Simulator:
    """A simulated orchestrator; it runs within `serving`."""

    def __init__(self, settings: SimulatorSettings, ssl_context: ssl.SSLContext | None = None) -> None:
        self.settings = settings
        self.behaviour = settings.behaviour
        self.calls = CallLog(settings.max_keys)
        self._ssl_context = ssl_context
        self._rate = RateLimit()
        self._changed = anyio.Event()
        self._began = time.monotonic()
        self._port = settings.port
        self._site: web.TCPSite | None = None
        self._runner = web.AppRunner(
            self._application(), access_log=None, handler_cancellation=True, shutdown_timeout=0.1
        )

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        """Raises OSError: if the address cannot be listened on."""
        await self._runner.setup()
        try:
            await self.come_back()
            yield
        finally:
            with anyio.CancelScope(shield=True):
                await self._runner.cleanup()

    @property
    def url(self) -> str:
        """`http://host:port`, once it listens."""
        host = f"[{self.settings.host}]" if ":" in self.settings.host else self.settings.host
        return f"{'https' if self._ssl_context else 'http'}://{host}:{self._port}"

    def behave(self, behaviour: Behaviour) -> None:
        """Change its behaviour; calls that hang look again."""
        self.behaviour = behaviour
        self._changed.set()
        self._changed = anyio.Event()

    async def go_down(self) -> None:
        """Refuse connections, and cut those there are, as if the process had died. Nothing happens if it is down."""
        if self._site is None:
            return
        await self._site.stop()
        self._site = None
        for connection in self._server().connections:
            _reset(connection.transport)

    async def come_back(self) -> None:
        """Listen again, at the same address.

        Raises OSError: if the address cannot be listened on.
        """
        if self._site is None:
            self._site = web.TCPSite(self._runner, self.settings.host, self._port, ssl_context=self._ssl_context)
            await self._site.start()
            self._port = self._runner.addresses[0][1]

    def _server(self) -> web.Server:
        server = self._runner.server
        assert server is not None  # noqa: S101 - serve_simulated has set it up
        return server

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=self.settings.max_request_bytes)
        application.add_routes(
            [
                *(web.post(speech.path, partial(self._answer, speech)) for speech in SPEECHES),
                web.get("/health", self._health),
                web.get("/api/v1/models", self._altlas_models),
                web.get("/v1/models", self._models),
                web.get("/control", self._show_behaviour),
                web.put("/control", self._set_behaviour),
                web.patch("/control", self._set_behaviour),
                web.get("/control/calls", self._show_calls),
                web.delete("/control/calls", self._forget_calls),
            ]
        )
        return application

    # ------------------------------------------------------------------------------------------------ answers

    async def _answer(self, speech: Speech, request: web.Request) -> web.StreamResponse:
        asked = _decoded(await request.read(), speech.asked)
        key = request.headers.get("Idempotency-Key", asked.key)
        began = self._now()
        with self.calls.call(key, began) as counted:
            if (trouble := await self._trouble(request, speech, asked)) is not None:
                return trouble
            said = self._said(asked, began)
            return await (self._stream if asked.stream else self._whole)(request, speech, said, counted)

    async def _whole(self, request: web.Request, speech: Speech, said: Said, counted: KeyCalls) -> web.StreamResponse:
        if self.behaviour.reset:
            return _cut(request)
        if self.behaviour.endless:
            return await _endless(request, speech.endless, _STEP)
        await self._take_time(len(said.pieces))
        taken = round((self._now() - said.began) * 1000, 3)
        self.calls.succeeded(counted, self._now())
        return _json(speech.whole(msgspec.structs.replace(said, milliseconds=taken)))

    async def _stream(self, request: web.Request, speech: Speech, said: Said, counted: KeyCalls) -> web.StreamResponse:
        response = web.StreamResponse(headers={**_HEADERS, "Content-Type": "text/event-stream"})
        await response.prepare(request)
        await response.write(speech.opening(said))
        for place, piece in enumerate(said.pieces):
            await self._take_time(1)
            if self.behaviour.reset and place >= len(said.pieces) // 2:
                return _cut(request)
            await response.write(speech.piece(said, piece))
        while self.behaviour.endless:
            await response.write(speech.piece(said, _STEP.decode()))
        await response.write(speech.closing(said))
        await response.write_eof()
        self.calls.succeeded(counted, self._now())
        return response

    def _said(self, asked: Asked, began: float) -> Said:
        length = self.behaviour.answer_tokens
        kept = length if asked.max_tokens is None else min(length, asked.max_tokens)
        return Said(
            asked=asked,
            pieces=tokens(self.settings.seed, asked.prompt, kept, in_json=asked.in_json),
            model=_simulated(asked.model or self._names()[0]),
            began=began,
            created=int(time.time()),
            cut_short=kept < length,
        )

    # ------------------------------------------------------------------------------------- health and models

    async def _health(self, request: web.Request) -> web.Response:
        return self._ill(request) or _json({"status": "ok", "simulated": True})

    async def _altlas_models(self, request: web.Request) -> web.Response:
        return self._ill(request) or _json({"models": self._names()})

    async def _models(self, request: web.Request) -> web.Response:
        return self._ill(request) or _json(model_list(self._names()))

    def _names(self) -> tuple[str, ...]:
        return self.behaviour.models or ("simulated-default",)

    def _ill(self, request: web.Request) -> web.Response | None:
        if not self._knows(request):
            return _json({"error": "simulated refusal of the key"}, 401)
        return _json({"error": "simulated illness"}, 503) if self.behaviour.sick else None

    # ------------------------------------------------------------------------------------------------ control

    async def _show_behaviour(self, _: web.Request) -> web.Response:
        return _json(self.behaviour)

    async def _set_behaviour(self, request: web.Request) -> web.Response:
        given = _decoded(await request.read(), msgspec.json.Decoder(dict[str, Any]).decode)
        before = msgspec.to_builtins(self.behaviour) if request.method == "PATCH" else {}
        try:
            self.behave(msgspec.convert({**before, **given}, Behaviour))
        except msgspec.ValidationError as error:
            raise _refused(f"that is no behaviour: {error}; it has {', '.join(Behaviour.__struct_fields__)}") from error
        return _json(self.behaviour)

    async def _show_calls(self, request: web.Request) -> web.Response:
        if (key := request.query.get("key")) is not None:
            return _json(self.calls.by_key.get(key, KeyCalls()))
        shown = {name: getattr(self.calls, name) for name in _SHOWN}
        return _json({**shown, "by_second": list(self.calls.by_second)})

    async def _forget_calls(self, _: web.Request) -> web.Response:
        self.calls.clear()
        return _json({})

    # ---------------------------------------------------------------------------------------------- behaviour

    async def _trouble(self, request: web.Request, speech: Speech, asked: Asked) -> web.StreamResponse | None:
        """What happens to a call instead of an answer, if anything."""
        number = self.calls.calls
        if (refusal := self._refused(request, speech, asked)) is not None:
            return refusal
        await anyio.sleep(self._latency(number) / 1000)
        while self.behaviour.hang:
            await self._changed.wait()
        if chance(self.settings.seed, number) < self.behaviour.error_rate:
            return self._refusal(speech, self.behaviour.error_status, "simulated failure")
        if self.behaviour.garbage:
            return web.Response(body=_GARBAGE, headers={**_HEADERS, "Content-Type": "application/json"})
        return None

    def _refused(self, request: web.Request, speech: Speech, asked: Asked) -> web.Response | None:
        """What is said at once to a call that is not taken."""
        now = self.behaviour
        if not self._knows(request):
            return _json(speech.refusal("simulated refusal of the key"), 401)
        if now.max_concurrent_calls and self.calls.under_way > now.max_concurrent_calls:
            return self._refusal(speech, now.overload_status, "simulated overload")
        if not self._rate.admits(anyio.current_time(), now.rate_limit_per_second):
            return self._refusal(speech, 429, "simulated rate limit")
        if now.models and asked.model and asked.model not in now.models:
            return self._refusal(speech, 404, "simulated: there is no such model")
        return None

    def _knows(self, request: web.Request) -> bool:
        key = self.behaviour.api_key
        told = {request.headers.get("x-api-key"), request.headers.get("Authorization", "").removeprefix("Bearer ")}
        return not key or key in told

    def _refusal(self, speech: Speech, status: int, message: str) -> web.Response:
        headers = dict(_HEADERS)
        if self.behaviour.retry_after_seconds is not None:
            headers["Retry-After"] = f"{self.behaviour.retry_after_seconds:g}"
        return _json(speech.refusal(message), status, headers)

    def _latency(self, number: int) -> float:
        """Milliseconds before the answer to a call begins."""
        jitter = chance(self.settings.seed, number, "jitter") * self.behaviour.jitter_ms
        return (self.behaviour.latency_ms + jitter) * self.behaviour.slow_factor

    async def _take_time(self, count: int) -> None:
        if self.behaviour.tokens_per_second:
            await anyio.sleep(count / self.behaviour.tokens_per_second * self.behaviour.slow_factor)

    def _now(self) -> float:
        return time.monotonic() - self._began


def _json(value: object, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    body = msgspec.json.encode(value)
    return web.Response(body=body, status=status, headers=headers or _HEADERS, content_type="application/json")


def _decoded(body: bytes, decode: Callable[[bytes], _T]) -> _T:
    try:
        return decode(body)
    except (ValueError, RecursionError) as error:
        raise _refused(f"the request is wrong: {error}") from error


def _refused(message: str) -> web.HTTPBadRequest:
    text = msgspec.json.encode({"error": message}).decode()
    return web.HTTPBadRequest(text=text, content_type="application/json", headers=_HEADERS)


def _simulated(name: str) -> str:
    return name if name.startswith("simulated-") else f"simulated-{name}"


def _cut(request: web.Request) -> web.Response:
    """Reset the connection under a call."""
    _reset(request.transport)
    return web.Response()


def _reset(transport: asyncio.BaseTransport | None) -> None:
    if isinstance(transport, asyncio.Transport):
        # Lingering for no time at all makes close() a reset, as from a machine that died.
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()


async def _endless(request: web.Request, start: bytes, step: bytes) -> web.StreamResponse:
    """Answer until the caller has had enough; its going away ends the handler."""
    response = web.StreamResponse(headers={**_HEADERS, "Content-Type": "application/json"})
    await response.prepare(request)
    await response.write(start)
    while True:
        await response.write(step)


@asynccontextmanager
async def serve_simulated(
    settings: SimulatorSettings | None = None, ssl_context: ssl.SSLContext | None = None
) -> AsyncIterator[Simulator]:
    """Serve inside the context; with an `ssl_context` over TLS.

    Raises OSError: if the address cannot be listened on. Calls under way at the end are cut.
    """
    simulator = Simulator(settings or SimulatorSettings(), ssl_context)
    async with simulator.serving():
        yield simulator


async def run(settings: SimulatorSettings, ready: Callable[[str], Awaitable[None]]) -> None:
    """Serve until cancelled; `ready` is told the address once calls are taken. Raises OSError: as serve_simulated."""
    async with serve_simulated(settings) as simulator:
        await ready(simulator.url)
        await anyio.sleep_forever()
