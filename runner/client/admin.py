"""Endpoints and circuit breakers: seen, steered, and announced by servers that are endpoints themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Hashable, Iterable
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, Final, Generic, TypeVar

import grpc
import grpc.aio
from altrunner.v1 import admin_pb2, admin_service_pb2_grpc
from altrunner.v1 import admin_service_pb2 as messages
from google.protobuf.duration_pb2 import Duration

from runner.client.connection import LONGEST_WAIT, LOST, Connection, Losses
from runner.client.errors import StreamBroken, refusal, why_lost
from runner.core.breaker import BreakerState

Watched = TypeVar("Watched", messages.WatchBreakersResponse, messages.WatchEndpointsResponse)

#: Part of a lease after which it is renewed, so that two heartbeats may be lost.
_RENEWED_AT: Final = 1 / 3
#: Seconds for the farewell of an endpoint: its lease ends without, too.
_FAREWELL: Final = 3.0
#: The same for a heartbeat, at least.
_SHORTEST_CALL: Final = 1.0


class AdminCalls(Connection):
    """What AdminService offers. Raises as every call does: Unreachable, CallRefused."""

    # ------------------------------------------------------------------------------------------ circuit breakers

    async def breakers(self, endpoints: Collection[str] = ()) -> list[admin_pb2.Breaker]:
        """The circuit breakers of some endpoints, or all, by endpoint and model."""
        found: list[admin_pb2.Breaker] = []
        request = messages.ListBreakersRequest(endpoints=endpoints)
        while True:
            page = await self._call(lambda: self._admin.ListBreakers(request, timeout=self.timeout))
            found += page.breakers
            request.page_token = page.next_page_token
            if not request.page_token:
                return found

    async def watch_breakers(
        self,
        endpoints: Collection[str] = (),
        *,
        figures: float | None = None,
        on_notice: Callable[[str], None] | None = None,
    ) -> AsyncGenerator[messages.WatchBreakersResponse, None]:
        """First all circuit breakers, then what changed since the response before, through any number of reconnects.

        Figures alone are told every `figures` seconds, or not at all. Goes on for ever, and ends with Unreachable or
        CallRefused; raises StreamBroken if the daemon ends the stream without an error. `on_notice` is told in a
        sentence when the connection is lost and when it is back.
        """
        request = messages.WatchBreakersRequest(endpoints=endpoints, figures_interval=_duration(figures))
        known = _Known(messages.WatchBreakersResponse, "breakers", _breaker_key, _breaker_keys)
        async with aclosing(self._follow(lambda: self._admin.WatchBreakers(request), known, on_notice)) as responses:
            async for response in responses:
                yield response

    async def set_breaker(
        self, endpoint: str, state: BreakerState, *, models: Collection[str] = ()
    ) -> list[admin_pb2.Breaker]:
        """Set circuit breakers of an endpoint by hand: of some models, or all that exist. CLOSED is a reset."""
        number = admin_pb2.BreakerState.Value(f"BREAKER_STATE_{state.name}")
        request = messages.SetBreakerRequest(endpoint=endpoint, models=models, state=number)
        return list((await self._call(lambda: self._admin.SetBreaker(request, timeout=self.timeout))).breakers)

    # ------------------------------------------------------------------------------------------------- endpoints

    async def endpoints(self, names: Collection[str] = ()) -> list[admin_pb2.Endpoint]:
        """Some endpoints, or all, by group and name."""
        found: list[admin_pb2.Endpoint] = []
        request = messages.ListEndpointsRequest(names=names)
        while True:
            page = await self._call(lambda: self._admin.ListEndpoints(request, timeout=self.timeout))
            found += page.endpoints
            request.page_token = page.next_page_token
            if not request.page_token:
                return found

    async def watch_endpoints(
        self,
        names: Collection[str] = (),
        *,
        figures: float | None = None,
        on_notice: Callable[[str], None] | None = None,
    ) -> AsyncGenerator[messages.WatchEndpointsResponse, None]:
        """First all endpoints, then what changed; as `watch_breakers`."""
        request = messages.WatchEndpointsRequest(names=names, figures_interval=_duration(figures))
        known = _Known(messages.WatchEndpointsResponse, "endpoints", lambda each: each.name, list)
        async with aclosing(self._follow(lambda: self._admin.WatchEndpoints(request), known, on_notice)) as responses:
            async for response in responses:
                yield response

    async def drain(self, endpoint: str) -> admin_pb2.Endpoint:
        """Give an endpoint no new calls; those under way finish. Harmless to repeat."""
        request = messages.DrainEndpointRequest(name=endpoint)
        return (await self._call(lambda: self._admin.DrainEndpoint(request, timeout=self.timeout))).endpoint

    async def undrain(self, endpoint: str) -> admin_pb2.Endpoint:
        """Give an endpoint calls again. Harmless to repeat."""
        request = messages.UndrainEndpointRequest(name=endpoint)
        return (await self._call(lambda: self._admin.UndrainEndpoint(request, timeout=self.timeout))).endpoint

    # --------------------------------------------------------------------------------------------- registrations

    @asynccontextmanager
    async def register(
        self,
        name: str,
        *,
        group: str,
        url: str,
        weight: float = 1.0,
        models: Collection[str] = (),
        lease_seconds: float | None = None,
        on_notice: Callable[[str], None] | None = None,
    ) -> AsyncIterator[admin_pb2.Endpoint]:
        """Be an endpoint of a group inside the context: registered, renewed by heartbeats, deregistered at the end.

        A daemon that is away, was restarted, or refuses for now is asked again until the end; `on_notice` is told of
        it in sentences. The farewell is not waited for longer than 3 s: the lease ends without it, too.

        Raises CallRefused, Unreachable: if the first registration fails. Nothing is raised later.
        """
        request = messages.RegisterEndpointRequest(
            name=name, group=group, url=url, weight=weight, models=models, lease_duration=_duration(lease_seconds)
        )
        registered = await self._call(lambda: self._admin.RegisterEndpoint(request, timeout=self.timeout))
        registration = _Registration(self._admin, request, registered.lease, on_notice or (lambda _: None))
        beating = asyncio.create_task(registration.keep())
        try:
            yield registered.endpoint
        finally:
            beating.cancel()
            await asyncio.wait([beating])
            await registration.end()
            if not beating.cancelled():
                beating.result()  # A defect is not to be hushed up.

    # ---------------------------------------------------------------------------------------------------- watches

    async def _follow(
        self,
        opened: Callable[[], grpc.aio.UnaryStreamCall[Any, Watched]],
        known: _Known[Watched],
        on_notice: Callable[[str], None] | None,
    ) -> AsyncGenerator[Watched, None]:
        losses = Losses(self.target, self.patience, on_notice or (lambda _: None))
        while True:
            known.begin()
            try:
                async with aclosing(self._read(opened(), known.kind)) as responses:
                    async for response in responses:
                        losses.over()
                        if told := known.news(response):
                            yield told
            except (grpc.aio.AioRpcError, TimeoutError) as error:
                await asyncio.sleep(losses.wait(error, "the last change"))
            else:
                raise StreamBroken("a watch of endpoints ended, which it never does without an error")


class _Known(Generic[Watched]):
    """What was told, so that a connection that begins anew with everything tells only what is new."""

    def __init__(
        self,
        kind: type[Watched],
        field: str,
        key: Callable[[Any], Hashable],
        gone: Callable[[Iterable[Any]], list[Any]],
    ) -> None:
        """`key` names an entry of `field`; `gone` gives what `removed` holds for the entries of these names."""
        self.kind: type[Watched] = kind
        self._field = field
        self._key = key
        self._gone = gone
        #: As told, by key; None before the first time.
        self._told: dict[Hashable, Any] | None = None
        #: What a new connection has sent so far; None once it has sent everything.
        self._beginning: dict[Hashable, Any] | None = None

    def begin(self) -> None:
        """What follows comes from a new connection."""
        self._beginning = {}

    def news(self, response: Watched) -> Watched | None:
        """What of the response is to be told, if anything is."""
        entries = {self._key(entry): entry for entry in getattr(response, self._field)}
        if self._beginning is not None:
            self._beginning.update(entries)
            return self._everything(self._beginning) if response.caught_up else None
        if self._told is None or not (entries or response.removed):
            return None
        self._told.update(entries)
        for entry in response.removed:
            self._told.pop(entry if isinstance(entry, str) else self._key(entry), None)
        return response

    def _everything(self, entries: dict[Hashable, Any]) -> Watched | None:
        before, self._told, self._beginning = self._told, entries, None
        told = self.kind(caught_up=before is None)
        known = before or {}
        getattr(told, self._field).extend(entry for key, entry in entries.items() if known.get(key) != entry)
        told.removed.extend(self._gone(key for key in known if key not in entries))
        return told if told.ByteSize() or before is None else None


class _Registration:
    """Keeps an endpoint registered."""

    def __init__(
        self,
        stub: admin_service_pb2_grpc.AdminServiceAsyncStub,
        request: messages.RegisterEndpointRequest,
        lease: admin_pb2.EndpointLease,
        tell: Callable[[str], None],
    ) -> None:
        self._stub = stub
        self._request = request
        self._lease = lease
        self._tell = tell
        self._lost = False

    async def keep(self) -> None:
        """Renew until cancelled; register anew where the daemon has forgotten it."""
        name = self._request.name
        while True:
            period = self._lease.duration.ToNanoseconds() / 1e9 * _RENEWED_AT
            await asyncio.sleep(min(period, LONGEST_WAIT) if self._lost else period)
            try:
                await self._beat(max(_SHORTEST_CALL, period))
            except grpc.aio.AioRpcError as error:
                # Told once for each time that it is lost: a daemon may be away for long.
                if not self._lost:
                    self._tell(f"`{name}` cannot be registered now ({_why(error)}); trying again")
                self._lost = True
            else:
                if self._lost:
                    self._tell(f"`{name}` is registered again")
                self._lost = False

    async def _beat(self, seconds: float) -> None:
        renewal = messages.RenewEndpointRequest(name=self._request.name, lease_id=self._lease.lease_id)
        try:
            self._lease = (await self._stub.RenewEndpoint(renewal, timeout=seconds)).lease
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            self._lease = (await self._stub.RegisterEndpoint(self._request, timeout=seconds)).lease
            if not self._lost:
                self._tell(f"the daemon had forgotten `{self._request.name}`; it is registered again")

    async def end(self) -> None:
        """Say farewell, if there is anybody to hear it."""
        farewell = messages.DeregisterEndpointRequest(name=self._request.name, lease_id=self._lease.lease_id)
        with suppress(grpc.aio.AioRpcError):
            await self._stub.DeregisterEndpoint(farewell, timeout=_FAREWELL)


def _why(error: grpc.aio.AioRpcError) -> str:
    """The daemon's own words, if there is a daemon."""
    return why_lost(error) if error.code() in LOST else str(refusal(error))


def _breaker_key(entry: Any) -> tuple[str, str]:
    """Of a Breaker or a BreakerKey."""
    return entry.endpoint, entry.model


def _breaker_keys(keys: Iterable[tuple[str, str]]) -> list[admin_pb2.BreakerKey]:
    return [admin_pb2.BreakerKey(endpoint=endpoint, model=model) for endpoint, model in keys]


def _duration(seconds: float | None) -> Duration | None:
    if seconds is None:
        return None
    duration = Duration()
    duration.FromNanoseconds(round(seconds * 1e9))
    return duration
